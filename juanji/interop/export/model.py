"""Networks as ONNX models and files: the user's door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from juanji import tree
from juanji.checks import one_of, whole
from juanji.errors import ArgumentError
from juanji.graph import Graph
from juanji.interop.export.batch import LARGE, SMALL, Sizes
from juanji.interop.export.document import Document
from juanji.interop.files import write_atomically
from juanji.interop.onnx_module import OnnxModule
from juanji.interop.packages import NEWEST, require_onnx
from juanji.nn.module import Module
from juanji.tensor import Tensor, trace

if TYPE_CHECKING:
    import onnx

OLDEST = 21  # the first opset with all operators that are written
LIMIT = 2**31 - 2**24  # bytes of weights; what protobuf's 2 GB leave is for the graph


def save_onnx(
    model: Callable[..., Any],
    file: str | Path,
    *inputs: Any,
    dynamic_batch: bool = True,
    layout: str = "NCHW",
    fold_batch_norm: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a network as an ONNX file, by its path, whole or not at all. Other arguments and errors as `to_onnx`.

    A file of ONNX holds at most 2 GB, the limit of its format (protobuf). Weights of a larger network go into a second
    file beside it, `model.onnx.data`, without which the first cannot be used; move both together. Raises DataError,
    naming the file, where it cannot be written.
    """
    document = exported(model, inputs, dynamic_batch, layout, fold_batch_norm, opset, metadata)
    path = Path(file)
    beside = path.with_name(f"{path.name}.data") if document.weight_bytes > LIMIT else None
    if beside is not None:
        write_atomically(beside, document.contents())
    proto = document.proto("" if beside is None else beside.name)
    write_atomically(path, proto.SerializeToString(deterministic=True))


def to_onnx(
    model: Callable[..., Any],
    *inputs: Any,
    dynamic_batch: bool = True,
    layout: str = "NCHW",
    fold_batch_norm: bool = False,
    opset: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> onnx.ModelProto:
    """A network, in evaluation mode, as a model of ONNX.

    model            a module, or a function of tensors, such as `lambda x: jj.ops.softmax(net(x))`
    inputs           an array or tensor, or `Tensor.spec((1, 32, 32, 3))`, for each argument of the model: their shapes
                     count, channels last as always. Those of a model from `juanji.models` are known, and those of one
                     from `load_onnx` are the file's
    dynamic_batch    True: the first axis of every input is the batch, of any size N, but for a file's own inputs of
                     fixed size; False: shapes are as given
    layout           how images go in and come out, that is, floating tensors of 3 to 5 axes: "NCHW" by default, as is
                     usual in ONNX, or "NHWC", as they are here. Everything else stays as it is. A module that takes
                     images channels first says so by its attribute `layout`
    fold_batch_norm  put batch normalisation into the weights of the layer before, instead of a node of its own
    opset            the version of ONNX's operators, 21 to 28, for runtimes that do not know the newest; by default
                     that, with the IR version that goes with it (14), or the newest that the package onnx knows
    metadata         what else to keep, anything JSON can hold: `metadata_props` of the model has a text for each key

    Inputs are named as the arguments of `forward`, initialisers as the parameters (and lie as ONNX wants them), nodes
    after the path of their module. Logits come out as they are, without softmax. A dense layer after flattened images
    has the columns of its weights in the order of (C, H, W).

    Raises ArgumentError, with the module's path, for what has no counterpart in ONNX (gradients, random numbers,
    training mode in a function) or cannot be done for any N, for weights over 2 GB, which `save_onnx` writes, and
    without the package onnx; what the model raises for such inputs.
    """
    document = exported(model, inputs, dynamic_batch, layout, fold_batch_norm, opset, metadata)
    if document.weight_bytes > LIMIT:
        raise ArgumentError(
            "to_onnx: the model is too large for one message of protobuf, in which ONNX is written",
            received=f"{document.weight_bytes:,} bytes of weights",
            rule="2 GB together",
            fix="save_onnx, which writes the weights to a file beside the model",
        )
    return document.proto()


def exported(
    model: Callable[..., Any],
    inputs: Sequence[Any],
    dynamic_batch: bool,
    layout: str,
    fold_batch_norm: bool,
    opset: int | None,
    metadata: Mapping[str, Any] | None,
) -> Document:
    """The model written in ONNX, before it becomes a message or a file. Arguments and errors as `to_onnx`."""
    opset = checked_opset(opset)
    one_of("to_onnx", "layout", layout, ("NCHW", "NHWC"))
    examples = [Tensor.of(x).without_value() for x in inputs] or known_inputs(model)
    counted = [dynamic_batch and x.ndim > 0 for x in examples]
    if isinstance(model, OnnxModule) and not inputs:
        counted = [dynamic_batch and port.sizes is not None and port.sizes[:1] == (None,) for port in model.inputs]
    small, large = traced(model, examples, counted)
    document = Document(small, Sizes(small, large), (getattr(model, "layout", "NHWC"), layout), opset)
    document.take_names(model)
    document.write(fold_batch_norm)
    document.describe(model, metadata or {})
    return document


def checked_opset(opset: int | None) -> int:
    """The opset that is meant. Raises ArgumentError for one that cannot be written, and without the package onnx."""
    newest = min(NEWEST, require_onnx().defs.onnx_opset_version())
    whole("to_onnx", opset=newest if opset is None else opset)
    if opset is not None and not OLDEST <= opset <= newest:
        raise ArgumentError("to_onnx: bad opset", received=f"opset={opset}", rule=f"{OLDEST} … {newest}")
    return newest if opset is None else opset


def known_inputs(model: Any) -> list[Tensor]:
    if isinstance(model, OnnxModule):
        return model.specs()
    config = getattr(model, "config", None)
    if not config:
        raise ArgumentError(
            "to_onnx: which inputs does the model take?",
            received="no inputs, and a model that comes neither from juanji.models nor from load_onnx",
            fix="an example of each behind the path: jj.Tensor.spec((1, 32, 32, 3)), or an array",
        )
    dtype = next(iter(model.cells("parameter").values())).dtype
    return [Tensor.spec((1, *config["input_size"], config["in_channels"]), dtype)]


def traced(
    model: Callable[..., Any], examples: Sequence[Tensor], counted: Sequence[bool]
) -> tuple[Graph, Graph | None]:
    """The graph of a model in evaluation mode for each of two numbers of images, which are the first size of what is
    `counted`; where nothing is, of the examples alone."""
    mode = model.evaluating() if isinstance(model, Module) else contextlib.nullcontext()
    pairs = [*zip(examples, counted, strict=True)]
    with mode:
        batches = (SMALL, LARGE) if any(counted) else (SMALL,)
        graphs = [trace(model, *(with_batch(x, n) if c else x for x, c in pairs)) for n in batches]
    for graph in graphs:
        graph.outputs = tree.map(Tensor.of, graph.outputs)
    for cell in graphs[0].writes:
        raise ArgumentError(
            "to_onnx: the function changes its state",
            received=f"{cell.path} is written",
            rule="what is exported is a network in evaluation mode",
            fix="model.eval()",
        )
    return graphs[0], graphs[1] if len(graphs) > 1 else None


def with_batch(x: Tensor, n: int) -> Tensor:
    return Tensor.spec((n, *x.shape[1:]), x.dtype)
