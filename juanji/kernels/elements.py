"""What one element of an operator's result is: arithmetic, movement, reductions, random numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from juanji.graph import COMPOSITES, PRIMITIVES, Node
from juanji.kernels import philox
from juanji.kernels.functions import FUNCTIONS
from juanji.kernels.lowering import ZERO, Element, Index, Indices, Lowering
from juanji.kernels.text import KINDS, Value, const
from juanji.tensor import Tensor


def lowers(*names: str) -> Callable[[Element], Element]:
    """Register a lowering with the records it is for."""

    def wrap(rule: Element) -> Element:
        for name in names:
            record = PRIMITIVES.get(name) or COMPOSITES[name]
            record.lower["element"] = rule
        return rule

    return wrap


@lowers(*(name for name in PRIMITIVES if name in FUNCTIONS))
def pointwise(code: Lowering, node: Node, at: Indices) -> Value:
    return code.function(node, [code.value(x, at) for x in node.inputs])


# Movement


@lowers("broadcast_to")
def broadcast_to(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    own = at[len(at) - x.ndim :]
    return code.value(x, tuple(ZERO if n == 1 else i for n, i in zip(x.shape, own, strict=True)))


@lowers("transpose")
def transpose(code: Lowering, node: Node, at: Indices) -> Value:
    axes = node.attrs["axes"]
    return code.value(node.inputs[0], tuple(at[axes.index(a)] for a in range(len(axes))))


def dense(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array that lies row by row."""
    return tuple(math.prod(shape[a + 1 :]) for a in range(len(shape)))


