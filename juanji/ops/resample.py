"""Images on another grid: padded, resized, sampled at fractional places."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from juanji.checks import one_of, per_axis
from juanji.errors import ArgumentError, ShapeError, describe
from juanji.graph import Array
from juanji.ops._geometry import away, floating
from juanji.ops.convspec import letters, spatial_rank
from juanji.ops.elementwise import where
from juanji.ops.math import abs, add, floor, greater_equal, less, less_equal, logical_and, mul, round
from juanji.ops.movement import concat, expand_dims, getitem, pad_p, reshape, take
from juanji.tensor import Tensor, composite

# Padding.


def edge_index(n: int, low: int, high: int) -> Array:
    return np.arange(-low, n + high).clip(0, n - 1)


def reflect_index(n: int, low: int, high: int) -> Array:
    """To and fro over 0 … n − 1 without repeating the ends."""
    period = 2 * (n - 1) or 1
    place = np.arange(-low, n + high) % period
    return np.minimum(place, period - place) if n > 1 else place


PAD_INDEX = {"edge": edge_index, "reflect": reflect_index}


def widths_of(x: Tensor, widths: Any) -> list[tuple[int, int]]:
    """`widths` as (low, high) for each axis, by NumPy's rule."""
    try:
        full = np.broadcast_to(np.asarray(widths), (x.ndim, 2))
    except ValueError:
        full = np.array([[-1]])
    if full.dtype.kind not in "iu" or full.min(initial=0) < 0:
        raise ArgumentError(
            "pad: bad widths",
            received=f"widths={widths!r} for shape {x.shape}",
            rule=f"an integer of at least 0, a pair (low, high), or {x.ndim} pairs",
        )
    return [(int(low), int(high)) for low, high in full]


def pad(x: Any, widths: Any, mode: str = "constant", value: float = 0.0) -> Tensor:
    """x with elements added at the ends of its axes, as `np.pad` (zero padding: 002 §4.1.3).

    widths  how many: an integer, a pair (low, high) for all axes, or a pair for each axis, batch and channels included
    mode    "constant": `value`; "reflect": mirrored at the last element without repeating it; "edge": the last element

    Raises ArgumentError for negative widths or an unknown mode, ShapeError where there is nothing to repeat.
    """
    x = Tensor.of(x)
    pairs = widths_of(x, widths)
    one_of("pad", "mode", mode, ("constant", *PAD_INDEX))
    if mode == "constant":
        return constant_pad(x, pairs, value)
    for axis, (low, high) in enumerate(pairs):
        if low or high:
            if not x.shape[axis]:
                raise ShapeError(f"pad: axis {axis} has no element to repeat", received=f"shape {x.shape}")
            x = take(x, PAD_INDEX[mode](x.shape[axis], low, high), axis)
    return x


def constant_pad(x: Tensor, pairs: list[tuple[int, int]], value: float) -> Tensor:
    low, high = (tuple(ends) for ends in zip(*pairs, strict=True)) if pairs else ((), ())
    y = pad_p(x, low=low, high=high, interior=(0,) * x.ndim)
    if value == 0:
        return y
    inside = np.ones([n if any(pair) else 1 for n, pair in zip(x.shape, pairs, strict=True)], bool)
    return where(np.pad(inside, pairs and [p if any(p) else (0, 0) for p in pairs]), y, value)


# Resizing, one axis after the other.

Scales = tuple[float, ...]


def nearest(x: Tensor, axis: int, size: int, step: float, align_corners: bool) -> Tensor:
    """The element at ⌊i·step⌋ for each i, in whole numbers where the step is a ratio of sizes."""
    n = x.shape[axis]
    place = np.arange(size) * n // size if step == n / size else np.floor(np.arange(size) * step).astype(np.int64)
    return take(x, np.minimum(place, n - 1), axis)


def linear(x: Tensor, axis: int, size: int, step: float, align_corners: bool) -> Tensor:
    """Between the elements around place i·step (corners aligned) or (i + ½)·step − ½ (pixel centres), not below 0."""
    place = np.arange(size) * step if align_corners else (np.arange(size) + 0.5) * step - 0.5
    low = np.minimum(np.maximum(place, 0).astype(np.int64), x.shape[axis] - 1)
    share = (np.maximum(place, 0) - low).clip(0, 1).reshape(-1, *[1] * (x.ndim - 1 - axis))
    high = np.minimum(low + 1, x.shape[axis] - 1)
    return take(x, low, axis) * Tensor(1 - share, x.dtype) + take(x, high, axis) * Tensor(share, x.dtype)


