"""The three faces of a convolution, and matrix products, as contractions.

Images `(N, *X, C)` lie in buffers that may have a border of zeros. Their strides are `(n, *x)`, in elements, and the
channels of a pixel lie together; their address is that of element [0, 0, …, 0], so the border before it has negative
offsets. `border` says how wide it has to be. Weights `(*K, in/groups, out)` are dense.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from juanji.kernels.contraction import BATCH, Contraction, Dim, Scattered, Window
from juanji.kernels.text import SIZES
from juanji.ops.convspec import ConvSpec

Strides = Sequence[int]
SCRATCH = 32 << 10  # bytes on the stack of a thread


def border(face: str, spec: ConvSpec) -> list[tuple[int, int]]:
    """How many zeros operand A of a face ("conv", "conv_input_grad", "conv_weight_grad") needs along each axis.

    A is the input, or, for the gradient by the input, the gradient by the output.
    """
    if face != "conv_input_grad":
        return [(max(0, low), max(0, high)) for low, high in zip(spec.low, spec.high, strict=True)]
    found = []
    for axis, size in enumerate(spec.output):
        ends = [end for sector in sectors(spec, axis) if sector.taps for end in sector.reach]
        found.append((max(0, -min(ends, default=0)), max(0, max(ends, default=0) - size + 1)))
    return found


def depthwise(spec: ConvSpec, cin: int, cout: int) -> bool:
    """Whether every channel is a group of its own: then channels are the lanes of both operands."""
    return spec.groups == cin == cout


def weight_steps(spec: ConvSpec, cin: int, cout: int) -> list[int]:
    """How far apart taps lie along each axis of the weights."""
    inside = cin // spec.groups * cout
    return [inside * math.prod(spec.kernel[axis + 1 :]) for axis in range(spec.rank)]


def forward(
    spec: ConvSpec, cin: int, cout: int, x_strides: Strides, y_strides: Strides, kind: str = "float"
) -> Contraction:
    """y = w ⊗ x: A is x, B is w, C is y."""
    ci, co = cin // spec.groups, cout // spec.groups
    (xn, *xs), (yn, *ys), ws = x_strides, y_strides, weight_steps(spec, cin, cout)
    image = Dim(BATCH, a=xn, c=yn)
    rows = tuple(Dim(n, a=s * x, c=y) for n, s, x, y in zip(spec.output, spec.stride, xs, ys, strict=True))
    taps = tuple(Dim(k, a=d * x, b=w) for k, d, x, w in zip(spec.kernel, spec.dilation, xs, ws, strict=True))
    start = -sum(low * x for low, x in zip(spec.low, xs, strict=True))
    if depthwise(spec, cin, cout):
        return Contraction((image,), rows, Dim(cout, 1, 1, 1), taps, kind, a0=start)
    group, reduce = Dim(spec.groups, a=ci, b=co, c=co), (*taps, Dim(ci, a=1, b=cout))
    axes = zip(spec.stride, spec.dilation, spec.low, spec.input, strict=True)
    windows = tuple(Window(i, i, *axis) for i, axis in enumerate(axes))
    return Contraction((image, group), rows, Dim(co, 0, 1, 1), reduce, kind, a0=start, windows=windows)


@dataclass(frozen=True)
class Sector:
    """The inputs first + t·stride along one axis, t < size, and the taps that meet them.

    Tap number j of `taps` of them is k = tap + j·tap_step of the kernel; it meets output t + base − j·fall.
    """

    first: int
    size: int
    taps: int
    tap: int
    tap_step: int
    base: int
    fall: int

    @property
    def reach(self) -> tuple[int, int]:
        """The first and the last output that are met."""
        return self.base - (self.taps - 1) * self.fall, self.base + self.size - 1


def sectors(spec: ConvSpec, axis: int) -> list[Sector]:
    """The inputs along an axis by their remainder modulo the stride: each is a dense convolution of its own."""
    stride, low, dilation = spec.stride[axis], spec.low[axis], spec.dilation[axis]
    shared = math.gcd(stride, dilation)
    found = []
    for first in range(min(stride, spec.input[axis])):
        taps = [k for k in range(spec.kernel[axis]) if (first + low - k * dilation) % stride == 0]
        base = (first + low - taps[0] * dilation) // stride if taps else 0
        size = -(-(spec.input[axis] - first) // stride)
        tap = taps[0] if taps else 0
        found.append(Sector(first, size, len(taps), tap, stride // shared, base, dilation // shared))
    return found


def input_grad(
    spec: ConvSpec, cin: int, cout: int, g_strides: Strides, x_strides: Strides, kind: str = "float"
) -> list[Contraction]:
    """dx = rot180(w) ⊗̃ g: A is g, B is w, C is dx; one contraction for each sector of x."""
    axes = [sectors(spec, axis) for axis in range(spec.rank)]
    return [sector_grad(spec, cin, cout, g_strides, x_strides, kind, sector) for sector in itertools.product(*axes)]


def sector_grad(
    spec: ConvSpec,
    cin: int,
    cout: int,
    g_strides: Strides,
    x_strides: Strides,
    kind: str,
    sector: Sequence[Sector],
) -> Contraction:
    ci, co = cin // spec.groups, cout // spec.groups
    (gn, *gs), (xn, *xs), ws = g_strides, x_strides, weight_steps(spec, cin, cout)
    image = Dim(BATCH, a=gn, c=xn)
    rows = tuple(Dim(s.size, a=g, c=n * x) for s, n, g, x in zip(sector, spec.stride, gs, xs, strict=True))
    taps = tuple(Dim(s.taps, a=-s.fall * g, b=s.tap_step * w) for s, g, w in zip(sector, gs, ws, strict=True))
    a0 = sum(s.base * g for s, g in zip(sector, gs, strict=True))
    b0 = sum(s.tap * w for s, w in zip(sector, ws, strict=True))
    c0 = sum(s.first * x for s, x in zip(sector, xs, strict=True))
    if depthwise(spec, cin, cout):
        return Contraction((image,), rows, Dim(cin, 1, 1, 1), taps, kind, a0, b0, c0)
    group = Dim(spec.groups, a=co, b=co, c=ci)
    other = scattered(spec, cin, cout, g_strides, kind, (a0, b0)) if scatters(spec, cin, kind) else None
    lanes, reduce = Dim(ci, 0, cout, 1), (*taps, Dim(co, a=1, b=1))
    axes = zip(sector, spec.output, strict=True)
    windows = tuple(Window(i, i, 1, -s.fall, -s.base, size) for i, (s, size) in enumerate(axes))
    return Contraction((image, group), rows, lanes, reduce, kind, a0, b0, c0, windows=windows, scattered=other)


def reached(spec: ConvSpec) -> list[int]:
    """The size of the images that the taps reach, with what they reach outside."""
    axes = zip(spec.output, spec.kernel, spec.dilation, spec.input, spec.low, strict=True)
    return [max(n + (k - 1) * d, x + low) for n, k, d, x, low in axes]


def scatters(spec: ConvSpec, cin: int, kind: str) -> bool:
    """Whether a gradient by the input can be added up in memory: an image is small, and taps of the last axis lie
    together."""
    plain = {spec.groups, spec.dilation[-1], *spec.stride} == {1} and 0 not in spec.output
    return plain and min(spec.low) >= 0 and cin * math.prod(reached(spec)) * SIZES[kind] <= SCRATCH


def scattered(
    spec: ConvSpec, cin: int, cout: int, g_strides: Strides, kind: str, offsets: tuple[int, int]
) -> Scattered:
    """The gradient by the input, added up in memory: taps of the last axis and channels are lanes.

    Windows of one tile must not overlap, so pixels of the last axis are taken some apart, and the others later.
    """
    (gn, *gs), ws = g_strides, weight_steps(spec, cin, cout)
    sizes, (*outputs, wide) = reached(spec), spec.output
    xs = [cin * math.prod(sizes[axis + 1 :]) for axis in range(spec.rank)]
    apart = next(n for n in range(1, wide + 1) if wide % n == 0 and (n >= spec.kernel[-1] or n == wide))
    rows = [Dim(n, a=g, c=x) for n, g, x in zip(outputs, gs, xs, strict=False)]
    rows.append(Dim(wide // apart, a=apart * gs[-1], c=apart * xs[-1]))
    taps = [Dim(k, b=w, c=d * x) for k, w, d, x in zip(spec.kernel[:-1], ws, spec.dilation, xs, strict=False)]
    reduce = (Dim(apart, a=gs[-1], c=xs[-1]), *taps, Dim(cout, a=1, b=1))
    lanes = Dim(spec.kernel[-1] * cin, 0, cout, 1)
    a0, b0 = (-offset for offset in offsets)
    contraction = Contraction((Dim(BATCH, a=gn),), tuple(rows), lanes, reduce, kind, a0, b0, adds=True)
    start = sum(low * x for low, x in zip(spec.low, xs, strict=True))
    return Scattered(contraction, cin * math.prod(sizes), start, tuple(xs))


def weight_grad(
    spec: ConvSpec, cin: int, cout: int, x_strides: Strides, g_strides: Strides, kind: str = "float"
) -> Contraction:
    """dw = g ⊗ x: A is x, B is g, C is dw, whose rows are taps and channels."""
    ci, co = cin // spec.groups, cout // spec.groups
    (xn, *xs), (gn, *gs), ws = x_strides, g_strides, weight_steps(spec, cin, cout)
    taps = tuple(Dim(k, a=d * x, c=w) for k, d, x, w in zip(spec.kernel, spec.dilation, xs, ws, strict=True))
    pixels = (Dim(n, a=s * x, b=g) for n, s, x, g in zip(spec.output, spec.stride, xs, gs, strict=True))
    reduce = (Dim(BATCH, a=xn, b=gn), *pixels)
    start = -sum(low * x for low, x in zip(spec.low, xs, strict=True))
    if depthwise(spec, cin, cout):
        return Contraction((), taps, Dim(cout, 1, 1, 1), reduce, kind, a0=start)
    group, channels = Dim(spec.groups, a=ci, b=co, c=co), Dim(ci, a=1, c=cout)
    axes = zip(spec.dilation, spec.stride, spec.low, spec.input, strict=True)
    windows = tuple(Window(i, i + 1, *axis) for i, axis in enumerate(axes))
    return Contraction((group,), (*taps, channels), Dim(co, 0, 1, 1), reduce, kind, a0=start, windows=windows)


def matmul(
    m: int, k: int, n: int, a: Strides, b: Strides, c: int, outer: Sequence[Dim] = (), kind: str = "float"
) -> Contraction:
    """C[m, n] = Σ A[m, k]·B[k, n]; `a` and `b` are the strides of both axes, `c` that of the rows of C.

    m or k may be BATCH, or the first dimension of outer.
    """
    (am, ak), (bk, bn) = a, b
    return Contraction(tuple(outer), (Dim(m, a=am, c=c),), Dim(n, 0, bn, 1), (Dim(k, a=ak, b=bk),), kind)
