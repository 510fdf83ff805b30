"""Images on another grid."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji import ops
from juanji.errors import ArgumentError, DataError
from juanji.graph import Array
from juanji.interop.operators.movement import places
from juanji.interop.operators.node import Operator, operator, room
from juanji.ops.resample import SLOPE, interpolate, keys, taps, triangle
from juanji.tensor import Tensor


@dataclass(frozen=True)
class Axis:
    """How one axis is resized.

    n, size  elements in and out
    scale    size/n, or as it was given; n·scale need not be whole
    crop     where the part that is resized begins and ends, 0 … 1
    """

    n: int
    size: int
    scale: float
    crop: tuple[float, float] = (0.0, 1.0)

    @property
    def length(self) -> float:
        """The size before it is rounded."""
        return self.n * self.scale


# Where output elements lie among those of the input, by coordinate_transformation_mode.
Places = Callable[[Array, Axis], Array]


def pixel_centres(i: Array, axis: Axis) -> Array:
    return (i + 0.5) / axis.scale - 0.5


def corners(i: Array, axis: Axis) -> Array:
    return i * 0.0 if axis.length == 1 else i * (axis.n - 1) / (axis.length - 1)


def cropped(i: Array, axis: Axis) -> Array:
    (start, end), last = axis.crop, axis.n - 1
    if axis.length == 1:
        return i * 0.0 + (start + end) * last / 2
    return start * last + i * (end - start) * last / (axis.length - 1)


COORDINATES: dict[str, Places] = {
    "half_pixel": pixel_centres,
    "half_pixel_symmetric": lambda i, axis: axis.n / 2 * (1 - axis.size / axis.length) + pixel_centres(i, axis),
    "pytorch_half_pixel": lambda i, axis: i * 0.0 if axis.size == 1 else pixel_centres(i, axis),
    "align_corners": corners,
    "asymmetric": lambda i, axis: i / axis.scale,
    "tf_half_pixel_for_nn": lambda i, axis: (i + 0.5) / axis.scale,
    "tf_crop_and_resize": cropped,
}
ROUNDINGS: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda place: np.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: np.floor(place + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def choose(node: Operator, attribute: str, table: dict[str, Any], default: str) -> Any:
    value = default if node[attribute] is None else node[attribute]
    if value not in table:
        raise ArgumentError(f"{node.op}: unknown {attribute}", received=repr(value), rule="one of " + ", ".join(table))
    return table[value]


def along(node: Operator, x: Tensor, axis: int, geometry: Axis) -> tuple[Tensor, Array]:
    """x resized along one axis, and which of the elements lie outside what is cropped from."""
    default = "asymmetric" if node.version < 11 else "half_pixel"
    place = choose(node, "coordinate_transformation_mode", COORDINATES, default)(np.arange(geometry.size), geometry)
    outside = (place < 0) | (place > geometry.n - 1)
    if node["mode"] == "nearest":
        rounded = choose(node, "nearest_mode", ROUNDINGS, "floor")(place)
        return ops.take(x, rounded.clip(0, geometry.n - 1).astype(np.int64), axis), outside
    kernel, reach = (functools.partial(keys, a=node["cubic_coeff_a"]), 2) if node["mode"] == "cubic" else (triangle, 1)
    shrink = min(geometry.scale, 1.0) if node["antialias"] else 1.0
    index, share = taps(place, geometry.n, kernel, reach, shrink=shrink, inside=bool(node["exclude_outside"]))
    return interpolate(x, axis, index, share), outside


def resized(node: Operator, x: Tensor, axes: dict[int, Axis]) -> Tensor:
    """x resized along some axes, one after the other."""
    room([axes[a].size if a in axes else n for a, n in enumerate(x.shape)], x.dtype.itemsize)
    if node["mode"] not in ("nearest", "linear", "cubic"):
        raise ArgumentError(f"{node.op}: unknown mode", received=repr(node["mode"]), rule="nearest, linear, cubic")
    if any(axis.n < 1 or axis.size < 1 or axis.scale <= 0 for axis in axes.values()):
        received = str(list(axes.values()))
        raise DataError(f"{node.op}: nothing to resize", received=received, rule="sizes and scales above 0")
    crops = node["coordinate_transformation_mode"] == "tf_crop_and_resize"
    for axis, geometry in axes.items():
        if crops or geometry.size != geometry.n or geometry.scale != 1:
            x, outside = along(node, x, axis, geometry)
            if crops and outside.any():
                x = ops.where(outside.reshape(-1, *[1] * (x.ndim - 1 - axis)), float(node["extrapolation_value"]), x)
    return x


# What juanji's own resize does, by mode and coordinates.
COMMON: dict[tuple[str, str], dict[str, Any]] = {
    ("nearest", "asymmetric"): {"mode": "nearest"},
    ("linear", "half_pixel"): {"mode": "bilinear"},
    ("linear", "align_corners"): {"mode": "bilinear", "align_corners": True},
    ("cubic", "half_pixel"): {"mode": "bicubic"},
    ("cubic", "align_corners"): {"mode": "bicubic", "align_corners": True},
}


def common(node: Operator, x: Tensor, axes: dict[int, Axis]) -> Tensor | None:
    """By juanji's own resize, which is one node of the graph, where that is what ONNX's attributes amount to."""
    spatial = [axes.get(a, Axis(n, n, 1.0)) for a, n in enumerate(x.shape)][2:]
    options = COMMON.get((node["mode"], coordinates(node, spatial)))
    others = any(axis.size != axis.n or axis.scale != 1 for a, axis in axes.items() if a < 2)
    exact = all(axis.scale == axis.size / axis.n for axis in spatial)
    # ONNX lays corners by the size before it is rounded.
    if (
        options is None
        or special(node)
        or others
        or x.ndim not in (3, 4, 5)
        or not (exact or "align_corners" not in options)
    ):
        return None
    by = {"size": [axis.size for axis in spatial]} if exact else {"scale": [axis.scale for axis in spatial]}
    return ops.moveaxis(ops.resize(ops.moveaxis(x, 1, -1), **by, **options), -1, 1)


def coordinates(node: Operator, axes: list[Axis]) -> str:
    mode = str(node["coordinate_transformation_mode"] or "asymmetric")
    same = mode == "pytorch_half_pixel" and all(axis.size > 1 for axis in axes)
    return "half_pixel" if same else mode


def special(node: Operator) -> bool:
    """Whether the node asks for what only ONNX has."""
    rounds = node["mode"] == "nearest" and node["nearest_mode"] not in (None, "floor")
    cubes = node["mode"] == "cubic" and node["cubic_coeff_a"] != SLOPE
    return bool(rounds or cubes or node["antialias"] or node["exclude_outside"])


@operator("Resize", known=(1, 2, 3))
def resize(
    node: Operator, x: Tensor, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Tensor:
    """By scales or to sizes, along all axes or some; in opset 10 the second input is the scales."""
    if node.version < 11:
        roi, scales = None, roi
    chosen = places(node["axes"], x.ndim)
    axes = geometry(node, [x.shape[a] for a in chosen], scales, sizes)
    if roi is not None and roi.size:
        ends = zip(roi[: len(chosen)].tolist(), roi[len(chosen) :].tolist(), strict=True)
        axes = [dataclasses.replace(axis, crop=crop) for axis, crop in zip(axes, ends, strict=True)]
    planned = dict(zip(chosen, axes, strict=True))
    quick = common(node, x, planned)
    return resized(node, x, planned) if quick is None else quick


def geometry(node: Operator, n: list[int], scales: Array | None, sizes: Array | None) -> list[Axis]:
    if sizes is None or not sizes.size:
        given = [] if scales is None else [float(s) for s in scales]
        return [Axis(m, math.floor(m * s), s) for m, s in zip(n, given, strict=True)]
    wanted = [int(size) for size in sizes]
    fits = {"not_larger": min, "not_smaller": max}.get(node["keep_aspect_ratio_policy"] or "stretch")
    if fits is None:
        return [Axis(m, size, size / m) for m, size in zip(n, wanted, strict=True)]
    scale = fits(size / m for m, size in zip(n, wanted, strict=True))
    return [Axis(m, math.floor(scale * m + 0.5), scale) for m in n]


@operator("Upsample", known=(1,))
def upsample(node: Operator, x: Tensor, scales: Array | None = None) -> Tensor:
    """Resize as it was before opset 10: i·scale⁻¹, rounded down."""
    given = node["scales"] if scales is None else scales
    axes = geometry(node, list(x.shape), np.asarray(given), None)
    planned = dict(enumerate(axes))
    quick = common(node, x, planned)
    return resized(node, x, planned) if quick is None else quick


GRID_MODES = {"linear": "bilinear", "cubic": "bicubic"}


@operator("GridSample")
def grid_sample(node: Operator, x: Tensor, grid: Tensor) -> Tensor:
    mode = GRID_MODES.get(node["mode"], node["mode"])
    y = ops.grid_sample(ops.moveaxis(x, 1, -1), grid, mode, node["padding_mode"], bool(node["align_corners"]))
    return ops.moveaxis(y, -1, 1)


@operator("AffineGrid", known=(1,))
def affine_grid(node: Operator, theta: Tensor, size: Array) -> Tensor:
    """The places x, y (and z) of an image's pixels, −1 … 1, moved by matrices θ (N, rank, rank + 1)."""
    sizes = [int(n) for n in size[2:]]
    room((size[0], *sizes, len(sizes)), theta.dtype.itemsize)
    ends = [1.0 if node["align_corners"] else 1 - 1 / n for n in sizes]
    lines = [np.linspace(-end, end, n) for end, n in zip(ends, sizes, strict=True)]
    grid = np.stack([*np.meshgrid(*lines, indexing="ij")[::-1], np.ones(sizes)], -1).reshape(-1, len(sizes) + 1)
    moved = ops.matmul(Tensor(grid, theta.dtype), ops.transpose(theta, 0, 2, 1))
    return ops.reshape(moved, theta.shape[0], *sizes, len(sizes))