def triangle(distance: Array) -> Array:
    """The weight of an element at some distance: linear interpolation."""
    return np.maximum(1 - np.abs(distance), 0)


# Cubic convolution (Keys 1981, eq. 15): the weight of an element at a distance up to 1, and from there up to 2.
SLOPE = -0.75  # PyTorch's a; Keys has −½


def near(d: Any, a: float = SLOPE) -> Any:
    return (d * (a + 2) - (a + 3)) * d * d + 1


def far(d: Any, a: float = SLOPE) -> Any:
    return ((d * a - 5 * a) * d + 8 * a) * d - 4 * a


def keys(distance: Array, a: float = SLOPE) -> Array:
    """The weight of an element at some distance: cubic convolution."""
    d = np.abs(distance)
    return np.where(d <= 1, near(d, a), np.where(d < 2, far(d, a), 0))


def taps(
    place: Array, n: int, kernel: Callable[[Array], Array], reach: int, *, shrink: float = 1.0, inside: bool = False
) -> tuple[Array, Array]:
    """What is read for output elements that lie at fractional places of n: indices and their weights, `(Y, K)`.

    reach   of the kernel, in elements; a `shrink` below 1 widens it, against aliasing
    inside  only elements that exist have a weight; otherwise the outermost stand for those beyond

    The weights of an element add up to 1.
    """
    width = math.ceil(reach / shrink)
    index = np.floor(place).astype(np.int64)[:, None] + np.arange(1 - width, width + 1)
    share = kernel((index - place[:, None]) * shrink)
    if inside:
        share = np.where((index >= 0) & (index < n), share, 0)
    return index.clip(0, n - 1), share / share.sum(1, keepdims=True)


def interpolate(x: Tensor, axis: int, index: Array, share: Array) -> Tensor:
    """Along `axis`, for each output element the sum of the elements that a row of `index` names, by their shares."""
    shape = (-1, *[1] * (x.ndim - 1 - axis))
    terms = (
        take(x, column, axis) * Tensor(weight.reshape(shape), x.dtype)
        for column, weight in zip(index.T, share.T, strict=True)
    )
    return functools.reduce(add, terms)


def cubic(x: Tensor, axis: int, size: int, step: float, align_corners: bool) -> Tensor:
    """By the four elements around the places of `linear`; what lies outside is the outermost element."""
    place = np.arange(size) * step if align_corners else (np.arange(size) + 0.5) * step - 0.5
    return interpolate(x, axis, *taps(place, x.shape[axis], keys, 2))


RESIZE = {"nearest": nearest, "bilinear": linear, "bicubic": cubic}


def resize_examples(rng: np.random.Generator) -> Any:
    options = {"mode": "bilinear", "align_corners": False}
    yield (away(rng, 2, 3, 4, 2),), options | {"size": (5, 3), "steps": (3 / 5, 4 / 3)}
    yield (away(rng, 1, 3, 1),), options | {"size": (5,), "steps": (2 / 4,), "align_corners": True}
    yield (away(rng, 1, 2, 2, 3, 1),), options | {"size": (4, 1, 2), "steps": (0.5, 2, 1.5), "mode": "nearest"}
    yield (away(rng, 1, 3, 4, 1),), options | {"size": (5, 3), "steps": (3 / 5, 4 / 3), "mode": "bicubic"}


@composite(resize_examples, "resize")
def resize_c(x: Tensor, *, size: tuple[int, ...], steps: Scales, mode: str, align_corners: bool) -> Tensor:
    for axis, (n, target, step) in enumerate(zip(x.shape[1:-1], size, steps, strict=True), 1):
        if target != n or step != 1:
            x = RESIZE[mode](x, axis, target, step, align_corners)
    return x


def resize(
    x: Any, size: Any = None, *, scale: Any = None, mode: str = "nearest", align_corners: bool = False
) -> Tensor:
    """Images x (N, *X, C) of another size, over 1, 2 or 3 spatial axes, as PyTorch's `interpolate`.

    size           the new sizes, an integer or one a spatial axis
    scale          instead: ⌊X·scale⌋, a number or one a spatial axis
    mode           "nearest"; "bilinear": between two neighbours along every axis, in any rank; "bicubic": between four
                   (Keys 1981, with a = −¾)
    align_corners  unless "nearest": the outermost pixel centres stay in place; otherwise the outermost pixel edges do

    Raises ArgumentError unless exactly one of size and scale is given and positive, and for an unknown mode; DTypeError
    for whole numbers unless "nearest".
    """
    x = Tensor.of(x)
    rank = spatial_rank("resize", x, "NHWC")
    one_of("resize", "mode", mode, RESIZE)
    if mode != "nearest":
        floating("resize", x)
    if (size is None) == (scale is None):
        raise ArgumentError("resize: size or scale, one of them", received=f"size={size}, scale={scale}")
    if min(x.shape[1:-1]) < 1:
        raise ShapeError("resize: nothing to resize", received=f"shape {x.shape}")
    scales = None if scale is None else scales_of(scale, rank)
    if scales is not None:
        size = [math.floor(n * s) for n, s in zip(x.shape[1:-1], scales, strict=True)]
    target = per_axis("resize", "size", size, rank, least=1)
    steps = tuple(
        step_of(n, o, None if scales is None else scales[axis], align_corners and mode != "nearest")
        for axis, (n, o) in enumerate(zip(x.shape[1:-1], target, strict=True))
    )
    return resize_c(x, size=target, steps=steps, mode=mode, align_corners=align_corners)


