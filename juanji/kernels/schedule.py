"""How a contraction is computed: tile, packing, order, and what a task is; chosen by a model of the cost."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from juanji.kernels.contraction import BATCH, Contraction, Dim
from juanji.kernels.isa import ISA
from juanji.kernels.text import SIZES, Int, Text

NEAR = 384 << 10  # bytes that stay in the second cache while they are used
TASK = 5_000  # cycles that are worth a task of their own
LARGE = 60_000  # cycles of a task where there are many
TASKS = 16  # that balance well over a few threads
SHARES = 48  # of a weight gradient: each is long, and the last ones are waited for
IMAGES = 8  # the batch that is assumed where its size would matter
MEETING = 1 << 10  # bytes: what lies a multiple of them apart meets in a few places of the first cache
SCRATCH = 32 << 10  # bytes on the stack of a thread
WRITTEN = 160  # multiplications that are written out instead of looped over
STEPS = 4  # of a long loop that are written out
FEW_IMAGES = 2  # the batch for which a sum over it still has enough tasks
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
    copied      whether blocks of B are copied to where they lie together
    cycles      what the model says it costs, for one image
    note        how the contraction has been rewritten
    """

    box: tuple[int, ...]
    vectors: int
    packed: bool = False
    lanes_first: bool = False
    row_group: int = 1
    lane_group: int = 1
    blocks: tuple[int, ...] = ()
    copied: bool = False
    cycles: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        notes = [word for word, true in (("packed", self.packed), ("lanes first", self.lanes_first)) if true]
        notes += [f"sums in blocks of {'×'.join(map(str, self.blocks))}"] if self.blocks else []
        notes += ["copied"] if self.copied else []
        notes += [self.note] if self.note else []
        return ", ".join([f"tile {'×'.join(map(str, self.box))} by {self.vectors} vectors", *notes])


@functools.cache
def candidates(contraction: Contraction, isa: ISA) -> list[Schedule]:
    """Schedules for a contraction, as simplified, the cheapest first."""
    found = [completed(contraction, isa, box, vectors) for box, vectors in tiles(contraction, isa)]
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


