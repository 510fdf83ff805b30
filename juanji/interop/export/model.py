"""Networks as ONNX models and files."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

from juanji import tree
from juanji.checks import one_of, whole
from juanji.errors import ArgumentError, PackageError
from juanji.graph import Graph
from juanji.interop.export.batch import LARGE, SMALL, Batch, Size, Sizes
from juanji.interop.export.builder import Builder, Constant, channels_first
from juanji.interop.export.tidy import Tidy
from juanji.interop.export.walk import write
from juanji.interop.files import write_atomically
from juanji.nn.module import Module
from juanji.tensor import Tensor, trace

if TYPE_CHECKING:
    import onnx

OLDEST, NEWEST = 21, 28  # opsets: the first with all operators that are written, the last that onnxruntime 1.32 runs
LIMIT = 2**31 - 2**24  # bytes of weights; what protobuf's 2 GB leave is for the graph


def save_onnx(model: Any, path: str | Path, *inputs: Any, **options: Any) -> None:
    """Write a network as an ONNX file, whole or not at all. Arguments and errors as `to_onnx`.

    A file of ONNX holds at most 2 GB, the limit of its format (protobuf). Weights of a larger network go into a second
    file beside it, `model.onnx.data`, without which the first cannot be used; move both together. Raises DataError,
    naming the file, where it cannot be written.
    """
    proto, path = to_onnx(model, *inputs, **options), Path(path)
    if sum(len(tensor.raw_data) for tensor in proto.graph.initializer) > LIMIT:
        put_weights_beside(proto, path.with_name(f"{path.name}.data"))
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

    model            a module, or a function of tensors, such as `lambda x: jj.softmax(net.eval()(x))`
    inputs           an array or tensor, or `Tensor.spec((1, 32, 32, 3))`, for each argument of the model: their shapes
                     count, channels last as always; those of a model from `juanji.models` are known
    dynamic_batch    the first axis of every input is the batch, of any size N; otherwise all shapes are fixed as given
    layout           how images go in and come out, that is, floating tensors of 3 to 5 axes: "NCHW", as is usual in
                     ONNX, or "NHWC", as they are here. Everything else stays as it is
    fold_batch_norm  put batch normalisation into the weights of the layer before, instead of a node of its own
    opset            the version of ONNX's operators, 21 to 28, for runtimes that do not know the newest; by default
                     that, with the IR version that goes with it (14), or the newest that the package onnx knows
    metadata         what else to keep, anything JSON can hold: `metadata_props` of the model has a text for each key

    Inputs are named as the arguments of `forward`, initialisers as the parameters (and lie as ONNX wants them), nodes
    after the path of their module. Logits come out as they are, without softmax. A dense layer after flattened images
    has the columns of its weights in the order of (C, H, W).

    Raises ArgumentError, with the module's path, for what has no counterpart in ONNX (gradients, random numbers,
    training mode in a function) or cannot be done for any N, PackageError without the package onnx; what the model
    raises for such inputs.
    """
    opset = checked_opset(opset)
    one_of("to_onnx", "layout", layout, ("NCHW", "NHWC"))
    examples = [Tensor.of(x).without_value() for x in inputs] or known_inputs(model)
    small, large = traced(model, examples, SMALL if dynamic_batch else None, LARGE if dynamic_batch else None)
    exported = Export(small, Sizes(small, large), layout)
    exported.write(fold_batch_norm)
    proto = exported.proto(opset)
    describe(proto, model, exported, metadata or {})
    return proto


def checked_opset(opset: int | None) -> int:
    """The opset that is meant. Raises PackageError without the package onnx, ArgumentError for one it cannot write."""
    try:
        from onnx import defs
    except ImportError:
        raise PackageError(
            "to_onnx: the package onnx is missing", rule="it writes the format", fix="pip install 'juanji[onnx]'"
        ) from None
    newest = min(NEWEST, defs.onnx_opset_version())
    whole("to_onnx", opset=newest if opset is None else opset)
    if opset is not None and not OLDEST <= opset <= newest:
        raise ArgumentError("to_onnx: bad opset", received=f"opset={opset}", rule=f"{OLDEST} … {newest}")
    return newest if opset is None else opset


def known_inputs(model: Any) -> list[Tensor]:
    config = getattr(model, "config", None)
    if not config:
        raise ArgumentError(
            "to_onnx: which inputs does the model take?",
            received="no inputs, and a model that does not come from juanji.models",
            fix="an example of each behind the path: jj.Tensor.spec((1, 32, 32, 3)), or an array",
        )
    dtype = next(iter(model.cells("parameter").values())).dtype
    return [Tensor.spec((1, *config["input_size"], config["in_channels"]), dtype)]


