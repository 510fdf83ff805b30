"""The ONNX graph while it grows: operations, initialisers, and how the axes of every value lie.

Images are channels last here and channels first in ONNX. So a value remembers which axis of the tensor each of its own
axes is, operations go on with the order they find, and a Transpose is written only where one needs another: none at all
between convolutions. Broadcasting is remembered too, because most operations of ONNX do it themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from juanji.graph import Array
from juanji.interop.export.batch import Batch, Size, Sizes, depends_on_batch
from juanji.tensor import Tensor

Order = tuple[int, ...]
SHARED = 1024  # elements of the largest nameless constant that is compared with others


@dataclass(frozen=True)
class Mixed:
    """An axis into which a Reshape has made several, of these sizes, that lie in this order in ONNX's value."""

    axis: int
    sizes: tuple[int, ...]
    order: Order


@dataclass(frozen=True)
class Value:
    """What stands for a tensor: axis i of the ONNX value `name` is axis `order[i]` of the tensor.

    `sizes` are the ONNX value's; 1 where the tensor's axis is longer, because it repeats one slice.
    """

    name: str
    order: Order
    sizes: tuple[Size, ...]
    mixed: Mixed | None = None

    @property
    def spread(self) -> int:
        """How many axes have more than one element."""
        return sum(size != 1 for size in self.sizes)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor whose value is known, axes in the tensor's order; size 1 where it repeats. `label`: its cell's path."""

    array: Array
    label: str = ""


@dataclass(eq=False)
class Operation:
    """A node of ONNX."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)


Operand = Tensor | Value | Constant


def channels_first(rank: int) -> Order:
    """(N, *X, C) as (N, C, *X)."""
    return (0, rank - 1, *range(1, rank - 1)) if rank > 2 else tuple(range(rank))


def compressed(array: Array) -> Array:
    """The array with one slice for each axis along which all are equal."""
    for axis, size in enumerate(array.shape):
        first = array.take([0], axis) if size > 1 else array
        if size > 1 and (array == first).all():
            array = first
    return array


