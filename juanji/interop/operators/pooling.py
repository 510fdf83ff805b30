"""Pooling. Images are channels first, (N, C, *X), as ONNX has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji import ops
from juanji.errors import ArgumentError
from juanji.graph import Array
from juanji.interop.operators.convolution import pairs, windows
from juanji.interop.operators.node import Operator, operator, room
from juanji.ops.convspec import ConvSpec
from juanji.ops.pool import avg_pool_c, padded, pool_plan, window_sum
from juanji.tensor import Tensor


def planned(node: Operator, x: Tensor) -> ConvSpec:
    """The windows over x (N, *X, C)."""
    options, kernel = windows(node, x), node["kernel_shape"]
    pads = [(0, 0)] * len(kernel) if isinstance(options["padding"], str) else options["padding"]
    for n, k, s, ends in zip(x.shape[1:-1], kernel, options["stride"], pads, strict=True):
        room((max(n + sum(ends), 0) // max(s, 1) + 1, k), 8)
    stride, padding, dilation = (options[key] for key in ("stride", "padding", "dilation"))
    return pool_plan(node.op, x, kernel, stride, padding, dilation, bool(node["ceil_mode"]))


@operator("AveragePool")
def average_pool(node: Operator, x: Tensor) -> Tensor:
    x = ops.moveaxis(x, 1, -1)
    spec = planned(node, x)
    margin = padded(node.op, spec, windows(node, x)["padding"])
    y = avg_pool_c(x, spec=spec, padding=margin, count_include_pad=bool(node["count_include_pad"]))
    return ops.moveaxis(y, -1, 1)


@operator("MaxPool")
def max_pool(node: Operator, x: Tensor) -> Any:
    """The second output is the places, counted through the whole tensor, row by row or column by column."""
    options = windows(node, x)
    planned(node, ops.moveaxis(x, 1, -1))
    options |= {"size": node["kernel_shape"], "ceil_mode": bool(node["ceil_mode"]), "layout": "NCHW"}
    if not node.wants(1):
        return ops.max_pool(x, **options)
    y, place = ops.max_pool(x, **options, return_indices=True)
    return y, whole_place(by_columns(place, x.shape[2:]) if node["storage_order"] else place, x.shape[2:])


def whole_place(place: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Places in one image and channel, (N, C, *Y), counted through all of them."""
    n, c = place.shape[:2]
    start = np.arange(n * c).reshape(n, c, *[1] * (place.ndim - 2)) * math.prod(sizes)
    return place + Tensor(start)


def by_columns(place: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Places counted row by row, counted with the first axis fastest."""
    total: Any = None
    for size, step in zip(sizes[::-1], np.cumprod([1, *sizes[:-1]])[::-1], strict=True):
        above = ops.floor(place.astype("float64") / size).astype("int64")
        part = (place - above * size) * int(step)
        total = part if total is None else total + part
        place = above
    return total


@operator("LpPool")
def lp_pool(node: Operator, x: Tensor) -> Tensor:
    """(Σ |x|^p)^(1/p) over each window, padding being zeros."""
    p = node["p"] or 2
    x = ops.moveaxis(x, 1, -1)
    return ops.moveaxis(rooted(window_sum(ops.pow(ops.abs(x), p), spec=planned(node, x)), p), -1, 1)


def rooted(total: Tensor, p: float) -> Tensor:
    """total^(1/p), with derivative 0 at 0."""
    zero = ops.equal(total, 0)
    return ops.where(zero, 0.0, ops.pow(ops.where(zero, 1.0, total), 1 / p))


@operator("GlobalAveragePool")
def global_average_pool(node: Operator, x: Tensor) -> Tensor:
    return ops.mean(x, range(2, x.ndim), keepdims=True)


@operator("GlobalMaxPool")
def global_max_pool(node: Operator, x: Tensor) -> Tensor:
    return ops.max(x, range(2, x.ndim), keepdims=True)


@operator("GlobalLpPool")
def global_lp_pool(node: Operator, x: Tensor) -> Tensor:
    p = node["p"] or 2
    return rooted(ops.sum(ops.pow(ops.abs(x), p), range(2, x.ndim), keepdims=True), p)


@operator("MaxUnpool", known=(2,))
def max_unpool(node: Operator, x: Tensor, index: Tensor, output_shape: Array | None = None) -> Tensor:
    """The maxima back at their places, which are counted through a tensor of the size that was pooled."""
    rank = x.ndim - 2
    ends = pairs(node["pads"]) if node["pads"] else [(0, 0)] * rank
    around = zip(x.shape[2:], node["strides"] or [1] * rank, node["kernel_shape"], ends, strict=True)
    size = [(n - 1) * s + k - sum(pad) for n, s, k, pad in around]
    room((*x.shape[:2], *size), x.dtype.itemsize)
    target = size if output_shape is None else [int(n) for n in output_shape[2:]]
    if any(n < m for n, m in zip(target, size, strict=True)):
        raise ArgumentError(f"{node.op}: output_shape is too small", received=str(target), rule=f"at least {size}")
    y = ops.max_unpool(x, index - whole_place(index * 0, tuple(size)), 1, output_size=size, layout="NCHW")
    return ops.pad(y, [(0, 0), (0, 0), *((0, n - m) for n, m in zip(target, size, strict=True))])
