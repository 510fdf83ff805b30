"""Sums, means, extremes and their places, over some axes or all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.errors import DTypeError, ShapeError
from juanji.graph import Geometry, Linear, NotDifferentiable, Primitive, primitive
from juanji.ops._geometry import away, axes_of, axis_of, floating
from juanji.ops.elementwise import broadcast_to, stop_gradient, where
from juanji.ops.math import equal, exp, isfinite, log, sqrt
from juanji.ops.movement import concat, flip, reshape, take, transpose
from juanji.tensor import Tensor, composite, method

Axis = int | Sequence[int] | None


def kept(x: Tensor, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with the axes at size 1."""
    return tuple(1 if a in axes else n for a, n in enumerate(x.shape))


def sum_geometry(x: Tensor, *, axes: tuple[int, ...]) -> Geometry:
    return tuple(n for a, n in enumerate(x.shape) if a not in axes), x.dtype


sum_p: Primitive = primitive(
    "sum",
    sum_geometry,
    lambda x, axes: x.sum(axis=axes, dtype=x.dtype),
    Linear(lambda g, x, axes: broadcast_to(reshape(g, *kept(x, axes)), x.shape)),
    lambda rng: [((away(rng, 2, 3, 4),), {"axes": axes}) for axes in [(0, 2), (1,), ()]],
)


def roomy(x: Any) -> Tensor:
    """x as a tensor; whole numbers and truth values as int64, so that many of them fit."""
    x = Tensor.of(x)
    return x if x.is_floating else x.astype("int64")