def traced(model: Callable[..., Any], examples: list[Tensor], *batches: int | None) -> tuple[Graph, Graph | None]:
    """The graph of a model in evaluation mode, for each number of images; one alone, for None, with those given."""
    mode = model.evaluating() if isinstance(model, Module) else contextlib.nullcontext()
    with mode:
        graphs = [trace(model, *(with_batch(x, n) for x in examples)) for n in dict.fromkeys(batches)]
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


def with_batch(x: Tensor, n: int | None) -> Tensor:
    return x if n is None or not x.ndim else Tensor.spec((n, *x.shape[1:]), x.dtype)


def is_image(x: Tensor) -> bool:
    return x.is_floating and 3 <= x.ndim <= 5


class Export:
    """One graph on its way: the builder, and what goes in and comes out."""

    def __init__(self, graph: Graph, sizes: Sizes, layout: str) -> None:
        self.graph, self.sizes, self.layout = graph, sizes, layout
        self.builder = Builder(sizes)
        self.outputs = list(tree.leaves(graph.outputs))
        self.output_names = ["output"] if len(self.outputs) == 1 else [f"output_{i}" for i in range(len(self.outputs))]

    def order(self, x: Tensor) -> tuple[int, ...]:
        """How a tensor lies at the model's doors."""
        return channels_first(x.ndim) if self.layout == "NCHW" and is_image(x) else tuple(range(x.ndim))

    def write(self, fold_batch_norm: bool) -> None:
        b, graph = self.builder, self.graph
        b.names.update([*graph.names, *self.output_names])
        for name, x in zip(graph.names, graph.inputs, strict=True):
            value = b.values[id(x)] = b.plain(name, x, self.order(x))
            if value.sizes[:1] == (Batch(1),):
                b.batch_input = b.batch_input or name
        for cell, x in graph.cells.items():
            b.values[id(x)] = Constant(cell.read().array, cell.path)
        write(b, graph.nodes, set(map(id, self.outputs)))
        b.path = ""
        for name, x in zip(self.output_names, self.outputs, strict=True):
            result = b.node("Identity", b.take(x, self.order(x)))
            b.operations[-1].outputs = [name]
            b.operations[-1].name = result
        Tidy(b, self.output_names).run(fold_batch_norm)

    def proto(self, opset: int) -> onnx.ModelProto:
        from onnx import helper, numpy_helper

        b, graph = self.builder, self.graph
        nodes = [helper.make_node(o.kind, o.inputs, o.outputs, o.name, **o.attributes) for o in b.operations]
        inputs = [self.declared(name, x) for name, x in zip(graph.names, graph.inputs, strict=True)]
        outputs = [self.declared(name, x) for name, x in zip(self.output_names, self.outputs, strict=True)]
        weights = [numpy_helper.from_array(array, name) for name, array in b.arrays.items()]
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(
            helper.make_graph(nodes, "network", inputs, outputs, weights),
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="juanji",
            producer_version=packages.version("juanji"),
        )

    def declared(self, name: str, x: Tensor) -> onnx.ValueInfoProto:
        from onnx import helper

        sizes = self.sizes.of(x)
        dims = [shown(sizes[axis]) for axis in self.order(x)]
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), dims)


def shown(size: Size) -> int | str:
    return str(size) if isinstance(size, Batch) else size


def describe(proto: onnx.ModelProto, model: Any, exported: Export, metadata: Mapping[str, Any]) -> None:
    """Say in the model what it is: its document, its name, and a text for each key of the metadata."""
    from onnx import helper

    config, layout = getattr(model, "config", {}), exported.layout
    name = str(config.get("name") or getattr(model, "class_name", "function"))
    proto.graph.name = name
    count = sum(math.prod(cell.shape) for cell in exported.graph.cells if cell.kind == "parameter")
    ways = ", ".join(f"{x.name} ({', '.join(axes(x))})" for x in proto.graph.input)
    proto.doc_string = f"{name}: {count:,} parameters, in evaluation mode, images {layout}. Takes {ways}."
    entries = {"layout": layout, **({"model": config} if config else {}), **metadata}
    helper.set_model_props(proto, {key: text_of(value) for key, value in entries.items()})


def axes(value: onnx.ValueInfoProto) -> list[str]:
    return [axis.dim_param or str(axis.dim_value) for axis in value.type.tensor_type.shape.dim]


def text_of(value: Any) -> str:
    """A text as itself, everything else as JSON."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            "to_onnx: the metadata cannot be written", received=str(error), rule="anything JSON can hold"
        ) from None


def put_weights_beside(proto: onnx.ModelProto, path: Path) -> None:
    """Move the numbers of every large initialiser to a file of their own."""
    from onnx import TensorProto, external_data_helper

    chunks, offset = [], 0
    for tensor in proto.graph.initializer:
        content = tensor.raw_data
        if len(content) >= 1024:
            external_data_helper.set_external_data(tensor, path.name, offset, len(content))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            chunks.append(content)
            offset += len(content)
    write_atomically(path, chunks)
