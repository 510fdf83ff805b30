"""A graph on its way to a message of ONNX: what goes in and comes out, what it says about itself, its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from importlib import metadata as packages
from typing import TYPE_CHECKING, Any

from juanji import tree
from juanji.errors import ArgumentError
from juanji.graph import Array, Graph
from juanji.interop.export.batch import Batch, Sizes
from juanji.interop.export.builder import Builder, Constant, channels_first
from juanji.interop.export.tidy import Tidy
from juanji.interop.export.walk import write
from juanji.nn.module import Module
from juanji.tensor import Tensor

if TYPE_CHECKING:
    import onnx

INSIDE = 1024  # bytes of the largest weights that stay in the message, shapes among them, if others lie in a file


class Document:
    """A graph, written in ONNX's operations by `write`; `proto` makes a message of it.

    layouts  how images lie in the graph, and how at the model's doors
    """

    def __init__(self, graph: Graph, sizes: Sizes, layouts: tuple[str, str], opset: int) -> None:
        self.graph, self.sizes, self.opset = graph, sizes, opset
        self.inside, self.layout = layouts
        self.builder = Builder(sizes)
        self.outputs: list[Tensor] = list(tree.leaves(graph.outputs))
        count = len(self.outputs)
        self.output_names = ["output"] if count == 1 else [f"output_{i}" for i in range(count)]
        self.labels = {cell: cell.path for cell in graph.cells}
        self.name = self.text = ""
        self.properties: dict[str, str] = {}

    def take_names(self, model: Any) -> None:
        """Outputs as the model calls them, if it does, and weights by their paths in it, wherever it is a part."""
        names = getattr(model, "output_names", ())
        self.output_names = list(names) if len(names) == len(self.outputs) else self.output_names
        if isinstance(model, Module):
            self.labels |= {cell: path for path, cell in model.cells().items() if cell in self.labels}

    def order(self, x: Tensor) -> tuple[int, ...]:
        """How a tensor lies at the model's doors: images as the layout says, everything else as it is."""
        if self.layout == self.inside or not (x.is_floating and 3 <= x.ndim <= 5):
            return tuple(range(x.ndim))
        return channels_first(x.ndim) if self.layout == "NCHW" else (0, *range(2, x.ndim), 1)

    def write(self, fold_batch_norm: bool) -> None:
        b, graph = self.builder, self.graph
        b.names.update([*graph.names, *self.output_names])
        for name, x in zip(graph.names, graph.inputs, strict=True):
            value = b.values[id(x)] = b.plain(name, x, self.order(x))
            if value.sizes[:1] == (Batch(1),):
                b.batch_input = b.batch_input or name
        for cell, x in graph.cells.items():
            b.values[id(x)] = Constant(cell.read().array, self.labels[cell])
        write(b, graph.nodes, set(map(id, self.outputs)))
        b.path = ""
        for name, x in zip(self.output_names, self.outputs, strict=True):
            b.node("Identity", b.take(x, self.order(x)))
            b.operations[-1].outputs = [name]
        Tidy(b, self.output_names).run(fold_batch_norm)

    def describe(self, model: Any, metadata: Mapping[str, Any]) -> None:
        """Give the model its name, a text that says what it is, and a property for each key of the metadata."""
        config = getattr(model, "config", {})
        self.name = str(config.get("name") or getattr(model, "class_name", "function"))
        count = sum(math.prod(cell.shape) for cell in self.graph.cells if cell.kind == "parameter")
        doors = zip(self.graph.names, self.graph.inputs, strict=True)
        ways = ", ".join(f"{name} ({', '.join(map(str, self.shape(x)))})" for name, x in doors)
        self.text = f"{self.name}: {count:,} parameters, in evaluation mode, images {self.layout}. Takes {ways}."
        entries = {"layout": self.layout, **({"model": config} if config else {}), **metadata}
        self.properties = {key: text_of(value) for key, value in entries.items()}

    def shape(self, x: Tensor) -> list[int | str]:
        """A tensor's sizes at the model's doors."""
        sizes = self.sizes.of(x)
        return [str(size) if isinstance(size, Batch) else size for size in (sizes[axis] for axis in self.order(x))]

    # Weights

    @property
    def weight_bytes(self) -> int:
        return sum(array.nbytes for array in self.builder.arrays.values())

    def apart(self) -> dict[str, Array]:
        """The weights that go into a file of their own, where there is one."""
        return {name: array for name, array in self.builder.arrays.items() if array.nbytes > INSIDE}

    def contents(self) -> Iterator[bytes]:
        """What that file holds: the numbers one after another, as ONNX wants them, the lowest byte first."""
        return (array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in self.apart().values())

    def tensors(self, beside: str) -> list[onnx.TensorProto]:
        """The initialisers; `beside`: the name of the file of numbers, "" where they are in the message."""
        from onnx import TensorProto, helper, numpy_helper

        outside, offset, tensors = self.apart() if beside else {}, 0, []
        for name, array in self.builder.arrays.items():
            if name not in outside:
                tensors.append(numpy_helper.from_array(array, name))
                continue
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor = TensorProto(name=name, data_type=kind, dims=array.shape, data_location=TensorProto.EXTERNAL)
            for key, value in {"location": beside, "offset": offset, "length": array.nbytes}.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            offset += array.nbytes
        return tensors

    def proto(self, beside: str = "") -> onnx.ModelProto:
        """The message; with its large weights in the file `beside` it, where one is named."""
        from onnx import helper

        nodes = [helper.make_node(o.kind, o.inputs, o.outputs, o.name, **o.attributes) for o in self.builder.operations]
        inputs = [self.declared(name, x) for name, x in zip(self.graph.names, self.graph.inputs, strict=True)]
        outputs = [self.declared(name, x) for name, x in zip(self.output_names, self.outputs, strict=True)]
        opsets = [helper.make_opsetid("", self.opset)]
        proto = helper.make_model(
            helper.make_graph(nodes, self.name, inputs, outputs, self.tensors(beside)),
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),
            producer_name="juanji",
            producer_version=packages.version("juanji"),
            doc_string=self.text,
        )
        helper.set_model_props(proto, self.properties)
        return proto

    def declared(self, name: str, x: Tensor) -> onnx.ValueInfoProto:
        from onnx import helper

        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), self.shape(x))


def text_of(value: Any) -> str:
    """A text as itself, everything else as JSON."""
    try:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            "to_onnx: the metadata cannot be written", received=str(error), rule="anything JSON can hold"
        ) from None
