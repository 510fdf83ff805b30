"""Images cut into overlapping tiles, and transformed tiles in memory.

Tiles are numbered along strips, rows of tiles along the last axis, and strips through all images.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from juanji.kernels.cooktoom import Matrix, applied
from juanji.kernels.packing import interleaved
from juanji.kernels.text import SIZES, Int, Text, Value, const, index

LINE = 64  # bytes of a cache line
LEAST = 16  # bytes of a tile's channels
MEETING = 1024  # bytes: what lies a multiple of them apart meets in a few places of the first cache

Sizes = tuple[int, ...]
Strips = tuple[Int, Int]  # from, to


@dataclass(frozen=True)
class Spot:
    """A tile: its image, its place among the image's tiles, its outputs along each axis, its number; and how many
    equal ones, of the same strip, begin with it."""

    image: Int
    place: tuple[Int, ...]
    sizes: Sizes
    number: Int
    count: int = 1


@dataclass(frozen=True)
class Tiling:
    """Images of `sizes` outputs cut into tiles of `steps`; the last tile along an axis may have fewer."""

    sizes: Sizes
    steps: Sizes

    @property
    def counts(self) -> Sizes:
        return tuple(-(-n // m) for n, m in zip(self.sizes, self.steps, strict=True))

    @property
    def strips(self) -> int:
        """How many strips an image has."""
        return math.prod(self.counts[:-1])

    @property
    def width(self) -> int:
        """How many tiles a strip has."""
        return self.counts[-1]

    def each(self, t: Text, strips: Strips, base: Int, body: Callable[[Spot], None], together: int = 1) -> None:
        """`body` for all tiles of some strips, numbered from the first tile of strip `base` on; for so many together
        where there are enough."""

        def strip(s: Int) -> None:
            image, place = s, list[Int]()
            for count in reversed(self.counts[:-1]):
                image, i = t.divmod(image, count)
                place.insert(0, i)
            first = t.mul(t.add(s, t.mul(base, -1)), self.width)
            self.cut(t, place, (), lambda sizes: along(image, tuple(place), sizes, first))

        def along(image: Int, place: tuple[Int, ...], sizes: Sizes, first: Int) -> None:
            for start, stop, size in self.parts(-1):
                whole = stop - (stop - start) % together
                for low, high, count in ((start, whole, together), (whole, stop, 1)):

                    def some(i: Int, size: int = size, count: int = count) -> None:
                        body(Spot(image, (*place, i), (*sizes, size), t.add(first, i), count))

                    t.loop(low, high, some, count)

        t.loop(*strips, strip)

    def groups(self, together: int) -> int:
        """Into how many groups, of so many equal tiles or of one, a strip falls."""
        counts = [stop - start for start, stop, _ in self.parts(-1)]
        return sum(n // together + n % together for n in counts)

    def parts(self, axis: int) -> list[tuple[int, int, int]]:
        """The tiles along an axis: from, to, and how many outputs each has."""
        full, rest = divmod(self.sizes[axis], self.steps[axis])
        return [(0, full, self.steps[axis])] * (full > 0) + [(full, full + 1, rest)] * (rest > 0)

    def cut(self, t: Text, place: Sequence[Int], sizes: Sizes, body: Callable[[Sizes], None]) -> None:
        """`body(sizes)`, written once for each way in which tiles at a place that runs may have fewer outputs."""
        axis = len(sizes)
        if axis == len(place):
            body(sizes)
            return
        (_, stop, size), *last = self.parts(axis)
        if not last:
            self.cut(t, place, (*sizes, size), body)
            return
        here, end = index(place[axis]), const(stop, "i64")
        t.when(t.compare("slt", here, end), lambda: self.cut(t, place, (*sizes, size), body))
        t.when(t.compare("sge", here, end), lambda: self.cut(t, place, (*sizes, last[0][2]), body))


@dataclass(frozen=True)
class Images:
    """Images that are cut into tiles and transformed.

    strides   from image to image, and along the axes
    start     where the first tile begins
    matrices  what tiles are multiplied by along each axis
    more      elements of a tile along each axis beyond its outputs
    kind      of what lies there
    """

    strides: Sizes
    start: int
    channels: int
    kind: str
    matrices: tuple[Matrix, ...]
    more: Sizes

    def below(self, sizes: Sizes, steps: Sizes) -> list[int]:
        """Where lies what the tile in the next strip has and the two beside and above it have not: it is fetched ahead
        of time, because the processor does not see that it will be wanted (up to a tenth of the time)."""
        if len(sizes) != 2:
            return []
        (down, across), (m, _) = self.strides[1:], steps
        rows, columns = (range(more, more + n) for more, n in zip(self.more, sizes, strict=True))
        return [(i + m) * down + j * across for i in rows for j in columns]


@dataclass(frozen=True)
class Spectra:
    """Transformed tiles in memory: [block of tiles][element][tile][channel].

    kind   of what lies there; "bfloat" is rounded
    pairs  whether two tiles, an even number of which are a block, share a word for each channel, in bfloat16
    """

    elements: int
    tiles: int
    channels: int
    kind: str
    pairs: bool = False

    @property
    def pitch(self) -> int:
        line, least = (size // SIZES[self.kind] for size in (LINE, LEAST))
        few = max(least, 1 << (self.channels - 1).bit_length())
        return self.apart(-(-self.channels // line) * line) if few > line else few

    @property
    def rows(self) -> int:
        """Rows of channels that a block has for each element."""
        return self.tiles // 2 if self.pairs else self.tiles

    @property
    def plane(self) -> int:
        """Words, in an odd number of lines: then the elements of a tile do not meet in the first cache."""
        line = LINE // SIZES[self.kind]
        return (-(-self.rows * self.pitch // line) | 1) * line

    @property
    def block(self) -> int:
        return self.elements * self.plane

    def apart(self, count: int) -> int:
        return count if count * SIZES[self.kind] % MEETING else count + LINE // SIZES[self.kind]

    def size(self, tiles: int) -> int:
        """Words of memory for so many tiles, in whole blocks."""
        return -(-tiles // self.tiles) * self.block * SIZES[self.kind] // 4

    def blocks(self, t: Text, tiles: Int) -> Int:
        return t.divmod(t.add(tiles, self.tiles - 1), self.tiles)[0]

    def tile(self, t: Text, memory: Value, number: Int) -> Value:
        """The address of a tile's first element."""
        block, i = t.divmod(number, self.tiles)
        row = t.divmod(i, 2)[0] if self.pairs else i
        return t.at(memory, t.add(t.mul(block, self.block), t.mul(row, self.pitch)), self.kind)

    def put(self, t: Text, y: Value, at: Value, second: Value | None, mask: Value | None) -> None:
        """Store some channels of an element. Of a pair the second tile, which `second` tells, joins the first."""
        if second is None:
            t.store(y, at, mask, self.kind)
            return
        bits = t.value(f"bitcast {t.kept(y, 'bfloat')} to <{y.lanes} x i16>", "i16", y.lanes)
        word = t.op("shl", t.convert("zext", bits, "i32"), t.splat(t.op("mul", second, const(16, "i32")), y.lanes))
        there = t.op("and", t.load(at, "i32", y.lanes, mask), t.splat(t.op("sub", const(0, "i32"), second), y.lanes))
        t.store(t.op("or", word, there), at, mask)

    def beside(self, width: int, tiling: Tiling) -> int:
        """How many tiles of a strip share a vector of such a width: if each block has whole strips, all that fit."""
        return max(1, width // self.pitch) if self.tiles % tiling.width == 0 and not self.pairs else 1

    def gather(
        self,
        t: Text,
        width: int,
        tiling: Tiling,
        images: Images,
        source: Value,
        target: Value,
        strips: Strips,
        base: Int,
    ) -> None:
        """Transform the tiles of some strips, in vectors of `width` channels, or of a few tiles if those fit one."""
        steps, together = images.strides[1:], self.beside(width, tiling)

        def tile(spot: Spot) -> None:
            offset = t.add(images.start, t.mul(spot.image, images.strides[0]))
            for i, stride, step in zip(spot.place, steps, tiling.steps, strict=True):
                offset = t.add(offset, t.mul(i, step * stride))
            at, to = t.at(source, offset, images.kind), self.tile(t, target, spot.number)
            second = t.convert("trunc", index(t.divmod(spot.number, 2)[1]), "i32") if self.pairs else None
            reach = [range(n + more) for n, more in zip(spot.sizes, images.more, strict=True)]
            places = {i: sum(map(int.__mul__, i, steps)) for i in itertools.product(*reach)}
            lanes, apart = self.pitch if together > 1 else width, tiling.steps[-1] * steps[-1]

            def some(first: Int, mask: Value | None) -> None:
                here, there = t.at(at, first, images.kind), t.at(to, first, self.kind)

                def load(place: int) -> Value:
                    tiles = [t.at(here, place + i * apart, images.kind) for i in range(spot.count)]
                    return joined(t, [t.load(one, images.kind, lanes, mask) for one in tiles])

                for place in images.below(spot.sizes, tiling.steps):
                    t.prefetch(t.at(here, place, images.kind))
                zero, stored = Value("zeroinitializer", "float", lanes * spot.count), mask if together == 1 else None
                x = {i: functools.partial(load, place) for i, place in places.items()}
                for e, (_, y) in enumerate(applied(t, images.matrices, x)):
                    self.put(t, zero if y is None else y, t.at(there, e * self.plane, self.kind), second, stored)

            channels(t, images.channels, lanes, some)

        tiling.each(t, strips, base, tile, together)

    def clear(self, t: Text, width: int, target: Value, tiles: Int) -> None:
        """Zero what the last block has beyond so many tiles; the second of a pair is so already."""
        zero, step = Value("zeroinitializer", self.kind, width), 2 if self.pairs else 1
        start = t.mul(t.divmod(t.add(tiles, step - 1), step)[0], step)

        def element(at: Value) -> None:
            channels(t, self.channels, width, lambda i, mask: t.store(zero, t.at(at, i, self.kind), mask))

        def tile(number: Int) -> None:
            at = self.tile(t, target, number)
            t.loop(0, self.elements, lambda e: element(t.at(at, t.mul(e, self.plane), self.kind)))

        t.loop(start, t.mul(self.blocks(t, tiles), self.tiles), tile, step)


def joined(t: Text, parts: Sequence[Value]) -> Value:
    """Vectors of equal width, a power of two of them, as one."""
    if len(parts) == 1:
        return parts[0]
    low, high = (joined(t, half) for half in (parts[: len(parts) // 2], parts[len(parts) // 2 :]))
    return interleaved(t, low, high, range(2 * low.lanes))


def channels(t: Text, count: Int, width: int, body: Callable[[Int, Value | None], None]) -> None:
    """`body(first, mask)` for all vectors of so many channels."""
    full, rest = t.divmod(count, width)
    full = t.mul(full, width)
    t.loop(0, full, lambda i: body(i, None), width)
    if rest != 0:
        body(full, t.first(rest, width))
