"""Graphs of operators as modules, and the operator that chooses between two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from juanji.graph import Array
from juanji.interop.operators.node import Operator, Value, held, is_floating, operator, room
from juanji.nn.module import Module
from juanji.nn.parameter import Buffer, Parameter
from juanji.tensor import DType


class Subgraph(Module):
    """Operators in the order in which they are computed, each a module under the name of its node.

    constants  what is known before, by name
    makes      the names of what comes out
    """

    def __init__(self, operators: Mapping[str, Operator], constants: Mapping[str, Array], makes: Sequence[str]) -> None:
        self._children.update(operators)
        self.constants = {name: held(array) for name, array in constants.items()}
        self.makes = tuple(makes)
        self.drops = list(last_uses(list(operators.values()), self.makes))[::-1]
        self._settle(self.place)

    def operators(self) -> list[Any]:
        return list(self._children.values())

    @property
    def captured(self) -> list[str]:
        """The names that come from outside, in the order of their first use."""
        made = {"", *self.constants}
        outside: list[str] = []
        for inner in self.operators():
            outside += [name for name in inner.inputs if name not in made]
            made.update(inner.outputs)
        return list(dict.fromkeys([*outside, *(name for name in self.makes if name not in made)]))

    def widen(self, dtype: DType) -> None:
        """Take `dtype` for what is float32 in the file."""
        for name, value in self.constants.items():
            if is_floating(value):
                self.constants[name] = value.astype(dtype)
        for inner in self.operators():
            inner.floating = dtype

    def run(self, values: dict[str, Any]) -> dict[str, Any]:
        """Compute one node after the other; what nobody reads again is forgotten. Returns what is left."""
        values = {**self.constants, **values, "": None}
        taken = 0  # bytes of what is alive besides constants and inputs
        for inner, read in zip(self.operators(), self.drops, strict=True):
            cells = [inner.cell(name) for name in inner.inputs]
            given = [
                values[name] if cell is None else cell.read() for name, cell in zip(inner.inputs, cells, strict=True)
            ]
            made = dict(zip(inner.outputs, inner(*given), strict=False))
            taken += size_of(made.values())
            room((taken,), 1)
            values.update(made)
            taken -= size_of(values.pop(name) for name in read if name in values)
            values[""] = None
        return values

    def forward(self, values: dict[str, Any]) -> tuple[Value, ...]:
        values = self.run(values)
        return tuple(values[name] for name in self.makes)


@operator("If", known=(0,))
def choose(node: Operator, condition: Array, *values: Value) -> tuple[Value, ...]:
    """One of two graphs; the condition, like a shape, is known when the graph is made."""
    chosen: Subgraph = node.then_branch if condition.item() else node.else_branch
    return chosen(dict(zip(node.inputs, [held(condition), *values], strict=True)))


def trained(operators: Sequence[Operator]) -> dict[str, Any]:
    """Which names are weights and which are running statistics, straight or by way of movements such as transposing."""
    roles: dict[str, Any] = {}
    for inner in reversed(operators):
        for branch in inner.branches():
            roles.update({name: role for name, role in trained(branch.operators()).items() if name in inner.inputs})
        for place, name in enumerate(inner.inputs):
            if place in inner.entry.weights:
                roles.setdefault(name, Parameter)
            if place in inner.entry.buffers:
                roles[name] = Buffer
        if inner.entry.moves and inner.outputs[0] in roles:
            roles.setdefault(inner.inputs[0], roles[inner.outputs[0]])
    return roles


def needed_values(operators: Sequence[Operator]) -> set[str]:
    """The names that must have a value when the graph is made: those shapes depend on, and what they are made from."""
    needed: set[str] = set()
    for inner in reversed(operators):
        for branch in inner.branches():
            needed |= needed_values(branch.operators())
        made = any(name in needed for name in inner.outputs) and inner.op not in ("Shape", "Size")
        needed.update(name for place, name in enumerate(inner.inputs) if made or inner.entry.needs(place))
    return needed


def last_uses(operators: Sequence[Operator], outputs: Sequence[str]) -> Iterator[list[str]]:
    """For each operator, the last one first, the names that nobody reads after it."""
    read = set(outputs)
    for inner in reversed(operators):
        names = {*inner.inputs, *inner.outputs} - read - {""}
        read |= names
        yield sorted(names)


def size_of(values: Any) -> int:
    """Bytes of tensors, arrays and cells."""
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in values if x is not None)
