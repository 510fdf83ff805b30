"""Convolution and its relatives. Images are channels first, (N, C, *X), as ONNX has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from juanji import ops
from juanji.errors import ShapeError
from juanji.graph import Array
from juanji.interop.operators.node import Operator, operator, room
from juanji.tensor import Tensor

# What ONNX calls the paddings that keep the size.
AUTO = {"SAME_UPPER": "same", "SAME_LOWER": "same_lower", "VALID": "valid"}


def pairs(pads: Sequence[int]) -> list[tuple[int, int]]:
    """All low ends, then all high ends, as (low, high) for each axis."""
    half = len(pads) // 2
    return list(zip(pads[:half], pads[half:], strict=True))


def padding(node: Operator, rank: int) -> Any:
    """The padding of a convolution or pooling over `rank` axes, by name or as (low, high) for each."""
    if node["auto_pad"] in AUTO:
        return AUTO[node["auto_pad"]]
    return pairs(node["pads"]) if node["pads"] else [(0, 0)] * rank


def windows(node: Operator, x: Tensor) -> dict[str, Any]:
    """Stride, dilation and padding as juanji takes them."""
    rank = x.ndim - 2
    return {
        "stride": node["strides"] or [1] * rank,
        "dilation": node["dilations"] or [1] * rank,
        "padding": padding(node, rank),
    }


def check_kernel(node: Operator, w: Tensor) -> None:
    if node["kernel_shape"] and tuple(node["kernel_shape"]) != w.shape[2:]:
        raise ShapeError(
            f"{node.op}: kernel_shape is not that of the weights",
            received=f"kernel_shape={tuple(node['kernel_shape'])}, weights {w.shape}",
            rule="(M, C/group, *kernel_shape)",
        )


@operator("Conv", weights=(1, 2))
def conv(node: Operator, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    check_kernel(node, w)
    return ops.conv(x, w, bias, **windows(node, x), groups=node["group"], layout="NCHW")


@operator("ConvTranspose", weights=(1, 2))
def conv_transpose(node: Operator, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    check_kernel(node, w)
    options = windows(node, x)
    options["padding"] = transposed_padding(node, x, w, options)
    return ops.conv_transpose(x, w, bias, **options, groups=node["group"], layout="NCHW")


def transposed_padding(node: Operator, x: Tensor, w: Tensor, options: dict[str, Any]) -> list[tuple[int, int]]:
    """What is cut off at either end: the padding less the output padding, or what leads to the size that is wanted."""
    rank, strides, auto = x.ndim - 2, options["stride"], node["auto_pad"]
    extra = node["output_padding"] or [0] * rank
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(x.shape[2:], strides, w.shape[2:], options["dilation"], strict=True)
    ]
    target = node["output_shape"] and node["output_shape"][-rank:]
    if not target and auto in ("SAME_UPPER", "SAME_LOWER"):
        target = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if not target:
        ends = [(0, 0)] * rank if auto == "VALID" else options["padding"]
        return [(low, high - more) for (low, high), more in zip(ends, extra, strict=True)]
    return [cut(n - size, auto != "SAME_UPPER") for n, size in zip(full, target, strict=True)]


def cut(total: int, odd_first: bool) -> tuple[int, int]:
    """`total` at both ends together; what is missing is added at the end."""
    low = max((total + odd_first) // 2, 0) if total > 0 else 0
    return low, total - low


@operator("DeformConv", weights=(1, 3))
def deform_conv(
    node: Operator, x: Tensor, w: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    check_kernel(node, w)
    last = [None if t is None else ops.moveaxis(t, 1, -1) for t in (x, offset, mask)]
    kernel = ops.transpose(w, *range(2, w.ndim), 1, 0)
    y = ops.deform_conv(
        last[0],
        last[1],
        kernel,
        bias,
        last[2],
        **windows(node, x),
        groups=node["group"],
        offset_groups=node["offset_group"],
    )
    return ops.moveaxis(y, -1, 1)


@operator("Col2Im", known=(1, 2))
def col2im(node: Operator, x: Tensor, image: Array, block: Array) -> Tensor:
    """Patches (N, C·K, Y), all places in one axis, added up where they lie."""
    size, kernel = [int(n) for n in image], [int(k) for k in block]
    room((x.shape[0], *size), x.dtype.itemsize)
    rank = len(size)
    options = windows(node, x) | {
        "stride": node["strides"] or [1] * rank,
        "dilation": node["dilations"] or [1] * rank,
        "padding": pairs(node["pads"]) if node["pads"] else [(0, 0)] * rank,
    }
    around = zip(size, kernel, options["stride"], options["dilation"], options["padding"], strict=True)
    places = [(n + sum(ends) - d * (k - 1) - 1) // s + 1 for n, k, s, d, ends in around]
    patches = ops.reshape(x, x.shape[0], x.shape[1] // math.prod(kernel), *kernel, *places)
    order = (0, *range(rank + 2, 2 * rank + 2), *range(2, rank + 2), 1)
    return ops.moveaxis(ops.fold(ops.transpose(patches, *order), size, **options), -1, 1)
