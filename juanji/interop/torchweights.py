"""Published weights: reading what PyTorch's programs wrote, and writing what they read, without PyTorch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from juanji.cell import Cell
from juanji.checks import same_names
from juanji.errors import ArgumentError, WeightsError
from juanji.graph import Graph
from juanji.interop.checkpoint import Contents, contents, naming
from juanji.interop.files import write_atomically
from juanji.interop.hub import weight_file
from juanji.interop.torchlayout import as_they_lie, head_of, layouts, traced
from juanji.interop.torchnames import UNUSED, matched
from juanji.nn import Flatten, Linear, Module
from juanji.tensor import Tensor


def load_torch_weights(
    model: Module,
    file: str | Path,
    *,
    head: bool | None = True,
    input_shape: Sequence[int] | None = None,
) -> tuple[str, ...]:
    """Read parameters and buffers of `model` from a file of torchvision, timm, Hugging Face or PyTorch itself.

    file         safetensors, or what `torch.save` wrote (.pth, .pt, .bin) in either of its formats: a state dictionary,
                 or a dictionary that holds one. Nothing in it is run. Files that `save_weights` wrote are read, too.
                 "hf:REPOSITORY" or "hf:REPOSITORY@REVISION" is the file of the Hugging Face hub; see `weight_file`
    head         False leaves the classifier as it is, so that the file may be one for other classes, and whatever only
                 training uses; None does so unless the file's fits. The classifier is the last layer with parameters,
                 or the layers whose paths the model itself lists as `heads`
    input_shape  (H, W, C) of the images, for a network that `models.create` did not make and that has Flatten or Linear

    Axes, and the order of features behind a flattened image, become juanji's; float16, bfloat16 and float64 become the
    model's dtype. `num_batches_tracked` is passed over. Returns the paths that were left as they are, none unless
    `head` says so.

    Nothing is changed unless everything fits, and names and sizes are compared before numbers are read. Raises
    WeightsError, naming the file, that lists every missing, unknown and misfitting name; or for a file that is missing,
    damaged, of another format, or holds more than data, or that the hub does not give. Raises ArgumentError where
    input_shape is needed.
    """
    if head is not None and not isinstance(head, bool):
        raise ArgumentError(
            "load_torch_weights: bad head", received=repr(head), rule="True, False or None", fix="head=False"
        )
    graphs = graphs_of("load_torch_weights", model, input_shape, needed=head is not True)
    cells = {path: cell for path, cell in model.cells("parameter", "buffer").items() if not UNUSED.search(path)}
    classifier = set() if head is True else head_of(graphs[0], model) & cells.keys()
    with contents(weight_file(file)) as source:
        fit = Fit(model, cells, source, graphs)
        left = set() if head is None and fit.holds(classifier) else classifier
        fit.check(left, "head=False leaves a classifier for other classes out" if head else "")
        values = {path: fit.value(path) for path in cells if path not in left}
    for path, value in values.items():
        cells[path].write(value)
    return tuple(path for path in cells if path in left)


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


class Fit:
    """How the tensors of a file fit the cells of a model, by path."""

    def __init__(self, model: Module, cells: Mapping[str, Cell], source: Contents, graphs: Sequence[Graph]) -> None:
        self.model, self.cells, self.source = model, cells, source
        self.places = as_they_lie(model) if source.own else layouts(model, graphs)
        with naming(source.path):
            self.names = matched(source.tensors, cells)

    def misfit(self, path: str) -> str:
        """How a tensor differs from the cell of its name; "" for not at all."""
        cell, place, tensor = self.cells[path], self.places[path], self.source.tensors[self.names[path]]
        if place.fits(tensor.shape) and tensor.kind == cell.dtype.kind:
            return ""
        name = "" if self.names[path] == path else f" ({self.names[path]} in the file)"
        return f"misfitting {path}{name} {tensor.dtype}{tensor.shape}, the model's {cell.dtype}{place.shape}"

    def holds(self, paths: Collection[str]) -> bool:
        """Whether the file has tensors that fit for all of them."""
        return all(path in self.names and not self.misfit(path) for path in paths)

    def check(self, left: Collection[str], fix: str) -> None:
        """WeightsError, with every difference, unless all but the paths that are `left` out fit."""
        with naming(self.source.path):
            same_names(
                WeightsError,
                f"the weights do not fit {self.model.class_name}",
                {path: self.places[path].shape for path in self.cells if path not in left},
                {path: self.source.tensors[name].shape for path, name in self.names.items() if path not in left},
                misfit=self.misfit,
                fix=fix,
            )

    def value(self, path: str) -> Tensor:
        """What the cell is to hold. WeightsError for numbers that are too large for its dtype."""
        array, dtype = self.source.read(self.names[path]), self.cells[path].dtype
        with naming(self.source.path), np.errstate(over="raise", invalid="ignore"):
            return Tensor(np.asarray(self.places[path].ours(array), dtype, order="C"), dtype)