class Builder:
    """Collects operations and initialisers, and knows the value of every tensor that has been exported."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.operations: list[Operation] = []
        self.arrays: dict[str, Array] = {}
        self.values: dict[int, Value | Constant] = {}
        self.path = ""
        self.batch_input = ""
        self.names: set[str] = set()
        self.shared: dict[Any, str] = {}
        self.moved: dict[Any, str] = {}
        # What a Transpose, a Reshape or a Pad, by its result, was written for, so that two after another become one.
        self.transposed: dict[str, tuple[str, tuple[Size, ...], Order]] = {}
        self.reshaped: dict[str, tuple[str, tuple[Size, ...]]] = {}
        self.bordered: dict[str, tuple[Value, dict[int, tuple[int, int]], str, str]] = {}
        # Tensors that `linear` has made matrices of for a product, by identity: before, and the product after.
        self.rows: dict[int, Tensor] = {}
        self.products: dict[int, tuple[tuple[int, ...], Value]] = {}

    # Operations and initialisers

    def unique(self, name: str) -> str:
        """`name`, with a number behind it where it is taken."""
        found, i = name, 0
        while found in self.names:
            i += 1
            found = f"{name}_{i}"
        self.names.add(found)
        return found

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        """Write an operation and return the name of its first result; "" stands for an input that is left out."""
        name = self.unique(f"{self.path}/{kind}" if self.path else kind)
        results = [name, *(self.unique(f"{name}.{i}") for i in range(1, outputs))]
        trimmed = list(inputs)
        while trimmed and not trimmed[-1]:
            trimmed.pop()
        self.operations.append(Operation(kind, name, trimmed, results, attributes))
        return name

    def initialiser(self, array: Any, label: str = "") -> str:
        """The name of an initialiser that holds the array; what has no label and is small is shared."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        key: Any = label, array.dtype, array.shape
        if not label:
            key = (*key, array.tobytes()) if array.size <= SHARED else object()
        known = self.shared.get(key)
        if known is None or not np.array_equal(self.arrays[known], array):
            known = self.shared[key] = self.unique(label or "constant")
            self.arrays[known] = array
        return known

    def integers(self, values: Sequence[int] | int) -> str:
        return self.initialiser(np.asarray(values, np.int64))

    def shape(self, sizes: Sequence[Size]) -> str:
        """The sizes as an ONNX value, computed where they hold the batch in more than one place."""
        counted = [isinstance(size, Batch) for size in sizes]
        if not any(counted):
            return self.integers([int(size) for size in sizes])  # type: ignore[arg-type]
        count = self.node("Shape", self.batch_input, start=0, end=1)
        parts = [self.multiple(count, n.per) if isinstance(n, Batch) else self.integers([n]) for n in sizes]
        return self.node("Concat", *parts, axis=0)

    def multiple(self, count: str, per: int) -> str:
        return count if per == 1 else self.node("Mul", count, self.integers([per]))

    # Values of tensors

    def value(self, operand: Operand) -> Value | Constant:
        """What stands for a tensor; a tensor that no node has made is a constant. Values stand for themselves."""
        if isinstance(operand, Value | Constant):
            return operand
        if id(operand) not in self.values:
            array, twin = compressed(operand.array), compressed(self.sizes.twin(operand).array)
            if not np.array_equal(array, twin, equal_nan=array.dtype.kind == "f"):
                raise depends_on_batch("a constant", f"arrays {operand.shape} of different values")
            self.values[id(operand)] = Constant(array)
        return self.values[id(operand)]

    def images(self, name: str, tensor: Tensor) -> Value:
        """The result of an operation that keeps to (N, C, *X)."""
        return self.plain(name, tensor, channels_first(tensor.ndim))

    def plain(self, name: str, tensor: Tensor, order: Sequence[int] | None = None) -> Value:
        """The ONNX value `name` stands for `tensor`, every axis at its full size."""
        order = tuple(range(tensor.ndim) if order is None else order)
        sizes = self.sizes.of(tensor)
        return Value(name, order, tuple(sizes[axis] for axis in order))

    def written(self, operand: Operand, order: Sequence[int] | None = None) -> Value:
        """A value in that order, or else in the one it has; a constant becomes an initialiser. Axes may repeat."""
        value = self.value(operand)
        if isinstance(value, Constant):
            order = tuple(range(value.array.ndim) if order is None else order)
            array = value.array.transpose(order)
            return Value(self.initialiser(array, value.label), order, array.shape)
        return self.ordered(self.unmixed(value), value.order if order is None else order)

    def full(self, tensor: Tensor, order: Sequence[int] | None = None) -> Value:
        """As `written`, with every axis at its full size."""
        value = self.value(tensor)
        sizes = self.sizes.of(tensor)
        if isinstance(value, Constant) and not any(isinstance(size, Batch) for size in sizes):
            value = Constant(np.broadcast_to(value.array, tensor.shape), value.label)
        value = self.written(value, order)
        wanted = tuple(sizes[axis] for axis in value.order)
        if value.sizes == wanted:
            return value
        return replace(value, name=self.node("Expand", value.name, self.shape(wanted)), sizes=wanted)

    def take(self, tensor: Tensor, order: Sequence[int] | None = None) -> str:
        """The name of the ONNX value with all elements of `tensor` in that order, by default the tensor's own."""
        return self.full(tensor, range(tensor.ndim) if order is None else order).name

    def first(self, tensor: Tensor) -> str:
        """`take`, channels first."""
        return self.take(tensor, channels_first(tensor.ndim))

    # Axes in another order or another shape

    def ordered(self, value: Value, order: Sequence[int]) -> Value:
        permutation = tuple(value.order.index(axis) for axis in order)
        sizes = tuple(value.sizes[i] for i in permutation)
        name = self.transpose(value.name, value.sizes, permutation)
        return Value(name, tuple(order), sizes, value.mixed)

    def transpose(self, name: str, sizes: tuple[Size, ...], permutation: Order) -> str:
        """Another order of axes: of a Transpose both together, nothing where they cancel, a Reshape where that does."""
        if name in self.transposed:
            name, sizes, before = self.transposed[name]
            permutation = tuple(before[i] for i in permutation)
        result = tuple(sizes[i] for i in permutation)
        long = [i for i in permutation if sizes[i] != 1]
        if long == sorted(long):
            return self.reshape(name, sizes, result)
        key = name, permutation
        if key not in self.moved:
            self.moved[key] = self.node("Transpose", name, perm=list(permutation))
            self.transposed[self.moved[key]] = name, sizes, permutation
        return self.moved[key]

    def reshape(self, name: str, old: tuple[Size, ...], new: tuple[Size, ...]) -> str:
        """Another shape: of a Reshape the two together, nothing where they cancel."""
        name, old = self.reshaped.get(name, (name, old))
        if old == new:
            return name
        key = name, new
        if key not in self.moved:
            self.moved[key] = self.reshape_node(name, old, new)
            self.reshaped[self.moved[key]] = name, old
        return self.moved[key]

    def reshape_node(self, name: str, old: tuple[Size, ...], new: tuple[Size, ...]) -> str:
        if len(new) == 2 and len(old) > 1 and old[0] == new[0]:
            return self.node("Flatten", name, axis=1)
        counted = [isinstance(size, Batch) for size in new]
        if sum(counted) == 1 and 0 not in new:
            return self.node("Reshape", name, self.integers([-1 if isinstance(n, Batch) else n for n in new]))
        return self.node("Reshape", name, self.shape(new), allowzero=int(0 in new))

    def unmixed(self, value: Value) -> Value:
        """The value with its mixed axis in the tensor's own order."""
        if value.mixed is None:
            return value
        mixed, place = value.mixed, value.order.index(value.mixed.axis)
        before, after = value.sizes[:place], value.sizes[place + 1 :]
        split = (*before, *(mixed.sizes[i] for i in mixed.order), *after)
        name = self.reshape(value.name, value.sizes, split)
        back = [place + mixed.order.index(i) for i in range(len(mixed.sizes))]
        permutation = (*range(place), *back, *range(place + len(back), len(split)))
        name = self.transpose(name, split, permutation)
        sorted_sizes = (*before, *mixed.sizes, *after)
        return Value(self.reshape(name, sorted_sizes, value.sizes), value.order, value.sizes)

    # Operations on every element

    def elementwise(self, kind: str, *operands: Operand, **attributes: Any) -> Value:
        """An operation that broadcasts: operands come to the order of the one with most axes of several elements."""
        values = [self.value(operand) for operand in operands]
        if len({value.mixed for value in values if isinstance(value, Value)}) > 1:
            values = [self.unmixed(value) if isinstance(value, Value) else value for value in values]
        found = [value for value in values if isinstance(value, Value)]
        lead = max(found, key=lambda value: (value.spread, value.order != tuple(sorted(value.order))))
        names, shapes = zip(*(self.beside(value, lead) for value in values), strict=True)
        sizes = tuple(next((n for n in axis if n != 1), 1) for axis in zip(*shapes, strict=True))
        return replace(lead, name=self.node(kind, *names, **attributes), sizes=sizes)

    def beside(self, value: Value | Constant, lead: Value) -> tuple[str, tuple[Size, ...]]:
        """A value as an operand beside `lead`: its name, and its sizes in that order."""
        if isinstance(value, Value):
            value = self.ordered(value, lead.order)
            return value.name, value.sizes
        array = value.array if lead.mixed is None else mix(value.array, lead.mixed)
        array = array.transpose(lead.order)
        # Axes that broadcasting adds by itself are left out: a number is a scalar.
        leading = next((i for i, n in enumerate(array.shape) if n != 1), array.ndim)
        return self.initialiser(array.reshape(array.shape[leading:]), value.label), array.shape


def mix(array: Array, mixed: Mixed) -> Array:
    """A constant's elements along an axis in the order in which ONNX's value has them."""
    axis = mixed.axis
    if array.shape[axis] == 1:
        return array
    place = np.arange(math.prod(mixed.sizes)).reshape(mixed.sizes).transpose(mixed.order).ravel()
    return array.take(place, axis)
