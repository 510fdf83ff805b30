"""Pooling: windows reduced to one number each, channel by channel (000, 001, 003, 004 §5.5).

Max pooling is the search for each window's largest element, `window_argmax`, which has no derivative, followed by
`window_gather`, which is linear: its transpose `window_scatter` sends the gradient to the place of the maximum
(002 eq. 4.3.4, 003 eq. 17). Mean pooling is linear, a `window_sum` whose transpose `window_spread` hands every window's
gradient to all of its elements (003 eq. 16–17). Indices count through the spatial extent of one image, row by row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from juanji.checks import per_axis
from juanji.errors import ArgumentError, DTypeError, ShapeError, describe
from juanji.graph import Array, Geometry, Linear, NotDifferentiable, Primitive, primitive
from juanji.ops._geometry import away, floating
from juanji.ops.conv import as_layout, channels_last, overlap_add, windows
from juanji.ops.convspec import SPATIAL, ConvSpec, padding_pairs, plan, spatial_rank
from juanji.ops.elementwise import where
from juanji.ops.linalg import matmul
from juanji.ops.math import abs, equal, maximum, pow
from juanji.ops.movement import moveaxis, take
from juanji.ops.reduction import max, mean
from juanji.tensor import Tensor, composite

Pairs = tuple[tuple[int, int], ...]

# The definitions.


def flat_places(x: Array) -> Array:
    """x `(N, *X, C)` with its spatial axes made one."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def lowest(dtype: np.dtype[Any]) -> float:
    return -math.inf if dtype.kind == "f" else float(np.iinfo(dtype).min)


def argmax_define(x: Array, spec: ConvSpec) -> Array:
    """The first of the largest elements of each window, or its first NaN; never an element of the padding."""
    n, c, count = x.shape[0], x.shape[-1], math.prod(spec.output)
    places = np.arange(math.prod(spec.input)).reshape(1, *spec.input, 1)
    places = windows(places, spec).reshape(count, spec.taps)
    inside = windows(np.ones((1, *spec.input, 1), bool), spec).reshape(count, spec.taps)
    seen = windows(x, spec).reshape(n, count, c, spec.taps)
    best = np.where(inside[:, None], seen, x.dtype.type(lowest(x.dtype))).argmax(-1)
    # Where everything inside is as low as the padding, the padding may have come first.
    window = np.arange(count)[:, None]
    best = np.where(inside[window, best], best, inside.argmax(-1)[:, None])
    return places[window, best].reshape(n, *spec.output, c)


def gather_define(x: Array, index: Array) -> Array:
    return np.take_along_axis(flat_places(x), flat_places(index), 1).reshape(index.shape)


def scatter_define(g: Array, index: Array, size: tuple[int, ...]) -> Array:
    (n, *_, c), extent = g.shape, math.prod(size)
    place = (np.arange(n)[:, None, None] * extent + flat_places(index)) * c + np.arange(c)
    total = np.bincount(place.ravel(), flat_places(g).ravel(), n * extent * c)
    return total.astype(g.dtype).reshape(n, *size, c)


def sum_define(x: Array, spec: ConvSpec) -> Array:
    seen = windows(x, spec)
    return functools.reduce(np.add, (seen[(..., *tap)] for tap in np.ndindex(*spec.kernel)))


def spread_define(g: Array, spec: ConvSpec) -> Array:
    alike = g.reshape(*g.shape, *[1] * spec.rank)
    return overlap_add(np.broadcast_to(alike, (*g.shape, *spec.kernel)), spec)


# The records.


def argmax_geometry(x: Tensor, *, spec: ConvSpec) -> Geometry:
    if x.dtype.kind not in "fiu":
        raise DTypeError("max_pool: needs numbers", received=str(x.dtype), fix='x.astype("float32")')
    return (x.shape[0], *spec.output, x.shape[-1]), np.dtype(np.int64)


def check_index(name: str, x: Tensor, index: Tensor) -> None:
    """Raise unless `index` has a whole number for every window and channel of each of x's images."""
    if index.dtype.kind not in "iu":
        raise DTypeError(f"{name}: indices are whole numbers", received=str(index.dtype))
    if (index.ndim, index.shape[0], index.shape[-1]) != (x.ndim, x.shape[0], x.shape[-1]):
        raise ShapeError(
            f"{name}: the indices belong to other images",
            received=f"{x.shape}, indices {index.shape}",
            rule="the same batch, channels and rank",
        )


