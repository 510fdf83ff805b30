"""Convolutions of stride 1 by short algorithms along each axis (`cooktoom.py`), with a fraction of the multiplications.

Tiles of the images are transformed; then every element of all tiles is a matrix product with the same element of the
transformed weights; and the results are transformed back into tiles of the output. For the gradient by the weights,
tiles of both operands are transformed, multiplied and added up, and only the sums are transformed back.

Either these stages are calls of their own, with all tiles in memory between them, or they are one kernel in which each
task takes a few strips through all of them, in memory of its thread that stays near.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, field, replace

from juanji.kernels.contraction import BATCH, Contraction, Dim
from juanji.kernels.cooktoom import Algorithm, applied, transposed
from juanji.kernels.isa import ISA
from juanji.kernels.nest import Grid, Nest, Way, build, ways
from juanji.kernels.packing import Packing, paired, square
from juanji.kernels.spectra import Images, Sizes, Spectra, Spot, Strips, Tiling, channels
from juanji.kernels.text import Int, Text, Value, const, index, kernel_text
from juanji.kernels.tile import Epilogue, Place, place_in_c
from juanji.kernels.work import End, Stage, Work


@dataclass(frozen=True)
class Winograd:
    """A contraction by short algorithms.

    batch   how many images it is planned for; only numbers that kernels are given depend on it
    tiles   of a block of transformed tiles
    strips  that a task takes through all stages; 0 where each stage is a call
    pair    whether transformed operands are rounded to bfloat16, and multiplied two at a time
    """

    contraction: Contraction
    algorithms: tuple[Algorithm, ...]
    isa: ISA
    batch: int
    tiles: int
    strips: int
    pair: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        steps, taps = ([len(getattr(a, name)[0]) for a in self.algorithms] for name in ("outputs", "taps"))
        tiles = "×".join(map(str, steps))
        rate = f"{self.elements} products for {math.prod(steps) * math.prod(taps)}"
        stages = f"{self.strips * self.tiling.width} tiles together" if self.strips else "in stages"
        return f"Winograd, tiles of {tiles}: {rate}, {stages}{' in bfloat16' * self.pair}"

    @property
    def kind(self) -> str:
        return self.contraction.kind

    def width(self, channels: int) -> int:
        """Lanes of a vector of so many channels."""
        return self.isa.suited(channels, self.kind)

    @property
    def elements(self) -> int:
        """How many products one tile needs for two channels."""
        return math.prod(a.products for a in self.algorithms)

    @property
    def indices(self) -> list[Sizes]:
        """Of the elements, in order."""
        return list(itertools.product(*(range(a.products) for a in self.algorithms)))

    @property
    def sizes(self) -> Sizes:
        """Of the images that are cut into tiles."""
        raise NotImplementedError

    @property
    def products(self) -> Contraction:
        raise NotImplementedError

    def work(self, end: End) -> Work:
        return Work(tuple(self.stages(end)), self.memory(), str(self))

    def stages(self, end: End) -> list[Stage]:
        raise NotImplementedError

    def memory(self) -> dict[str, int]:
        raise NotImplementedError

    @property
    def tiling(self) -> Tiling:
        return Tiling(self.sizes, tuple(a.step for a in self.algorithms))

    @property
    def total(self) -> int:
        """All strips."""
        return self.batch * self.tiling.strips

    @property
    def together(self) -> int:
        """How many tiles are in memory at once."""
        return self.tiling.width * (self.strips or self.total)

    def strips_of(self, t: Text, i: Int, total: Int) -> tuple[Strips, Int]:
        """The strips of block i, and how many tiles they have."""
        low = t.mul(i, self.strips)
        high = t.minimum(t.add(low, self.strips), total)
        return (low, high), t.mul(t.add(high, t.mul(low, -1)), self.tiling.width)

    @functools.cached_property
    def way(self) -> Way:
        """How the products are computed."""
        return ways(self.products, self.isa, keep_rows=False)[0]

    @property
    def isa_of_products(self) -> ISA:
        """With vectors as wide as those of the products, which may be half as wide as others."""
        return replace(self.isa, width=self.way[1].width)

    def nest(self, t: Text) -> Nest:
        """The products of all elements, within another kernel."""
        form, schedule = self.way
        schedule = replace(schedule, row_group=1 << 30, lane_group=1 << 30, lanes_first=False, blocks=())
        isa = self.isa_of_products
        width = isa.lanes(self.kind)
        pack = Packing(form.contraction, width, schedule.vectors) if schedule.packed else None
        read = pack.contraction if pack else form.contraction
        return Nest(self.products, Grid(read.simplified(), schedule, width, form), isa, pack, t=t)


@dataclass(frozen=True)
class Outputs(Winograd):
    """Outputs of a convolution, or the gradient by its input, which is one with mirrored weights."""

    @property
    def sizes(self) -> Sizes:
        return tuple(d.size for d in self.contraction.rows)

    @property
    def data(self) -> Spectra:
        kind = "bfloat" if self.pair else self.kind
        return Spectra(self.elements, self.tiles, self.contraction.reduce[-1].size, kind)

    @property
    def results(self) -> Spectra:
        return Spectra(self.elements, self.tiles, self.contraction.lanes.size, self.kind)

    @property
    def images(self) -> Images:
        problem = self.contraction
        strides = (problem.outer[0].a, *(d.a for d in problem.rows))
        more, data = tuple(d.size - 1 for d in problem.reduce[:-1]), tuple(a.data for a in self.algorithms)
        return Images(strides, problem.a0, problem.reduce[-1].size, problem.kinds[0], data, more)

    @functools.cached_property
    def products(self) -> Contraction:
        """The products of all elements, of as many blocks as there are; pairs are two channels."""
        a, c, k, n = self.data, self.results, self.contraction.lanes.size, self.contraction.reduce[-1].size
        block, plane, pitch, n = (x // 2 if self.pair else x for x in (a.block, a.plane, a.pitch, n))
        return Contraction(
            (Dim(self.elements, plane, n * k, c.plane),),
            (Dim(BATCH, block, 0, c.block), Dim(self.tiles, pitch, 0, c.pitch)),
            Dim(k, 0, 1, 1),
            (Dim(n, 1, k),),
            self.kind,
            pair=self.pair,
        )

    @functools.cached_property
    def way(self) -> Way:
        form, schedule = super().way
        return form, replace(schedule, packed=True)

    @functools.cached_property
    def pack(self) -> Packing:
        """How the transformed weights lie in memory."""
        return Packing(self.products, self.isa_of_products.lanes(self.kind), self.way[1].vectors)

    def stages(self, end: End) -> list[Stage]:
        channels = self.contraction.reduce[-1].size
        tasks = -(-channels // self.pack.width)
        weights = Stage("transform weights", self.weights(), ("b", "weights"), ("weights",), tasks)
        slots: tuple[str | int, ...]
        if self.strips:
            slots = ("a", "weights", "c", self.total, "scratch")
            tasks = -(-self.total // self.strips)
            text = self.fused(end(len(slots)))
            return [weights, Stage("winograd", text, slots, ("c", "scratch"), tasks, products=True)]
        kernel, blocks = build(self.products, self.isa, self.way), -(-self.together // self.tiles)
        slots = ("data", "weights", "results", blocks)
        return [
            weights,
            Stage("transform", self.gathering(), ("a", "data"), ("data",), self.total),
            Stage("winograd", kernel.text, slots, ("results",), kernel.tasks(blocks), products=True),
            Stage("transform back", self.finishing(end(2)), ("results", "c"), ("c",), self.total),
        ]

    def memory(self) -> dict[str, int]:
        data, results = (each.size(self.together) for each in (self.data, self.results))
        between = {"scratch": data + results} if self.strips else {"data": data, "results": results}
        return {"weights": self.pack.size(), **between}

    def fused(self, end: Epilogue | None) -> str:
        """The kernel of all stages but that of the weights."""
        t = kernel_text(self.isa.fused)
        a, u, c = (t.slot(i) for i in range(3))
        total, size = t.slot(3, "i64"), self.memory()["scratch"]
        v = t.at(t.slot(4), t.mul(t.argument("who"), size), self.kind)
        m = t.at(v, self.data.size(self.together), self.kind)
        nest = self.nest(t)

        def block(i: Int) -> None:
            strips, tiles = self.strips_of(t, i, total)
            self.gather(t, a, v, strips, strips[0])
            nest.write([v, u, m], self.data.blocks(t, tiles))
            self.finish(t, m, strips, strips[0], end or self.storing(c))

        t.loop(t.argument("lo"), t.argument("hi"), block)
        return str(t)

    def gathering(self) -> str:
        """The kernel of the first stage; a task is a strip."""
        t = kernel_text(self.isa.fused)
        self.gather(t, t.slot(0), t.slot(1), (t.argument("lo"), t.argument("hi")), 0)
        return str(t)

    def gather(self, t: Text, source: Value, target: Value, strips: Strips, base: Int) -> None:
        width = self.width(self.images.channels)
        self.data.gather(t, width, self.tiling, self.images, source, target, strips, base)

    def finishing(self, end: Epilogue | None) -> str:
        """The kernel of the last stage; a task is a strip."""
        t = kernel_text(self.isa.fused)
        strips = t.argument("lo"), t.argument("hi")
        self.finish(t, t.slot(0), strips, 0, end or self.storing(t.slot(1)))
        return str(t)

    def storing(self, c: Value) -> Epilogue:
        kind = self.contraction.kinds[2]
        return lambda t, place, y, mask: t.store(y, t.at(c, place.offset, kind), mask, kind)

    def finish(self, t: Text, m: Value, strips: Strips, base: Int, store: Epilogue) -> None:
        """Transform the results of some strips back to outputs."""
        problem, kind, spectra = self.contraction, self.kind, self.results
        width = self.width(problem.lanes.size)

        def tile(spot: Spot) -> None:
            at = spectra.tile(t, m, spot.number)
            matrices = [transposed(a.outputs)[:n] for a, n in zip(self.algorithms, spot.sizes, strict=True)]
            outer: tuple[Int, ...] = (spot.image, *[0] * (len(problem.outer) - 1))
            corner = [t.mul(i, step) for i, step in zip(spot.place, self.tiling.steps, strict=True)]

            def some(first: Int, mask: Value | None) -> None:
                def load(element: int) -> Value:
                    return t.load(t.at(t.at(at, first, kind), element * spectra.plane, kind), kind, width, mask)

                x = {i: functools.partial(load, e) for e, i in enumerate(self.indices)}
                for i, y in applied(t, matrices, x):
                    rows = tuple(t.add(p, j) for p, j in zip(corner, i, strict=True))
                    place = Place(outer, rows, first, place_in_c(t, problem, outer, rows, first))
                    store(t, place, y or const(0, kind, width), mask)

            channels(t, problem.lanes.size, width, some)

        self.tiling.each(t, strips, base, tile)

    def weights(self) -> str:
        """The kernel that transforms the weights; a task is as many channels of A as a vector has lanes."""
        return WeightText(self).text()


class WeightText:
    """What writes the text of the transformed weights, in the order in which the products read them."""

    def __init__(self, owner: Outputs) -> None:
        self.owner, self.problem, self.pack = owner, owner.contraction, owner.pack
        self.kind, self.width = owner.kind, owner.pack.width
        *taps, self.depth = self.problem.reduce
        self.taps = {
            i: sum(j * d.b for j, d in zip(i, taps, strict=True))
            for i in itertools.product(*(range(d.size) for d in taps))
        }
        self.t = kernel_text(owner.isa.fused)

    def text(self) -> str:
        t, width = self.t, self.width
        size = len(self.taps) * width * width
        t.slots.append(f"  %taps = alloca [{size} x {self.kind}], align {self.owner.isa.width // 8}")
        self.b, self.u = t.at(t.slot(0), self.problem.b0, self.kind), t.slot(1)

        def task(i: Int) -> None:
            first = t.mul(i, width)
            full, rest = divmod(self.depth.size, width)
            for there, count, condition in ((full, width, "slt"), (rest, rest, "sge")):
                if there:
                    inside = t.compare(condition, index(first), const(full * width, "i64"))
                    t.when(inside, functools.partial(self.lanes, first, count))

        t.loop(t.argument("lo"), t.argument("hi"), task)
        return str(t)

    def lanes(self, first: Int, count: int) -> None:
        """A few channels of A, and all lanes."""
        full, rest = divmod(self.problem.lanes.size, self.width)
        end = full * self.width
        self.t.loop(0, end, lambda lane: self.square(first, count, lane, self.width), self.width)
        if rest:
            self.square(first, count, end, rest)

    def square(self, first: Int, count: int, lane: Int, lanes: int) -> None:
        """A few channels of A by a vector of lanes: all taps side by side, then each channel transformed."""
        t, kind, width, step = self.t, self.kind, self.width, self.problem.lanes.b
        at = t.at(self.b, t.add(t.mul(first, self.depth.b), t.mul(lane, step)), kind)
        near = Value("%taps", "ptr")
        for number, place in enumerate(self.taps.values()):
            found = square(t, t.at(at, place, kind), kind, width, (count, self.depth.b), (lanes, step))
            for i, x in enumerate(found):
                t.store(x, t.at(near, (number * width + i) * width, kind))
        block, v = t.divmod(t.divmod(lane, width)[0], self.pack.vectors)
        offset = t.add(t.mul(block, self.pack.panel), t.mul(v, width))
        pair, row = self.owner.pair, t.divmod(first, 2)[0] if self.owner.pair else first
        to = t.at(self.u, t.add(offset, t.mul(row, self.pack.block)), kind)

        def transformed(i: Int) -> list[Value]:
            here = t.at(near, t.mul(i, width), kind)
            x = {tap: t.load(t.at(here, n * width**2, kind), kind, width) for n, tap in enumerate(self.taps)}
            found = applied(t, [a.taps for a in self.owner.algorithms], x)
            return [y or const(0, kind, width) for _, y in found]

        def one(i: Int) -> None:
            there, plane = t.at(to, t.mul(i, self.pack.block), kind), self.pack.blocks * self.pack.panel
            found = transformed(t.mul(i, 2) if pair else i)
            found = (
                [paired(t, *each) for each in zip(found, transformed(t.add(t.mul(i, 2), 1)), strict=True)]
                if pair
                else found
            )
            for e, y in enumerate(found):
                t.store(y, t.at(there, e * plane, kind))

        t.loop(0, count // 2 if pair else count, one)


@dataclass(frozen=True)
class Weights(Winograd):
    """The gradient of a convolution by its weights.

    chunks  into how many parts the strips are cut where a task takes them through all stages, each with its own sums
    """

    chunks: int = 1

    @property
    def sizes(self) -> Sizes:
        return tuple(d.size for d in self.contraction.reduce[1:])

    @property
    def sides(self) -> tuple[Images, Images]:
        """Both operands."""
        problem, more = self.contraction, tuple(d.size - 1 for d in self.contraction.rows[:-1])
        a, b = (tuple(getattr(d, side) for d in problem.reduce) for side in "ab")
        data, outputs = (tuple(getattr(x, name) for x in self.algorithms) for name in ("data", "outputs"))
        return (
            Images(a, problem.a0, problem.rows[-1].size, problem.kinds[0], data, more),
            Images(b, problem.b0, problem.lanes.size, problem.kinds[1], outputs, (0,) * len(more)),
        )

    def spectra(self, count: int) -> Spectra:
        """The transformed tiles of an operand with so many channels."""
        return Spectra(self.elements, self.tiles, count, "i32" if self.pair else self.kind, self.pair)

    @property
    def spectra_of_both(self) -> tuple[Spectra, Spectra]:
        x, g = (self.spectra(side.channels) for side in self.sides)
        return x, g

    @property
    def sums(self) -> int:
        """Elements of all sums together."""
        return self.elements * math.prod(side.channels for side in self.sides)

    @functools.cached_property
    def products(self) -> Contraction:
        """The sums of all elements over as many blocks as there are; pairs are two tiles."""
        (n, k), (a, b) = (side.channels for side in self.sides), self.spectra_of_both
        return Contraction(
            (Dim(self.elements, a.plane, b.plane, n * k),),
            (Dim(n, 1, 0, k),),
            Dim(k, 0, 1, 1),
            (Dim(BATCH, a.block, b.block), Dim(a.rows, a.pitch, b.pitch)),
            self.kind,
            pair=self.pair,
            adds=self.strips > 0,
        )

    def stages(self, end: End) -> list[Stage]:
        x, g = self.sides
        if self.strips:
            length = -(-self.total // (self.strips * self.chunks))
            slots: tuple[str | int, ...] = ("a", "b", "sums", self.total, "scratch", length)
            stages = [Stage("winograd", self.fused(), slots, ("sums", "scratch"), self.chunks, products=True)]
            parts = self.chunks
        else:
            kernel, blocks = build(self.products, self.isa, self.way), -(-self.together // self.tiles)
            slots = ("data", "gradients", "sums", blocks, kernel.chunk_length(blocks))
            tasks = -(-self.total // self.gathered)
            stages = [
                Stage("transform", self.gathering(x), ("a", "data", self.total), ("data",), tasks),
                Stage("transform", self.gathering(g), ("b", "gradients", self.total), ("gradients",), tasks),
                Stage("winograd", kernel.text, slots, ("sums",), kernel.tasks(blocks), products=True),
            ]
            parts = kernel.chunks(blocks)
        return [*stages, Stage("transform back", self.finishing(), ("sums", "c", parts), ("c",), x.channels)]

    def memory(self) -> dict[str, int]:
        x, g = (each.size(self.together) for each in self.spectra_of_both)
        if self.strips:
            return {"sums": self.chunks * self.sums, "scratch": x + g}
        kernel = build(self.products, self.isa, self.way)
        return {"sums": kernel.chunks(-(-self.together // self.tiles)) * self.sums, "data": x, "gradients": g}

    def fused(self) -> str:
        """The kernel of all stages but the last; a task is a chunk."""
        t, kind, (x, g) = kernel_text(self.isa.fused), self.kind, self.sides
        a, b, c = (t.slot(i) for i in range(3))
        total, length, size = t.slot(3, "i64"), t.slot(5, "i64"), self.memory()["scratch"]
        v = t.at(t.slot(4), t.mul(t.argument("who"), size), kind)
        z = t.at(v, self.spectra(x.channels).size(self.together), kind)
        nest, zero = self.nest(t), Value("zeroinitializer", kind, self.isa.lanes(kind))

        def chunk(number: Int) -> None:
            sums = t.at(c, t.mul(number, self.sums), kind)
            channels(t, self.sums, zero.lanes, lambda i, mask: t.store(zero, t.at(sums, i, kind), mask))

            def block(i: Int) -> None:
                strips, tiles = self.strips_of(t, i, total)
                self.transform(t, x, a, v, strips, strips[0], tiles)
                self.transform(t, g, b, z, strips, strips[0], tiles)
                blocks = self.spectra(x.channels).blocks(t, tiles)
                nest.write([v, z, sums], blocks, blocks)

            start = t.mul(number, length)
            every = t.divmod(t.add(total, self.strips - 1), self.strips)[0]
            t.loop(start, t.minimum(t.add(start, length), every), block)

        t.loop(t.argument("lo"), t.argument("hi"), chunk)
        return str(t)

    def transform(
        self, t: Text, side: Images, source: Value, target: Value, strips: Strips, base: Int, tiles: Int
    ) -> None:
        """Transform some strips of an operand, after which there are so many tiles; the rest of their block is zero."""
        spectra, width = self.spectra(side.channels), self.width(side.channels)
        spectra.gather(t, width, self.tiling, side, source, target, strips, base)
        spectra.clear(t, width, target, tiles)

    @property
    def gathered(self) -> int:
        """The strips of a task: two where a pair of tiles may lie in both."""
        return 2 if self.pair and self.tiling.width % 2 else 1

    def gathering(self, side: Images) -> str:
        """The kernel of a first stage."""
        t, spectra, width = kernel_text(self.isa.fused), self.spectra(side.channels), self.width(side.channels)
        target, total = t.slot(1), t.slot(2, "i64")
        low, high = (t.mul(t.argument(end), self.gathered) for end in ("lo", "hi"))
        strips = low, t.minimum(high, total)
        spectra.gather(t, width, self.tiling, side, t.slot(0), target, strips, 0)
        tiles = t.mul(total, self.tiling.width)
        t.when(t.compare("eq", index(strips[1]), total), lambda: spectra.clear(t, width, target, tiles))
        return str(t)

    def finishing(self) -> str:
        """The kernel that adds up the chunks' sums and transforms them back; a task is a channel of A."""
        t, problem, kind = kernel_text(self.isa.fused), self.contraction, self.kind
        k, (*taps, depth) = problem.lanes.size, problem.rows
        width = self.width(k)
        sums, c, parts = t.slot(0), t.at(t.slot(1), problem.c0, kind), t.slot(2, "i64")
        matrices, plane = [transposed(a.taps) for a in self.algorithms], self.sums // self.elements

        def some(i: Int, first: Int, mask: Value | None) -> None:
            here = t.at(sums, t.add(t.mul(i, k), first), kind)

            def element(part: Value, e: int) -> Value:
                return t.load(t.at(part, e * plane, kind), kind, width, mask)

            def add(number: Int) -> None:
                part = t.at(here, t.mul(number, self.sums), kind)
                for e, total in enumerate(totals):
                    t.set(total, t.op("fadd", t.get(total), element(part, e)))

            totals = [t.variable(element(here, e)) for e in range(self.elements)]
            t.loop(1, parts, add)
            there = t.at(c, t.add(t.mul(i, depth.c), first), kind)
            for tap, y in applied(t, matrices, dict(zip(self.indices, map(t.get, totals), strict=True))):
                offset = sum(j * d.c for j, d in zip(tap, taps, strict=True))
                t.store(y or const(0, kind, width), t.at(there, offset, kind), mask)

        def task(i: Int) -> None:
            channels(t, k, width, lambda first, mask: some(i, first, mask))

        t.loop(t.argument("lo"), t.argument("hi"), task)
        return str(t)
