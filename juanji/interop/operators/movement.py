"""Operators that move elements: shapes, joints, cuts, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji import ops
from juanji.errors import ArgumentError, ShapeError
from juanji.graph import Array
from juanji.interop.operators.convolution import pairs
from juanji.interop.operators.node import Operator, Value, array_of, held, operator, room
from juanji.ops._geometry import axis_of
from juanji.tensor import Tensor


def tensor_only(function: Any) -> Any:
    """For elements juanji's tensors have no type for, such as strings: the same movement of their numbers."""

    def apply(node: Operator, x: Value, *rest: Any) -> Any:
        if isinstance(x, Tensor):
            return function(node, x, *rest)
        numbers = Tensor(np.arange(x.size).reshape(x.shape))
        return x.reshape(-1)[array_of(function(node, numbers, *rest))]

    return apply


@operator("Reshape", known=(1,), moves=True)
@tensor_only
def reshape(node: Operator, x: Tensor, shape: Array | None = None) -> Tensor:
    """0 keeps a size unless the node allows zeros, one −1 is what is left."""
    wanted = [int(n) for n in (node["shape"] if shape is None else shape)]
    if not node["allowzero"]:
        if 0 in wanted[x.ndim :]:
            raise ShapeError(f"{node.op}: there is no size to keep", received=f"{x.shape} to {tuple(wanted)}")
        wanted = [x.shape[axis] if n == 0 else n for axis, n in enumerate(wanted)]
    return ops.reshape(x, wanted)


