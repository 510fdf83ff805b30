"""The loops around the tile, and what a kernel of a contraction is."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

from juanji.kernels.contraction import BATCH, Contraction, Dim
from juanji.kernels.isa import ISA
from juanji.kernels.packing import Packing
from juanji.kernels.schedule import Run, Schedule, candidates, chunk_count, columns, runs
from juanji.kernels.text import Int, Text, Value, index, kernel_text
from juanji.kernels.tile import Bounds, Cursor, Epilogue, Tile


@dataclass(frozen=True)
class ContractionKernel:
    """A kernel for a contraction. Its slots: A, B (packed, if `pack` is there), C, the batch, the chunk length.

    The last two are there if one size is BATCH, and if that one is summed over. Then chunk g of the batch, of that
    length, has its partial result at C + g·`partial` elements, and the caller adds them up.
    """

    text: str
    contraction: Contraction
    schedule: Schedule
    pack: Packing | None
    grid: Grid

    def tasks(self, batch: int = 1) -> int:
        sizes = cast("list[int]", self.grid.sizes(Text("count"), batch))
        return self.chunks(batch) * math.prod(sizes)

    def chunks(self, batch: int) -> int:
        return -(-batch // self.chunk_length(batch))

    def chunk_length(self, batch: int) -> int:
        return max(1, -(-batch // chunk_count(self.contraction, batch)))

    @property
    def partial(self) -> int:
        return self.contraction.c_size


def build(
    contraction: Contraction, isa: ISA, schedule: Schedule | None = None, epilogue: Epilogue | None = None
) -> ContractionKernel:
    """The kernel of a contraction, by the cheapest schedule. An epilogue stores each finished vector as it likes."""
    upward, keep = contraction.upward(), epilogue is not None
    plain = upward.simplified(keep_rows=keep)
    schedule = schedule or candidates(plain, isa)[0]
    pack = Packing(upward, isa.lanes(contraction.kind), schedule.vectors) if schedule.packed else None
    problem = pack.contraction.simplified(keep_rows=keep) if pack else plain
    grid = Grid(problem, schedule, isa.lanes(contraction.kind))
    return ContractionKernel(Nest(grid, isa, pack, epilogue).text(), plain, schedule, pack, grid)


@dataclass(frozen=True)
class Grid:
    """A contraction cut into blocks of lanes and boxes of rows, and these into tasks."""

    contraction: Contraction
    schedule: Schedule
    width: int

    def columns(self) -> list[tuple[Run, int]]:
        """Runs of blocks of lanes, in vectors, and how many lanes their last vector has."""
        return columns(self.contraction.lanes.size, self.width, self.schedule.vectors)

    def rows(self, t: Text, batch: Int) -> list[list[Run]]:
        """Runs of boxes along each dimension of rows."""
        dims = zip(self.contraction.rows, self.schedule.box, strict=True)
        found = [runs(t, batch if d.size == BATCH else d.size, m, batch=d.size == BATCH) for d, m in dims]
        return found or [[Run(0, 1, 0, 1)]]

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

    def __init__(self, grid: Grid, isa: ISA, pack: Packing | None, epilogue: Epilogue | None) -> None:
        self.grid, self.contraction, self.schedule = grid, grid.contraction, grid.schedule
        self.isa, self.pack, self.epilogue = isa, pack, epilogue
        self.t = kernel_text(isa.fused)

    def text(self) -> str:
        t, problem = self.t, self.contraction
        start = Dim(0, problem.a0, problem.b0, problem.c0)
        self.origin = Cursor(t.slot(0), t.slot(1), t.slot(2), problem.kind).moved(t, 1, start)
        dims = (*problem.outer, *problem.rows, *problem.reduce)
        self.batch: Int = t.slot(3, "i64") if any(d.size == BATCH for d in dims) else 1
        self.length: Int = t.slot(4, "i64") if problem.sums_batch else 1
        self.rows = self.grid.rows(t, self.batch)
        self.sizes = self.grid.sizes(t, self.batch)
        t.loop(t.argument("lo"), t.argument("hi"), self.task)
        return str(t)

    def task(self, number: Int) -> None:
        """Everything that task `number` computes."""
        t, problem = self.t, self.contraction
        chunk, (*outer, row_group, lane_group) = self.decoded(number)
        self.outer = tuple(outer)
        at = self.origin.moved(t, chunk, Dim(0, c=problem.c_size))
        for i, d in zip(outer, problem.outer, strict=True):
            at = at.moved(t, i, d)
        self.row_bounds = self.group(row_group, self.schedule.row_group)
        self.lane_bounds = self.group(lane_group, self.schedule.lane_group)
        start = t.mul(chunk, self.length)
        images = (start, t.minimum(t.add(start, self.length), self.batch)) if problem.sums_batch else (0, 1)
        self.blocks([images if d.size == BATCH else (0, d.size) for d in problem.reduce], None, at)

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

        def one(i: Int) -> None:
            inside = [*bounds[:depth], (i, t.minimum(t.add(i, block), high)), *bounds[depth + 1 :]]
            begins = None if isinstance(i, int) else t.compare("eq", i, index(low))
            both = t.op("and", first, begins) if first and begins else first or begins
            self.blocks(inside, both, at, depth + 1)

        t.loop(low, high, one, block)

    def columns(self, run: Run, tail: int, at: Cursor, body: Callable[[Spot], None]) -> None:
        """All tiles of a task in blocks of lanes of one size."""
        t, lanes = self.t, self.contraction.lanes
        mask = None if tail == self.grid.width else t.first(tail, self.grid.width)

        def block(i: Int) -> None:
            lane = t.mul(self.start(run, i), self.grid.width)
            here = at.moved(t, lane, Dim(0, lanes.a, 0 if self.pack else lanes.b, 1))
            if self.pack:
                here = here.moved(t, i, Dim(0, b=self.pack.panel))
            for shape in itertools.product(*self.rows):
                self.boxes(shape, Spot(here, lane, run.size, mask, shape), body)

        self.within(run, self.lane_bounds, block)

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
        tile = Tile(t, self.contraction, box, spot.vectors, self.isa, mask, None if self.pack else mask)
        if first is not None:
            t.when(t.op("xor", first, Value("true", "i1")), lambda: tile.resume(at.c))
        tile.add(at, bounds)
        tile.finish(at.c, self.outer, spot.starts, spot.lane, self.epilogue)


@dataclass(frozen=True)
class Spot:
    """Where a tile is, and how large: its first lane, its vectors and the mask of the last; its rows."""

    at: Cursor
    lane: Int
    vectors: int
    mask: Value | None
    shape: tuple[Run, ...]
    starts: tuple[Int, ...] = ()


def split(t: Text, number: Int, size: Int) -> tuple[Int, Int]:
    """Quotient and remainder of numbers of at least 0, the divisor known or not."""
    if size == 1:
        return number, 0
    if isinstance(size, int):
        return t.divmod(number, size)
    quotient = t.op("udiv", index(number), size)
    return quotient, t.op("sub nsw", index(number), index(t.mul(quotient, size)))
