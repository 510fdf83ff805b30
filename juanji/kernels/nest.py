"""The loops around the tile, and what a kernel of a contraction is."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from juanji.kernels.contraction import BATCH, Contraction, Dim, Scattered
from juanji.kernels.forms import Form, SpreadPacking, each_pixel, forms
from juanji.kernels.isa import ISA
from juanji.kernels.matrixtile import MatrixTile, Shapes
from juanji.kernels.packing import Packing
from juanji.kernels.schedule import Run, Schedule, candidates, chunk_count, columns, row_runs
from juanji.kernels.text import Int, Text, Value, index, kernel_text
from juanji.kernels.tile import Bounds, Cursor, Epilogue, Place, Tile, place_in_c


@dataclass(frozen=True)
class ContractionKernel:
    """A kernel for a contraction. Its slots: A, B (packed, if `pack` is there), C, the batch, the chunk length.

    The last two are there if one size is BATCH, and if that one is summed over. Where there are `parts`, what the
    kernel writes is not C but partial results, which the caller adds up.
    """

    text: str
    contraction: Contraction
    schedule: Schedule
    pack: Packing | SpreadPacking | None
    grid: Grid

    def tasks(self, batch: int = 1) -> int:
        sizes = cast("list[int]", self.grid.sizes(Text("count"), batch))
        return self.chunks(batch) * math.prod(sizes)

    def chunks(self, batch: int) -> int:
        return -(-batch // self.chunk_length(batch))

    def chunk_length(self, batch: int) -> int:
        return max(1, -(-batch // chunk_count(self.grid.contraction, batch)))

    @property
    def partial(self) -> int:
        """Elements of the results of one chunk of the batch."""
        return self.grid.contraction.c_size

    def parts(self, batch: int) -> list[tuple[int, int]]:
        """How many partial results there are, and how far they lie apart: chunks of the batch, pixels of a vector.

        Within a part, C has the strides `part_strides`.
        """
        form = self.grid.form
        found = [(self.chunks(batch), self.partial)] if self.contraction.sums_batch else []
        found += [(form.pixels, form.apart)] if form.apart else []
        return [part for part in found if part[0] > 1]

    @property
    def part_strides(self) -> tuple[int, ...]:
        """The strides of rows and lanes in partial results, where they are not dense."""
        return (*(d.c for d in self.grid.form.contraction.rows), 1) if self.grid.form.apart else ()


Way = tuple[Form, Schedule]


def build(
    contraction: Contraction, isa: ISA, way: Way | None = None, epilogue: Epilogue | None = None
) -> ContractionKernel:
    """The kernel of a contraction, in the cheapest way. An epilogue stores each finished vector as it likes."""
    return written(contraction, isa, way) if epilogue is None else made(contraction, isa, way, epilogue)


@functools.cache
def written(contraction: Contraction, isa: ISA, way: Way | None) -> ContractionKernel:
    """A kernel without an epilogue: the same one for equal contractions."""
    return made(contraction, isa, way, None)


def ways(contraction: Contraction, isa: ISA, *, keep_rows: bool) -> list[Way]:
    """All forms of a contraction with all their schedules, the cheapest first."""
    found = [
        (form, replace(schedule, note=form.note))
        for form in forms(contraction, isa.lanes(contraction.kind))
        for schedule in candidates(form.contraction.simplified(keep_rows=keep_rows), isa)
    ]
    if half := isa.halved(contraction.lanes.size, contraction.kind):
        found += [
            (
                form,
                replace(
                    schedule, cycles=schedule.cycles / 2, note=", ".join(filter(None, ["half as wide", form.note]))
                ),
            )
            for form in forms(contraction, half.lanes(contraction.kind))
            for schedule in candidates(form.contraction.simplified(keep_rows=keep_rows), half)
        ]
    return sorted(found, key=lambda way: way[1].cycles)


def made(contraction: Contraction, isa: ISA, way: Way | None, epilogue: Epilogue | None) -> ContractionKernel:
    keep = epilogue is not None
    form, schedule = way or ways(contraction, isa, keep_rows=keep)[0]
    isa = replace(isa, width=schedule.width)
    width = isa.lanes(contraction.kind)
    pack = Packing(form.contraction, width, schedule.vectors) if schedule.packed else form.pack
    read = pack.contraction if isinstance(pack, Packing) else form.contraction
    grid = Grid(read.simplified(keep_rows=keep), schedule, width, form)
    plain = contraction.upward().simplified(keep_rows=keep)
    return ContractionKernel(Nest(contraction, grid, isa, pack, epilogue).text(), plain, schedule, pack, grid)


@dataclass(frozen=True)
class Grid:
    """A contraction cut into blocks of lanes and boxes of rows, and these into tasks."""

    contraction: Contraction
    schedule: Schedule
    width: int
    form: Form

    def columns(self) -> list[tuple[Run, int]]:
        """Runs of blocks of lanes, in vectors, and how many lanes their last vector has."""
        return columns(self.contraction.lanes.size, self.width, self.schedule.vectors)

    def rows(self, t: Text, batch: Int) -> list[list[Run]]:
        """Runs of boxes along each dimension of rows."""
        return row_runs(t, self.contraction, self.schedule.box, batch)

    def sizes(self, t: Text, batch: Int) -> list[Int]:
        """How many tasks there are along each outer dimension, in groups of rows, in groups of lanes."""
        outer = [batch if d.size == BATCH else d.size for d in self.contraction.outer]
        last, end = self.rows(t, batch)[0][-1], self.columns()[-1][0]
        groups = (
            t.divmod(t.add(t.add(run.first, run.count), group - 1), group)[0]
            for run, group in ((last, self.schedule.row_group), (end, self.schedule.lane_group))
        )
        return [*outer, *groups]


class Nest:
    """The text of one kernel: tasks, blocks of the reduction, blocks of lanes, boxes of rows, and inside the tile."""

    def __init__(
        self,
        given: Contraction,
        grid: Grid,
        isa: ISA,
        pack: Packing | SpreadPacking | None = None,
        epilogue: Epilogue | None = None,
        t: Text | None = None,
    ) -> None:
        self.grid, self.contraction, self.schedule = grid, grid.contraction, grid.schedule
        self.given, self.isa, self.pack = given, isa, pack
        self.scratch = grid.form.scratch
        self.epilogue = each_pixel(grid.form, epilogue) if epilogue and grid.form.pixels > 1 else epilogue
        self.t = t or kernel_text(isa.fused)

    def text(self) -> str:
        """A kernel of its own."""
        t, problem = self.t, self.contraction
        batch = t.slot(3, "i64") if problem.has_batch else 1
        length = t.slot(4, "i64") if problem.sums_batch else 1
        self.write([t.slot(i) for i in range(3)], batch, length, (t.argument("lo"), t.argument("hi")))
        return str(t)

    def write(self, operands: Sequence[Value], batch: Int = 1, length: Int = 1, tasks: Bounds | None = None) -> None:
        """The loops over some tasks, by default all, for A, B and C at these addresses."""
        t, problem = self.t, self.contraction
        a, b, self.c = operands
        start = Dim(0, problem.a0, problem.b0, problem.c0)
        self.origin = Cursor(a, b, self.c, problem.kinds).moved(t, 1, start)
        self.batch, self.length = batch, length
        self.rows = self.grid.rows(t, batch)
        self.sizes = self.grid.sizes(t, batch)
        self.shapes = Shapes(t) if self.schedule.matrices else None
        t.loop(*(tasks or (0, functools.reduce(t.mul, self.sizes))), self.task)
        if self.shapes:
            self.shapes.release()

    def task(self, number: Int) -> None:
        """Everything that task `number` computes."""
        t, problem = self.t, self.contraction
        chunk, (*outer, row_group, lane_group) = self.decoded(number)
        self.outer = (*outer, *[0] * (len(self.given.outer) - len(outer)))  # a form may have taken some away
        at = self.origin.moved(t, chunk, Dim(0, c=problem.c_size))
        for i, d in zip(outer, problem.outer, strict=True):
            at = at.moved(t, i, d)
        self.row_bounds = self.group(row_group, self.schedule.row_group)
        self.lane_bounds = self.group(lane_group, self.schedule.lane_group)
        start = t.mul(chunk, self.length)
        images = (start, t.minimum(t.add(start, self.length), self.batch)) if problem.sums_batch else (0, 1)
        ranges = [images if d.size == BATCH else (0, d.size) for d in problem.reduce]
        if self.scratch:
            self.scatter(self.scratch, ranges, at)
        else:
            self.blocks(ranges, None, at)

    def scatter(self, scratch: Scattered, ranges: list[Bounds], at: Cursor) -> None:
        """Add everything up in scratch memory, and store it from there."""
        t, kind, width, size = self.t, self.contraction.kind, self.grid.width, scratch.size
        t.slots.append(f"  %scratch = alloca [{-(-size // width) * width} x {kind}], align {self.isa.width // 8}")
        memory = Value("%scratch", "ptr")
        zero = Value("zeroinitializer", kind, width)
        t.loop(0, size, lambda i: t.store(zero, t.at(memory, i, kind)), width)
        self.blocks(ranges, None, replace(at, c=memory, kinds=(*at.kinds[:2], kind)))
        self.results(t.at(memory, scratch.start, kind), scratch.steps, ())

    def results(self, memory: Value, steps: tuple[int, ...], rows: tuple[Int, ...]) -> None:
        """Store what scratch memory has of the results, from some rows on."""
        t, given, kind = self.t, self.given, self.contraction.kind
        if len(rows) < len(given.rows):
            step = steps[len(rows)]
            t.loop(
                0,
                given.rows[len(rows)].size,
                lambda i: self.results(t.at(memory, t.mul(i, step), kind), steps, (*rows, i)),
            )
            return
        for lane in range(0, given.lanes.size, self.grid.width):
            count = given.lanes.size - lane
            mask = t.first(count, self.grid.width) if count < self.grid.width else None
            place = Place(self.outer, rows, lane, place_in_c(t, given, self.outer, rows, lane))
            x = t.load(t.at(memory, lane, kind), kind, self.grid.width, mask)
            (self.epilogue or self.keep)(t, place, x, mask)

    def keep(self, t: Text, place: Place, x: Value, mask: Value | None) -> None:
        kind = self.given.kinds[2]
        t.store(x, t.at(self.c, place.offset, kind), mask, kind)

    def group(self, i: Int, size: int) -> Bounds:
        return self.t.mul(i, size), self.t.mul(self.t.add(i, 1), size)

    def decoded(self, number: Int) -> tuple[Int, list[Int]]:
        """The chunk of a task, and its place along each size. The slowest needs no division: it is what is left."""
        t, last, found = self.t, len(self.sizes) - 1, dict[int, Int]()
        order = [last, *range(last)] if self.schedule.lanes_first else list(range(last + 1))
        for axis in reversed(order):
            if axis == order[0] and not self.contraction.sums_batch:
                found[axis], number = number if self.sizes[axis] != 1 else 0, 0
            else:
                number, found[axis] = split(t, number, self.sizes[axis])
        return number, [found[axis] for axis in range(last + 1)]

    def blocks(self, bounds: list[Bounds], first: Value | None, at: Cursor, depth: int = 0) -> None:
        """Every block of the reduction; `first` says whether nothing has been summed before it."""
        t = self.t
        if depth == len(self.schedule.blocks):
            for run, tail in self.grid.columns():
                self.columns(run, tail, at, lambda spot: self.sum(spot, bounds, first))
            return
        block, (low, high) = self.schedule.blocks[depth], bounds[depth]
        step = self.contraction.reduce[depth].c

        def one(i: Int) -> None:
            inside = [*bounds[:depth], (i, t.minimum(t.add(i, block), high)), *bounds[depth + 1 :]]
            begins = None if isinstance(i, int) or step else t.compare("eq", i, index(low))
            both = t.op("and", first, begins) if first and begins else first or begins
            self.blocks(inside, both, at.moved(t, i, Dim(0, c=step)), depth + 1)

        t.loop(low, high, one, block)

    def columns(self, run: Run, tail: int, at: Cursor, body: Callable[[Spot], None]) -> None:
        """All tiles of a task in blocks of lanes of one size: block by block, or, where A has its own numbers for each
        lane, box by box, so that it is read in the order of memory."""
        mask = None if tail == self.grid.width else self.t.first(tail, self.grid.width)
        start, shapes = Spot(at, 0, run.size, mask), list(itertools.product(*self.rows))

        def blocks(spot: Spot, body: Callable[[Spot], None]) -> None:
            self.within(run, self.lane_bounds, lambda i: body(self.block(run, i, spot)))

        def boxes(spot: Spot, body: Callable[[Spot], None]) -> None:
            for shape in shapes:
                self.boxes(shape, replace(spot, shape=shape), body)

        outside, inside = (boxes, blocks) if self.contraction.lanes.a else (blocks, boxes)
        outside(start, lambda spot: inside(spot, body))

    def block(self, run: Run, i: Int, spot: Spot) -> Spot:
        """Block i of a run of blocks of lanes."""
        t, lanes = self.t, self.contraction.lanes
        lane = t.mul(self.start(run, i), self.grid.width)
        here = spot.at.moved(t, lane, Dim(0, lanes.a, 0 if self.pack else lanes.b, 1))
        if self.pack:
            here = here.moved(t, i, Dim(0, b=self.pack.panel))
        return replace(spot, at=here, lane=lane)

    def boxes(self, shape: Sequence[Run], spot: Spot, body: Callable[[Spot], None]) -> None:
        """All boxes of a shape; `shape` is what is left of it to loop over."""
        if not shape:
            body(spot)
            return
        (run, *rest), depth = shape, len(spot.starts)
        d = self.contraction.rows[depth] if self.contraction.rows else Dim(1)

        def one(i: Int) -> None:
            start = self.start(run, i)
            at = spot.at.moved(self.t, start, d)
            self.boxes(rest, replace(spot, at=at, starts=(*spot.starts, start)), body)

        self.within(run, (0, self.end(run)) if depth else self.row_bounds, one)

    def start(self, run: Run, i: Int) -> Int:
        """Where tile i of a run starts."""
        t = self.t
        return t.add(run.start, t.mul(t.add(i, t.mul(run.first, -1)), run.size))

    def end(self, run: Run) -> Int:
        return self.t.add(run.first, run.count)

    def within(self, run: Run, bounds: Bounds, body: Callable[[Int], None]) -> None:
        """`body(i)` for the tiles of a run that lie within the bounds."""
        t = self.t
        t.loop(t.maximum(run.first, bounds[0]), t.minimum(self.end(run), bounds[1]), body)

    def sum(self, spot: Spot, bounds: list[Bounds], first: Value | None) -> None:
        """A tile, from its sums so far to its sums with this block of the reduction."""
        t, at, mask = self.t, spot.at, spot.mask
        box = [run.size for run in spot.shape]
        parts = (t, self.contraction, box, spot.vectors, self.isa, mask, None if self.pack else mask)
        tile = MatrixTile(*parts, self.shapes) if self.shapes else Tile(*parts)
        if self.contraction.adds:
            tile.resume(at.c)
        elif first is not None:
            t.when(t.op("xor", first, Value("true", "i1")), lambda: tile.resume(at.c))
        inside = list(bounds)
        for w in self.contraction.windows:
            low, high = w.inside(t, spot.starts[w.row], box[w.row], self.contraction.reduce[w.sum].size)
            inside[w.sum] = t.maximum(bounds[w.sum][0], low), t.minimum(bounds[w.sum][1], high)
        tile.add(at, inside)
        tile.finish(at.c, self.outer, spot.starts, spot.lane, None if self.scratch else self.epilogue)


@dataclass(frozen=True)
class Spot:
    """Where a tile is, and how large: its first lane, its vectors and the mask of the last; its rows."""

    at: Cursor
    lane: Int
    vectors: int
    mask: Value | None
    shape: tuple[Run, ...] = ()
    starts: tuple[Int, ...] = ()


def split(t: Text, number: Int, size: Int) -> tuple[Int, Int]:
    """Quotient and remainder of numbers of at least 0, the divisor known or not."""
    if size == 1:
        return number, 0
    if isinstance(size, int):
        return t.divmod(number, size)
    quotient = t.op("udiv", index(number), size)
    return quotient, t.op("sub nsw", index(number), index(t.mul(quotient, size)))
