"""The one tile: a box of rows by a few vectors of lanes, whose sums stay in registers while products are added."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from juanji.kernels.contraction import Contraction, Dim
from juanji.kernels.isa import ISA
from juanji.kernels.schedule import written
from juanji.kernels.text import Int, Text, Value, const

Steps = list[tuple[int, int]]  # how far they are in A and in B
Bounds = tuple[Int, Int]


# LLVM may not load what follows before what precedes: it would, and then keep sums on the stack for want of registers.
NOT_BEFORE = 'call void asm sideeffect "", ""()'


@dataclass(frozen=True)
class Cursor:
    """The addresses in A, B and C that belong together, and the kinds of what lies there."""

    a: Value
    b: Value
    c: Value
    kinds: tuple[str, ...]

    def moved(self, t: Text, i: Int, d: Dim) -> Cursor:
        """One that is i elements of the dimension further."""
        parts = zip((self.a, self.b, self.c), (d.a, d.b, d.c), self.kinds, strict=True)
        a, b, c = (t.at(pointer, t.mul(i, step), kind) for pointer, step, kind in parts)
        return Cursor(a, b, c, self.kinds)


@dataclass(frozen=True)
class Place:
    """Where a finished vector belongs: its indices, and how far behind C's address it lies, in elements."""

    outer: tuple[Int, ...]
    rows: tuple[Int, ...]
    lane: Int
    offset: Int


Epilogue = Callable[[Text, Place, Value, Value | None], None]


