"""What a contraction is: C[outer, rows, lanes] = Σ A[outer, rows, reduce] · B[outer, reduce, lanes], strides and all.

Matrix products and all faces of convolution are contractions; only their strides differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from juanji.kernels.text import Int, Text

BATCH = -1  # the size of the one dimension that is known only when the kernel runs


@dataclass(frozen=True)
class Dim:
    """A dimension: its size, and how far A, B and C move with it, in elements."""

    size: int
    a: int = 0
    b: int = 0
    c: int = 0


@dataclass(frozen=True)
class Window:
    """Which elements of A lie inside an image: what row r and step t of a sum meet lies at r·step + t·apart − before,
    and is zero, so that it need not be multiplied, unless that is one of 0 … size − 1.

    row, sum  which dimensions of rows and of the sum r and t belong to
    """

    row: int
    sum: int
    step: int
    apart: int
    before: int
    size: int

    def turned(self, steps: int) -> Window:
        """The same with the steps of the sum, so many, the other way round."""
        return replace(self, apart=-self.apart, before=self.before - (steps - 1) * self.apart)

    def inside(self, t: Text, row: Int, rows: int, steps: int) -> tuple[Int, Int]:
        """The steps, of so many, that meet anything inside from at least one of the rows row … row + rows − 1."""
        far, near = (t.mul(t.add(row, more), -self.step) for more in (rows - 1, 0))
        low, high = t.add(far, self.before + self.apart - 1), t.add(near, self.size + self.before + self.apart - 1)
        first, end = (t.divmod(t.maximum(end, 0), self.apart)[0] for end in (low, high))
        return first, t.minimum(end, steps)

    def cuts(self, rows: int, steps: int) -> set[int]:
        """The rows at which another step begins or ceases to meet anything."""
        ends = {self.before - t * self.apart for t in range(steps)}
        found = {-(-(end + more) // self.step) for end in ends for more in (0, self.size)}
        return found & set(range(1, rows))


@dataclass(frozen=True)
class Contraction:
    """A contraction of strided operands.

    outer   what A, B and C may all move with: images, groups
    rows    what B does not move with: pixels of an output, or taps and channels of a weight gradient
    lanes   the vector axis: C moves by 1, A by 0 (one number for all lanes) or by 1 (a vector too), B by any stride
    reduce  what is summed over, outermost first; a size of 0 is an empty sum
    kind    "float" or "double", of the sums
    stored  the kinds of what lies in A, B and C, where it is not that
    pair    whether A and B are words of two numbers in bfloat16, whose products are added up together
    halves  if not 0, B is to be put into words, of numbers so far apart
    a0, b0, c0  where the first elements lie

    One dimension of outer, the first of rows, or the first of reduce may be `BATCH`.

    shared     so many lanes are a group, in which all have the same A: where A is a vector, that of lane l is element
               l − l mod size of A in step 0 of the last sum, which has `size` steps; in B groups are `shared.b` apart
    windows    where A is known to be zero
    adds       whether sums are added to what C has, which is one task's; then dimensions of the sum, the first ones,
               may move C
    scattered  the same sums added up in memory, where that can be done
    """

    outer: tuple[Dim, ...]
    rows: tuple[Dim, ...]
    lanes: Dim
    reduce: tuple[Dim, ...]
    kind: str = "float"
    a0: int = 0
    b0: int = 0
    c0: int = 0
    stored: tuple[str, str, str] = ("", "", "")
    pair: bool = False
    halves: int = 0
    shared: Dim | None = None
    windows: tuple[Window, ...] = ()
    adds: bool = False
    scattered: Scattered | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of what lies in A, B and C."""
        a, b, c = (stored or self.kind for stored in self.stored)
        return ("i32", "i32", c) if self.pair else (a, b, c)

    @property
    def passes(self) -> int:
        """How many dimensions of the sum move C."""
        return sum(d.c != 0 for d in self.reduce)

    @property
    def has_batch(self) -> bool:
        """Whether one size is known only when the kernel runs."""
        return any(d.size == BATCH for d in (*self.outer, *self.rows, *self.reduce))

    def products(self, batch: int) -> int:
        """How many multiplications with additions there are."""
        dims = (*self.outer, *self.rows, self.lanes, *self.reduce)
        return math.prod(batch if d.size == BATCH else d.size for d in dims) * (2 if self.pair else 1)

    def lanes_b(self, lanes: int) -> int:
        """How far B moves with so many lanes: whole groups of them, if there are groups."""
        return lanes // self.shared.size * self.shared.b if self.shared else lanes * self.lanes.b

    @property
    def sums_batch(self) -> bool:
        return any(d.size == BATCH for d in self.reduce)

    @property
    def terms(self) -> int:
        """How many products one sum has, of one image where it runs over the batch."""
        return math.prod(abs(d.size) for d in self.reduce)

    def offsets(self, box: Sequence[int], operand: str = "a") -> list[int]:
        """Where the rows of a box lie in an operand, from the first on."""
        places = [0]
        for size, d in zip(box, self.rows, strict=False):
            places = [place + i * getattr(d, operand) for place in places for i in range(size)]
        return places

    @property
    def c_size(self) -> int:
        """How many elements C has, where it is dense: how far apart partial results lie."""
        return math.prod(abs(d.size) for d in (*self.outer, *self.rows, self.lanes))

    def upward(self) -> Contraction:
        """The same sums with A read upwards: dimensions along which A falls are turned around."""
        falling = [d for d in self.reduce if d.a < 0 < d.size]
        sums = [self.reduce[w.sum] for w in self.windows]
        return replace(
            self,
            reduce=tuple(Dim(d.size, -d.a, -d.b, -d.c) if d in falling else d for d in self.reduce),
            windows=tuple(w.turned(d.size) if d in falling else w for w, d in zip(self.windows, sums, strict=True)),
            a0=self.a0 + sum((d.size - 1) * d.a for d in falling),
            b0=self.b0 + sum((d.size - 1) * d.b for d in falling),
        )

    def paired(self) -> Contraction | None:
        """The same sums two steps of the last dimension at a time, where these lie side by side in A, in bfloat16."""
        if self.stored[0] != "bfloat" or self.pair or self.lanes.a or not self.reduce or self.sums_batch:
            return None
        *others, last = self.reduce
        steps = [self.a0, last.size, *(d.a for d in (*self.outer, *self.rows, *others))]
        if last.a != 1 or any(step % 2 for step in steps):
            return None
        outer, rows, sums = ([replace(d, a=d.a // 2) for d in dims] for dims in (self.outer, self.rows, others))
        return replace(
            self, outer=tuple(outer), rows=tuple(rows), reduce=(*sums, Dim(last.size // 2, 1, 2 * last.b, last.c)),
            a0=self.a0 // 2, stored=("", *self.stored[1:]), pair=True, halves=last.b,
        )  # fmt: skip

    def simplified(self, *, keep_rows: bool = False) -> Contraction:
        """The same sums with as few dimensions as there can be. Rows that an epilogue asks about are kept."""
        if self.windows:
            return self
        return replace(self, rows=self.rows if keep_rows else merged(self.rows), reduce=merged(self.reduce))


@dataclass(frozen=True)
class Scattered:
    """A contraction whose C is scratch memory of one outer index, which is zero at first and added to.

    contraction  its offsets in A and B come on top of those of the contraction that it stands for
    size    elements of the scratch memory
    start   where in it the first row lies, and by how much each dimension of rows `steps`
    """

    contraction: Contraction
    size: int
    start: int
    steps: tuple[int, ...]


def merged(dims: Sequence[Dim]) -> tuple[Dim, ...]:
    """Dimensions without those of one element, neighbours as one where every operand runs on from one to the next."""
    result: list[Dim] = []
    for d in dims:
        if d.size == 1:
            continue
        last = result[-1] if result else None
        if last and last.size > 0 and (last.a, last.b, last.c) == (d.a * d.size, d.b * d.size, d.c * d.size):
            result[-1] = replace(d, size=last.size * d.size)
        else:
            result.append(d)
    return tuple(result)
