"""How a contraction is computed: tile, packing, order, and what a task is; chosen by a model of the cost."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from juanji.kernels import matrices
from juanji.kernels.contraction import BATCH, Contraction, Dim, Window
from juanji.kernels.isa import ISA
from juanji.kernels.text import SIZES, Int, Text

NEAR = 384 << 10  # bytes that stay in the second cache while they are used
TASK = 5_000  # cycles that are worth a task of their own
LARGE = 60_000  # cycles of a task where there are many
TASKS = 16  # that balance well over a few threads
THREADS = 4  # that are assumed where their number would matter
BANDWIDTH = 8  # bytes that a thread gets from the last cache in a cycle
ALL = 1 << 30  # rows or lanes
IMAGES = 8  # the batch that is assumed where its size would matter
WRITTEN = 160  # multiplications that are written out instead of looped over
CUTS = 8  # that rows are cut into at most, each with code of its own
STEPS = 4  # of a long loop that are written out
FEW_ROWS = 4  # what is left of a batch is taken in fours, then one by one


@dataclass(frozen=True)
class Run:
    """Neighbouring tiles of one size: tiles `first`, `first` + 1, …, the first of them at `start`."""

    first: Int
    count: Int
    start: Int
    size: int


def runs(t: Text, n: Int, tile: int, *, batch: bool = False) -> list[Run]:
    """n elements cut into tiles of at most `tile`: of nearly equal size, or, if it is a batch, large ones first."""
    parts: list[tuple[int, Int]] = []
    if batch:
        for size in sorted({tile, min(tile, FEW_ROWS), 1}, reverse=True):
            count, n = t.divmod(n, size)
            parts.append((size, count))
    elif isinstance(n, int) and n:
        tiles = -(-n // tile)
        size, more = divmod(n, tiles)
        parts = [(size + 1, more), (size, tiles - more)]
    result: list[Run] = []
    first: Int = 0
    start: Int = 0
    for size, count in parts:
        if count != 0:
            result.append(Run(first, count, start, size))
        first, start = t.add(first, count), t.add(start, t.mul(count, size))
    return result


def row_runs(t: Text, contraction: Contraction, box: Sequence[int], batch: Int) -> list[list[Run]]:
    """Runs of tiles along each dimension of rows, cut where other steps of the sum are inside an image."""
    found = []
    for axis, (d, tile) in enumerate(zip(contraction.rows, box, strict=True)):
        if d.size == BATCH:
            found.append(runs(t, batch, tile, batch=True))
            continue
        windows = [w for w in contraction.windows if w.row == axis]
        cuts = set[int]().union(*(w.cuts(d.size, contraction.reduce[w.sum].size) for w in windows))
        found.append([])
        tiles = 0
        for start, end in itertools.pairwise([0, *sorted(cuts if len(cuts) <= CUTS else ()), d.size]):
            for run in runs(t, end - start, tile):
                first, begins = cast(int, run.first), cast(int, run.start)
                found[-1].append(replace(run, first=tiles + first, start=start + begins))
            tiles = sum(cast(int, run.count) for run in found[-1])
    return found or [[Run(0, 1, 0, 1)]]


def columns(lanes: int, width: int, vectors: int) -> list[tuple[Run, int]]:
    """Lanes cut into blocks of vectors, the last one smaller; and how many lanes the last vector of a block has."""
    whole, rest = divmod(lanes, width * vectors)
    end = Run(whole, 1, whole * vectors, -(-rest // width))
    blocks = [(Run(0, whole, 0, vectors), width), (end, rest % width or width)]
    return [blocks[i] for i in range(2) if (whole, rest)[i]]


@dataclass(frozen=True)
class Schedule:
    """One way of computing a contraction.

    box         rows of a tile along each row dimension
    vectors     vectors of lanes of a tile
    packed      whether B is copied first, so that it is read in the order of memory
    lanes_first whether the tasks of one block of lanes follow each other, or those of one block of rows
    row_group   tiles along the first row dimension that make a task
    lane_group  blocks of lanes that make a task
    blocks      the size of blocks of the reduction, for its first dimensions; C is read and written once a block
    width       bits of a vector
    cycles      what the model says it costs, for one image
    matrices    whether the tile is made of matrices (`matrices.py`)
    note        how the contraction has been rewritten
    """

    box: tuple[int, ...]
    vectors: int
    packed: bool = False
    lanes_first: bool = False
    row_group: int = 1
    lane_group: int = 1
    blocks: tuple[int, ...] = ()
    width: int = 0
    cycles: float = 0.0
    matrices: bool = False
    note: str = ""

    def __str__(self) -> str:
        notes = [word for word, true in (("packed", self.packed), ("lanes first", self.lanes_first)) if true]
        notes += ["matrices"] * self.matrices
        notes += [f"sums in blocks of {'×'.join(map(str, self.blocks))}"] if self.blocks else []
        notes += [self.note] if self.note else []
        return ", ".join([f"tile {'×'.join(map(str, self.box)) or 1} by {self.vectors} vectors", *notes])


@functools.cache
def candidates(contraction: Contraction, isa: ISA) -> list[Schedule]:
    """Schedules for a contraction, as simplified, the cheapest first."""
    shapes = [(*shape, False) for shape in tiles(contraction, isa)]
    if isa.matrices and isa.lanes(contraction.kind) == matrices.LANES and matrices.step(contraction):
        shapes += [(*shape, True) for shape in matrix_tiles(contraction)]
    priced = [(shape, cost(contraction, isa, *shape)) for shape in shapes]
    # What is left over at edges may need more matrices than the registers hold: that is never cheap.
    found = [completed(contraction, isa, *shape, cycles) for shape, cycles in priced if cycles < math.inf]
    return sorted(found, key=lambda s: (s.cycles, [-n for n in reversed(s.box)]))


def tiles(contraction: Contraction, isa: ISA) -> Iterator[tuple[tuple[int, ...], int]]:
    """The shapes of tiles whose sums fit the registers, beside a vector of B for each column and one of A."""
    # Without fused multiply-add the product needs a register too, and LLVM one to spare.
    room = isa.registers - (2 if isa.fused else 4)
    total = -(-contraction.lanes.size // isa.lanes(contraction.kind))
    counts = {-(-total // blocks) for blocks in range(1, total + 1)} & set(range(1, 7))
    # Where A is a vector too, two neighbours come from memory together; more of them leave no room for rows.
    for vectors in [2] if contraction.lanes.a and total > 1 else sorted(counts):
        for box in boxes(contraction.rows, (room - max(vectors, 2)) // vectors):
            yield box, vectors


def matrix_tiles(contraction: Contraction) -> Iterator[tuple[tuple[int, ...], int]]:
    """The shapes of tiles whose matrices may fit the registers."""
    for rows, vectors in itertools.product(range(1, matrices.REGISTERS), repeat=2):
        if matrices.fit(rows, vectors) and vectors <= -(-contraction.lanes.size // matrices.LANES):
            yield from ((box, vectors) for box in boxes(contraction.rows, matrices.ROWS * rows))


def boxes(rows: tuple[Dim, ...], most: int) -> Iterator[tuple[int, ...]]:
    """Boxes of at most `most` rows that reach along the last two dimensions."""
    sizes = [most if d.size == BATCH else d.size for d in rows]
    for last in parts(sizes[-1], most) if rows else ():
        before = parts(sizes[-2], most // last)[-1:] if len(rows) > 1 else []
        yield (*[1] * (len(rows) - 2), *before, last)
    if not rows:
        yield ()


def parts(n: int, most: int) -> list[int]:
    """Sizes of at most `most` that cut n into pieces of nearly equal size."""
    return sorted({-(-n // pieces) for pieces in range(1, n + 1)} & set(range(1, most + 1)))


def completed(
    contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int, in_matrices: bool, cycles: float
) -> Schedule:
    """The schedule of a tile that costs so much: everything that follows from it."""
    packed = worth_packing(contraction, box, vectors * isa.lanes(contraction.kind))
    if contraction.sums_batch:
        cycles, row_group, lane_group = weight_groups(contraction, isa, box, vectors, cycles)
        lanes_first = False
    else:
        lanes_first, row_group, lane_group = pixel_groups(contraction, isa, box, vectors, cycles)
    rows = row_group * box[0] if len(box) == 1 else ALL
    blocks = reduction_blocks(contraction, rows, lane_group * vectors * isa.lanes(contraction.kind))
    return Schedule(box, vectors, packed, lanes_first, row_group, lane_group, blocks, isa.width, cycles, in_matrices)


def worth_packing(contraction: Contraction, box: tuple[int, ...], width: int) -> bool:
    """B is copied if its lanes are apart; also if tiles would pick from afar what they use again and again."""
    if contraction.shared or contraction.halves:
        return True
    if contraction.lanes.b != 1:
        return not contraction.sums_batch or contraction.lanes.size > 1
    if not contraction.outer and box == tuple(d.size for d in contraction.rows):
        return False  # there is one tile of rows
    return not contraction.sums_batch and contraction.lanes.a == 0 and contraction.lanes.size > width


def cost(contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int, in_matrices: bool) -> float:
    """Cycles for one image: a machine that does two FMAs and two loads a cycle, and each result four cycles later."""
    t = Text("model")
    cycles = 0.0
    for column, _ in columns(contraction.lanes.size, isa.lanes(contraction.kind), vectors):
        for rows in itertools.product(*row_runs(t, contraction, box, IMAGES * 4)):
            count = math.prod(cast(int, run.count) for run in (column, *rows))
            part = math.prod(taken(contraction, w, rows[w.row]) for w in contraction.windows)
            shape = tuple(run.size for run in rows)
            cycles += count * (
                matrices.cycles(contraction, shape, column.size, part)
                if in_matrices
                else tile_cycles(contraction, isa, shape, column.size, part)
            )
    return cycles * math.prod(abs(d.size) for d in contraction.outer)


def taken(contraction: Contraction, window: Window, run: Run) -> float:
    """Which part of a sum the tiles of a run take on average."""
    t, steps, count = Text("model"), contraction.reduce[window.sum].size, cast(int, run.count)
    if not count * steps:
        return 1.0
    starts = (cast(int, run.start) + i * run.size for i in range(count))
    bounds = [cast("tuple[int, int]", window.inside(t, start, run.size, steps)) for start in starts]
    return sum(max(0, end - first) for first, end in bounds) / count / steps


def tile_cycles(contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int, part: float = 1.0) -> float:
    """Cycles of one tile that takes a part of the steps of its sum."""
    rows = contraction.offsets(box)
    sums, steps = len(rows) * vectors, written(contraction, rows, vectors, isa)[2]
    reads = len({row + a for row in rows for a, _ in steps}) / len(steps)
    loads = vectors + reads * (vectors if contraction.lanes.a else 1)
    # Measured: beside products in bfloat16 there is one load a cycle. The last: B comes from the second cache.
    step = max(sums / 2, loads if contraction.pair else loads / 2, 4.0) + vectors / 8
    passes = math.prod(d.size for d in contraction.reduce[: contraction.passes])
    # Pixels of many channels lie so far apart that few of them stay in the first cache.
    far = fetched(contraction, rows) * vectors if contraction.lanes.a and not contraction.sums_batch else 0
    return step * contraction.terms * part + far + passes * (sums * (2 if contraction.adds else 1) + 20)


def fetched(contraction: Contraction, rows: Sequence[int]) -> int:
    """How many vectors of A a tile needs for all taps, for each of its vectors of lanes."""
    taps = itertools.product(*(range(0, d.size * d.a, d.a) for d in contraction.reduce if d.size > 1 and d.a))
    return len({row + sum(tap) for tap in taps for row in rows})


def written(
    contraction: Contraction, rows: Sequence[int], vectors: int, isa: ISA
) -> tuple[int, int, list[tuple[int, int]]]:
    """What is written out of the loops: how many dimensions are not, how many steps of the last of those are, and
    all that as steps in A and B.

    Where steps meet the same elements of A, because taps overlap, each is loaded once: then the columns of B of all
    the steps have to stay in registers beside the sums.
    """
    sums, steps = len(rows) * vectors, [(0, 0)]

    def fits(steps: list[tuple[int, int]]) -> bool:
        alone = len({row + a for row in rows for a, _ in steps}) == len(rows) * len(steps)
        held = vectors if alone else vectors * len(steps) + 2
        return len(steps) == 1 or sums + held + (1 if isa.fused else 5) <= isa.registers

    depth, bounded = len(contraction.reduce), 2 if contraction.sums_batch else contraction.passes
    bounded = max([bounded, *(w.sum + 1 for w in contraction.windows)])
    if contraction.shared:
        last = contraction.reduce[-1]
        return depth - 1, 1, [(i * last.a, i * last.b) for i in range(last.size)]
    while depth > bounded:
        d = contraction.reduce[depth - 1]
        some = [
            (i * d.a + a, i * d.b + b) for i in range(min(d.size, WRITTEN // (sums * len(steps)))) for a, b in steps
        ]
        if not some or len(some) < d.size * len(steps) or not fits(some):
            some = some[: min(STEPS, d.size)]
            return (depth, len(some), some) if steps == [(0, 0)] and some and fits(some) else (depth, 1, steps)
        depth, steps = depth - 1, some
    return depth, 1, steps


def row_tiles(contraction: Contraction, box: tuple[int, ...]) -> int:
    size = contraction.rows[0].size if contraction.rows else 1
    return -(-(IMAGES if size == BATCH else size) // box[0]) if contraction.rows else 1


def lane_blocks(contraction: Contraction, isa: ISA, vectors: int) -> int:
    return -(-contraction.lanes.size // (vectors * isa.lanes(contraction.kind)))


def pixel_groups(
    contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int, cycles: float
) -> tuple[bool, int, int]:
    """Tasks of an output: as many lanes as have their part of B near, and as many rows and lanes as are worth a task.

    What is added up in memory is one task for each outer index.
    """
    blocks, across = lane_blocks(contraction, isa, vectors), row_tiles(contraction, box)
    if contraction.adds:
        return False, across, blocks
    panel = contraction.terms * vectors * isa.width // 8
    lane_groups = -(-blocks // max(1, NEAR // max(panel, 1)))
    outer = math.prod(d.size for d in contraction.outer if d.size != BATCH)
    many = TASKS if any(d.size == BATCH for d in contraction.outer) else 4 * TASKS
    wanted = max(1, int(min(cycles / TASK, max(many, cycles / LARGE)) / max(outer, 1)))
    row_groups = min(across, -(-wanted // lane_groups))
    lane_groups = min(blocks, max(lane_groups, wanted // row_groups))
    return lane_groups > 1, -(-across // row_groups), -(-blocks // lane_groups)


def weight_groups(
    contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int, cycles: float
) -> tuple[float, int, int]:
    """Tasks of a sum over the batch, of a few images: few of them read little twice, many of them end together.

    The cycles of an image again, now with the reading, and with the waiting for the last task.
    """
    blocks, across = lane_blocks(contraction, isa, vectors), row_tiles(contraction, box)
    chunks = chunk_count(contraction, IMAGES)
    a, b = (SIZES[contraction.kind] * part for part in footprint(contraction, ALL, ALL))
    taps = len(contraction.rows) > 1  # each of the first ones reads all of A

    def grouped(group: tuple[int, int]) -> tuple[float, int, int]:
        rows, lanes = -(-across // group[0]), -(-blocks // group[1])
        read = a * lanes * (rows if taps else 1) + b * rows
        largest = group[0] / across * group[1] / blocks / chunks  # the share of the largest task
        return cycles * (1 + 0.5 * THREADS * largest) + read / BANDWIDTH, *group

    return min(grouped(group) for group in itertools.product(parts(across, across), parts(blocks, blocks)))


def chunk_count(contraction: Contraction, batch: int) -> int:
    """Into how many chunks a batch is cut: each has a result of its own, which has to be small beside its operands."""
    if not contraction.sums_batch:
        return 1
    elements = sum(footprint(contraction, ALL, ALL))
    return max(1, min(batch, TASKS, batch * elements // (4 * contraction.c_size)))


def footprint(contraction: Contraction, rows: int, lanes: int) -> tuple[int, int]:
    """Elements of A, of so many of its last rows, and of B, of so many lanes, that one image's sum takes; those that
    taps share are counted once."""
    pixels, lanes = contraction.terms, min(lanes, contraction.lanes.size)
    row, last = (dims[-1] if dims else Dim(1) for dims in (contraction.rows, contraction.reduce))
    apart = min(rows, row.size)
    if row.a == 1:
        apart = max(1, min(apart, last.a))
    elif row.a <= (last.size - 1) * last.a:
        apart = 1
    return pixels * (lanes if contraction.lanes.a else apart), pixels * lanes


def reduction_blocks(contraction: Contraction, rows: int, lanes: int) -> tuple[int, ...]:
    """Blocks of a long sum over the batch whose operands, of so many last rows and lanes, stay near: several images,
    or some rows of pixels of one."""
    if not contraction.sums_batch:
        return (1,) * contraction.passes
    image = sum(footprint(contraction, rows, lanes)) * SIZES[contraction.kind]
    images = max(1, min(NEAR // image, -(-256 // contraction.terms)), -(-192 // contraction.terms))
    if image <= NEAR or len(contraction.reduce) < 2:
        return (images,)
    pixels = contraction.reduce[1].size
    return (images, -(-pixels // -(-image // NEAR)))