def completed(contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int) -> Schedule:
    """The schedule of a tile: everything that follows from it."""
    packed = worth_packing(contraction, vectors * isa.lanes(contraction.kind))
    cycles = cost(contraction, isa, box, vectors)
    grouping = weight_groups if contraction.sums_batch else pixel_groups
    lanes_first, row_group, lane_group = grouping(contraction, isa, box, vectors, cycles)
    blocks = reduction_blocks(contraction, lane_group * vectors * isa.lanes(contraction.kind))
    copied = worth_copying(contraction, box, blocks, vectors * isa.width // 8)
    return Schedule(box, vectors, packed, lanes_first, row_group, lane_group, blocks, copied, cycles)


def block_sizes(contraction: Contraction, blocks: tuple[int, ...]) -> list[int]:
    """How many steps a block of the sum has along each dimension at most."""
    return [*blocks, *(d.size for d in contraction.reduce[len(blocks) :])]


def worth_copying(contraction: Contraction, box: tuple[int, ...], blocks: tuple[int, ...], column: int) -> bool:
    """Whether every block of B is copied: if its columns would meet in one place of the first cache.

    column  bytes of B that a step reads
    """
    if not contraction.sums_batch or contraction.lanes.a or contraction.lanes.b != 1:
        return False
    apart = contraction.reduce[-1].b * SIZES[contraction.kind]
    small = math.prod(block_sizes(contraction, blocks)) * column <= SCRATCH
    often = math.prod(d.size for d in contraction.rows) >= 4 * math.prod(box)
    return small and often and apart > column and apart % MEETING == 0


def worth_packing(contraction: Contraction, width: int) -> bool:
    """B is copied if its lanes are apart; also if tiles would pick from afar what they use again and again."""
    if contraction.lanes.b != 1:
        return not contraction.sums_batch or contraction.lanes.size > 1
    return not contraction.sums_batch and contraction.lanes.a == 0 and contraction.lanes.size > width


def cost(contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int) -> float:
    """Cycles for one image: a machine that does two FMAs and two loads a cycle, and each result four cycles later."""
    t = Text("model")
    sizes = [IMAGES * 4 if d.size == BATCH else d.size for d in contraction.rows]
    cycles = 0.0
    for column, _ in columns(contraction.lanes.size, isa.lanes(contraction.kind), vectors):
        for rows in itertools.product(*(runs(t, n, m) for n, m in zip(sizes, box, strict=True))):
            count = math.prod(cast(int, run.count) for run in (column, *rows))
            cycles += count * tile_cycles(contraction, isa, tuple(run.size for run in rows), column.size)
    return cycles * math.prod(abs(d.size) for d in contraction.outer)


def tile_cycles(contraction: Contraction, isa: ISA, box: tuple[int, ...], vectors: int) -> float:
    rows = offsets(contraction, box)
    sums, steps = len(rows) * vectors, written(contraction, rows, vectors, isa)[2]
    reads = len({row + a for row in rows for a, _ in steps}) / len(steps)
    loads = vectors + reads * (vectors if contraction.lanes.a else 1)
    step = max(sums / 2, loads / 2, 4.0) + vectors / 8  # the last: B comes from the second cache
    passes = math.prod(d.size for d in contraction.reduce[: contraction.passes])
    # Pixels of many channels lie so far apart that few of them stay in the first cache.
    far = fetched(contraction, rows) * vectors if contraction.lanes.a and not contraction.sums_batch else 0
    return step * contraction.terms + far + passes * (sums * (2 if contraction.passes else 1) + 20)


def fetched(contraction: Contraction, rows: Sequence[int]) -> int:
    """How many vectors of A a tile needs for all taps, for each of its vectors of lanes."""
    taps = itertools.product(*(range(0, d.size * d.a, d.a) for d in contraction.reduce if d.size > 1 and d.a))
    return len({row + sum(tap) for tap in taps for row in rows})


def offsets(contraction: Contraction, box: Sequence[int], operand: str = "a") -> list[int]:
    """Where the rows of a box lie in an operand, from the first on."""
    places = [0]
    for size, d in zip(box, contraction.rows, strict=False):
        places = [place + i * getattr(d, operand) for place in places for i in range(size)]
    return places


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
    if contraction.passes:
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
) -> tuple[bool, int, int]:
    """Tasks of a sum over the batch: fewer parts of C where even a small batch is cut into chunks."""
    blocks, across = lane_blocks(contraction, isa, vectors), row_tiles(contraction, box)
    wanted = max(1, round(SHARES / chunk_count(contraction, FEW_IMAGES)))
    lane_groups = min(blocks, wanted)
    row_groups = min(across, -(-wanted // lane_groups))
    return False, -(-across // row_groups), -(-blocks // lane_groups)


def chunk_count(contraction: Contraction, batch: int) -> int:
    """Into how many chunks a batch is cut: each has a result of its own, which has to be small beside its operands."""
    if not contraction.sums_batch:
        return 1
    elements = sum(footprint(contraction, 1 << 30))
    return max(1, min(batch, TASKS, batch * elements // (4 * contraction.c_size)))


def footprint(contraction: Contraction, lanes: int) -> tuple[int, int]:
    """Elements of A and of B, of so many lanes, that one image's sum takes; those that taps share are counted once."""
    pixels, lanes = contraction.terms, min(lanes, contraction.lanes.size)
    apart = contraction.rows[-1].size if contraction.rows and contraction.rows[-1].a == 1 else 1
    step = contraction.reduce[-1].a if contraction.reduce else 1
    return pixels * (lanes if contraction.lanes.a else max(1, min(apart, step))), pixels * lanes


def reduction_blocks(contraction: Contraction, lanes: int) -> tuple[int, ...]:
    """Blocks of a long sum over the batch whose operands stay near: several images, or some rows of pixels of one."""
    if not contraction.sums_batch:
        return (1,) * contraction.passes
    image = sum(footprint(contraction, lanes)) * SIZES[contraction.kind]
    images = max(1, min(NEAR // image, -(-256 // contraction.terms)), -(-192 // contraction.terms))
    if image <= NEAR or len(contraction.reduce) < 2:
        return (images,)
    pixels = contraction.reduce[1].size
    return (images, -(-pixels // -(-image // NEAR)))
