"""Operators that move elements in ONNX. Most only change how axes lie, and write nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from juanji.graph import Array, Node
from juanji.interop.export.batch import Batch, Size, depends_on_batch
from juanji.interop.export.builder import Builder, Constant, Mixed, Value
from juanji.interop.export.table import entry
from juanji.ops.resample import PAD_INDEX
from juanji.tensor import Tensor

Group = tuple[tuple[int, ...], tuple[int, ...]]


@entry("transpose")
def transpose(b: Builder, node: Node) -> Value | Constant:
    axes, value = node.attrs["axes"], b.value(node.inputs[0])
    if isinstance(value, Constant):
        return Constant(value.array.transpose(axes), value.label)
    mixed = value.mixed and replace(value.mixed, axis=axes.index(value.mixed.axis))
    return replace(value, order=tuple(axes.index(axis) for axis in value.order), mixed=mixed)


@entry("broadcast_to")
def broadcast_to(b: Builder, node: Node) -> Value | Constant:
    """Nothing is written: who reads the result repeats the slices, most operations by themselves."""
    (x,), rank = node.inputs, node.outputs[0].ndim
    value, added = b.value(x), (1,) * (rank - x.ndim)
    if isinstance(value, Constant):
        return Constant(value.array.reshape(added + value.array.shape), value.label)
    if not added:
        return value
    value = b.unmixed(value)
    order = (*range(len(added)), *(axis + len(added) for axis in value.order))
    return Value(b.reshape(value.name, value.sizes, added + value.sizes), order, added + value.sizes)


# reshape


@entry("reshape")
def reshape(b: Builder, node: Node) -> Value | Constant:
    """Axes are joined or split where they lie, if they lie side by side; those of an image, into a mixed one."""
    (x,), (y,) = node.inputs, node.outputs
    value = b.value(x)
    if y.ndim == 2 and x.shape[-1] == y.shape[-1] and sum(n != 1 for n in x.shape[:-1]) > 1:
        b.rows[id(y)] = x
    shape, product = b.products.get(id(x), (None, None))
    if product is not None and shape == y.shape:
        return product
    if isinstance(value, Constant) and not any(isinstance(n, Batch) for n in b.sizes.of(y)):
        return Constant(np.broadcast_to(value.array, x.shape).reshape(y.shape), value.label)
    value = b.full(x)
    pieces = laid_out(b, value, x, y)
    if pieces is None:
        value = b.full(x, range(x.ndim))
        pieces = laid_out(b, value, x, y)
    order, mixed = pieces  # type: ignore[misc] # in the tensor's own order every reshape can be done
    new = b.sizes.of(y)
    sizes = tuple(new[axis] for axis in order)
    return Value(b.reshape(value.name, value.sizes, sizes), order, sizes, mixed)


def laid_out(b: Builder, value: Value, x: Tensor, y: Tensor) -> tuple[tuple[int, ...], Mixed | None] | None:
    """The order of y's axes after a Reshape of `value`, and which of them is mixed; None where it needs a Transpose."""
    order: list[int] = []
    mixed = None
    lie = [axis for axis in value.order if x.shape[axis] != 1]
    found = {old: new for old, new in groups(b, x, y) if old}
    while lie:
        old = next(old for old in found if lie[0] in old)
        here, lie = tuple(lie[: len(old)]), lie[len(old) :]
        if set(here) != set(old):
            return None
        if here != old:
            if len(found[old]) > 1 or mixed or any(isinstance(b.sizes.of(x)[axis], Batch) for axis in old):
                return None
            mixed = Mixed(found[old][0], tuple(x.shape[axis] for axis in old), tuple(old.index(axis) for axis in here))
        order += found[old]
    for axis in range(y.ndim):  # those of size 1 may lie anywhere
        if axis not in order:
            order.insert(axis, axis)
    return tuple(order), mixed


