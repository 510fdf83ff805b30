"""Operators whose elements depend on each other or on where others are sent: kernels of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from juanji.graph import PRIMITIVES, Node
from juanji.kernels.elements import held, unravelled, wide, wrapped, zero
from juanji.kernels.fused import Code, split
from juanji.kernels.lowering import Index, Indices, Lowering
from juanji.kernels.machine import Kernel
from juanji.kernels.text import Value
from juanji.tensor import Tensor

Rule = Callable[[Lowering, Node], Code]


def lowers(name: str) -> Callable[[Rule], Rule]:
    def wrap(rule: Rule) -> Rule:
        PRIMITIVES[name].lower["kernel"] = rule
        return rule

    return wrap


def tasks(code: Lowering, sizes: Sequence[int], body: Callable[[list[Index]], None]) -> Code:
    """A kernel whose tasks are the indices into `sizes`."""
    extent, t = math.prod(sizes), code.text
    code.loop(t.argument("lo"), t.argument("hi"), extent, lambda i: body(split(code, i, sizes)))
    return Code(Kernel.of(str(t), code.isa), tuple(code.slots), extent, 1)


def each(code: Lowering, sizes: Sequence[int], body: Callable[[Indices], None], lanes: bool = False) -> None:
    """`body(index)` for every index into `sizes`, one after the other, or along the last axis with all lanes."""

    def level(done: Indices) -> None:
        if len(done) == len(sizes):
            body(done)
            return
        size, last = sizes[len(done)], len(done) == len(sizes) - 1
        if last and lanes:
            code.lane_loop(0, size, size, lambda i: level((*done, i)))
        else:
            code.loop(0, size, size, lambda i: level((*done, i)))

    level(())


def add_to(code: Lowering, y: Tensor, at: Indices, x: Value) -> None:
    """y[at] += x, in memory."""
    code.store(y, at, code.text.combine("add", code.load(y, at), x))


@lowers("cumsum")
def cumsum(code: Lowering, node: Node) -> Code:
    """Running sums: one task for each row along the axis."""
    (x,), (y,) = node.inputs, node.outputs
    axis, t = node.attrs["axis"], code.text
    others = x.shape[:axis] + x.shape[axis + 1 :]

    def row(at: list[Index]) -> None:
        total = t.variable(zero(x))

        def step(i: Index) -> None:
            here = (*at[:axis], i, *at[axis:])
            t.set(total, t.combine("add", t.get(total), code.value(x, here)))
            code.store(y, here, t.get(total))

        code.loop(0, x.shape[axis], x.shape[axis], step)

    return tasks(code, others, row)


@lowers("scatter")
def scatter(code: Lowering, node: Node) -> Code:
    """Slices added up where an index says: one task for everything before the axis, lanes along what is behind it."""
    (g, numbers), (y,) = node.inputs, node.outputs
    axis, size = node.attrs["axis"], node.attrs["size"]
    before, behind = y.shape[:axis], y.shape[axis + 1 :]

    def part(first: list[Index]) -> None:
        each(code, (size, *behind), lambda at: code.store(y, (*first, *at), zero(y)), lanes=bool(behind))

        def add(at: Indices) -> None:
            with code.scope():
                place = wrapped(code, numbers, at, size)
                each(code, behind, lambda rest: move(at, place, rest), lanes=True)

        def move(at: Indices, place: Index, rest: Indices) -> None:
            add_to(code, y, (*first, place, *rest), code.value(g, (*first, *at, *rest)))

        each(code, numbers.shape, add)

    return tasks(code, before, part)


@lowers("window_scatter")
def window_scatter(code: Lowering, node: Node) -> Code:
    """Numbers sent to their places in each image: one task for an image, lanes along the channels."""
    (g, places), (y,) = node.inputs, node.outputs

    def image(first: list[Index]) -> None:
        (n,) = first
        each(code, y.shape[1:], lambda at: code.store(y, (n, *at), zero(y)), lanes=True)

        def send(at: Indices) -> None:
            number = wide(code, places, code.value(places, (n, *at)))
            place = held(code, number, math.prod(y.shape[1:-1]))
            add_to(code, y, (n, *unravelled(code, place, y.shape[1:-1]), at[-1]), code.value(g, (n, *at)))

        each(code, g.shape[1:], send, lanes=True)

    return tasks(code, y.shape[:1], image)
