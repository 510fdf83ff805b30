"""Copying B into the order in which the tile reads it: [outer][block of lanes][reduce][lanes], maybe in pairs.

The last block of lanes is filled up with zeros.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from juanji.kernels.contraction import BATCH, Contraction, Dim, merged
from juanji.kernels.schedule import columns
from juanji.kernels.text import Int, Text, Value, const, kernel_text


@dataclass(frozen=True)
class Packing:
    """The packed B of a contraction. The kernel's slots: B as it lies, and where it goes, of `size(batch)` elements.

    source   the contraction as it is given
    width    lanes of a vector
    vectors  vectors of a block of lanes
    """

    source: Contraction
    width: int
    vectors: int

    @property
    def block(self) -> int:
        """Lanes of a block."""
        return self.width * self.vectors

    @property
    def blocks(self) -> int:
        return -(-self.source.lanes.size // self.block)

    @property
    def panel(self) -> int:
        """Elements of a block of lanes."""
        return math.prod(d.size for d in self.summed) * self.block

    @property
    def summed(self) -> tuple[Dim, ...]:
        """The dimensions of the sum that B moves with."""
        return tuple(d for d in self.source.reduce if d.b)

    @property
    def outer(self) -> tuple[Dim, ...]:
        """The outer dimensions that B moves with."""
        return tuple(d for d in self.source.outer if d.b)

    def panels(self, batch: int = 1) -> int:
        return math.prod(batch if d.size == BATCH else d.size for d in self.outer) * self.blocks

    def size(self, batch: int = 1) -> int:
        """Elements of the packed B. The batch matters only where B moves with it."""
        return self.panels(batch) * self.panel

    @property
    def contraction(self) -> Contraction:
        """The contraction with the packed B."""
        outer = iter(packed_steps(self.outer, self.blocks * self.panel))
        reduce = iter(packed_steps(self.summed, self.block))
        return replace(
            self.source,
            outer=tuple(replace(d, b=next(outer)) if d.b else d for d in self.source.outer),
            lanes=replace(self.source.lanes, b=1),
            shared=self.source.shared and replace(self.source.shared, b=self.source.shared.size),
            reduce=tuple(replace(d, b=next(reduce)) if d.b else d for d in self.source.reduce),
            b0=0,
            stored=(self.source.stored[0], "", self.source.stored[2]),
            halves=0,
        )

    @property
    def reduce(self) -> tuple[Dim, ...]:
        """The reduction as B alone sees it; a c is where the packed one goes."""
        steps = packed_steps(self.summed, self.block)
        dims = merged([Dim(d.size, 0, d.b, c) for d, c in zip(self.summed, steps, strict=True)])
        return dims if dims else (Dim(1, 0, 1, self.block),)

    def tasks(self, batch: int = 1) -> int:
        return self.panels(batch) * (self.reduce[0].size if len(self.reduce) > 1 else 1)

    @property
    def text(self) -> str:
        return PackingText(self).text()


class PackingText:
    """What writes the text of a packing."""

    def __init__(self, packing: Packing) -> None:
        self.packing, self.source = packing, packing.source
        source = packing.source
        self.kind, self.width = "i32" if source.pair else source.kind, packing.width
        self.from_kind = (source.stored[1] or source.kind) if source.halves else source.kinds[1]
        self.together = self.width // 2 if source.halves else self.width  # steps of a square
        self.t = kernel_text()

    def text(self) -> str:
        t = self.t
        self.b, self.c = t.at(t.slot(0), self.source.b0, self.from_kind), t.slot(1)
        t.loop(t.argument("lo"), t.argument("hi"), self.task)
        return str(t)

    def task(self, number: Int) -> None:
        """One step of the outermost reduction of one block of lanes."""
        t, packing = self.t, self.packing
        dims = packing.reduce
        number, step = t.divmod(number, dims[0].size) if len(dims) > 1 else (number, 0)
        outer, block = t.divmod(number, packing.blocks)
        c = t.at(self.c, t.mul(number, packing.panel), self.kind)
        b = t.at(self.b, t.mul(block, self.source.lanes_b(packing.block)), self.from_kind)
        for d in reversed(packing.outer):
            outer, i = (0, outer) if d is packing.outer[0] else t.divmod(outer, d.size)
            b = t.at(b, t.mul(i, d.b), self.from_kind)
        b, c = self.moved(b, c, step, dims[0])
        for run, tail in columns(self.source.lanes.size, self.width, packing.vectors):
            low, high = t.maximum(block, run.first), t.minimum(t.add(block, 1), t.add(run.first, run.count))

            def one(_: Int, vectors: int = run.size, tail: int = tail) -> None:
                self.steps(b, c, dims[1:] if len(dims) > 1 else dims, vectors, tail)

            t.loop(low, high, one)

    def moved(self, b: Value, c: Value, i: Int, d: Dim) -> tuple[Value, Value]:
        t = self.t
        return t.at(b, t.mul(i, d.b), self.from_kind), t.at(c, t.mul(i, d.c), self.kind)

    def steps(self, b: Value, c: Value, dims: Sequence[Dim], vectors: int, tail: int) -> None:
        """The steps of the reduction, along its last dimension as many at once as a vector has lanes."""
        t, (d, *rest) = self.t, dims
        if rest:
            t.loop(0, d.size, lambda i: self.steps(*self.moved(b, c, i, d), rest, vectors, tail))
            return
        whole = d.size - d.size % self.together
        for low, high in ((0, whole), (whole, d.size)):
            count = min(self.together, high - low)

            def one(i: Int, count: int = count) -> None:
                self.block(*self.moved(b, c, i, d), d, count, vectors, tail)

            t.loop(low, high, one, self.together)

    def block(self, b: Value, c: Value, d: Dim, steps: int, vectors: int, tail: int) -> None:
        """A few steps by a block of lanes."""
        full = vectors if tail == self.width else vectors - 1
        self.t.loop(0, full, lambda v: self.column(b, c, d, steps, v, self.width))
        if full < vectors:
            self.column(b, c, d, steps, full, tail)
        for v in range(vectors, self.packing.vectors):
            self.column(b, c, d, steps, v, 0)

    def column(self, b: Value, c: Value, d: Dim, steps: int, v: Int, lanes: int) -> None:
        """A few steps by vector v, which has so many lanes of B; the others are zero."""
        t, width = self.t, self.width
        there = t.at(b, t.mul(v, self.source.lanes_b(width)), self.from_kind)
        found = self.vectors(there, d, steps, lanes) if lanes else [const(0, self.kind, width)] * steps
        for i, x in enumerate(found):
            t.store(x, t.at(t.at(c, t.mul(v, width), self.kind), i * d.c, self.kind))

    def vectors(self, b: Value, d: Dim, steps: int, lanes: int) -> list[Value]:
        """One vector of lanes for each step, or of words for each pair; those of lanes that there are not are zero."""
        t, width, apart = self.t, self.width, self.source.lanes.b
        if step := self.source.halves:
            together = steps if d.b == 2 * step else 1
            starts = [t.at(b, i * d.b, self.from_kind) for i in range(0, steps, together)]
            found = [square(t, at, self.from_kind, width, (2 * together, step), (lanes, apart)) for at in starts]
            return [paired(t, *some[i : i + 2]) for some in found for i in range(0, 2 * together, 2)]
        if not self.source.shared:
            return square(t, b, self.from_kind, width, (steps, d.b), (lanes, apart))
        mask, size = None if lanes == width else t.first(lanes, width), self.source.shared.size
        places = t.numbers(self.source.lanes_b(lane) + lane % size * apart for lane in range(width))
        return [t.gather(t.at(b, i * d.b, self.from_kind), places, self.from_kind, mask) for i in range(steps)]


def square(t: Text, b: Value, kind: str, width: int, steps: tuple[int, int], lanes: tuple[int, int]) -> list[Value]:
    """One vector of lanes for each step, of steps and lanes given as (how many, how far apart); those of lanes that
    there are not are zero."""
    (count, step), (there, apart) = steps, lanes
    mask = None if there == width else t.first(there, width)
    if apart == 1:
        return [t.load(t.at(b, i * step, kind), kind, width, mask) for i in range(count)]
    if step == 1:
        along = None if count == width else t.first(count, width)
        rows = [t.load(t.at(b, i * apart, kind), kind, width, along) for i in range(there)]
        zeros = [Value("zeroinitializer", rows[0].kind, width)] * (width - there)
        return transposed(t, [*rows, *zeros])[:count]
    offsets = t.op("mul", t.iota(width), const(apart, "i64", width))
    return [t.gather(t.at(b, i * step, kind), offsets, kind, mask) for i in range(count)]


def paired(t: Text, x: Value, y: Value) -> Value:
    """Two vectors of floats as one of words: x in the lower halves, y in the upper ones, in bfloat16."""
    halves = (
        t.value(f"bitcast {t.kept(each, 'bfloat')} to <{each.lanes} x i16>", "i16", each.lanes) for each in (x, y)
    )
    low, high = (t.convert("zext", half, "i32") for half in halves)
    return t.op("or", low, t.op("shl", high, const(16, "i32", high.lanes)))


def packed_steps(dims: Sequence[Dim], innermost: int) -> list[int]:
    """How far dimensions are apart when they follow each other closely."""
    return [innermost * math.prod(d.size for d in dims[i + 1 :]) for i in range(len(dims))]


def transposed(t: Text, rows: Sequence[Value]) -> list[Value]:
    """A square transposed: log₂ n perfect shuffles of its rows, which are interleaved in pairs half a square apart."""
    n = len(rows)
    low = [i // 2 + (i % 2) * n for i in range(n)]
    result = list(rows)
    for _ in range(n.bit_length() - 1):
        pairs = zip(result[: n // 2], result[n // 2 :], strict=True)
        result = [interleaved(t, x, y, [i + start for i in low]) for x, y in pairs for start in (0, n // 2)]
    return result


def interleaved(t: Text, x: Value, y: Value, lanes: Sequence[int]) -> Value:
    places = ", ".join(f"i32 {i}" for i in lanes)
    return t.value(f"shufflevector {x}, {y}, <{len(lanes)} x i32> <{places}>", x.kind, len(lanes))