def scales_of(scale: Any, rank: int) -> Scales:
    scales = tuple(map(float, scale)) if np.ndim(scale) else (float(scale),) * rank
    if len(scales) != rank or not all(0 < s < math.inf for s in scales):
        raise ArgumentError("resize: bad scale", received=f"scale={scale!r}", rule=f"above 0, one or {rank}")
    return scales


def step_of(n: int, size: int, scale: float | None, align_corners: bool) -> float:
    """How far the source moves for one output element; a given scale is kept although the size is rounded."""
    if align_corners:
        return (n - 1) / (size - 1) if size > 1 else 0.0
    return n / size if scale is None else 1 / scale


# Sampling at fractional places.


def sample(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """x `(N, *X, C)` at fractional places, one tensor `(N, *Y)` of coordinates a spatial axis: `(N, *Y, C)`.

    Linear between the 2^rank neighbours, Σ x[q]·Π max(0, 1 − |q − p|) (Dai et al. 2017, eq. 3–4), and zero outside.
    """
    corners = itertools.product(*(neighbours(p) for p in places))
    terms = []
    for corner in corners:
        weight = functools.reduce(mul, (w for _, w in corner))
        terms.append(pixels(x, [index for index, _ in corner]) * expand_dims(weight, -1))
    return functools.reduce(add, terms)


def neighbours(place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The whole coordinates on either side of each place, with their weights."""
    low = floor(place)
    share = place - low
    yield low, 1 - share
    yield low + 1, share


def pixels(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """x `(N, *X, C)` at whole coordinates, floating tensors `(N, *Y)`: `(N, *Y, C)`, zero outside.

    A row of zeros behind all pixels stands for everything outside, so that no NaN at the border leaks into it.
    """
    n, *sizes, c = x.shape
    inside = [logical_and(greater_equal(p, 0), less(p, size)) for p, size in zip(places, sizes, strict=True)]
    everywhere = functools.reduce(logical_and, inside)
    first = np.arange(n).reshape(-1, *[1] * (places[0].ndim - 1))
    index = Tensor(first)
    for place, size, within in zip(places, sizes, inside, strict=True):
        index = index * size + where(within, place, 0.0).astype("int64")
    index = where(everywhere, index, n * math.prod(sizes))
    table = concat([reshape(x, n * math.prod(sizes), c), Tensor(np.zeros((1, c)), x.dtype)])
    return take(table, index)


def inside_edges(place: Tensor, size: int, align_corners: bool) -> Tensor:
    """Held at the outermost pixels, where the derivative is 0."""
    low = where(less_equal(place, 0), 0.0, place)
    return where(greater_equal(low, size - 1), float(size - 1), low)


def reflected(place: Tensor, size: int, align_corners: bool) -> Tensor:
    """Mirrored at the centres (corners aligned) or the outer edges of the outermost pixels, as often as it takes."""
    start, span = (0.0, size - 1) if align_corners else (-0.5, size)
    if not span:
        return place * 0.0
    distance = abs(place - start)
    turns = floor(distance / span)
    rest = distance - turns * span
    odd = turns - floor(turns / 2) * 2
    mirrored = rest + odd * (span - rest * 2) + start
    return inside_edges(mirrored, size, align_corners)


BORDERS: dict[str, Callable[[Tensor, int, bool], Tensor]] = {
    "zeros": lambda place, size, align_corners: place,
    "border": inside_edges,
    "reflection": reflected,
}
Bend = Callable[[Tensor, int], Tensor]


def sample_bent(x: Tensor, places: Sequence[Tensor], bend: Bend) -> Tensor:
    return sample(x, [bend(place, axis) for axis, place in enumerate(places)])


def sample_nearest(x: Tensor, places: Sequence[Tensor], bend: Bend) -> Tensor:
    return pixels(x, [round(bend(place, axis)) for axis, place in enumerate(places)])


def sample_cubic(x: Tensor, places: Sequence[Tensor], bend: Bend) -> Tensor:
    """By the four neighbours along every axis; each is bent back into the image by itself, as PyTorch does it."""
    terms = []
    for corner in itertools.product(*(four_neighbours(place) for place in places)):
        weight = functools.reduce(mul, (w for _, w in corner))
        indices = [bend(index, axis) for axis, (index, _) in enumerate(corner)]
        terms.append(pixels(x, indices) * expand_dims(weight, -1))
    return functools.reduce(add, terms)


def four_neighbours(place: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The whole coordinates around each place, two on either side, with the weights of `keys`."""
    low = floor(place)
    share = place - low
    yield low - 1, far(share + 1)
    yield low, near(share)
    yield low + 1, near(1 - share)
    yield low + 2, far(2 - share)


SAMPLERS: dict[str, Callable[[Tensor, Sequence[Tensor], Bend], Tensor]] = {
    "bilinear": sample_bent,
    "nearest": sample_nearest,
    "bicubic": sample_cubic,
}


def grid_examples(rng: np.random.Generator) -> Any:
    for mode, border, aligned, sizes in [
        ("bilinear", "zeros", False, (4, 3)),
        ("bilinear", "border", True, (4, 3)),
        ("bilinear", "reflection", False, (3, 2, 4)),
        ("nearest", "zeros", False, (4, 3)),
        ("bicubic", "zeros", False, (4, 3)),
    ]:
        # Halfway between pixels and well clear of the kinks on them: odd quarters of a pixel.
        quarters = [rng.integers(-3, 2 * n + 3, (2, 3, 2)) / 2 + 0.25 for n in sizes[::-1]]
        ends = [n - 1 if aligned else n for n in sizes[::-1]]
        shift = 0 if aligned else 0.5
        grid = np.stack([(q + shift) * 2 / end - 1 for q, end in zip(quarters, ends, strict=True)], -1)
        yield (away(rng, 2, *sizes, 2), grid), {"mode": mode, "padding_mode": border, "align_corners": aligned}


@composite(grid_examples, "grid_sample")
def grid_sample_c(x: Tensor, grid: Tensor, *, mode: str, padding_mode: str, align_corners: bool) -> Tensor:
    places = []
    for axis, size in enumerate(x.shape[1:-1]):
        coordinate = getitem(grid, (..., x.ndim - 3 - axis))
        place = (coordinate + 1) * ((size - 1) / 2) if align_corners else ((coordinate + 1) * size - 1) * 0.5
        places.append(place)

    def bend(place: Tensor, axis: int) -> Tensor:
        return BORDERS[padding_mode](place, x.shape[axis + 1], align_corners)

    return SAMPLERS[mode](x, places, bend)


def grid_sample(
    x: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool = False
) -> Tensor:
    """Images sampled where a grid says (Jaderberg et al. 2015), differentiable by image and grid, as PyTorch's.

    x              (N, *X, C) over 1, 2 or 3 spatial axes
    grid           (N, *Y, rank): x, y (and z) of each output element, −1 and 1 being the ends of the image
    mode           "bilinear" (linear along every axis), "bicubic" (by four neighbours along each) or "nearest" (halves
                   to even)
    padding_mode   what lies outside: "zeros", "border" (the outermost pixel), "reflection"
    align_corners  whether the ends are the centres of the outermost pixels, or their outer edges

    Returns (N, *Y, C). Raises ShapeError for a grid of another shape, ArgumentError for an unknown mode, DTypeError for
    mixed or whole-number dtypes.
    """
    x, grid = Tensor.of(x), Tensor.of(grid)
    rank = spatial_rank("grid_sample", x, "NHWC")
    floating("grid_sample", x, grid)
    one_of("grid_sample", "mode", mode, SAMPLERS)
    one_of("grid_sample", "padding_mode", padding_mode, BORDERS)
    if grid.ndim != x.ndim or (grid.shape[0], grid.shape[-1]) != (x.shape[0], rank) or min(x.shape[1:-1]) < 1:
        raise ShapeError(
            "grid_sample: the grid does not belong to the images",
            received=f"images {describe(x.shape, letters(rank))}, grid {grid.shape}",
            rule=f"images of at least one pixel, a grid (N, *Y, {rank}) of {rank + 2} axes, the same N",
        )
    return grid_sample_c(x, grid, mode=mode, padding_mode=padding_mode, align_corners=align_corners)