@method
def sum(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Σ x over `axis` (one, several, or all); of whole numbers and truth values in int64."""
    x = roomy(x)
    axes = axes_of("sum", axis, x.ndim)
    total = sum_p(x, axes=axes)
    return reshape(total, *kept(x, axes)) if keepdims else total


def count(name: str, x: Tensor, axes: tuple[int, ...]) -> int:
    """How many elements are reduced to one. Raises ShapeError for none."""
    size = math.prod(x.shape[a] for a in axes)
    if size == 0:
        raise ShapeError(
            f"{name}: nothing to reduce",
            received=f"shape {x.shape}, axes {axes}",
            rule="at least one element",
        )
    return size


def examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 3, 4),), {"axes": (1,), "keepdims": False}
    yield (away(rng, 2, 3, 2),), {"axes": (0, 2), "keepdims": True}


@composite(examples, "mean")
def mean_c(x: Tensor, *, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    return sum(x, axes, keepdims) * (1 / math.prod(x.shape[a] for a in axes))


@method
def mean(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The mean over `axis` (003 eq. 29); of truth values the part that is true, in float32."""
    x = Tensor.of(x)
    x = x.astype("float32") if x.dtype == bool else x
    floating("mean", x)
    axes = axes_of("mean", axis, x.ndim)
    count("mean", x, axes)
    return mean_c(x, axes=axes, keepdims=keepdims)


def var_examples(rng: np.random.Generator) -> Any:
    for arrays, attrs in examples(rng):
        yield arrays, {**attrs, "correction": 1}


@composite(var_examples, "var")
def var_c(x: Tensor, *, axes: tuple[int, ...], keepdims: bool, correction: int) -> Tensor:
    size = math.prod(x.shape[a] for a in axes)
    centred = x - mean(x, axes, keepdims=True)
    return sum(centred * centred, axes, keepdims) * (1 / (size - correction) if size > correction else math.nan)


@method
def var(x: Any, axis: Axis = None, keepdims: bool = False, correction: int = 0) -> Tensor:
    """The mean square distance from the mean (003 eq. 30); `correction=1` divides by n − 1."""
    x = Tensor.of(x)
    floating("var", x)
    axes = axes_of("var", axis, x.ndim)
    count("var", x, axes)
    return var_c(x, axes=axes, keepdims=keepdims, correction=correction)


@method
def std(x: Any, axis: Axis = None, keepdims: bool = False, correction: int = 0) -> Tensor:
    """√var, with derivative 0 where that is 0."""
    variance = var(x, axis, keepdims, correction)
    zero = equal(variance, 0)
    return where(zero, 0.0, sqrt(where(zero, 1.0, variance)))


def arg_geometry(x: Tensor, *, axis: int) -> Geometry:
    return x.shape[:axis] + x.shape[axis + 1 :], np.dtype(np.int64)


argmax_p: Primitive = primitive(
    "argmax",
    arg_geometry,
    lambda x, axis: x.argmax(axis),
    NotDifferentiable(),
    lambda rng: [((away(rng, 3, 4),), {"axis": 1})],
)


@method
def argmax(x: Any, axis: int | None = None) -> Tensor:
    """The place of the largest element along `axis` (or among all, counted in order), the first of several; int64."""
    x = Tensor.of(x) if axis is not None else reshape(x, -1)
    place = axis_of("argmax", axis or 0, x.ndim)
    count("argmax", x, (place,))
    return argmax_p(x, axis=place)


@method
def argmin(x: Any, axis: int | None = None) -> Tensor:
    """The place of the smallest element, as `argmax`."""
    x = Tensor.of(x)
    count("argmin", x, axes_of("argmin", axis, x.ndim))
    return argmax(reversed_order("argmin", x), axis)


@composite(examples, "max")
def max_c(x: Tensor, *, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    rest = [a for a in range(x.ndim) if a not in axes]
    size = math.prod(x.shape[a] for a in axes)
    rows = reshape(transpose(x, *rest, *axes), -1, size)
    first = Tensor(np.arange(rows.shape[0]) * size)
    largest = take(reshape(rows, -1), argmax(rows, 1) + first)
    return reshape(largest, *(kept(x, axes) if keepdims else [x.shape[a] for a in rest]))


@method
def max(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over `axis`; of several equal ones the first gets the gradient, as in max pooling."""
    x = Tensor.of(x)
    axes = axes_of("max", axis, x.ndim)
    count("max", x, axes)
    return max_c(x, axes=axes, keepdims=keepdims)


@method
def min(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over `axis`, as `max`."""
    x = Tensor.of(x)
    count("min", x, axes_of("min", axis, x.ndim))
    return reversed_order("min", max(reversed_order("min", x), axis, keepdims))


def reversed_order(name: str, x: Tensor) -> Tensor:
    """x with small and large exchanged: −x, or for whole numbers −1 − x, which every dtype has a place for."""
    if x.dtype == bool:
        raise DTypeError(f"{name}: not for this dtype", received=str(x.dtype), fix='x.astype("int64")')
    return -x if x.is_floating else x.full_like(int(~x.dtype.type(0))) - x


def prod(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Π x over `axis`, by halves, so that its gradient is right where factors are zero; dtypes as `sum`."""
    x = roomy(x)
    axes = axes_of("prod", axis, x.ndim)
    rest = [a for a in range(x.ndim) if a not in axes]
    size = math.prod(x.shape[a] for a in axes)
    rows = reshape(transpose(x, *rest, *axes), math.prod(x.shape[a] for a in rest), size)
    if size == 0:
        rows = sum(rows, 1, keepdims=True) + 1
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = concat([rows[:, :half] * rows[:, half : 2 * half], rows[:, 2 * half :]], 1)
    return reshape(rows, *(kept(x, axes) if keepdims else [x.shape[a] for a in rest]))


cumsum_p: Primitive = primitive(
    "cumsum",
    lambda x, axis: (x.shape, x.dtype),
    lambda x, axis: np.cumsum(x, axis, dtype=x.dtype),
    Linear(lambda g, x, axis: flip(cumsum_p(flip(g, axis), axis=axis), axis)),
    lambda rng: [((away(rng, 3, 4),), {"axis": 1})],
)


def cumsum(x: Any, axis: int = 0) -> Tensor:
    """Running sums along `axis`; dtypes as `sum`."""
    x = roomy(x)
    return cumsum_p(x, axis=axis_of("cumsum", axis, x.ndim))


@composite(examples, "logsumexp")
def logsumexp_c(x: Tensor, *, axes: tuple[int, ...], keepdims: bool) -> Tensor:
    top = stop_gradient(max(x, axes, keepdims=True))
    top = where(isfinite(top), top, 0.0)
    spread = log(sum(exp(x - top), axes, keepdims=True)) + top
    return spread if keepdims else reshape(spread, *(n for a, n in enumerate(x.shape) if a not in axes))


def logsumexp(x: Any, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """ln Σ e^x, with the largest element taken out so that nothing overflows."""
    x = Tensor.of(x)
    floating("logsumexp", x)
    return logsumexp_c(x, axes=axes_of("logsumexp", axis, x.ndim), keepdims=keepdims)