@operator("Flatten", moves=True)
def flatten(node: Operator, x: Tensor) -> Tensor:
    axis = x.ndim if node["axis"] == x.ndim else axis_of(node.op, node["axis"], x.ndim)
    return ops.reshape(x, math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Transpose", moves=True)
@tensor_only
def transpose(node: Operator, x: Tensor) -> Tensor:
    return ops.transpose(x, *(node["perm"] or range(x.ndim)[::-1]))


@operator("Squeeze", known=(1,), moves=True)
@tensor_only
def squeeze(node: Operator, x: Tensor, axes: Array | None = None) -> Tensor:
    given = node["axes"] if axes is None else axes
    chosen = [a for a, n in enumerate(x.shape) if n == 1] if given is None else places(given, x.ndim)
    if any(x.shape[a] != 1 for a in chosen):
        raise ShapeError(f"{node.op}: an axis is not of size 1", received=f"axes {chosen} of {x.shape}")
    return ops.reshape(x, [n for a, n in enumerate(x.shape) if a not in chosen])


@operator("Unsqueeze", known=(1,), moves=True)
@tensor_only
def unsqueeze(node: Operator, x: Tensor, axes: Array | None = None) -> Tensor:
    given = node["axes"] if axes is None else axes.reshape(-1)
    chosen = places(given, x.ndim + len(given))
    sizes = iter(x.shape)
    return ops.reshape(x, [1 if a in chosen else next(sizes) for a in range(x.ndim + len(chosen))])


def places(axes: Any, ndim: int) -> list[int]:
    """Axes counted from the front; all where none are given. Raises ShapeError unless each is there and comes once."""
    if axes is None:
        return list(range(ndim))
    given = [int(a) for a in np.ravel(axes)]
    counted = [a + ndim if a < 0 else a for a in given]
    if len(set(counted)) < len(counted) or any(not 0 <= a < ndim for a in counted):
        raise ShapeError("every axis once, please", received=f"axes {given}", rule=f"{ndim} axes")
    return counted


@operator("Concat")
def concat(node: Operator, *values: Value) -> Value:
    axis = 1 if node["axis"] is None else node["axis"]
    if not all(isinstance(x, Tensor) for x in values):
        return held(np.concatenate([array_of(x) for x in values], axis))
    return ops.concat(values, axis)


@operator("Split", known=(1,))
def split(node: Operator, x: Tensor, parts: Array | None = None) -> tuple[Value, ...]:
    """By sizes, or in as many parts as there are outputs, of which the last may be smaller."""
    axis = axis_of(node.op, node["axis"] or 0, x.ndim)
    count = len(node.outputs)
    sizes = list(node["split"] or []) if parts is None else parts.tolist()
    if not sizes:
        size = -(-x.shape[axis] // count)
        sizes = [min(size, x.shape[axis] - i * size) for i in range(count)]
    if sum(sizes) != x.shape[axis] or min(sizes) < 0:
        raise ShapeError(f"{node.op}: the parts are not the whole", received=f"{sizes}, axis {axis} of {x.shape}")
    ends = np.cumsum(sizes)
    before = (slice(None),) * axis
    return tuple(x[(*before, slice(int(end - n), int(end)))] for n, end in zip(sizes, ends, strict=True))


@operator("Slice", known=(1, 2, 3, 4))
def cut(node: Operator, x: Tensor, *bounds: Array | None) -> Tensor:
    """Attributes before opset 10, inputs since."""
    given = [node["starts"], node["ends"], node["axes"], None] if node.version < 10 else [*bounds, None, None][:4]
    starts, ends, axes, steps = (None if b is None else [int(n) for n in np.ravel(b)] for b in given)
    chosen = places(range(len(starts or [])) if axes is None else axes, x.ndim)
    index = [slice(None)] * x.ndim
    for axis, start, end, step in zip(chosen, starts or [], ends or [], steps or [1] * len(chosen), strict=True):
        index[axis] = bounded(start, end, step, x.shape[axis])
    return x[tuple(index)]


def bounded(start: int, end: int, step: int, size: int) -> slice:
    """A slice by ONNX's rule: both ends are counted from the front, then held within the axis."""
    start, end = (n + size if n < 0 else n for n in (start, end))
    if step > 0 or not size:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    start, end = min(max(start, 0), size - 1), min(max(end, -1), size - 1)
    return slice(start, None if end < 0 else end, step)


@operator("Expand", known=(1,), moves=True)
def expand(node: Operator, x: Tensor, shape: Array) -> Tensor:
    full = np.broadcast_shapes(x.shape, tuple(int(n) for n in shape))
    room(full, x.dtype.itemsize)
    return ops.broadcast_to(x, full)


@operator("Tile", known=(1, 2))
def tile(node: Operator, x: Tensor, repeats: Array, axis: Array | None = None) -> Tensor:
    """Before opset 6: how often, and along which axis."""
    times = repeats.reshape(-1).tolist()
    if axis is not None:
        times = [int(repeats) if place == int(axis) else 1 for place in range(x.ndim)]
    if len(times) != x.ndim:
        raise ShapeError(f"{node.op}: how often along each axis?", received=f"repeats {times}, shape {x.shape}")
    room([n * t for n, t in zip(x.shape, times, strict=True)], x.dtype.itemsize)
    apart = ops.reshape(x, [n for size in x.shape for n in (1, size)])
    wide = ops.broadcast_to(apart, [n for size, t in zip(x.shape, times, strict=True) for n in (t, size)])
    return ops.reshape(wide, [n * t for n, t in zip(x.shape, times, strict=True)])


@operator("Pad", known=(1, 2, 3))
def pad(node: Operator, x: Tensor, pads: Any = None, value: Array | None = None, axes: Array | None = None) -> Tensor:
    """Negative widths cut off. Widths and value are attributes before opset 11."""
    given = pairs([int(n) for n in (node["pads"] or node["paddings"] if pads is None else pads.reshape(-1))])
    number = (node["value"] or 0.0) if value is None else value.item()
    chosen = places(axes, x.ndim)
    ends = dict(zip(chosen, given, strict=True))
    widths = [ends.get(axis, (0, 0)) for axis in range(x.ndim)]
    room([n + max(a, 0) + max(b, 0) for n, (a, b) in zip(x.shape, widths, strict=True)], x.dtype.itemsize)
    grown = [(max(a, 0), max(b, 0)) for a, b in widths]
    y = wrapped(x, grown) if node["mode"] == "wrap" else ops.pad(x, grown, node["mode"], number)
    return y[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths, y.shape, strict=True))]