def groups(b: Builder, x: Tensor, y: Tensor) -> list[Group]:
    """Which axes of x become which axes of y, as far apart as their sizes allow; axes of size 1 are left out."""
    here = list(factors(x.shape, y.shape))
    if 0 in x.shape or here != list(factors(b.sizes.twin(x).shape, b.sizes.twin(y).shape)):
        return [tuple(tuple(a for a, n in enumerate(t.shape) if n != 1) for t in (x, y))]  # type: ignore[list-item]
    return here


def factors(old: Sequence[int], new: Sequence[int]) -> Iterator[Group]:
    """Runs of axes with the same product, the shortest there are."""
    sides = [[(axis, n) for axis, n in enumerate(shape) if n != 1] for shape in (old, new)]
    while sides[0] and sides[1]:
        taken = [[side.pop(0)] for side in sides]
        products = [taken[0][0][1], taken[1][0][1]]
        while products[0] != products[1]:
            short = products[0] > products[1]  # 0 or 1: the side that lacks factors
            taken[short].append(sides[short].pop(0))
            products[short] *= taken[short][-1][1]
        yield tuple(axis for axis, _ in taken[0]), tuple(axis for axis, _ in taken[1])


# slices and borders


@entry("slice")
def slice_(b: Builder, node: Node) -> Value:
    (x,), (y,) = node.inputs, node.outputs
    value = b.unmixed(b.written(x))
    twin, larger = b.sizes.twin(node), b.sizes.twin(x)
    cuts = []
    for axis, (bounds, other) in enumerate(zip(node.attrs["index"], twin.attrs["index"], strict=True)):
        place = value.order.index(axis)
        if bounds == (0, x.shape[axis], 1) and other == (0, larger.shape[axis], 1):
            continue
        if bounds != other:
            raise depends_on_batch("a slice", f"{bounds} and {other}")
        if value.sizes[place] != 1 or x.shape[axis] == 1:
            cuts.append((place, *bounds))
        elif y.shape[axis] == 0:  # an axis that repeats one slice, of which none is left
            cuts.append((place, 0, 0, 1))
    return cut(b, value, cuts)


def cut(b: Builder, value: Value, cuts: Sequence[tuple[int, int, int, int]]) -> Value:
    """The value with (start, stop, step) taken of some of ONNX's axes."""
    if not cuts:
        return value
    axes, starts, stops, steps = zip(*cuts, strict=True)
    sizes = list(value.sizes)
    for axis, *bounds in cuts:
        sizes[axis] = len(range(*bounds))
    name = b.node("Slice", value.name, *(b.integers(part) for part in (starts, stops, axes, steps)))
    return replace(value, name=name, sizes=tuple(sizes))


@entry("flip")
def flip(b: Builder, node: Node) -> Value:
    value = b.full(node.inputs[0])
    axes = [value.order.index(axis) for axis in node.attrs["axes"]]
    if not axes:
        return value
    bounds = [[-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes)]
    return replace(value, name=b.node("Slice", value.name, *map(b.integers, bounds)))


@entry("pad")
def pad(b: Builder, node: Node) -> Value | None:
    """Zeros at the ends; those between elements only derivatives need."""
    if any(node.attrs["interior"]):
        return None
    value = b.full(node.inputs[0])
    low, high = node.attrs["low"], node.attrs["high"]
    return padded(b, value, {axis: ends for axis, ends in enumerate(zip(low, high, strict=True)) if any(ends)})


def padded(b: Builder, value: Value, ends: dict[int, tuple[int, int]], mode: str = "constant", fill: str = "") -> Value:
    """The value with (low, high) elements added along axes of its tensor; of a Pad along others, both together."""
    if not ends:
        return value
    before, others, *same = b.bordered.get(value.name, (value, {}, mode, fill))
    if same == [mode, fill] and before.order == value.order and not others.keys() & ends.keys():
        value, ends = before, others | ends
    places = [value.order.index(axis) for axis in ends]
    sizes = list(value.sizes)
    for place, more in zip(places, ends.values(), strict=True):
        sizes[place] = grown(sizes[place], sum(more))
    pads = [*(low for low, _ in ends.values()), *(high for _, high in ends.values())]
    name = b.node("Pad", value.name, b.integers(pads), fill, b.integers(places), mode=mode)
    b.bordered[name] = value, ends, mode, fill
    return replace(value, name=name, sizes=tuple(sizes))


