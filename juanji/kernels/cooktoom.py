"""Short convolutions with few multiplications: m outputs of r taps from n = m + r − 1 products instead of m·r.

y = Aᵀ((G w) ⊙ (Bᵀ x)) is the polynomial x·w known at n − 1 points and at infinity (Toom 1963, Cook 1966; for networks
Lavin, Gray 2015, equations 6 to 8). It is trilinear as T(x, w, y) = Σ (Bᵀ x)(G w)(A y), so the gradient by w has the
same matrices. Along several axes every axis has its own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from juanji.kernels.text import Text, Value, const

Matrix = tuple[tuple[Fraction, ...], ...]
Index = tuple[int, ...]
Element = Value | None  # None is zero
Elements = Mapping[Index, Element | Callable[[], Value]]  # what is called loads one

# The points beside 0 and infinity. Of all multiples of 1/8 those for n = 6 give the smallest errors: with 64 channels
# and 3×3 taps 1.1e-6 of the largest output in float32, where the customary ±1, ±2 give 6e-6. With n = 8, for 5×5 taps,
# it is 2.9e-6, at best 2.7e-6.
POINTS = {
    1: (),
    4: (Fraction(1),),
    6: (Fraction(3, 4), Fraction(3, 2)),
    8: (Fraction(1, 2), Fraction(1), Fraction(2)),
}


@dataclass(frozen=True)
class Algorithm:
    """Bᵀ (n × n) for the data, G (n × r) for the taps, A (n × m) for the outputs."""

    data: Matrix
    taps: Matrix
    outputs: Matrix

    @property
    def products(self) -> int:
        return len(self.data)

    @property
    def step(self) -> int:
        """Outputs of one application, m: so far apart are the next one's data."""
        return len(self.outputs[0])


@functools.cache
def algorithm(products: int, taps: int) -> Algorithm:
    """F(m, r) for a number of products that `POINTS` knows, more of them than taps but for 1 and 1."""
    points = [Fraction(0), *(sign * point for point in POINTS[products] for sign in (1, -1))][: products - 1]
    step = products + 1 - taps
    others = [[q for q in points if q != p] for p in points]
    scales = [math.prod((p - q for q in rest), start=Fraction(1)) for p, rest in zip(points, others, strict=True)]
    data = [(*polynomial(rest), Fraction(0)) for rest in others]
    return Algorithm(
        (*data, polynomial(points)),
        (*(tuple(p**j / scale for j in range(taps)) for p, scale in zip(points, scales, strict=True)), unit(taps)),
        (*(tuple(p**j for j in range(step)) for p in points), unit(step)),
    )


def polynomial(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of Π (x − root), that of the highest power, which is 1, last."""
    found = [Fraction(1)]
    for root in roots:
        found = [high - root * low for high, low in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return tuple(found)


def unit(size: int) -> tuple[Fraction, ...]:
    """What the point at infinity knows: the coefficient of the highest power."""
    return (*[Fraction(0)] * (size - 1), Fraction(1))


def transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


# As machine code


def applied(t: Text, matrices: Sequence[Matrix], x: Elements) -> Iterator[tuple[Index, Element]]:
    """The elements of a small array with every axis multiplied by its matrix, the first axis first, in order.

    They are loaded late and given soon: the code comes in this order, and there are fewer registers than elements.
    """
    *first, last = enumerate(matrices)
    for axis, matrix in first:
        x = dict(multiplied(t, axis, matrix, x))
    yield from multiplied(t, *last, x)


def multiplied(t: Text, axis: int, matrix: Matrix, x: Elements) -> Iterator[tuple[Index, Element]]:
    """The elements of an array with one axis multiplied by a matrix."""
    for line in sorted({(*i[:axis], *i[axis + 1 :]) for i in x}):
        places = [(*line[:axis], i, *line[axis:]) for i in range(len(matrix[0]))]
        loaded = [y() if callable(y) else y for y in map(x.get, places)]
        for i, y in enumerate(product(t, matrix, loaded)):
            yield (*line[:axis], i, *line[axis:]), y


def product(t: Text, matrix: Matrix, x: Sequence[Element]) -> list[Element]:
    """A matrix times a vector, without multiplying by 0 and ±1. Points come as ±p: columns of equal size are taken as
    sum and difference, and of rows of equal size the parts that they share are computed once."""
    columns = list(transposed(matrix))
    x = list(x)
    for i, j in itertools.combinations(range(len(columns)), 2):
        a, b = columns[i], columns[j]
        if x[i] is not None and x[j] is not None and a != b and any(a) and list(map(abs, a)) == list(map(abs, b)):
            same = [p == q for p, q in zip(a, b, strict=True)]
            columns[i] = tuple(p if s else Fraction(0) for p, s in zip(a, same, strict=True))
            columns[j] = tuple(Fraction(0) if s else p for p, s in zip(a, same, strict=True))
            x[i], x[j] = added(t, x[i], x[j]), subtracted(t, x[i], x[j])
    rows = transposed(tuple(columns))
    found: dict[int, Value | None] = {}
    for i, j in itertools.combinations(range(len(rows)), 2):
        a, b = rows[i], rows[j]
        if not {i, j} & found.keys() and a != b and list(map(abs, a)) == list(map(abs, b)):
            common = [p if p == q else Fraction(0) for p, q in zip(a, b, strict=True)]
            apart = [Fraction(0) if p == q else p for p, q in zip(a, b, strict=True)]
            factor = next(p for p in reversed(apart) if p)
            shared, other = combined(t, common, x), combined(t, [p / factor for p in apart], x)
            found[i], found[j] = (combined(t, (Fraction(1), sign * factor), (shared, other)) for sign in (1, -1))
    return [found[i] if i in found else combined(t, row, x) for i, row in enumerate(rows)]


def combined(t: Text, factors: Sequence[Fraction], x: Sequence[Value | None]) -> Value | None:
    """Σ factor·x."""
    terms = [(factor, value) for factor, value in zip(factors, x, strict=True) if factor and value is not None]
    terms.sort(key=lambda term: term[0] != 1)
    total: Value | None = None
    for factor, value in terms:
        if total is None:
            total = value if factor == 1 else t.op("fmul", value, number(factor, value))
        elif abs(factor) == 1:
            total = t.op("fadd" if factor == 1 else "fsub", total, value)
        else:
            total = t.fma(value, number(factor, value), total)
    return total


def number(factor: Fraction, like: Value) -> Value:
    return const(float(factor), like.kind, like.lanes)


def added(t: Text, x: Value | None, y: Value | None) -> Value | None:
    return (y if x is None else x) if x is None or y is None else t.op("fadd", x, y)


def subtracted(t: Text, x: Value | None, y: Value | None) -> Value | None:
    if x is None or y is None:
        return x if y is None else t.value(f"fneg {y}", y.kind, y.lanes)
    return t.op("fsub", x, y)
