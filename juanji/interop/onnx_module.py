"""An ONNX graph as a module."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from juanji.cell import Cell
from juanji.errors import ArgumentError, DTypeError, JuanjiError, ShapeError
from juanji.graph import Array
from juanji.interop.onnx_file import Port, Source, read_model
from juanji.interop.operators import Operator
from juanji.interop.operators.elements import ELEMENTS, NARROW
from juanji.interop.operators.node import Value, held, key_of, name_of, within
from juanji.interop.operators.subgraph import Subgraph, needed_values, size_of, trained
from juanji.nn.parameter import Buffer
from juanji.tensor import SUPPORTED, Tensor

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


class OnnxModule(Subgraph):
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
        operators = list(source.operators.values())
        needed = needed_values(operators)
        self.static_inputs = tuple(name for name in self.input_names if name in needed)
        roles = {name: role for name, role in trained(operators).items() if name not in needed}
        given = source.initialisers.items()
        cells = {name: roles[name](array, array.dtype) for name, array in given if is_weight(array, roles.get(name))}
        constants = {name: array for name, array in given if name not in cells}
        super().__init__(source.operators, constants | source.constants, self.output_names)
        for module in self.modules().values():
            if isinstance(module, Operator):
                module._cells.update({key_of(name): cells[name] for name in module.inputs if name in cells})
        self._settle(self.place)

    def cells(self, *kinds: str) -> dict[str, Cell]:
        """As of any module; parameters and buffers by their names in the file."""
        return {
            name_of(path.partition(".")[2]) if cell.kind in ("parameter", "buffer") else path: cell
            for path, cell in super().cells(*kinds).items()
        }

    def astype(self: Self, dtype: Any) -> Self:
        """Convert every floating cell and constant, in place, and what float32 means in the file."""
        super().astype(dtype)
        self.floating = np.dtype(dtype)
        for module in self.modules().values():
            if isinstance(module, Subgraph):
                module.widen(self.floating)
        return self

    def forward(self, *inputs: Any) -> Any:
        """The outputs for inputs as in the file. Raises ShapeError and DTypeError for others."""
        cells = self.cells()
        try:
            values = self.entering(inputs)
            taken = size_of([*values.values(), *self.constants.values(), *cells.values()])
            with within(taken):
                values = self.run(values)
        except JuanjiError as error:
            error.at = f"{error.at}, {self.file}".removeprefix(", ")
            raise
        # A weight may be an output.
        outputs = tuple(values[name] if name in values else cells[name].read() for name in self.output_names)
        return outputs[0] if len(outputs) == 1 else outputs

    def entering(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """The inputs by name."""
        if len(inputs) != len(self.inputs):
            raise ShapeError(
                "this model takes other inputs",
                received=f"{len(inputs)} of them",
                rule=f"{len(self.inputs)}: {', '.join(self.input_names)}",
            )
        return {port.name: self.checked(port, given) for port, given in zip(self.inputs, inputs, strict=True)}

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
                rule=f"{form(sizes)}, the first may differ",
            )
        return value

    def specs(self) -> list[Tensor]:
        """Tensors without values as the file's inputs are, one image where it leaves the first size open.

        Raises ArgumentError where it leaves another open, or where shapes depend on an input's value.
        """
        return [self.spec(port) for port in self.inputs]

    def spec(self, port: Port) -> Tensor:
        sizes, dtype = port.sizes, np.dtype(ELEMENTS[port.element]) if port.element not in NARROW else self.floating
        if sizes is None or None in sizes[1:] or port.name in self.static_inputs or dtype not in SUPPORTED:
            raise ArgumentError(
                f"the file does not say all about its input {port.name!r}",
                at=self.file,
                received=form(sizes) + " whose value decides on shapes" * (port.name in self.static_inputs),
                rule="only the first size may be open, and no shape may depend on the value",
                fix=f"give an example of each input: {', '.join(self.input_names)}",
            )
        return Tensor.spec(tuple(size or 1 for size in sizes), dtype)

    def extra(self) -> str:
        return f"{Path(self.file).name}"


def form(sizes: Sequence[int | None] | None) -> str:
    """Sizes as text."""
    return "any shape" if sizes is None else "(" + ", ".join("any" if n is None else str(n) for n in sizes) + ")"


def is_weight(array: Array, role: Any) -> bool:
    """Whether an initialiser becomes a cell: a floating one with a role, of which numbers alone are not trained."""
    return role is not None and array.dtype.kind == "f" and (array.ndim > 0 or role is Buffer)
