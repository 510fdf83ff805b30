"""Which algorithm a face of a convolution takes: each tells what it costs, or why it cannot be had."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

from juanji.kernels.contraction import BATCH, Contraction, Dim
from juanji.kernels.cooktoom import POINTS, Algorithm, Matrix, algorithm, transposed
from juanji.kernels.direct import prices
from juanji.kernels.isa import ISA
from juanji.kernels.schedule import IMAGES
from juanji.kernels.spectra import Spectra
from juanji.kernels.text import SIZES
from juanji.kernels.winograd import Outputs, Weights, Winograd

WORTHWHILE = 0.9  # of the cycles of direct convolution at most
PRODUCTS = 216  # of a tile: every one of them is code of its own
OUTPUTS = 5  # along an axis at most: F(6, 3) saves a fifth of the products of F(4, 3), for four times its errors
PAIR_PRODUCTS = 6  # along an axis at most: eight magnify the rounding to bfloat16 to 11–16 % of the largest value
WAITING = 2.0  # transforms wait for memory: by so much they take longer than their instructions, unless it is near
NEARBY, CACHE = 640 << 10, 32 << 20  # bytes that the second and the last cache may hold
NEAR, FAR = 16, 12  # bytes that a thread moves in a cycle, to and from the last cache and the memory behind it
TOGETHER = 64  # tiles at most that are worked through together, many so that transformed weights are read seldom
ROWS, PAIR_ROWS = 14, 16  # tiles of a block at most: as many rows by two vectors as fit the registers; some by four
TASKS = 8  # that one kernel for all stages has to have
IDLE = 0.03  # the share of the time in which threads wait for the last task, at most, if that can be had
CHUNKS = 16  # of a weight gradient in which every task has sums of its own


def images(contraction: Contraction) -> int:
    """How many images the cycles of its schedules are for."""
    return 4 * IMAGES if any(d.size == BATCH for d in contraction.rows) else 1


def axes(contraction: Contraction) -> tuple[Sequence[Dim], Sequence[Dim]]:
    """The dimensions of taps and of pixels, axis by axis."""
    if contraction.sums_batch:
        return contraction.rows[:-1], contraction.reduce[1:]
    return contraction.reduce[:-1], contraction.rows


def refusal(contraction: Contraction) -> str:
    """Why a contraction cannot be had by short algorithms; empty if it can."""
    problem = contraction.upward()
    taps, pixels = axes(problem)
    if problem.kind != "float":
        return "for float32 only"
    if not taps or len(taps) != len(pixels) or len(problem.outer) != (1 if problem.sums_batch else 2):
        return "no convolution"
    if problem.lanes.a or problem.outer[-1].size != 1:
        return "in groups"
    if any(t.size > 1 and t.a != p.a for t, p in zip(taps, pixels, strict=True)):
        return "with a stride or a dilation"
    if all(t.size == 1 for t in taps) or any(d.size == 0 for d in (*taps, *pixels)):
        return "one tap"
    return ""


def algorithms(taps: Sequence[int], products: int) -> tuple[Algorithm, ...] | None:
    """F(m, r) with so many products along each axis of more than one tap, if every m is neither 1 nor too many."""
    if any(n > 1 and not 2 <= products + 1 - n <= OUTPUTS for n in taps):
        return None
    return tuple(algorithm(products if n > 1 else 1, n) for n in taps)


def candidates(contraction: Contraction, isa: ISA, batch: int, pair: bool = False) -> list[tuple[float, Winograd]]:
    """The ways in which short algorithms could do it, with the cycles that one thread needs for so many images, best
    first. `pair` says whether products may be in bfloat16.
    """
    if refusal(contraction):
        return []
    problem = replace(contraction.upward(), windows=(), scattered=None)
    sizes = [d.size for d in axes(problem)[0]]
    found = [each for n in POINTS if n > 1 and (each := algorithms(sizes, n))]
    found = [each for each in found if math.prod(a.products for a in each) <= PRODUCTS]
    make = weights if problem.sums_batch else outputs
    ways = [way for each in found for pairs in {False, pair} for way in make(problem, each, isa, batch, pairs)]
    return sorted(((cycles(way), way) for way in ways if not way.pair or pairable(way)), key=lambda way: way[0])


def pairable(way: Winograd) -> bool:
    """Whether everything that is summed over can be taken in pairs, whose products are exact enough."""
    if max(a.products for a in way.algorithms) > PAIR_PRODUCTS:
        return False
    if isinstance(way, Weights):
        return way.tiles % 2 == 0
    return way.contraction.reduce[-1].size % 2 == 0


@functools.cache
def best(contraction: Contraction, isa: ISA, batch: int, pair: bool = False) -> Winograd | None:
    """The best short algorithm if it is worth while beside the best direct way."""
    found = candidates(contraction, isa, batch, pair)
    if not found:
        return None
    return found[0][1] if found[0][0] < WORTHWHILE * min(prices(contraction, isa, batch).values()) else None


def outputs(problem: Contraction, found: tuple[Algorithm, ...], isa: ISA, batch: int, pair: bool) -> Iterator[Outputs]:
    """In stages, and in one kernel if that has enough tasks."""
    first = Outputs(problem, found, isa, batch, 1, 0, pair=pair)
    width, rows = first.tiling.width, PAIR_ROWS if pair else ROWS
    for strips in {strips_of_a_task(first, TASKS), 0}:
        whole = replace(first, tiles=width * (strips or 1), strips=strips)
        tiles = min(width * (strips or first.total), TOGETHER)
        shared = strips and whole.data.beside(first.width(whole.data.channels), first.tiling) > 1
        yield whole if shared else replace(whole, tiles=-(-tiles // -(-tiles // rows)))


def weights(problem: Contraction, found: tuple[Algorithm, ...], isa: ISA, batch: int, pair: bool) -> Iterator[Weights]:
    """In stages, and in one kernel."""
    first = Weights(problem, found, isa, batch, 1, 0, pair=pair)
    width = first.tiling.width
    yield replace(first, tiles=width * min(max(1, TOGETHER // width), first.total))
    if strips := strips_of_a_task(first, CHUNKS):
        yield replace(first, tiles=width * strips, strips=strips, chunks=min(CHUNKS, -(-first.total // strips)))


def strips_of_a_task(way: Winograd, tasks: int) -> int:
    """How many strips of tiles a task takes through all stages, so that so many tasks end at nearly the same time; 0 if
    there are so few that stages by themselves are faster."""

    def idle(strips: int) -> int:
        return -(-way.total // (strips * tasks)) * strips * tasks - way.total

    most = max(1, TOGETHER // way.tiling.width)
    if most * TASKS > way.total:
        return 0
    found = range(most, most // 2, -1)
    return next((n for n in found if idle(n) <= IDLE * way.total), min(found, key=idle))


# Costs: as in `schedule.py`, a machine that does two FMAs and two loads a cycle


def transform_cycles(matrices: Sequence[Matrix]) -> float:
    """Cycles of transforming one vector of tiles: loads, arithmetic with about two operations for every number that
    goes in along an axis, and stores."""
    sizes, operations = [len(m[0]) for m in matrices], 0
    before = math.prod(sizes)
    for axis, matrix in enumerate(matrices):
        operations += 2 * max(len(matrix), len(matrix[0])) * math.prod(sizes) // len(matrix[0])
        sizes[axis] = len(matrix)
    return before / 2 + operations / 2 + math.prod(sizes)


def latency(way: Winograd, between: int) -> float:
    """How much longer transforms take for so many words that lie between the stages."""
    return 1.0 if way.strips and between * SIZES["float"] <= NEARBY else WAITING


def cycles(way: Winograd) -> float:
    """Cycles of one thread for all images."""
    return weight_cycles(way) if isinstance(way, Weights) else output_cycles(cast(Outputs, way))


def moving(words: float, times: float) -> float:
    """Cycles of writing or reading so many words of memory so many times."""
    size = words * SIZES["float"]
    return size * times / (NEAR if size <= CACHE else FAR)


def vectors(way: Winograd, count: int) -> float:
    """Whole vectors of so many channels; two that are half as wide count as one."""
    width = way.width(count)
    return -(-count // width) * width / way.isa.lanes(way.kind)


def shared_vectors(way: Winograd, spectra: Spectra) -> float:
    """Vectors of a tile that is to be transformed, which may share them with others."""
    together = spectra.beside(way.width(spectra.channels), way.tiling)
    return vectors(way, spectra.channels) * way.tiling.groups(together) / way.tiling.width


def output_cycles(way: Outputs) -> float:
    k, n = way.contraction.lanes.size, way.contraction.reduce[-1].size
    tiles, blocks = way.total * way.tiling.width, -(-way.together // way.tiles)
    rounds = -(-way.total // way.strips) if way.strips else 1
    products = way.way[1].cycles / images(way.products) * rounds * blocks
    back = [transposed(a.outputs) for a in way.algorithms]
    between = sum(each.size(way.together) for each in (way.data, way.results))
    transforms = tiles * shared_vectors(way, way.data) * transform_cycles([a.data for a in way.algorithms])
    transforms += tiles * vectors(way, k) * transform_cycles(back)
    transforms *= latency(way, between)
    transforms += WAITING * vectors(way, k) * n * transform_cycles([a.taps for a in way.algorithms])
    moved = 0 if way.strips else moving(between, 2)
    return products + transforms + moving(way.pack.size(), 1 + rounds) + moved


def weight_cycles(way: Weights) -> float:
    n, k = (side.channels for side in way.sides)
    tiles = way.total * way.tiling.width
    rounds = -(-way.total // way.strips) if way.strips else 1
    products = rounds * -(-way.together // way.tiles) * way.tiles * way.elements * n * vectors(way, k) / 2
    both = zip(way.spectra_of_both, way.sides, strict=True)
    transforms = tiles * sum(shared_vectors(way, spectra) * transform_cycles(side.matrices) for spectra, side in both)
    between = sum(each.size(way.together) for each in way.spectra_of_both)
    transforms *= latency(way, between)
    transforms += WAITING * n * vectors(way, k) * transform_cycles([transposed(a.taps) for a in way.algorithms])
    sums = moving(way.sums, 2 * rounds) + moving(way.sums * way.chunks, 2)
    moved = 0 if way.strips else moving(between, 2)
    return 1.1 * products / (2 if way.pair else 1) + transforms + sums + moved
