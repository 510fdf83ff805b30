"""Other ways of writing a contraction whose lanes are so few that most of a vector would be idle.

Pixels as lanes: T neighbouring pixels of the output share a vector, lane (t, channel). The tap that meets the first
of them as number s meets the others as s − t·step, so there are a few more taps, and B is written out with zeros.
A weight gradient takes T pixels of the sum at once; T partial results, whose taps are shifted, are added up later.

Groups as lanes: channels of several small groups share a vector. A lane of A is the number that its group has for a
step of the sum, picked from one vector of all their channels.

Added up in memory: taps and channels of a gradient by the input are lanes. An image of it is scratch memory on the
stack, read and written once a tap, and copied to C in the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from juanji.kernels.contraction import Contraction, Dim, Scattered
from juanji.kernels.schedule import Run, taken
from juanji.kernels.text import Text, Value, const, kernel_text
from juanji.kernels.tile import Epilogue, Place

MOST = 4  # pixels that share a vector
WORTHWHILE = 0.9  # of the products, or fewer, have to be left to leave the others out


@dataclass(frozen=True)
class Form:
    """A contraction and how it came about.

    pixels  that share a vector, each with so many `lanes`; taps are shifted by `step` from each to the next
    pack    what writes B as the contraction reads it
    apart   how far the partial results of a weight gradient's pixels lie apart
    scratch the memory in which it is added up
    """

    contraction: Contraction
    note: str = ""
    pixels: int = 1
    lanes: int = 0
    pack: SpreadPacking | None = None
    apart: int = 0
    scratch: Scattered | None = None


def each_pixel(form: Form, epilogue: Epilogue) -> Epilogue:
    """An epilogue that is called for each pixel of a vector."""

    def store(t: Text, place: Place, sums: Value, _: Value | None) -> None:
        last = form.pixels * form.lanes - 1
        for pixel in range(form.pixels):
            start = pixel * form.lanes
            own = t.shuffle(sums, [min(start + i, last) for i in range(sums.lanes)])
            rows = (*place.rows[:-1], t.add(t.mul(place.rows[-1], form.pixels), pixel))
            at = Place(place.outer, rows, place.lane, t.add(place.offset, start))
            epilogue(t, at, own, t.first(form.lanes, sums.lanes))

    return store


def forms(given: Contraction, width: int) -> Iterator[Form]:
    """All forms of a contraction, itself first."""
    for base, note in ((given, "zeros left out"), (replace(given, windows=()), "")):
        if note and inside(base.upward()) >= WORTHWHILE:
            continue
        yield Form(base.upward(), note)
        if pairs := base.upward().paired():
            yield Form(pairs, ", ".join(filter(None, ["in bfloat16", note])))
    given = replace(given, windows=())
    if given.scattered:
        one = given.scattered.contraction
        moved = replace(one, a0=given.a0 + one.a0, b0=given.b0 + one.b0, stored=(*given.stored[:2], ""))
        yield Form(moved, "added up in memory", scratch=given.scattered)
    if form := group_lanes(given.upward(), width):
        yield form
    for pixels in range(2, 1 + min(MOST, width // given.lanes.size)):
        form = (pixel_sums if given.sums_batch else pixel_lanes)(given.upward(), pixels, width)
        if form:
            yield form


def inside(given: Contraction) -> float:
    """The part of the products in which A is not known to be zero."""
    shares = (taken(given, w, Run(0, given.rows[w.row].size, 0, 1)) for w in given.windows)
    return math.prod(shares)


def group_lanes(given: Contraction, width: int) -> Form | None:
    """The groups of a convolution with as many inputs as outputs in vectors that hold several of them."""
    size = given.lanes.size
    if len(given.outer) != 2 or not given.reduce or given.sums_batch or not 1 < size < width or width % size:
        return None
    images, groups = given.outer
    last = given.reduce[-1]
    if groups.size == 1 or (groups.a, groups.c, last.a, last.size) != (size, size, 1, size):
        return None
    lanes = replace(given.lanes, size=groups.size * size, a=1)
    contraction = replace(given, outer=(images,), lanes=lanes, shared=Dim(size, b=groups.b))
    return Form(contraction, f"{width // size} groups as lanes")


def tap_axis(taps: tuple[Dim, ...], pixel: Dim) -> int | None:
    """The dimension of taps that lies along a dimension of pixels."""
    found = [i for i, d in enumerate(taps) if d.a > 0 and pixel.a % d.a == 0 and pixel.a > 0]
    return max(found, key=lambda i: taps[i].a, default=None)


def pixel_lanes(given: Contraction, pixels: int, width: int) -> Form | None:
    """Neighbouring pixels of an output as lanes of one vector."""
    if not given.rows or given.lanes.a:
        return None
    *rows, last = given.rows
    axis = tap_axis(given.reduce, last)
    if axis is None or last.c != given.lanes.size or last.size <= 0 or last.size % pixels:
        return None
    if any(d.b and d.size != 1 for d in given.outer) or math.prod(d.size for d in given.reduce) == 0:
        return None
    step = last.a // given.reduce[axis].a
    pack = SpreadPacking(given, pixels, axis, step, width)
    lanes = given.lanes.size
    contraction = replace(
        given,
        rows=(*rows, Dim(last.size // pixels, last.a * pixels, 0, last.c * pixels)),
        lanes=Dim(lanes * pixels, 0, 1, 1),
        reduce=pack.reduce,
        b0=0,
        stored=(given.stored[0], "", given.stored[2]),
    )
    return Form(contraction, f"{pixels} pixels as lanes", pixels, lanes, pack)


def pixel_sums(given: Contraction, pixels: int, width: int) -> Form | None:
    """Neighbouring pixels of a sum as lanes of one vector, each with a result of its own."""
    if not given.rows or given.lanes.a or any(d.size != 1 for d in given.outer):
        return None
    *reduce, last = given.reduce
    axis, lanes = tap_axis(given.rows, last), given.lanes.size
    if axis is None or last.b != lanes or last.size <= 0 or last.size % pixels:
        return None
    step = last.a // given.rows[axis].a
    sizes = [d.size + (step * (pixels - 1) if i == axis else 0) for i, d in enumerate(given.rows)]
    steps = [lanes * pixels * math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    rows = tuple(replace(d, size=n, c=c) for d, n, c in zip(given.rows, sizes, steps, strict=True))
    contraction = replace(
        given,
        rows=rows,
        lanes=Dim(lanes * pixels, 0, 1, 1),
        reduce=(*reduce, Dim(last.size // pixels, last.a * pixels, last.b * pixels)),
        c0=0,
    )
    return Form(contraction, f"{pixels} pixels as lanes", pixels, lanes, None, step * steps[axis] + lanes)


@dataclass(frozen=True)
class SpreadPacking:
    """B written out for several pixels: at tap s, lane (t, l) stands what B has at tap s − t·step, lane l, or zero.

    source  the contraction of one pixel a lane
    axis    which of its sums runs over the taps
    """

    source: Contraction
    pixels: int
    axis: int
    step: int
    width: int

    @property
    def reduce(self) -> tuple[Dim, ...]:
        """The sums over taps, with the steps of the packed B."""
        dims = self.source.reduce
        sizes = [d.size + (self.step * (self.pixels - 1) if i == self.axis else 0) for i, d in enumerate(dims)]
        steps = [self.width * math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
        return tuple(replace(d, size=n, b=b) for d, n, b in zip(dims, sizes, steps, strict=True))

    @property
    def panel(self) -> int:
        return self.width * math.prod(d.size for d in self.reduce)

    def size(self, batch: int = 1) -> int:
        """Elements of the packed B, whatever the batch."""
        return self.panel

    def tasks(self, batch: int = 1) -> int:
        return 1

    @property
    def text(self) -> str:
        """The kernel's slots: B as it lies, and where it goes."""
        t, kind, width = kernel_text(), self.source.kind, self.width
        b, c = t.at(t.slot(0), self.source.b0, self.source.kinds[1]), t.slot(1)

        def everything(_: object) -> None:
            zero = Value("zeroinitializer", kind, width)
            t.loop(0, self.panel, lambda i: t.store(zero, t.at(c, i, kind)), width)
            for pixel in range(self.pixels):
                ahead = pixel * (self.step * self.reduce[self.axis].b + self.source.lanes.size)
                self.copy(t, b, t.at(c, ahead, kind), list(zip(self.source.reduce, self.reduce, strict=True)))

        t.loop(t.argument("lo"), t.argument("hi"), everything)
        return str(t)

    def copy(self, t: Text, b: Value, c: Value, dims: list[tuple[Dim, Dim]]) -> None:
        """The taps of one pixel."""
        kind, b_kind, lanes = self.source.kind, self.source.kinds[1], self.source.lanes
        if dims:
            (d, packed), *rest = dims
            t.loop(
                0,
                d.size,
                lambda i: self.copy(t, t.at(b, t.mul(i, d.b), b_kind), t.at(c, t.mul(i, packed.b), kind), rest),
            )
            return
        mask = t.first(lanes.size, self.width)
        offsets = t.op("mul", t.iota(self.width), const(lanes.b, "i64", self.width))
        t.store(t.gather(b, offsets, b_kind, mask), c, mask)
