"""The geometry that all faces of a convolution, and all windows, share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji.checks import dividing, one_of, per_axis
from juanji.errors import ArgumentError, DTypeError, ShapeError, describe
from juanji.ops._geometry import conversion
from juanji.tensor import Tensor

SPATIAL = {1: "W", 2: "HW", 3: "DHW"}
CHANNELS_LAST = "images are channels last (N, H, W, C)"
Sizes = tuple[int, ...]


@dataclass(frozen=True)
class ConvSpec:
    """Where kernel taps meet input and output: output y and tap k meet input y·stride − low + k·dilation.

    The extents of input, kernel and output are independent numbers and a tap outside the input contributes zero, so
    the padding at the end follows from the rest and may be negative, as may `low`. Size formulas only choose
    `output`: floor and ceiling, output padding and cropping are not special cases. All are one number a spatial axis.
    """

    input: Sizes
    kernel: Sizes
    output: Sizes
    stride: Sizes
    low: Sizes
    dilation: Sizes
    groups: int = 1

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def span(self) -> Sizes:
        """How many inputs a kernel reaches over: K′ = K + (K − 1)(D − 1) (002 §4.5.2)."""
        return span_of(self.kernel, self.dilation)

    @property
    def high(self) -> Sizes:
        """The padding at the end that the last output needs; negative where inputs are left over."""
        sizes = zip(self.input, self.span, self.output, self.stride, self.low, strict=True)
        return tuple((y - 1) * s + span - low - x for x, span, y, s, low in sizes)

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    def __str__(self) -> str:
        """The problem as a string: `h56w56r3s3h56w56s1p1` style, used by tests, benchmarks and bug reports."""
        parts = [f"{n}{','.join(map(str, sizes))}" for n, sizes in self._fields()]
        return " ".join(parts) + (f" g{self.groups}" if self.groups > 1 else "")

    def _fields(self) -> Sequence[tuple[str, Sizes]]:
        return [
            ("x", self.input),
            ("k", self.kernel),
            ("y", self.output),
            ("s", self.stride),
            ("p", self.low),
            ("d", self.dilation),
        ]


def span_of(kernel: Sizes, dilation: Sizes) -> Sizes:
    """How many inputs kernels reach over, their taps `dilation` apart."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def output_size(x: int, span: int, stride: int, padding: int, *, ceil: bool = False) -> int:
    """⌊(x + padding − span)/stride⌋ + 1, or ⌈…⌉ (000, 001, 003 eq. 10, 004 §5.3)."""
    room = x + padding - span
    return (-(-room // stride) if ceil else room // stride) + 1


def spatial_rank(name: str, x: Tensor, layout: str) -> int:
    """The number of spatial axes. Raises ArgumentError for an unknown layout, ShapeError for a rank not of an image."""
    one_of(name, "layout", layout, ("NHWC", "NCHW"))
    if x.ndim - 2 not in SPATIAL:
        raise ShapeError(
            f"{name}: wrong rank",
            received=f"input of shape {x.shape}",
            rule=f"1, 2 or 3 spatial axes between batch and channels: {layout} in two dimensions",
            fix="add an axis of size 1 for the batch or the channels" if x.ndim < 3 else "",
        )
    return x.ndim - 2


def letters(rank: int) -> str:
    return f"N{SPATIAL.get(rank, '?' * rank)}C"


def plan(
    name: str,
    x: Sizes,
    kernel: Sizes,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int = 1,
    *,
    ceil: bool = False,
) -> ConvSpec:
    """The spec of a convolution or pooling over inputs of spatial sizes `x`, from the options as the user gives them.

    Raises ArgumentError for options out of range and ShapeError where the kernel does not fit.
    """
    rank = len(kernel)
    strides = per_axis(name, "stride", stride, rank, least=1)
    dilations = per_axis(name, "dilation", dilation, rank, least=1)
    if min(kernel, default=1) < 1:
        raise ArgumentError(f"{name}: bad kernel size", received=str(kernel), rule="at least 1 along every axis")
    span = span_of(kernel, dilations)
    pads = padding_pairs(name, padding, x, span, strides)
    output = []
    for n, k, s, (low, high) in zip(x, span, strides, pads, strict=True):
        size = output_size(n, k, s, low + high, ceil=ceil)
        if ceil and (size - 1) * s >= n + low:  # the last window must begin inside (PyTorch's rule)
            size -= 1
        output.append(size)
    if min(x) < 1:
        raise ShapeError(
            f"{name}: the input is empty",
            received=f"input {describe(x, SPATIAL[rank])}",
            rule="at least 1 along every spatial axis",
            fix="fewer poolings or strides before, or larger images",
        )
    if min(output) < 1:
        does_not_fit(name, x, kernel, span, strides, pads, dilations)
    return ConvSpec(x, kernel, tuple(output), strides, tuple(low for low, _ in pads), dilations, groups)


def padding_pairs(name: str, padding: Any, x: Sizes, span: Sizes, stride: Sizes) -> list[tuple[int, int]]:
    """Padding in any of its forms as (low, high) for each axis."""
    if isinstance(padding, str):
        if padding not in NAMED:
            raise ArgumentError(
                f"{name}: unknown padding", received=repr(padding), rule=f"a number or one of {sorted(NAMED)}"
            )
        return [NAMED[padding](*sizes) for sizes in zip(x, span, stride, strict=True)]
    if isinstance(padding, Sequence | np.ndarray) and any(np.ndim(p) for p in padding):
        if len(padding) != len(x) or not all(np.shape(p) == (2,) for p in padding):
            raise ArgumentError(f"{name}: bad padding", received=repr(padding), rule=f"{len(x)} pairs (low, high)")
        return [(low, high) for low, high in (per_axis(name, "padding", p, 2) for p in padding)]
    return [(p, p) for p in per_axis(name, "padding", padding, len(x), least=0)]


def output_paddings(name: str, given: Any, stride: Sizes, dilation: Sizes) -> Sizes:
    """Output padding as one number an axis. Raises ArgumentError unless each is less than stride or dilation."""
    extra = per_axis(name, "output_padding", given, len(stride), least=0)
    if any(e and e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ArgumentError(
            f"{name}: bad output_padding",
            received=f"output_padding={given!r}, stride {stride}, dilation {dilation}",
            rule="less than stride or dilation",
        )
    return extra


def same_total(x: int, span: int, stride: int) -> int:
    """The zeros needed for ⌈x/stride⌉ outputs (003, 004 §5.3)."""
    return max((-(-x // stride) - 1) * stride + span - x, 0)


def same_end(x: int, span: int, stride: int) -> tuple[int, int]:
    total = same_total(x, span, stride)
    return total // 2, total - total // 2


NAMED: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "valid": lambda x, span, stride: (0, 0),
    "same": same_end,
    "same_lower": lambda x, span, stride: same_end(x, span, stride)[::-1],
    "full": lambda x, span, stride: (span - 1, span - 1),
}


def does_not_fit(
    name: str,
    x: Sizes,
    kernel: Sizes,
    span: Sizes,
    stride: Sizes,
    pads: list[tuple[int, int]],
    dilation: Sizes,
) -> None:
    """Raise the ShapeError of a kernel larger than its padded input, with the sum worked out for the first bad axis."""
    sizes = list(zip(SPATIAL[len(x)], x, kernel, span, stride, pads, dilation, strict=True))
    letter, n, k, reach, s, (low, high), d = next(
        entry for entry in sizes if output_size(entry[1], entry[3], entry[4], sum(entry[5])) < 1
    )
    missing = reach - n - low - high
    fix = f"give {letter} at least {missing} more: a larger input, {-(-missing // 2)} more padding, "
    # As many rows as an image has channels: perhaps they are.
    nchw = len(x) > 1 and letter == SPATIAL[len(x)][0] and n in (1, 3, 4) and min(x[1:]) > n
    raise ShapeError(
        f"{name}: the kernel does not fit the input",
        received=f"input {describe(x, SPATIAL[len(x)])}, kernel {kernel}, padding {pads}, stride {stride}, "
        f"dilation {dilation}",
        rule=f"out = ⌊({letter} + padding − dilation·(k − 1) − 1)/stride⌋ + 1 = "
        f"⌊({n} + {low + high} − {d}·{k - 1} − 1)/{s}⌋ + 1 = {output_size(n, reach, s, low + high)}",
        fix=f"{fix}or fewer pooling layers before"
        + (f"; or, if axis 1 holds the channels, move it to the end: {CHANNELS_LAST}" if nchw else ""),
    )


def check_channels(name: str, channels: int, w: Tensor, groups: int, x: Tensor) -> None:
    """Raise unless the weights `(*k, in/groups, out)` belong to an input of that many channels in that many groups."""
    if x.dtype != w.dtype:
        raise DTypeError(
            f"{name}: input and weights have different dtypes",
            received=f"input {x.dtype}, weights {w.dtype}",
            rule="nothing is converted silently",
            fix=conversion(x.dtype, w.dtype),
        )
    if min(channels, *w.shape[-2:]) < 1:
        raise ShapeError(
            f"{name}: there are no channels",
            received=f"input of shape {x.shape}, weights {w.shape}",
            rule="at least one in and one out",
        )
    out = w.shape[-1]
    dividing(name, groups, channels, out, received=f"groups={groups}, {channels} channels in, {out} out")
    if w.shape[-2] * groups != channels:
        raise ShapeError(
            f"{name}: the channels do not match",
            received=f"input of shape {x.shape} with {channels} channels, "
            f"weights (*k, in/groups, out) = {w.shape}, groups={groups}",
            rule=f"channels = in/groups · groups = {w.shape[-2]}·{groups} = {w.shape[-2] * groups}",
            fix=f'{CHANNELS_LAST}; transpose, or pass layout="NCHW"'
            if w.shape[-2] * groups in x.shape[1:-1]
            else "weights made for this number of channels, or the layer that makes the other number",
        )