def gather_geometry(x: Tensor, index: Tensor) -> Geometry:
    check_index("window_gather", x, index)
    return index.shape, x.dtype


def scatter_geometry(g: Tensor, index: Tensor, *, size: tuple[int, ...]) -> Geometry:
    check_index("window_scatter", g, index)
    if index.has_value and index.size and not 0 <= index.array.min() <= index.array.max() < math.prod(size):
        raise ShapeError(
            "max_unpool: an index points outside the output",
            received=f"{index.array.min()} … {index.array.max()}, output {describe(size, SPATIAL[len(size)])}",
            rule=f"0 … {math.prod(size) - 1}",
            fix="output_size is the spatial size of what was pooled",
        )
    return (g.shape[0], *size, g.shape[-1]), g.dtype


def sum_geometry(x: Tensor, *, spec: ConvSpec) -> Geometry:
    floating("window_sum", x)
    return (x.shape[0], *spec.output, x.shape[-1]), x.dtype


SPECS = [
    plan("pool", (7,), (2,), 2, 0, 1),
    plan("pool", (5, 6), (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2)),
    plan("pool", (5, 4), (2, 3), 2, 1, 1, ceil=True),
    plan("pool", (3, 4, 3), (2, 2, 1), 1, "same", 1),
]


def distinct(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers that are far from each other, so that a small step changes no maximum."""
    return rng.permutation(math.prod(shape)).reshape(shape) / 4 + 0.1


def input_examples(rng: np.random.Generator) -> Any:
    for spec in SPECS:
        yield (distinct(rng, 2, *spec.input, 2),), {"spec": spec}


def output_examples(rng: np.random.Generator) -> Any:
    for spec in SPECS:
        yield (away(rng, 2, *spec.output, 2),), {"spec": spec}


def gather_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 5, 3), rng.integers(0, 5, (2, 4, 3))), {}
    yield (away(rng, 2, 4, 3, 2), rng.integers(0, 12, (2, 2, 2, 2))), {}


def scatter_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 4, 3), rng.integers(0, 5, (2, 4, 3))), {"size": (5,)}
    yield (away(rng, 2, 2, 2, 2), rng.integers(0, 12, (2, 2, 2, 2))), {"size": (4, 3)}


window_argmax = primitive("window_argmax", argmax_geometry, argmax_define, NotDifferentiable(), input_examples)
window_gather: Primitive = primitive(
    "window_gather",
    gather_geometry,
    gather_define,
    Linear(lambda g, x, index: window_scatter(g, index, size=x.shape[1:-1])),
    gather_examples,
)
window_scatter: Primitive = primitive(
    "window_scatter",
    scatter_geometry,
    scatter_define,
    Linear(lambda g, y, index, size: window_gather(g, index)),
    scatter_examples,
)
window_sum: Primitive = primitive(
    "window_sum",
    sum_geometry,
    sum_define,
    Linear(lambda g, x, spec: window_spread(g, spec=spec)),
    input_examples,
)
window_spread: Primitive = primitive(
    "window_spread",
    lambda g, spec: ((g.shape[0], *spec.input, g.shape[-1]), g.dtype),
    spread_define,
    Linear(lambda g, y, spec: window_sum(g, spec=spec)),
    output_examples,
)

# Geometry that only pooling has.


def overlaps(spec: ConvSpec, margin: Sequence[tuple[int, int]]) -> Iterator[Array]:
    """For each axis, how many taps of each window fall on the input or on a margin (low, high) around it."""
    sizes = zip(spec.input, spec.kernel, spec.output, spec.stride, spec.low, spec.dilation, strict=True)
    for (n, k, y, s, start, d), (low, high) in zip(sizes, margin, strict=True):
        place = np.arange(y)[:, None] * s - start + np.arange(k) * d
        yield ((place >= -low) & (place < n + high)).sum(1)


def pool_plan(name: str, x: Tensor, size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> ConvSpec:
    """The windows of a pooling over x `(N, *X, C)`. Raises ShapeError where one of them meets no input at all."""
    sizes = x.shape[1:-1]
    kernel = per_axis(name, "size", size, len(sizes), least=1)
    spec = plan(name, sizes, kernel, kernel if stride is None else stride, padding, dilation, ceil=ceil_mode)
    if any((met == 0).any() for met in overlaps(spec, [(0, 0)] * spec.rank)):
        raise ShapeError(
            f"{name}: a window lies in the padding alone",
            received=f"input {describe(sizes, SPATIAL[spec.rank])}, size {kernel}, padding {padding!r}, "
            f"stride {spec.stride}, dilation {spec.dilation}",
            rule="every window covers at least one input",
            fix="less padding: half the window is enough to keep the size",
        )
    return spec


def padded(name: str, spec: ConvSpec, padding: Any) -> Pairs:
    """The padding that was asked for, (low, high) an axis; windows may hang over it when sizes are rounded up."""
    return tuple(padding_pairs(name, padding, spec.input, spec.span, spec.stride))


# The user's door.


def pool_examples(rng: np.random.Generator) -> Any:
    for arrays, attrs in input_examples(rng):
        yield arrays, attrs | {"return_indices": False}


@composite(pool_examples, "max_pool")
def max_pool_c(x: Tensor, *, spec: ConvSpec, return_indices: bool = False) -> Any:
    index = window_argmax(x, spec=spec)
    y = window_gather(x, index)
    return (y, index) if return_indices else y


def max_pool(
    x: Any,
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    layout: str = "NHWC",
) -> Any:
    """The largest element of each window (001, 002 eq. 4.2.3); the gradient goes to its place (003 eq. 17).

    x               (N, *X, C) over 1, 2 or 3 spatial axes; (N, C, *X) with layout="NCHW"
    size            the window's, an integer or one a spatial axis; so are stride and dilation
    stride          `size` by default; windows overlap where it is smaller
    padding         as in `conv`; it never wins
    ceil_mode       also the last window that begins inside but hangs over the end
    return_indices  also the places, int64, counted row by row through the spatial extent of x

    Of equal elements the first wins and alone receives the gradient; a NaN wins over everything. Returns (N, *Y, C)
    with Y as in `conv`, and the indices in the same shape. Raises ShapeError where the window does not fit or one lies
    in the padding alone, ArgumentError for options out of range.
    """
    x = Tensor.of(x)
    spatial_rank("max_pool", x, layout)
    x = channels_last(x, layout)
    spec = pool_plan("max_pool", x, size, stride, padding, dilation, ceil_mode)
    if not return_indices:
        return as_layout(max_pool_c(x, spec=spec), layout)
    return tuple(as_layout(y, layout) for y in max_pool_c(x, spec=spec, return_indices=True))


def mean_examples(rng: np.random.Generator) -> Any:
    options = [(0, True), (0, False), (1, True), (0, False)]
    for (arrays, attrs), (padding, include) in zip(input_examples(rng), options, strict=True):
        pads = padded("avg_pool", attrs["spec"], padding)
        yield arrays, attrs | {"padding": pads, "count_include_pad": include}


@composite(mean_examples, "avg_pool")
def avg_pool_c(x: Tensor, *, spec: ConvSpec, padding: Pairs, count_include_pad: bool) -> Tensor:
    margin = padding if count_include_pad else ((0, 0),) * spec.rank
    counts = functools.reduce(np.multiply.outer, overlaps(spec, margin))
    if (counts == spec.taps).all():
        return window_sum(x, spec=spec) * (1 / spec.taps)
    return window_sum(x, spec=spec) * Tensor(1 / counts[None, ..., None], x.dtype)


def avg_pool(
    x: Any,
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    layout: str = "NHWC",
) -> Tensor:
    """The mean of each window (001, 002 eq. 4.2.3); the gradient is spread evenly over it (003 eq. 17).

    count_include_pad  padding counts as zeros; otherwise the mean is over the inputs alone. What a window hangs over
                       the padding (`ceil_mode`) never counts

    Everything else, and the errors, as `max_pool`.
    """
    x = Tensor.of(x)
    spatial_rank("avg_pool", x, layout)
    floating("avg_pool", x)
    x = channels_last(x, layout)
    spec = pool_plan("avg_pool", x, size, stride, padding, 1, ceil_mode)
    margin = padded("avg_pool", spec, padding)
    return as_layout(avg_pool_c(x, spec=spec, padding=margin, count_include_pad=count_include_pad), layout)


def lp_pool(
    x: Any,
    norm: float,
    size: Any,
    stride: Any = None,
    ceil_mode: bool = False,
    padding: Any = 0,
    dilation: Any = 1,
    layout: str = "NHWC",
) -> Tensor:
    """(Σ xᵖ)^(1/p) over each window, with p = `norm`: the sum for 1, the largest |x| for ∞.

    Signs are kept, as PyTorch does it: for an odd p use |x| where x may be negative. Where the sum is zero so is the
    gradient. With `ceil_mode`, a window that hangs over the end is scaled up to full size. Raises ArgumentError for
    norm 0; everything else as `max_pool`.
    """
    x = Tensor.of(x)
    spatial_rank("lp_pool", x, layout)
    if math.isinf(norm):
        sign = 1 if norm > 0 else -1
        return max_pool(abs(x) * sign, size, stride, padding, dilation, ceil_mode, layout=layout) * sign
    if norm == 0:
        raise ArgumentError("lp_pool: there is no norm 0", received=f"norm={norm}", rule="any other number")
    x = channels_last(x, layout)
    spec = pool_plan("lp_pool", x, size, stride, padding, dilation, ceil_mode)
    margin = padded("lp_pool", spec, padding)
    total = avg_pool_c(pow(x, norm), spec=spec, padding=margin, count_include_pad=True) * spec.taps
    zero = equal(total, 0)
    return as_layout(where(zero, 0.0, pow(where(zero, 1.0, total), 1 / norm)), layout)


def max_unpool(
    x: Any,
    indices: Any,
    size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
    layout: str = "NHWC",
) -> Tensor:
    """The maxima back at their places, zeros elsewhere: what can be undone of `max_pool` with `return_indices`.

    x, indices   (N, *Y, C), or (N, C, *Y) with layout="NCHW": both results of the pooling
    size, stride, padding  of the pooling; padding is one number an axis
    output_size  the spatial size of what was pooled; (Y − 1)·stride − 2·padding + size by default

    Where windows overlap, a place named several times gets the mean, which is the maximum they all are. Raises
    ShapeError where indices and x differ in shape or an index lies outside.
    """
    x, indices = Tensor.of(x), Tensor.of(indices)
    rank = spatial_rank("max_unpool", x, layout)
    floating("max_unpool", x)
    if x.shape != indices.shape:
        raise ShapeError(
            "max_unpool: an index for each element, please", received=f"{x.shape}, indices {indices.shape}"
        )
    x, indices = channels_last(x, layout), channels_last(indices, layout)
    if output_size is None:
        kernel = per_axis("max_unpool", "size", size, rank, least=1)
        steps = kernel if stride is None else per_axis("max_unpool", "stride", stride, rank, least=1)
        pads = per_axis("max_unpool", "padding", padding, rank, least=0)
        around = zip(x.shape[1:-1], steps, pads, kernel, strict=True)
        output_size = [(y - 1) * s - 2 * p + k for y, s, p, k in around]
    target = per_axis("max_unpool", "output_size", output_size, rank, least=1)
    shares = window_scatter(x.full_like(1), indices, size=target)
    return as_layout(window_scatter(x, indices, size=target) / maximum(shares, 1), layout)


# Pooling to a given size.


def bins(n: int, count: int) -> tuple[Array, Array]:
    """Where each of `count` bins over n elements starts and ends: ⌊i·n/count⌋ and ⌈(i + 1)·n/count⌉."""
    i = np.arange(count)
    return i * n // count, -(-(i + 1) * n // count)


def adaptive_sizes(name: str, x: Tensor, output_size: Any) -> tuple[int, ...]:
    """`output_size` one number a spatial axis of x `(N, *X, C)`, where None keeps the size."""
    rank = x.ndim - 2
    given = (output_size,) * rank if output_size is None else output_size
    if isinstance(given, tuple | list) and len(given) == rank:
        given = tuple(n if o is None else o for n, o in zip(x.shape[1:-1], given, strict=True))
    if min(x.shape[1:-1]) < 1:
        raise ShapeError(f"{name}: nothing to pool", received=f"shape {x.shape}", rule="at least one element")
    return per_axis(name, "output_size", given, rank, least=1)


def whole_bins(x: Tensor, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The size of the bins where all are equal and do not overlap, else None."""
    extents = list(zip(x.shape[1:-1], sizes, strict=True))
    return None if any(n % o for n, o in extents) else tuple(n // o for n, o in extents)


def adaptive_avg_pool(x: Any, output_size: Any, layout: str = "NHWC") -> Tensor:
    """Mean pooling to `output_size`, an integer or one a spatial axis (None keeps one).

    Output i is the mean of inputs ⌊i·X/Y⌋ … ⌈(i + 1)·X/Y⌉ − 1, as in PyTorch. x (N, *X, C) gives (N, *Y, C). Raises
    ArgumentError for a size below 1.
    """
    x = Tensor.of(x)
    spatial_rank("adaptive_avg_pool", x, layout)
    floating("adaptive_avg_pool", x)
    x = channels_last(x, layout)
    sizes = adaptive_sizes("adaptive_avg_pool", x, output_size)
    if set(sizes) == {1}:
        return as_layout(global_avg_pool(x), layout)
    if whole := whole_bins(x, sizes):
        return as_layout(avg_pool(x, whole), layout)
    for axis, (n, o) in enumerate(zip(x.shape[1:-1], sizes, strict=True), 1):
        start, end = bins(n, o)
        member = (np.arange(n)[:, None] >= start) & (np.arange(n)[:, None] < end)
        x = moveaxis(matmul(moveaxis(x, axis, -1), Tensor(member / (end - start), x.dtype)), -1, axis)
    return as_layout(x, layout)


def adaptive_max_pool(x: Any, output_size: Any, return_indices: bool = False, layout: str = "NHWC") -> Any:
    """Max pooling to `output_size`, with the bins of `adaptive_avg_pool` and the indices of `max_pool`."""
    x = Tensor.of(x)
    spatial_rank("adaptive_max_pool", x, layout)
    x = channels_last(x, layout)
    sizes = adaptive_sizes("adaptive_max_pool", x, output_size)
    if whole := whole_bins(x, sizes):
        y, index = max_pool(x, whole, return_indices=True)
    else:
        y, index = uneven_max(x, sizes)
    y, index = as_layout(y, layout), as_layout(index, layout)
    return (y, index) if return_indices else y


def uneven_max(x: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Bins of different lengths as windows of the longest: the last element of a shorter one is repeated.

    A copy comes after its original, so the first maximum is still the first.
    """
    place, kernel = np.arange(math.prod(x.shape[1:-1])).reshape(x.shape[1:-1]), []
    for axis, (n, o) in enumerate(zip(x.shape[1:-1], sizes, strict=True)):
        start, end = bins(n, o)
        longest = int((end - start).max())
        index = np.minimum(start[:, None] + np.arange(longest), end[:, None] - 1).ravel()
        x, place = take(x, index, axis + 1), place.take(index, axis)
        kernel.append(longest)
    y, index = max_pool(x, kernel, return_indices=True)
    return y, take(place.ravel(), index)


def global_avg_pool(x: Any, layout: str = "NHWC") -> Tensor:
    """The mean over all places: (N, *X, C) becomes (N, 1, …, C), one number an image and channel."""
    x = Tensor.of(x)
    return mean(x, spatial_axes("global_avg_pool", x, layout), keepdims=True)


def global_max_pool(x: Any, layout: str = "NHWC") -> Tensor:
    """The largest element over all places, as `global_avg_pool`."""
    x = Tensor.of(x)
    return max(x, spatial_axes("global_max_pool", x, layout), keepdims=True)


def spatial_axes(name: str, x: Tensor, layout: str) -> range:
    rank = spatial_rank(name, x, layout)
    return range(1, rank + 1) if layout == "NHWC" else range(2, rank + 2)
