"""Images in bfloat16 two by two in words, for sums over images: what a word holds are the same number of both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from juanji.kernels import matrices
from juanji.kernels.contraction import BATCH, Contraction, Dim
from juanji.kernels.isa import ISA
from juanji.kernels.packing import transposed
from juanji.kernels.text import Int, Text, Value, const, index, kernel_text

LINE = 16  # words


def apart(contraction: Contraction) -> bool:
    """Whether a sum runs over what lies one after the other in both operands."""
    if not contraction.reduce:
        return False
    images = contraction.reduce[0]
    return all(1 + sum(map(abs, spans(contraction, side))) <= getattr(images, side) for side in "ab")


@dataclass(frozen=True)
class Words:
    """The images of both operands of a contraction in words.

    plane  what A is, if its pixels are put side by side along the last sum, as matrices want them
    """

    given: Contraction
    plane: Plane | None = None

    @classmethod
    def options(cls, given: Contraction, isa: ISA) -> list[Words]:
        """All ways of putting them into words."""
        plain = cls(given)
        plane = Plane.of(plain.contraction) if isa.matrices else None
        turned = cls(given, plane)
        return [plain, turned] if plane and matrices.step(turned.contraction) else [plain]

    @functools.cached_property
    def contraction(self) -> Contraction:
        """The contraction of words."""
        images, *pixels = self.given.reduce
        a, b = (extent(self.given, side) for side in "ab")
        pairs = replace(
            self.given,
            reduce=(Dim(BATCH if images.size == BATCH else -(-images.size // 2), a, b), *pixels),
            a0=self.given.a0 - lowest(self.given, "a"),
            b0=self.given.b0 - lowest(self.given, "b"),
            stored=("", "", self.given.stored[2]),
            pair=True,
            windows=(),
        )
        return self.plane.turned(pairs) if self.plane else pairs

    def size(self, side: str) -> int:
        """Words of a pair of images."""
        return int(getattr(self.contraction.reduce[0], side))

    @property
    def cycles(self) -> float:
        """What putting a pair of images into words takes; to turn a square of them is 64 shuffles."""
        sizes = [extent(self.given, side) for side in "ab"]
        turning = 4 * -(-self.plane.channels // LINE) * LINE / self.plane.channels if self.plane else 2
        return (turning * sizes[0] + 2 * sizes[1]) / LINE

    def text(self, isa: ISA, side: str) -> str:
        """The kernel that puts the images of an operand into words; a task is a pair. Its slots: the images, the words,
        and how many images there are."""
        t, plane = kernel_text(isa.fused), self.plane if side == "a" else None
        first, step = lowest(self.given, side), getattr(self.given.reduce[0], side)
        x, words, batch = t.at(t.slot(0), first, "i16"), t.slot(1), t.slot(2, "i64")

        def task(pair: Int) -> None:
            image, to = t.mul(pair, 2), t.at(words, t.mul(pair, self.size(side)), "i32")
            there = t.splat(t.compare("slt", index(t.add(image, 1)), batch), isa.lanes())
            images = Images(t, isa.lanes(), t.at(x, t.mul(image, step), "i16"), step, there)
            images.turn(plane, to) if plane else images.copy(self.size(side), to)

        t.loop(t.argument("lo"), t.argument("hi"), task)
        return str(t)


@dataclass(frozen=True)
class Plane:
    """An operand that consists of so many rows of pixels of channels; pixels lie `pitch` and rows `length` apart.

    Turned, each channel of a row has its pixels side by side.
    """

    rows: int
    pixels: int
    channels: int
    pitch: int
    length: int

    @property
    def width(self) -> int:
        return -(-self.pixels // LINE) * LINE

    @property
    def size(self) -> int:
        """Elements of it, turned."""
        return self.rows * self.channels * self.width

    @classmethod
    def of(cls, problem: Contraction) -> Plane | None:
        """What A is in each image, where the sum runs over rows and then over neighbouring pixels of them."""
        if problem.lanes.a or len(problem.reduce) < 3:
            return None
        dims = [d for d in (*problem.outer, *problem.rows, *problem.reduce[1:]) if d.size != 1]
        length, pitch = (d.a for d in problem.reduce[-2:])
        if pitch < 2 or length % pitch or any(d.a < 0 for d in dims):
            return None

        def reach(low: int, high: int) -> int:
            return sum((d.size - 1) * d.a for d in dims if low <= d.a < high)

        whole = all(d.a < pitch or d.a % (length if d.a >= length else pitch) == 0 for d in dims)
        if not whole or reach(0, pitch) >= pitch or reach(0, length) >= length:
            return None
        rows, pixels = reach(length, 1 << 62) // length, reach(pitch, length) // pitch
        return cls(1 + rows, 1 + pixels, 1 + reach(0, pitch), pitch, length)

    def turned(self, problem: Contraction) -> Contraction:
        """The contraction with A turned."""

        def moved(d: Dim) -> Dim:
            if d.a < self.pitch:
                return replace(d, a=d.a * self.width)
            if d.a < self.length:
                return replace(d, a=d.a // self.pitch)
            return replace(d, a=d.a // self.length * self.channels * self.width)

        images, *sums = problem.reduce
        outer, rows, reduce = ([moved(d) for d in dims] for dims in (problem.outer, problem.rows, sums))
        return replace(problem, outer=tuple(outer), rows=tuple(rows), reduce=(replace(images, a=self.size), *reduce))


def spans(contraction: Contraction, side: str) -> Sequence[int]:
    """How far each dimension of one image takes an operand."""
    dims = (*contraction.outer, *contraction.rows, contraction.lanes, *contraction.reduce[1:])
    return [(d.size - 1) * getattr(d, side) for d in dims]


def lowest(contraction: Contraction, side: str) -> int:
    """The first element of an operand that an image needs."""
    return int(getattr(contraction, f"{side}0")) + sum(min(0, span) for span in spans(contraction, side))


def extent(contraction: Contraction, side: str) -> int:
    """How many elements of an operand an image needs, in whole cache lines."""
    return -(-(1 + sum(map(abs, spans(contraction, side)))) // LINE) * LINE


@dataclass(frozen=True)
class Images:
    """Two images, the second one `step` elements behind the first, if it is `there`: a mask of all lanes or none."""

    t: Text
    width: int
    place: Value
    step: int
    there: Value

    def words(self, i: Int, count: int) -> Value:
        """A vector of words, of which there are so many, from element i on."""
        t = self.t
        here, high = t.at(self.place, i, "i16"), t.at(t.at(self.place, self.step, "i16"), i, "i16")
        some = None if count == self.width else t.first(count, self.width)
        both = self.there if some is None else t.op("and", self.there, some)
        halves = t.load(here, "i16", self.width, some), t.load(high, "i16", self.width, both)
        lower, upper = (t.convert("zext", half, "i32") for half in halves)
        return t.op("or", lower, t.op("shl", upper, const(16, "i32", self.width)))

    def copy(self, size: int, to: Value) -> None:
        """All words as they lie, in whole vectors: what lies behind the last image is read, too, and goes nowhere."""
        t = self.t
        t.loop(0, size, lambda i: t.store(self.words(i, self.width), t.at(to, i, "i32")), self.width)

    def turn(self, plane: Plane, to: Value) -> None:
        """The words of each row channel by channel, in squares."""
        t = self.t

        def square(row: Int, first: Int, pixels: int, channel: Int, channels: int) -> None:
            start = t.add(t.add(t.mul(row, plane.length), t.mul(first, plane.pitch)), channel)
            found = [self.words(t.add(start, i * plane.pitch), channels) for i in range(pixels)]
            found += [const(0, "i32", self.width)] * (self.width - pixels)
            line = t.add(t.mul(t.add(t.mul(row, plane.channels), channel), plane.width), first)
            for i, x in enumerate(transposed(t, found)[:channels]):
                t.store(x, t.at(to, t.add(line, i * plane.width), "i32"))

        def row(i: Int) -> None:
            self.parts(
                plane.pixels,
                lambda x, pixels: self.parts(plane.channels, lambda c, channels: square(i, x, pixels, c, channels)),
            )

        t.loop(0, plane.rows, row)

    def parts(self, size: int, body: Callable[[Int, int], None]) -> None:
        """Pieces of a vector's length, and what is left: where they begin, and how long they are."""
        whole = size - size % self.width
        self.t.loop(0, whole, lambda i: body(i, self.width), self.width)
        if whole < size:
            body(whole, size - whole)
