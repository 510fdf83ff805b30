"""What a tile is made of on a processor with AMX: matrices of up to 16 rows of 16 words or sums, in eight registers.

A word holds two numbers in bfloat16. One instruction multiplies 16 rows of A, 16 words each, by 16 rows of the packed B
and adds the products to 16 rows of 16 sums: 8192 products in 16 cycles, a row of A in each.

Source: Intel, "Intel architecture instruction set extensions programming reference", chapter on AMX; throughputs as
measured on uops.info: a product takes a cycle for each row of A, a load half of one for each row.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from juanji.kernels.contraction import Contraction

REGISTERS, ROWS, WORDS, LANES = 8, 16, 16, 16
LEAST = 4  # words of a step that are worth it
LATENCY = 52  # cycles from one product to the next with the same sums


@dataclass(frozen=True)
class Piece:
    """Rows of a box, so many of them from row `first` on, that lie `apart` words from each other in A."""

    first: int
    rows: int
    apart: int


@functools.cache
def pieces(contraction: Contraction, box: tuple[int, ...]) -> tuple[Piece, ...]:
    """The rows of a box in matrices of nearly equal size, in each of which all are equally far apart."""
    places, found = contraction.offsets(box), [Piece(0, 1, 0)]
    for row, (before, place) in enumerate(itertools.pairwise(places), 1):
        last, apart = found[-1], place - before
        if last.rows == 1 or apart == last.apart:
            found[-1] = Piece(last.first, last.rows + 1, apart)
        else:
            found.append(Piece(row, 1, 0))
    return tuple(part for piece in found for part in cut(piece))


def cut(piece: Piece) -> Iterator[Piece]:
    """A piece in as few as there can be."""
    count, first = -(-piece.rows // ROWS), piece.first
    for i in range(count):
        rows = (piece.rows + i) // count
        yield Piece(first, rows, piece.apart)
        first += rows


def step(contraction: Contraction) -> int:
    """How many words of each row of A are taken at once; 0 where a sum cannot be computed in this way."""
    own = 2 if contraction.sums_batch else 0  # dimensions of the sum that are taken in blocks
    if not contraction.pair or contraction.adds or contraction.passes or len(contraction.reduce) <= own:
        return 0
    last = contraction.reduce[-1]
    if last.a != 1 or last.size < LEAST or any(w.sum == len(contraction.reduce) - 1 for w in contraction.windows):
        return 0
    most = max(n for n in range(1, WORDS + 1) if last.size % n == 0)
    return most if most >= LEAST else 0


def fit(rows: int, vectors: int) -> bool:
    """Whether the registers hold the sums of so many matrices of rows by vectors, those of B and one or two of A."""
    return rows * vectors + vectors + min(rows, 2) <= REGISTERS


def cycles(contraction: Contraction, box: tuple[int, ...], vectors: int, part: float) -> float:
    """Cycles of one tile that takes a part of the steps of its sum: products, or loads if those take longer, or what a
    product waits for the one before it; then the sums go through memory. Infinite for what does not fit."""
    rows = [piece.rows for piece in pieces(contraction, box)]
    if not fit(len(rows), vectors):
        return math.inf
    words = step(contraction)
    products, loads = sum(rows) * vectors, (sum(rows) + words * vectors) / 2
    steps = contraction.terms / words * part
    return steps * (max(products, loads, LATENCY) + loads / 4 + 2) + 2 * sum(rows) * vectors + 60
