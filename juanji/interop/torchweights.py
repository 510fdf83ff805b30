"""Published weights: reading what PyTorch's programs wrote, and writing what they read, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from juanji.checks import truth
from juanji.errors import ArgumentError
from juanji.graph import Graph
from juanji.interop.checkpoint import contents
from juanji.interop.contents import Contents, in_memory
from juanji.interop.files import write_atomically
from juanji.interop.fit import HEAD, STEM, fit_of, left_out
from juanji.interop.hub import weight_file
from juanji.interop.torchlayout import head_of, layouts, traced
from juanji.nn import Flatten, Linear, Module


class Loaded(NamedTuple):
    """What `load_torch_weights` has done besides: nothing, unless `head` or `adapt_channels` says so.

    left     the paths that were left as they are
    adapted  those that were for images of another number of channels
    """

    left: tuple[str, ...]
    adapted: tuple[str, ...]


def load_torch_weights(
    model: Module,
    file: str | Path | Mapping[str, Any],
    *,
    head: bool | None = True,
    adapt_channels: bool = False,
    input_shape: Sequence[int] | None = None,
) -> Loaded:
    """Read parameters and buffers of `model` from a file of torchvision, timm, Hugging Face or PyTorch itself.

    file            safetensors, or what `torch.save` wrote (.pth, .pt, .bin) in either of its formats: a state
                    dictionary, or a dictionary that holds one. Nothing in it is run. Files that `save_weights` wrote
                    are read, too. "hf:REPOSITORY" or "hf:REPOSITORY@REVISION" is the file of the Hugging Face hub; see
                    `weight_file`. Or such a state dictionary itself: `model.state_dict()` of PyTorch
    head            False leaves the classifier as it is, so that the file may be one for other classes, and whatever
                    only training uses; None does so unless the file's fits. The classifier is the last layer with
                    parameters, or the layers whose paths the model itself lists as `heads`
    adapt_channels  True takes weights for images of another number of channels: the kernels of the first convolution
                    are summed over the channels for grey images, and repeated, times C/channels, for others, as timm
                    does. The file's C has to be 1 or 3, or the model's 1
    input_shape     (H, W, C) of the images, for a network that `models.create` did not make and that has Flatten or
                    Linear

    Axes, and the order of features behind a flattened image, become juanji's; float16, bfloat16 and float64 become the
    model's dtype. `num_batches_tracked` is passed over.

    Nothing is changed unless everything fits, and names and sizes are compared before numbers are read. Raises
    WeightsError, naming the file, that lists missing, unknown and misfitting names and says what to do about them; or
    for a file that is missing, damaged, of another format, or holds more than data, or that the hub does not give.
    Raises ArgumentError where input_shape is needed.
    """
    if head is not None and not isinstance(head, bool):
        raise ArgumentError(
            "load_torch_weights: bad head", received=repr(head), rule="True, False or None", fix="head=False"
        )
    adapt_channels = truth("load_torch_weights", "adapt_channels", adapt_channels)
    graphs = graphs_of("load_torch_weights", model, input_shape, needed=head is not True)
    with source_of(file) as source:
        fit = fit_of(model, source, graphs)
        cells, classifier = fit.cells, head_of(graphs[0], model) & fit.cells.keys() if graphs else set()
        adapted = fit.adapt() if adapt_channels else ()
        left = set() if head or (head is None and fit.holds(classifier)) else classifier
        heads = {HEAD: classifier or left_out(fit)} if head else {}  # without dense layers nothing was traced
        fit.check(left, {**heads, STEM: fit.other_images()})
        values = {path: fit.value(path) for path in cells if path not in left}
    for path, value in values.items():
        cells[path].write(value)
    return Loaded(tuple(path for path in cells if path in left), adapted)


def source_of(weights: str | Path | Mapping[str, Any]) -> AbstractContextManager[Contents]:
    return nullcontext(in_memory(weights)) if isinstance(weights, Mapping) else contents(weight_file(weights))


def save_torch_weights(model: Module, file: str | Path, *, input_shape: Sequence[int] | None = None) -> None:
    """Write the parameters and buffers of `model` as PyTorch has them, to a safetensors file, whole or not at all.

    `safetensors.torch.load_file` reads it there, and `load_state_dict` takes it for a module whose names are the same,
    as torchvision's are. input_shape as in `load_torch_weights`, with the same ArgumentError; DataError where the file
    cannot be written, and ArgumentError for the name of a file that torch.load would take.
    """
    from safetensors.numpy import save

    if Path(file).suffix in (".pth", ".pt", ".bin"):
        raise ArgumentError(
            "save_torch_weights: another format than the file's name says",
            received=str(file),
            rule="a safetensors file, which PyTorch reads by safetensors.torch.load_file",
            fix=str(Path(file).with_suffix(".safetensors")),
        )
    places = layouts(model, graphs_of("save_torch_weights", model, input_shape))
    state = {path: places[path].theirs(tensor.array) for path, tensor in model.state_dict().items()}
    arrays = {path: np.asarray(array, order="C") for path, array in state.items()}
    write_atomically(file, save(arrays, {"format": "pt"}))  # which Hugging Face's programs ask for


def graphs_of(name: str, model: Module, input_shape: Sequence[int] | None, needed: bool = False) -> tuple[Graph, ...]:
    """The graphs of a network, where something is to be learnt from them: what dense layers see, or if `needed`."""
    needed |= any(isinstance(module, Flatten | Linear) for module in model.modules().values())
    return traced(name, model, input_shape) if needed else ()
