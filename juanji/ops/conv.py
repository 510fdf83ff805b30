"""Convolution: one trilinear form and its three faces.

Every convolution is a face of the scalar T(x, w, g) = Σ x·w·g, summed over the places where a kernel tap meets an
input element and an output element (`ConvSpec`):

    conv              = ∂T/∂g    y = w ⊗ x                     002 eq. 4.1.7
    conv_input_grad   = ∂T/∂x    rot180(w) ⊗̃ g                 002 eq. 4.1.14
    conv_weight_grad  = ∂T/∂w    g ⊗ x                         002 eq. 4.1.12

The derivative of a face by either argument is another face, so derivatives of every order and both modes need these
three and no more. Transposed convolution *is* `conv_input_grad`. As matrices: with P the patches of x (a row for each
output element, a column for each tap), y = P·W, ∂x = unpatch(g·Wᵀ), ∂w = Pᵀ·g.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from juanji.checks import one_of, per_axis
from juanji.errors import ShapeError, describe
from juanji.graph import Array, Geometry, Linear, Multilinear, Primitive, primitive
from juanji.ops._geometry import away, floating, ranked
from juanji.ops.convspec import (
    ConvSpec,
    check_channels,
    letters,
    output_paddings,
    padding_pairs,
    plan,
    span_of,
    spatial_rank,
)
from juanji.ops.elementwise import alike
from juanji.ops.math import add
from juanji.ops.movement import flip, moveaxis, reshape, transpose
from juanji.tensor import Tensor

# The definitions: patches and their transpose, then three matrix products.


def framed(x: Array, spec: ConvSpec) -> Array:
    """x with zeros added, or elements dropped, until the windows cover it exactly."""
    widths = [(0, 0), *zip(spec.low, spec.high, strict=True), (0, 0)]
    x = np.pad(x, [(max(a, 0), max(b, 0)) for a, b in widths])
    return x[tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths, x.shape, strict=True))]


def windows(x: Array, spec: ConvSpec) -> Array:
    """A view `(N, *Y, C, *K)` of x `(N, *X, C)`: what each output element sees."""
    axes = range(1, spec.rank + 1)
    view = np.lib.stride_tricks.sliding_window_view(framed(x, spec), spec.span, tuple(axes))
    steps = (slice(None, None, s) for s in spec.stride)
    return view[(slice(None), *steps, slice(None), *(slice(None, None, d) for d in spec.dilation))]


def overlap_add(patches: Array, spec: ConvSpec) -> Array:
    """The transpose of `windows`: patches `(N, *Y, C, *K)` added up where they lie, `(N, *X, C)`."""
    extent = [low + x + high for low, x, high in zip(spec.low, spec.input, spec.high, strict=True)]
    padded = np.zeros((patches.shape[0], *extent, patches.shape[spec.rank + 1]), patches.dtype)
    for tap in np.ndindex(*spec.kernel):
        starts = (k * d for k, d in zip(tap, spec.dilation, strict=True))
        places = (slice(a, a + (y - 1) * s + 1, s) for a, y, s in zip(starts, spec.output, spec.stride, strict=True))
        padded[(slice(None), *places)] += patches[(..., *tap)]
    back = ConvSpec(
        tuple(extent),
        (1,) * spec.rank,
        spec.input,
        (1,) * spec.rank,
        tuple(-p for p in spec.low),
        (1,) * spec.rank,
    )
    return framed(padded, back)


def patch_matrix(x: Array, spec: ConvSpec) -> Array:
    """The patches of x as a matrix for each group: `(G, N·Y, K·C/G)`, taps first, then channels."""
    n, channels = x.shape[0], x.shape[-1] // spec.groups
    view = windows(x, spec)
    view = view.reshape(*view.shape[: spec.rank + 1], spec.groups, channels, *spec.kernel)
    group, channel = spec.rank + 1, spec.rank + 2
    order = (group, *range(group), *range(channel + 1, view.ndim), channel)
    return view.transpose(order).reshape(spec.groups, n * math.prod(spec.output), spec.taps * channels)


def unpatch(matrix: Array, spec: ConvSpec, n: int) -> Array:
    """The transpose of `patch_matrix`."""
    channels = matrix.shape[-1] // spec.taps
    view = matrix.reshape(spec.groups, n, *spec.output, *spec.kernel, channels)
    order = (*range(1, spec.rank + 2), 0, view.ndim - 1, *range(spec.rank + 2, view.ndim - 1))
    return overlap_add(view.transpose(order).reshape(n, *spec.output, spec.groups * channels, *spec.kernel), spec)


def kernel_matrix(w: Array, spec: ConvSpec) -> Array:
    """Weights `(*K, C/G, M)` as a matrix for each group: `(G, K·C/G, M/G)`."""
    return np.moveaxis(w.reshape(-1, spec.groups, w.shape[-1] // spec.groups), 1, 0)


def output_matrix(g: Array, spec: ConvSpec) -> Array:
    """Outputs `(N, *Y, M)` as a matrix for each group: `(G, N·Y, M/G)`."""
    return np.moveaxis(g.reshape(-1, spec.groups, g.shape[-1] // spec.groups), 1, 0)


def conv_define(x: Array, w: Array, spec: ConvSpec) -> Array:
    y = patch_matrix(x, spec) @ kernel_matrix(w, spec)
    return np.moveaxis(y, 0, 1).reshape(x.shape[0], *spec.output, w.shape[-1])


def input_grad_define(w: Array, g: Array, spec: ConvSpec) -> Array:
    return unpatch(output_matrix(g, spec) @ kernel_matrix(w, spec).swapaxes(1, 2), spec, g.shape[0])


def weight_grad_define(x: Array, g: Array, spec: ConvSpec) -> Array:
    w = patch_matrix(x, spec).swapaxes(1, 2) @ output_matrix(g, spec)
    return np.moveaxis(w, 0, 1).reshape(*spec.kernel, x.shape[-1] // spec.groups, g.shape[-1])


# The records.


def conv_geometry(x: Tensor, w: Tensor, *, spec: ConvSpec) -> Geometry:
    floating("conv", x, w)
    return (x.shape[0], *spec.output, w.shape[-1]), x.dtype


def input_grad_geometry(w: Tensor, g: Tensor, *, spec: ConvSpec) -> Geometry:
    floating("conv_input_grad", w, g)
    return (g.shape[0], *spec.input, w.shape[-2] * spec.groups), w.dtype


def weight_grad_geometry(x: Tensor, g: Tensor, *, spec: ConvSpec) -> Geometry:
    floating("conv_weight_grad", x, g)
    return (*spec.kernel, x.shape[-1] // spec.groups, g.shape[-1]), x.dtype


SPECS = [
    (plan("conv", (5,), (3,), 1, 1, 1), 2, 3),
    (plan("conv", (6, 5), (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 2), 2), 4, 2),
    (ConvSpec((5, 4), (2, 3), (4, 3), (2, 1), (-1, 2), (1, 1)), 1, 2),
    (plan("conv", (3, 4, 3), (2, 2, 1), 1, "same", 1), 2, 1),
]


def face_examples(face: str) -> Any:
    def examples(rng: np.random.Generator) -> Any:
        for spec, c, m in SPECS:
            x, g = away(rng, 2, *spec.input, c), away(rng, 2, *spec.output, m)
            w = away(rng, *spec.kernel, c // spec.groups, m)
            yield (
                {"conv": (x, w), "conv_input_grad": (w, g), "conv_weight_grad": (x, g)}[face],
                {"spec": spec},
            )

    return examples


conv_p: Primitive = primitive(
    "conv",
    conv_geometry,
    conv_define,
    Multilinear(
        lambda g, x, w, spec: conv_input_grad(w, g, spec=spec),
        lambda g, x, w, spec: conv_weight_grad(x, g, spec=spec),
    ),
    face_examples("conv"),
)
conv_input_grad: Primitive = primitive(
    "conv_input_grad",
    input_grad_geometry,
    input_grad_define,
    Multilinear(
        lambda x, w, g, spec: conv_weight_grad(x, g, spec=spec),
        lambda x, w, g, spec: conv_p(x, w, spec=spec),
    ),
    face_examples("conv_input_grad"),
)
conv_weight_grad: Primitive = primitive(
    "conv_weight_grad",
    weight_grad_geometry,
    weight_grad_define,
    Multilinear(
        lambda w, x, g, spec: conv_input_grad(w, g, spec=spec),
        lambda w, x, g, spec: conv_p(x, w, spec=spec),
    ),
    face_examples("conv_weight_grad"),
)

# The user's door.


def channels_last(x: Tensor, layout: str) -> Tensor:
    return moveaxis(x, 1, -1) if layout == "NCHW" else x


def as_layout(y: Tensor, layout: str) -> Tensor:
    return moveaxis(y, -1, 1) if layout == "NCHW" else y


def taps_first(w: Tensor, layout: str) -> Tensor:
    """Weights (out, in, *k) of layout NCHW as (*k, in, out)."""
    return transpose(w, *range(2, w.ndim), 1, 0) if layout == "NCHW" else w


def channels_last_pair(name: str, x: Any, w: Any, layout: str, inner: str, outer: str) -> tuple[Tensor, Tensor]:
    """Images and weights as tensors, channels last: `(N, *X, C)` and `(*K, inner/groups, outer)`.

    Raises ShapeError for ranks that do not belong together and ArgumentError for an unknown layout.
    """
    x, w = Tensor.of(x), Tensor.of(w)
    axes = f"(*k, {inner}/groups, {outer})" if layout == "NHWC" else f"({outer}, {inner}/groups, *k)"
    ranked(name, w, spatial_rank(name, x, layout) + 2, f"weights {axes}")
    return channels_last(x, layout), taps_first(w, layout)


def with_bias(name: str, y: Tensor, bias: Any | None) -> Tensor:
    """y `(N, *Y, M)` plus a bias for each channel. Raises ShapeError unless it is `(M,)`."""
    if bias is None:
        return y
    bias = Tensor.of(bias)
    if bias.shape != y.shape[-1:]:
        raise ShapeError(
            f"{name}: one bias a channel", received=f"bias of shape {bias.shape}", rule=f"({y.shape[-1]},)"
        )
    return add(y, bias)


def conv(
    x: Any,
    w: Any,
    bias: Any | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> Tensor:
    """Cross-correlation of images with kernels, what deep learning calls convolution: y = w ⊗ x + b (002 eq. 4.2.2).

    x         (N, *X, C) over 1, 2 or 3 spatial axes; (N, C, *X) with layout="NCHW"
    w         (*K, C/groups, M); (M, C/groups, *K) with layout="NCHW"
    bias      (M,)
    stride    an integer, or one a spatial axis, as are dilation and padding
    padding   zeros at both ends of each axis; or a pair (low, high) for each; or "valid" (none), "same" (⌈X/stride⌉
              outputs, the odd zero at the end), "same_lower" (at the beginning), "full" (every overlap)
    dilation  the distance between the taps of a kernel (002 §4.5.2)
    groups    C and M in so many parts, each convolved by itself

    Returns (N, *Y, M) with Y = ⌊(X + padding − dilation·(K − 1) − 1)/stride⌋ + 1. Raises ShapeError for a kernel that
    does not fit, for channels or ranks that do not match, ArgumentError for options out of range, DTypeError for mixed
    or whole-number dtypes.
    """
    x, w = channels_last_pair("conv", x, w, layout, "in", "out")
    check_channels("conv", x.shape[-1], w, groups, x)
    spec = plan("conv", x.shape[1:-1], w.shape[:-2], stride, padding, dilation, groups)
    return as_layout(with_bias("conv", conv_p(x, w, spec=spec), bias), layout)


def conv_transpose(
    x: Any,
    w: Any,
    bias: Any | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> Tensor:
    """Transposed (fractionally strided) convolution (002 §4.5.1): the input-gradient of the convolution with weights w.

    x               (N, *X, C); (N, C, *X) with layout="NCHW"
    w               those of the convolution it transposes: (*K, M/groups, C); (C, M/groups, *K) with layout="NCHW"
    bias            (M,)
    output_padding  extra outputs at the end of each axis, less than stride or dilation: a convolution of stride s gives
                    the same size for s inputs, this chooses among them

    Returns (N, *Y, M) with Y = (X − 1)·stride − padding + dilation·(K − 1) + 1 + output_padding, padding being that
    of both ends together; "same" gives X·stride. Errors as `conv`.
    """
    x, w = channels_last_pair("conv_transpose", x, w, layout, "out", "in")
    if w.shape[-1] != x.shape[-1]:
        raise ShapeError(
            "conv_transpose: the channels do not match",
            received=f"input {describe(x.shape, letters(x.ndim - 2))}, weights (*k, out/groups, in) = {w.shape}",
            rule=f"the input has {w.shape[-1]} channels",
        )
    check_channels("conv_transpose", w.shape[-2] * groups, w, groups, x)
    spec = transposed_plan(x.shape[1:-1], w.shape[:-2], stride, padding, output_padding, dilation, groups)
    return as_layout(with_bias("conv_transpose", conv_input_grad(w, x, spec=spec), bias), layout)


def transposed_plan(
    x: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: int,
) -> ConvSpec:
    """The spec of the convolution whose output sizes are `x`."""
    name, rank, same = "conv_transpose", len(x), isinstance(padding, str) and padding.startswith("same")
    strides = per_axis(name, "stride", stride, rank, least=1)
    dilations = per_axis(name, "dilation", dilation, rank, least=1)
    extra = output_paddings(name, output_padding, strides, dilations)
    span = span_of(kernel, dilations)
    grown = tuple(n * s for n, s in zip(x, strides, strict=True))
    pads = padding_pairs(name, padding, grown, span, strides)
    full = grown if same else tuple((n - 1) * s + k - sum(p) for n, s, k, p in zip(x, strides, span, pads, strict=True))
    sizes = tuple(n + e for n, e in zip(full, extra, strict=True))
    if min(*sizes, *x) < 1:
        raise ShapeError(
            f"{name}: the padding leaves nothing",
            received=f"input {x}, kernel {kernel}, padding {pads}, stride {strides}",
            rule=f"out = (in − 1)·stride − padding + dilation·(k − 1) + 1 + output_padding = {sizes}",
            fix="less padding",
        )
    return ConvSpec(sizes, kernel, x, strides, tuple(low for low, _ in pads), dilations, groups)


def correlate(x: Any, w: Any, mode: str = "full") -> Tensor:
    """Cross-correlation w ⊗ x (002 eq. 4.1.7) of two signals, images or volumes, as `scipy.signal.correlate`.

    x, w  of 1, 2 or 3 axes, both as many

    mode  "full": every overlap, X + K − 1 (the wide one, 002 §4.1.3); "same": the X in the middle of those;
          "valid": full overlap only, X − K + 1

    Raises ShapeError for other ranks, and in mode "valid" where neither contains the other; ArgumentError for
    another mode.
    """
    x, w = alike("correlate", x, w)
    return correlated("correlate", x, w, mode)


def convolve(x: Any, w: Any, mode: str = "full") -> Tensor:
    """Convolution w * x, with the kernel flipped (002 eq. 4.1.5), as `scipy.signal.convolve`. Modes as `correlate`."""
    x, w = alike("convolve", x, w)
    return correlated("convolve", x, flip(w), mode)


# The zeros around a signal, by the size of the kernel.
EDGES: dict[str, Callable[[int], tuple[int, int]]] = {
    "full": lambda k: (k - 1, k - 1),
    "same": lambda k: (k // 2, (k - 1) // 2),
    "valid": lambda k: (0, 0),
}


def correlated(name: str, x: Tensor, w: Tensor, mode: str) -> Tensor:
    one_of(name, "mode", mode, EDGES)
    floating(name, x, w)
    if x.ndim != w.ndim or not 1 <= x.ndim <= 3:
        raise ShapeError(f"{name}: wrong rank", received=f"{x.shape} and {w.shape}", rule="both 1, 2 or 3 axes")
    if mode == "valid" and all(k >= n for n, k in zip(x.shape, w.shape, strict=True)):
        # Swapping the two reverses a correlation (002 eq. 4.1.10).
        return flip(as_images(name, w, x, [(0, 0)] * x.ndim))
    return as_images(name, x, w, [EDGES[mode](k) for k in w.shape])


def as_images(name: str, x: Tensor, w: Tensor, pads: list[tuple[int, int]]) -> Tensor:
    check_channels(name, 1, reshape(w, *w.shape, 1, 1), 1, x)
    spec = plan(name, x.shape, w.shape, 1, pads, 1)
    return reshape(conv_p(reshape(x, 1, *x.shape, 1), reshape(w, *w.shape, 1, 1), spec=spec), *spec.output)


def conv_matrix(
    w: Any, input_shape: tuple[int, ...], *, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Tensor:
    """The sparse matrix C with C·x = w ⊗ x for x of `input_shape` flattened (002 §4.5.1); Cᵀ is transposed convolution.

    w  a kernel of 1, 2 or 3 axes, one channel. Returns a dense (outputs, inputs) matrix, for show and for tests.
    """
    w = Tensor.of(w)
    sizes = per_axis("conv_matrix", "input_shape", input_shape, w.ndim, least=1)
    spec = plan("conv_matrix", sizes, w.shape, stride, padding, dilation)
    size = math.prod(sizes)
    unit = Tensor(np.eye(size, dtype=w.dtype).reshape(size, *sizes, 1))
    return transpose(reshape(conv_p(unit, reshape(w, *w.shape, 1, 1), spec=spec), size, -1))


# Patches by themselves.

unfold_p: Primitive = primitive(
    "unfold",
    lambda x, spec: ((x.shape[0], *spec.output, x.shape[-1], *spec.kernel), x.dtype),
    lambda x, spec: windows(x, spec),
    Linear(lambda g, x, spec: fold_p(g, spec=spec)),
    lambda rng: [((away(rng, 2, *spec.input, c),), {"spec": spec}) for spec, c, _ in SPECS],
)
fold_p: Primitive = primitive(
    "fold",
    lambda p, spec: ((p.shape[0], *spec.input, p.shape[spec.rank + 1]), p.dtype),
    lambda p, spec: overlap_add(p, spec),
    Linear(lambda g, p, spec: unfold_p(g, spec=spec)),
    lambda rng: [((away(rng, 2, *spec.output, c, *spec.kernel),), {"spec": spec}) for spec, c, _ in SPECS],
)


def unfold(x: Any, size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Tensor:
    """The patches that kernels of `size` see (004 §4.1): (N, *X, C) becomes (N, *Y, *K, C). Options as `conv`."""
    x = Tensor.of(x)
    rank = spatial_rank("unfold", x, "NHWC")
    spec = plan("unfold", x.shape[1:-1], per_axis("unfold", "size", size, rank, least=1), stride, padding, dilation)
    return moveaxis(unfold_p(x, spec=spec), rank + 1, -1)


def fold(patches: Any, input_size: Any, *, stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Tensor:
    """The transpose of `unfold`: (N, *Y, *K, C) added up where the patches lie in an image (N, *X, C) of `input_size`.

    Raises ShapeError unless `unfold` of such an image has these patches.
    """
    patches = Tensor.of(patches)
    rank = (patches.ndim - 2) // 2
    if rank not in (1, 2, 3) or patches.ndim % 2:
        raise ShapeError("fold: wrong rank", received=f"shape {patches.shape}", rule="(N, *Y, *K, C)")
    size = per_axis("fold", "input_size", input_size, rank, least=1)
    spec = plan("fold", size, patches.shape[rank + 1 : -1], stride, padding, dilation)
    if spec.output != patches.shape[1 : rank + 1]:
        raise ShapeError(
            "fold: the patches do not belong to this size",
            received=f"{patches.shape[1 : rank + 1]} patches of {spec.kernel}",
            rule=f"an image of {size} has {spec.output}",
        )
    return fold_p(moveaxis(patches, -1, rank + 1), spec=spec)
