"""Whole numbers of 8 and 16 bits for real ones: x ≈ (q − zero point)·scale. Products of them are summed up in float64,
which holds every such sum exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji import ops
from juanji.errors import DataError
from juanji.graph import Array
from juanji.interop.operators.convolution import windows
from juanji.interop.operators.elements import converted, element_type
from juanji.interop.operators.node import Operator, Value, array_of, held, operator
from juanji.tensor import SUPPORTED, Tensor


def laid(node: Operator, p: Tensor, x: Value) -> Tensor:
    """A scale or zero point beside x: one for all, one for each place along `axis`, or for each block of places."""
    if p.ndim == 0 or p.shape == (1,):
        return p
    axis = node["axis"] % x.ndim
    if not node["block_size"]:
        return ops.reshape(p, -1, *[1] * (x.ndim - 1 - axis))
    index = np.arange(x.shape[axis]) // node["block_size"]
    return ops.take(p, index, axis)


def whole_type(node: Operator, zero: Array | None) -> np.dtype[Any]:
    if zero is not None:
        return zero.dtype
    return element_type(node, node["output_dtype"]) if node["output_dtype"] else np.dtype(np.uint8)


def saturated(x: Tensor, dtype: np.dtype[Any]) -> Value:
    """x, whole numbers in a floating dtype, held within those of `dtype` and converted."""
    if dtype.kind not in "iu":
        raise DataError("this type of quantisation is not supported", received=str(dtype), rule="whole numbers")
    bounds = np.iinfo(dtype)
    y = ops.clip(x, float(bounds.min), float(bounds.max))
    return converted(y, dtype) if dtype in SUPPORTED else held(array_of(y).astype(dtype))


def numbers(x: Value) -> Tensor:
    """In float64, which holds whole numbers of 32 bits."""
    return ops.astype(x, "float64") if isinstance(x, Tensor) else Tensor(x.astype(np.float64))


def centred(x: Value, zero: Value | None) -> Tensor:
    return numbers(x) if zero is None else numbers(x) - numbers(zero)


@operator("QuantizeLinear", known=(2,))
def quantize(node: Operator, x: Tensor, scale: Tensor, zero: Array | None = None) -> Value:
    """⌊x/scale⌉ + zero point, halves to even, held within the type of the zero point."""
    dtype = whole_type(node, zero)
    q = ops.round((x if x.is_floating else x.astype("float32")) / laid(node, scale, x)).astype("float64")
    return saturated(q if zero is None else q + laid(node, numbers(zero), x), dtype)


@operator("DequantizeLinear")
def dequantize(node: Operator, x: Value, scale: Tensor, zero: Value | None = None) -> Tensor:
    return centred(x, None if zero is None else laid(node, numbers(zero), x)).astype(scale.dtype) * laid(node, scale, x)


@operator("DynamicQuantizeLinear")
def dynamic_quantize(node: Operator, x: Tensor) -> tuple[Value, ...]:
    """To uint8, by a scale and zero point that just hold all of x and 0."""
    low, high = ops.minimum(ops.min(x), 0), ops.maximum(ops.max(x), 0)
    scale = (high - low) * (1 / 255)
    zero = ops.clip(ops.round(-low / scale), 0.0, 255.0)
    return saturated(ops.round(x / scale) + zero, np.dtype(np.uint8)), scale, zero.astype("uint8")


def rows(p: Any, ndim: int) -> Any:
    """A zero point or scale for each row of a matrix, beside it; one for all stays."""
    return p if p is None or p.ndim != 1 or p.size == 1 or ndim < 2 else ops.reshape(p, -1, 1)


def per_channel(p: Any, w: Tensor) -> Any:
    """A zero point or scale for each output channel beside weights (M, C/g, *K)."""
    return p if p is None or p.size == 1 else ops.reshape(p, -1, *[1] * (w.ndim - 1))


@operator("MatMulInteger")
def matmul_integer(node: Operator, a: Tensor, b: Tensor, za: Value | None = None, zb: Value | None = None) -> Tensor:
    return ops.matmul(centred(a, rows(za, a.ndim)), centred(b, zb)).astype("int32")


@operator("QLinearMatMul", known=(7,))
def qlinear_matmul(
    node: Operator, a: Tensor, sa: Tensor, za: Value, b: Tensor, sb: Tensor, zb: Value, sy: Tensor, zy: Array
) -> Value:
    y = ops.matmul(centred(a, rows(za, a.ndim)) * numbers(rows(sa, a.ndim)), centred(b, zb) * numbers(sb))
    return saturated(ops.round(y / numbers(sy)) + numbers(zy), zy.dtype)


@operator("ConvInteger")
def conv_integer(node: Operator, x: Tensor, w: Tensor, zx: Value | None = None, zw: Value | None = None) -> Tensor:
    """Padding is the zero point: nothing."""
    y = ops.conv(
        centred(x, zx), centred(w, per_channel(zw, w)), **windows(node, x), groups=node["group"], layout="NCHW"
    )
    return y.astype("int32")


@operator("QLinearConv", known=(7,))
def qlinear_conv(
    node: Operator,
    x: Tensor,
    sx: Tensor,
    zx: Value,
    w: Tensor,
    sw: Tensor,
    zw: Value,
    sy: Tensor,
    zy: Array,
    bias: Tensor | None = None,
) -> Value:
    """The bias is in units of sx·sw."""
    weights = centred(w, per_channel(zw, w))
    bias = None if bias is None else numbers(bias)
    y = ops.conv(centred(x, zx), weights, bias, **windows(node, x), groups=node["group"], layout="NCHW")
    factor = numbers(sx) * numbers(sw) / numbers(sy)
    factor = factor if factor.size == 1 else ops.reshape(factor, -1, *[1] * (x.ndim - 2))
    return saturated(ops.round(y * factor) + numbers(zy), zy.dtype)