def wrapped(x: Tensor, widths: Sequence[tuple[int, int]]) -> Tensor:
    """Round and round."""
    for axis, (low, high) in enumerate(widths):
        if low or high:
            x = ops.take(x, np.arange(-low, x.shape[axis] + high) % x.shape[axis], axis)
    return x


@operator("CenterCropPad", known=(1,))
def center_crop_pad(node: Operator, x: Tensor, shape: Array) -> Tensor:
    """Cut, or filled with zeros, evenly; an odd element is cut or added at the end."""
    chosen = places(node["axes"], x.ndim)
    target = dict(zip(chosen, shape.tolist(), strict=True))
    room([target.get(axis, n) for axis, n in enumerate(x.shape)], x.dtype.itemsize)
    index, widths = [], []
    for axis, n in enumerate(x.shape):
        less, more = max(n - target.get(axis, n), 0), max(target.get(axis, n) - n, 0)
        index.append(slice(less // 2, n - less + less // 2))
        widths.append((more // 2, more - more // 2))
    return ops.pad(x[tuple(index)], widths)


def check_blocks(node: Operator, x: Tensor) -> int:
    block = int(node["blocksize"])
    if x.ndim != 4 or block < 1:
        raise ArgumentError(
            f"{node.op}: images in blocks, please",
            received=f"{x.shape}, blocksize {block}",
            rule="(N, C, H, W), at least 1",
        )
    return block


@operator("DepthToSpace")
def depth_to_space(node: Operator, x: Tensor) -> Tensor:
    b, (n, c, h, w) = check_blocks(node, x), x.shape
    if node["mode"] == "CRD":
        apart = ops.transpose(ops.reshape(x, n, c // b**2, b, b, h, w), 0, 1, 4, 2, 5, 3)
    else:
        apart = ops.transpose(ops.reshape(x, n, b, b, c // b**2, h, w), 0, 3, 4, 1, 5, 2)
    return ops.reshape(apart, n, c // b**2, h * b, w * b)


@operator("SpaceToDepth")
def space_to_depth(node: Operator, x: Tensor) -> Tensor:
    b, (n, c, h, w) = check_blocks(node, x), x.shape
    apart = ops.reshape(x, n, c, h // b, b, w // b, b)
    order = (0, 1, 3, 5, 2, 4) if node["mode"] == "CRD" else (0, 3, 5, 1, 2, 4)
    return ops.reshape(ops.transpose(apart, *order), n, c * b * b, h // b, w // b)


@operator("ReverseSequence", known=(1,))
def reverse_sequence(node: Operator, x: Tensor, lengths: Array) -> Tensor:
    """The first elements of each sequence in reverse order, as many as its length says."""
    batch, time = node["batch_axis"], node["time_axis"]
    rows = [np.r_[np.arange(n)[::-1], np.arange(n, x.shape[time])] for n in lengths.tolist()]
    parts = [ops.take(ops.take(x, [i], batch), row, time) for i, row in enumerate(rows)]
    return ops.concat(parts, batch)


@operator("Trilu", known=(1,), looks=True)
def trilu(node: Operator, x: Tensor, k: Array | None = None) -> Tensor:
    """The upper or lower triangle of matrices, zeros elsewhere."""
    distance = np.subtract.outer(-np.arange(x.shape[-2]), -np.arange(x.shape[-1]))
    shift = 0 if k is None else int(k)
    keeps = distance >= shift if node["upper"] else distance <= shift
    zero = False if x.dtype == bool else 0
    return ops.where(keeps, x, Tensor(np.full((), zero, x.dtype)))


@operator("Shape")
def shape(node: Operator, x: Value) -> Tensor:
    return Tensor(np.array(x.shape[node["start"] or 0 : node["end"]], np.int64))


@operator("Size")
def size(node: Operator, x: Value) -> Tensor:
    return Tensor(np.array(x.size, np.int64))