@dataclass
class Tile:
    """A tile.

    box      its rows along each dimension of rows
    vectors  its vectors of lanes
    mask     the lanes that there are of the last vector; None for all
    mask_b   the same for B, which may be filled up
    """

    t: Text
    contraction: Contraction
    box: Sequence[int]
    vectors: int
    isa: ISA
    mask: Value | None
    mask_b: Value | None

    def __post_init__(self) -> None:
        self.width, self.kinds = self.isa.lanes(self.contraction.kind), self.contraction.kinds
        self.places = list(itertools.product(*map(range, self.box)))
        self.a_rows, self.c_rows = (self.contraction.offsets(self.box, side) for side in "ac")
        self.lanes = [self.width * v for v in range(self.vectors)]
        self.begin()

    def begin(self) -> None:
        """Have the sums, which are zero."""
        zero = Value("zeroinitializer", self.contraction.kind, self.width)
        self.sums = [[self.t.variable(zero) for _ in self.lanes] for _ in self.places]

    def masked(self, lane: int) -> Value | None:
        return self.mask if lane == self.lanes[-1] else None

    def load(self, pointer: Value, offset: int, lane: int, kind: str) -> Value:
        return self.t.load(self.t.at(pointer, offset + lane, kind), kind, self.width, self.masked(lane))

    def resume(self, c: Value) -> None:
        """Take up the sums where C has them."""
        for row, sums in zip(self.c_rows, self.sums, strict=True):
            for lane, variable in zip(self.lanes, sums, strict=True):
                self.t.set(variable, self.load(c, row, lane, self.kinds[2]))

    def add(self, at: Cursor, bounds: Sequence[Bounds]) -> None:
        """Add the products of the reduction within the bounds: loops, and inside them what is written out."""
        depth, stride, steps = written(self.contraction, self.a_rows, self.vectors, self.isa)
        self.loops(at, list(zip(self.contraction.reduce, bounds, strict=True))[:depth], stride, steps)

    def loops(self, at: Cursor, dims: Sequence[tuple[Dim, Bounds]], stride: int, steps: Steps) -> None:
        t = self.t
        if not dims:
            self.multiply(at, steps)
            return
        (d, (low, high)), *rest = dims
        step = Dim(0, d.a, d.b)
        if not rest and stride > 1 and isinstance(low, int) and isinstance(high, int):
            rounded = high - (high - low) % stride
            t.loop(low, rounded, lambda i: self.multiply(at.moved(t, i, step), steps), stride)
            self.multiply(at.moved(t, rounded, step), steps[: high - rounded])
            return
        t.loop(low, high, lambda i: self.loops(at.moved(t, i, step), rest, stride, steps))

    def multiply(self, at: Cursor, steps: Steps) -> None:
        """Some steps of the reduction in turn, or, where they share elements of A, in the order of those."""
        t, a, columns = self.t, self.contraction.lanes.a, dict[int, list[Value]]()
        uses = [(row + step, b, sums) for step, b in steps for row, sums in zip(self.a_rows, self.sums, strict=True)]
        if len({place for place, _, _ in uses}) < len(uses):
            uses.sort(key=lambda use: use[0])
        for place, group in itertools.groupby(uses, key=lambda use: use[0]):
            numbers = [self.vector(at.a, place, lane) for lane in self.lanes] if a else self.number(at.a, place)
            for _, b, sums in group:
                if b not in columns:
                    t.line(NOT_BEFORE)
                    columns[b] = [self.column(at.b, b, lane) for lane in self.lanes]
                for x, column, variable in zip(numbers, columns[b], sums, strict=True):
                    t.set(variable, self.product(x, column, t.get(variable)))

    def product(self, x: Value, y: Value, total: Value) -> Value:
        """x·y + total in each lane; of words, the products of both numbers."""
        return pair_product(self.t, x, y, total) if self.contraction.pair else self.t.fma(x, y, total)

    def vector(self, a: Value, offset: int, lane: int) -> Value:
        """A in each lane: what lies there or, for groups of lanes that share it, what lies there for each group."""
        if not (shared := self.contraction.shared):
            return self.load(a, offset, lane, self.kinds[0])
        self.t.line(NOT_BEFORE)
        step = offset % shared.size
        x = self.load(a, offset - step, lane, self.kinds[0])
        return self.t.shuffle(x, [i - i % shared.size + step for i in range(self.width)])

    def number(self, a: Value, offset: int) -> list[Value]:
        """One element of A in all lanes, for each vector."""
        t, kind = self.t, self.kinds[0]
        return [t.splat(t.load(t.at(a, offset, kind), kind), self.width)] * self.vectors

    def column(self, b: Value, offset: int, lane: int) -> Value:
        t, kind, step = self.t, self.kinds[1], self.contraction.lanes.b
        mask = self.mask_b if lane == self.lanes[-1] else None
        if step == 1 or self.contraction.lanes.size == 1:
            return t.load(t.at(b, offset + lane, kind), kind, self.width, mask)
        offsets = t.op("mul", t.iota(self.width), const(step, "i64", self.width))
        return t.gather(t.at(b, offset + lane * step, kind), offsets, kind, mask)

    def finish(
        self, c: Value, outer: tuple[Int, ...], starts: tuple[Int, ...], lane: Int, store: Epilogue | None
    ) -> None:
        """Store the sums at C, or hand them to the epilogue."""
        t = self.t
        for number, (place, row) in enumerate(zip(self.places, self.c_rows, strict=True)):
            for start in self.lanes:
                total = self.total(number, start)
                if store is None:
                    kind = self.kinds[2]
                    t.store(total, t.at(c, row + start, kind), self.masked(start), kind)
                    continue
                rows = tuple(t.add(i, n) for i, n in zip(starts, place, strict=True))
                first = t.add(lane, start)
                at = Place(outer, rows, first, place_in_c(t, self.contraction, outer, rows, first))
                store(t, at, total, self.masked(start))

    def total(self, row: int, lane: int) -> Value:
        """The sums of a row from a lane on."""
        return self.t.get(self.sums[row][lane // self.width])


def place_in_c(t: Text, contraction: Contraction, outer: tuple[Int, ...], rows: tuple[Int, ...], lane: Int) -> Int:
    """How far behind C's address an element lies."""
    total = t.add(contraction.c0, lane)
    for i, d in zip((*outer, *rows), (*contraction.outer, *contraction.rows), strict=False):
        total = t.add(total, t.mul(i, d.c))
    return total


def pair_product(t: Text, x: Value, y: Value, total: Value) -> Value:
    """Both products of the numbers in bfloat16 that each lane's words hold, added to a total in float32."""
    lanes = total.lanes
    x, y = (t.value(f"bitcast {word} to <{2 * lanes} x bfloat>", "bfloat", 2 * lanes) for word in (x, y))
    return t.call(f"x86.avx512bf16.dpbf16ps.{32 * lanes}", total, x, y, suffix="")