def grown(size: Size, more: int) -> int:
    if isinstance(size, Batch):
        raise depends_on_batch("a border", f"{more} more than the number of images")
    return size + more


# taking by an index


@entry("take")
def take(b: Builder, node: Node) -> Value:
    (x, index), axis = node.inputs, node.attrs["axis"]
    value, places = b.full(x), b.value(index)
    if isinstance(places, Constant) and (border := border_of(places.array, x, axis)):
        mode, ends = border
        return padded(b, value, {axis: ends}, mode)
    place, rank = value.order.index(axis), index.ndim
    order = [a if a < axis else a - 1 + rank for a in value.order]
    order[place : place + 1] = range(axis, axis + rank)
    return b.plain(b.node("Gather", value.name, whole(b, index, b.take(index)), axis=place), node.outputs[0], order)


def whole(b: Builder, index: Tensor, name: str) -> str:
    """Indices, whose value is called `name`, as ONNX takes them: in 32 or 64 bits."""
    from onnx import TensorProto

    return name if index.dtype in (np.int32, np.int64) else b.node("Cast", name, to=TensorProto.INT64)


def border_of(index: Array, x: Tensor, axis: int) -> tuple[str, tuple[int, int]] | None:
    """The mode of ONNX's Pad and the ends, where an index says what `jj.pad` with "edge" or "reflect" does."""
    n = x.shape[axis]
    if index.ndim != 1 or index.size <= n or n < 2:
        return None
    for mode, low in [("edge", int((index != 0).argmax()) - 1), ("reflect", int((index == 0).argmax()))]:
        ends = low, index.size - n - low
        allowed = min(ends) >= 0 and (mode == "edge" or max(ends) < n)
        if allowed and np.array_equal(index, PAD_INDEX[mode](n, *ends)):
            return mode, ends
    return None


@entry("concat")
def concat(b: Builder, node: Node) -> Value:
    axis, values = node.attrs["axis"], [b.value(x) for x in node.inputs]
    lead = max((v for v in values if isinstance(v, Value)), key=lambda v: v.spread, default=None)
    order = tuple(range(node.inputs[0].ndim)) if lead is None else lead.order
    names = [b.full(x, order).name for x in node.inputs]
    return b.plain(b.node("Concat", *names, axis=order.index(axis)), node.outputs[0], order)


# places in a window's image


@entry("window_gather")
def window_gather(b: Builder, node: Node) -> Value:
    x, index = node.inputs
    places = whole(b, index, flat_places(b, index))
    return unflattened(b, b.node("GatherElements", flat_places(b, x), places, axis=2), node.outputs[0])


@entry("window_scatter")
def window_scatter(b: Builder, node: Node) -> Value:
    (x, index), (y,) = node.inputs, node.outputs
    n, *_, c = b.sizes.of(y)
    places = whole(b, index, flat_places(b, index))
    ground = b.node("Expand", b.initialiser(np.zeros((), x.dtype)), b.shape((n, c, math.prod(node.attrs["size"]))))
    name = b.node("ScatterElements", ground, places, flat_places(b, x), axis=2, reduction="add")
    return unflattened(b, name, y)


def flat_places(b: Builder, x: Tensor) -> str:
    """x `(N, *X, C)` as (N, C, X)."""
    n, *spatial, c = b.sizes.of(x)
    return b.reshape(b.first(x), (n, c, *spatial), (n, c, math.prod(x.shape[1:-1])))


def unflattened(b: Builder, name: str, y: Tensor) -> Value:
    n, *spatial, c = b.sizes.of(y)
    return b.images(b.reshape(name, (n, c, math.prod(y.shape[1:-1])), (n, c, *spatial)), y)
