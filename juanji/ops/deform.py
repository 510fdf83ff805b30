"""Deformable convolution: every tap of the kernel looks where an offset sends it (002 §4.6).

Sources: Dai et al., "Deformable convolutional networks", ICCV 2017, eq. 2; for the mask, Zhu et al., "Deformable
ConvNets v2", CVPR 2019, eq. 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji.checks import dividing
from juanji.errors import ShapeError
from juanji.ops._geometry import away, floating, ranked
from juanji.ops.conv import with_bias
from juanji.ops.convspec import ConvSpec, check_channels, plan, spatial_rank
from juanji.ops.linalg import matmul
from juanji.ops.movement import expand_dims, getitem, moveaxis, reshape
from juanji.ops.resample import sample
from juanji.tensor import Tensor, composite


def tap_places(spec: ConvSpec, axis: int) -> np.ndarray[Any, Any]:
    """Where the taps lie along one spatial axis before they are moved: `(*Y, K)`, all taps in one axis."""
    window = np.arange(spec.output[axis]) * spec.stride[axis] - spec.low[axis]
    tap = np.arange(spec.kernel[axis]) * spec.dilation[axis]
    return np.broadcast_to(
        window.reshape(-1, *[1] * (2 * spec.rank - 1 - axis)) + tap.reshape(-1, *[1] * (spec.rank - 1 - axis)),
        (*spec.output, *spec.kernel),
    ).reshape(*spec.output, spec.taps)


def split_groups(x: Tensor, groups: int) -> Tensor:
    """`(N, *Y, G·…)` with the groups of the last axis as images of their own: `(N·G, *Y, …)`."""
    apart = moveaxis(reshape(x, *x.shape[:-1], groups, x.shape[-1] // groups), -2, 1)
    return reshape(apart, x.shape[0] * groups, *apart.shape[2:])


def deform_examples(rng: np.random.Generator) -> Any:
    for spec, groups in [
        (plan("deform_conv", (4, 5), (2, 3), (1, 2), 1, (2, 1), 2), 1),
        (plan("deform_conv", (4, 4), (2, 2), 1, 0, 1), 2),
    ]:
        # Offsets of odd quarters keep clear of the kinks at whole places.
        offset = rng.integers(-3, 3, (2, *spec.output, groups * spec.taps * 2)) / 2 + 0.25
        mask = away(rng, 2, *spec.output, groups * spec.taps)
        x, w = away(rng, 2, *spec.input, 4), away(rng, *spec.kernel, 4 // spec.groups, 2)
        attrs = {"spec": spec, "offset_groups": groups}
        yield (x, offset, w, away(rng, 2), mask), attrs
        yield (x, offset, w, None, None), attrs


@composite(deform_examples, "deform_conv")
def deform_conv_c(
    x: Tensor,
    offset: Tensor,
    w: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    *,
    spec: ConvSpec,
    offset_groups: int,
) -> Tensor:
    n, rank, c = x.shape[0], spec.rank, x.shape[-1]
    moves = split_groups(offset, offset_groups)
    moves = reshape(moves, *moves.shape[:-1], spec.taps, rank)
    places = [getitem(moves, (..., axis)) + Tensor(tap_places(spec, axis), x.dtype) for axis in range(rank)]
    seen = sample(split_groups(x, offset_groups), places)  # (N·groups, *Y, K, C/groups)
    if mask is not None:
        seen = seen * expand_dims(split_groups(mask, offset_groups), -1)
    seen = moveaxis(reshape(seen, n, offset_groups, *seen.shape[1:]), 1, -2)
    size, g = n * math.prod(spec.output), spec.groups
    patches = moveaxis(reshape(seen, size, spec.taps, g, c // g), 2, 0)
    kernels = moveaxis(reshape(w, spec.taps * w.shape[-2], g, w.shape[-1] // g), 1, 0)
    y = matmul(reshape(patches, g, size, spec.taps * c // g), kernels)
    return with_bias("deform_conv", reshape(moveaxis(y, 0, 1), n, *spec.output, w.shape[-1]), bias)


def deform_conv(
    x: Any,
    offset: Any,
    w: Any,
    bias: Any | None = None,
    mask: Any | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    offset_groups: int = 1,
) -> Tensor:
    """Convolution whose taps are moved by offsets: y(p) = Σₖ w(k)·x(p + pₖ + Δpₖ)·mₖ (Zhu et al. 2019, eq. 1).

    x              (N, *X, C)
    offset         (N, *Y, offset_groups·K·rank): for each group of channels and each tap (row by row), how far it moves
                   along y and x, in pixels; the order of torchvision and ONNX
    w, bias        as in `conv`: (*K, C/groups, M) and (M,)
    mask           (N, *Y, offset_groups·K): a factor for each tap
    offset_groups  C in so many parts, each moved by offsets of its own
    stride, padding, dilation, groups  as in `conv`

    Between pixels x is interpolated linearly, outside it is zero. Differentiable by all five tensors.

    Returns (N, *Y, M). Raises ShapeError for offsets or masks of another shape, ArgumentError where offset_groups does
    not divide C, and everything `conv` raises.
    """
    x, offset, w = Tensor.of(x), Tensor.of(offset), Tensor.of(w)
    mask = None if mask is None else Tensor.of(mask)
    rank = spatial_rank("deform_conv", x, "NHWC")
    ranked("deform_conv", w, rank + 2, "weights (*k, in/groups, out)")
    floating("deform_conv", x, offset, w, *([] if mask is None else [mask]))
    check_channels("deform_conv", x.shape[-1], w, groups, x)
    spec = plan("deform_conv", x.shape[1:-1], w.shape[:-2], stride, padding, dilation, groups)
    check_companions(x, offset, mask, spec, offset_groups)
    bias = None if bias is None else Tensor.of(bias)
    return deform_conv_c(x, offset, w, bias, mask, spec=spec, offset_groups=offset_groups)


def check_companions(x: Tensor, offset: Tensor, mask: Tensor | None, spec: ConvSpec, offset_groups: int) -> None:
    """Raise unless offsets and mask have a number for every place, group and tap (and axis)."""
    c = x.shape[-1]
    received = f"offset_groups={offset_groups}, {c} channels"
    dividing("deform_conv", offset_groups, c, received=received, what="offset groups")
    taps = offset_groups * spec.taps
    for what, tensor, last, size in [
        ("offset", offset, "offset_groups·K·rank", taps * spec.rank),
        ("mask", mask, "offset_groups·K", taps),
    ]:
        shape = (x.shape[0], *spec.output, size)
        if tensor is not None and tensor.shape != shape:
            raise ShapeError(
                f"deform_conv: the {what} has the wrong shape",
                received=str(tensor.shape),
                rule=f"(N, *Y, {last}) = {shape}",
            )