@lowers("reshape")
def reshape(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    rest = code.total(at, dense(node.outputs[0].shape))
    return code.value(x, unravelled(code, rest, x.shape))


def unravelled(code: Lowering, place: Index, shape: Sequence[int]) -> Indices:
    """The index of an element by its number, counted row by row."""
    indices = []
    for size in shape[:0:-1]:
        place, inner = code.divmod(place, max(size, 1))  # of no elements none is asked for
        indices.append(inner)
    return (*([place] if shape else []), *indices[::-1])


@lowers("flip")
def flip(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    mirrored = (code.times(i, -1).shifted(n - 1) for i, n in zip(at, x.shape, strict=True))
    return code.value(x, tuple(m if a in node.attrs["axes"] else at[a] for a, m in enumerate(mirrored)))


@lowers("slice")
def slice_(code: Lowering, node: Node, at: Indices) -> Value:
    bounds = node.attrs["index"]
    return code.value(
        node.inputs[0],
        tuple(code.times(i, step).shifted(start) for i, (start, _, step) in zip(at, bounds, strict=True)),
    )


@lowers("pad")
def pad(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    if not x.size:
        return zero(x)
    places, condition = [], None
    for i, n, size, before, interior in zip(
        at, x.shape, node.outputs[0].shape, node.attrs["low"], node.attrs["interior"], strict=True
    ):
        if n == size:
            places.append(i)
            continue
        place, inside = code.clamped(i.shifted(-before), n + (n - 1) * interior)
        condition = code.both(condition, inside)
        if interior:
            place, rest = code.divmod(place, interior + 1)
            number = code.integer(rest)
            condition = code.both(condition, code.text.compare("eq", number, const(0, "i64", number.lanes)))
        places.append(place)
    return code.either(condition, code.value(x, tuple(places)), zero(x))


def zero(x: Tensor) -> Value:
    return const(0, KINDS[x.dtype.name])


@lowers("concat")
def concat(code: Lowering, node: Node, at: Indices) -> Value:
    axis, end = node.attrs["axis"], node.outputs[0].shape[node.attrs["axis"]]
    result = None
    for x in reversed(node.inputs):
        end -= x.shape[axis]
        if not x.shape[axis]:
            continue
        place, inside = code.clamped(at[axis].shifted(-end), x.shape[axis])
        here = code.value(x, (*at[:axis], place, *at[axis + 1 :]))
        result = here if result is None else code.either(inside, here, result)
    return zero(node.outputs[0]) if result is None else result


@lowers("take")
def take(code: Lowering, node: Node, at: Indices) -> Value:
    x, numbers = node.inputs
    axis = node.attrs["axis"]
    place = wrapped(code, numbers, at[axis : axis + numbers.ndim], x.shape[axis])
    return code.value(x, (*at[:axis], place, *at[axis + numbers.ndim :]))


def wrapped(code: Lowering, numbers: Tensor, at: Indices, size: int) -> Index:
    """The index that stands in a tensor, negative ones counted from the end."""
    t, number = code.text, wide(code, numbers, code.value(numbers, at))
    if numbers.dtype.kind == "i":
        below = t.compare("slt", number, const(0, "i64", number.lanes))
        number = t.select(below, t.op("add nsw", number, const(size, "i64", number.lanes)), number)
    return held(code, number, size)


def held(code: Lowering, number: Value, size: int) -> Index:
    """A computed number as an index. One that points outside means some element, never memory of others."""
    first, last = (const(end, "i64", number.lanes) for end in (0, size - 1))
    return code.place_of(code.text.call("smax", code.text.call("smin", number, last), first), 0, size - 1)


def wide(code: Lowering, tensor: Tensor, number: Value) -> Value:
    if number.kind == "i64":
        return number
    return code.text.convert("sext" if tensor.dtype.kind == "i" else "zext", number, "i64")


# Reductions


def folded(
    code: Lowering, sizes: Sequence[int], term: Callable[[list[Index]], Value], start: Value, how: str, row: bool
) -> Value:
    """All `term(index)` over axes of these sizes put together, axis by axis, so that errors do not add up along all.

    row  whether the last axis may be walked with all lanes
    """
    t = code.text

    def level(indices: list[Index]) -> Value:
        axis = len(indices)
        if axis == len(sizes):
            return term(indices)
        if row and axis == len(sizes) - 1 and code.lanes == 1 and sizes[axis] >= 4:
            return lanes(indices)
        lane_count = code.lanes if code.lanes > 1 else 1
        total = t.variable(t.splat(start, lane_count))

        def step(i: Index) -> None:
            t.set(total, t.combine(how, t.get(total), t.splat(level([*indices, i]), lane_count)))

        code.loop(0, sizes[axis], sizes[axis], step)
        return t.get(total)

    def lanes(indices: list[Index]) -> Value:
        width = code.isa.lanes()
        total = t.variable(t.splat(start, width))

        def step(i: Index) -> None:
            x = t.splat(term([*indices, i]), width)
            x = x if code.mask is None else t.select(code.mask, x, t.splat(start, width))
            t.set(total, t.combine(how, t.get(total), x))

        code.lane_loop(0, sizes[-1], sizes[-1], step)
        return t.reduce(how, t.get(total))

    return level([])


def along(at: Indices, axes: Sequence[int], inner: Sequence[Index], ndim: int, keepdims: bool = False) -> Indices:
    """The index into what is reduced: `inner` along the axes, the output's own index along the others."""
    outer = iter(at)
    if keepdims:
        return tuple(inner[list(axes).index(a)] if a in axes else at[a] for a in range(ndim))
    return tuple(inner[list(axes).index(a)] if a in axes else next(outer) for a in range(ndim))


def lowest(dtype: np.dtype[Any]) -> Value:
    if dtype.kind == "b":
        return const(0, KINDS[dtype.name])
    value = -math.inf if dtype.kind == "f" else np.iinfo(dtype).min
    return const(value, KINDS[dtype.name])


@lowers("sum")
def sum_(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    axes = node.attrs["axes"]
    return folded(
        code,
        [x.shape[a] for a in axes],
        lambda inner: code.value(x, along(at, axes, inner, x.ndim)),
        zero(x),
        "add",
        x.ndim - 1 in axes,
    )


@lowers("max")
def max_(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    axes, keepdims = node.attrs["axes"], node.attrs["keepdims"]
    how = "maximum" if x.is_floating else "umax" if x.dtype.kind in "ub" else "smax"
    return folded(
        code,
        [x.shape[a] for a in axes],
        lambda inner: code.value(x, along(at, axes, inner, x.ndim, keepdims)),
        lowest(x.dtype),
        how,
        x.ndim - 1 in axes,
    )


def beats(code: Lowering, x: Value, best: Value, unsigned: bool = False) -> Value:
    """Whether x wins against the best so far: by being larger, or as the first NaN."""
    t = code.text
    if not x.is_float:
        return t.compare("ugt" if unsigned else "sgt", x, best)
    # Unordered or greater: also if either is NaN, which only x may be.
    return t.op("and", t.compare("ugt", x, best), t.compare("ord", best, best))


@lowers("argmax")
def argmax(code: Lowering, node: Node, at: Indices) -> Value:
    (x,) = node.inputs
    axis, t = node.attrs["axis"], code.text
    lanes = code.lanes
    best = t.variable(t.splat(code.value(x, (*at[:axis], ZERO, *at[axis:])), lanes))
    place = t.variable(const(0, "i64", lanes))

    def step(i: Index) -> None:
        here = t.splat(code.value(x, (*at[:axis], i, *at[axis:])), lanes)
        wins = beats(code, here, t.get(best), x.dtype.kind in "ub")
        t.set(best, t.select(wins, here, t.get(best)))
        t.set(place, t.select(wins, t.splat(code.integer(i), lanes), t.get(place)))

    code.loop(1, x.shape[axis], x.shape[axis], step)
    return t.get(place)


@lowers("uniform")
def uniform(code: Lowering, node: Node, at: Indices) -> Value:
    (state,) = node.inputs
    words = [code.value(state, (Index(i),)) for i in range(3)]
    position = code.integer(code.total(at, dense(node.outputs[0].shape)))
    return philox.uniform(code.text, words, position, KINDS[node.outputs[0].dtype.name])
