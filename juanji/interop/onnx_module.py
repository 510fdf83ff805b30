"""An ONNX graph as a module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from juanji.cell import Cell
from juanji.errors import DTypeError, JuanjiError, ShapeError
from juanji.graph import Array
from juanji.interop.onnx_file import Port, Source, read_model
from juanji.interop.operators import Operator
from juanji.interop.operators.elements import ELEMENTS, NARROW
from juanji.interop.operators.node import GROWTH, LEAST, ROOM, Value, held, is_floating
from juanji.nn.module import Module
from juanji.nn.parameter import Buffer, Parameter
from juanji.tensor import Tensor

Self = TypeVar("Self", bound="OnnxModule")


def load_onnx(file: str | Path | Any) -> OnnxModule:
    """The network in an ONNX file as a module: to call, compile, differentiate, fine-tune and export.

    file  a path, or an `onnx.ModelProto`

    Inputs and outputs are those of the file, images channels first: `model(x)` takes (N, C, H, W) where the file does.
    Several inputs go in by position, in the order of `model.input_names`; several outputs come out as a tuple, in the
    order of `model.output_names`. The module is in `eval()` mode, as files are made for use; `train()` it to fine-tune.

    Floating initialisers that an operator takes as weights are parameters, under their names in the file; the running
    statistics of batch normalisation are buffers, which move in training mode as PyTorch's do. Half precision is
    computed in float32. Sizes that are fixed in the file must be met, but for the first, the batch.

    Raises DataError, naming the file, for one that is missing, damaged, or refers to files outside its folder;
    UnknownNameError that lists every operator juanji does not have; ArgumentError where the package onnx is missing.
    """
    return OnnxModule(read_model(file)).eval()


class OnnxModule(Module):
    """What `load_onnx` gives. Each node of the graph is a module of its own, named as in the file.

    input_names, output_names  as in the file
    static_inputs              the inputs that shapes depend on: give them as numbers or lists where the model is
                               traced or compiled
    """

    layout = "NCHW"

    def __init__(self, source: Source) -> None:
        self.file, self.inputs, self.outputs = source.file, source.inputs, source.outputs
        self.input_names = tuple(port.name for port in source.inputs)
        self.output_names = tuple(port.name for port in source.outputs)
        self.floating = np.dtype(np.float32)
        self._children.update(source.operators)
        operators = list(source.operators.values())
        needed = needed_values(operators)
        self.static_inputs = tuple(name for name in self.input_names if name in needed)
        rest = self._keep({name: array for name, array in source.initialisers.items() if name not in needed})
        fixed = {name: array for name, array in source.initialisers.items() if name in needed}
        self.constants = {name: held(array) for name, array in (rest | fixed | source.constants).items()}
        self.drops = list(last_uses(operators, self.output_names))[::-1]
        self._settle(self.place)

    def _keep(self, initialisers: dict[str, Array]) -> dict[str, Array]:
        """Give the weights and statistics among the initialisers to the operators they go into; the others."""
        operators: list[Operator] = list(self.operators())
        roles, cells = trained(operators), {}
        for name, array in initialisers.items():
            if name in roles and array.dtype.kind == "f" and (array.ndim or roles[name] is Buffer):
                cells[name] = roles[name](array, array.dtype)
        for operator in operators:
            operator._cells.update({name: cells[name] for name in operator.inputs if name in cells})
        return {name: array for name, array in initialisers.items() if name not in cells}

    def operators(self) -> Iterator[Any]:
        return iter(self._children.values())

    def cells(self, *kinds: str) -> dict[str, Cell]:
        """As of any module; parameters and buffers by their names in the file."""
        return {
            path.partition(".")[2] if cell.kind in ("parameter", "buffer") else path: cell
            for path, cell in super().cells(*kinds).items()
        }

    def astype(self: Self, dtype: Any) -> Self:
        """Convert every floating cell and constant, in place, and what float32 means in the file."""
        super().astype(dtype)
        self.floating = np.dtype(dtype)
        for name, value in self.constants.items():
            if is_floating(value):
                self.constants[name] = value.astype(dtype)
        for operator in self.operators():
            operator.floating = self.floating
        return self

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs as in the file. Raises ShapeError and DTypeError for others."""
        try:
            values = self.run(self.entering(inputs))
        except JuanjiError as error:
            error.at = f"{error.at}, {self.file}".removeprefix(", ")
            raise
        outputs = tuple(values[name] for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def entering(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """What is known before anything is computed, by name."""
        if len(inputs) != len(self.inputs):
            raise ShapeError(
                "this model takes other inputs",
                received=f"{len(inputs)} of them",
                rule=f"{len(self.inputs)}: {', '.join(self.input_names)}",
            )
        values: dict[str, Any] = {"": None, **self.constants}
        for port, given in zip(self.inputs, inputs, strict=True):
            values[port.name] = self.checked(port, given)
        return values

    def run(self, values: dict[str, Any]) -> dict[str, Any]:
        """Compute one node after the other; what nobody reads again is forgotten. Returns what is left."""
        room = ROOM.set(max(LEAST, GROWTH * (size_of(values.values()) + size_of(self.cells().values()))))
        try:
            for operator, read in zip(self.operators(), self.drops, strict=True):
                given = [operator._cells[x].read() if x in operator._cells else values[x] for x in operator.inputs]
                values.update(zip(operator.outputs, operator(*given), strict=False))
                for name in read:
                    values.pop(name, None)
                values[""] = None
        finally:
            ROOM.reset(room)
        return values

    def checked(self, port: Port, given: Any) -> Value:
        """An input as a value of the port's type. Raises DTypeError or ShapeError for another type, rank or size."""
        dtype = self.floating if port.element in NARROW else np.dtype(ELEMENTS.get(port.element, np.object_))
        plain = not hasattr(given, "dtype")
        value = given if isinstance(given, Tensor) else held(np.asarray(given, dtype if plain else None))
        if value.dtype != dtype and not (value.dtype.kind in "OUS" and dtype.kind == "O"):
            raise DTypeError(
                f"input {port.name!r} has another dtype",
                received=str(value.dtype),
                rule=str(dtype),
                fix=f'x.astype("{dtype}")',
            )
        sizes = (None,) * value.ndim if port.sizes is None else port.sizes
        misses = any(want not in (None, n) for want, n in list(zip(sizes, value.shape, strict=False))[1:])
        if len(sizes) != value.ndim or misses:
            raise ShapeError(
                f"input {port.name!r} has another shape",
                received=str(value.shape),
                rule="(" + ", ".join("any" if n is None else str(n) for n in sizes) + "), the first may differ",
            )
        return value

    def extra(self) -> str:
        return f"{Path(self.file).name}"


def size_of(values: Any) -> int:
    """Bytes of tensors, arrays and cells."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in values if x is not None)


def trained(operators: Sequence[Operator]) -> dict[str, Any]:
    """Which names are weights and which are running statistics, straight or by way of movements such as transposing."""
    roles: dict[str, Any] = {}
    for operator in reversed(operators):
        for place, name in enumerate(operator.inputs):
            if place in operator.entry.weights:
                roles.setdefault(name, Parameter)
            if place in operator.entry.buffers:
                roles[name] = Buffer
        if operator.entry.moves and operator.outputs[0] in roles:
            roles.setdefault(operator.inputs[0], roles[operator.outputs[0]])
    return roles


def needed_values(operators: Sequence[Operator]) -> set[str]:
    """The names that must have a value when the graph is made: those shapes depend on, and what they are made from."""
    needed: set[str] = set()
    for operator in reversed(operators):
        made = any(name in needed for name in operator.outputs) and operator.op not in ("Shape", "Size")
        needed.update(name for place, name in enumerate(operator.inputs) if made or operator.entry.needs(place))
    return needed


def last_uses(operators: Sequence[Operator], outputs: Sequence[str]) -> Iterator[list[str]]:
    """For each operator, the last one first, the names that nobody reads after it."""
    read = set(outputs)
    for operator in reversed(operators):
        names = {*operator.inputs, *operator.outputs} - read - {""}
        read |= names
        yield sorted(names)
