"""Convolution and pooling in ONNX, all channels first."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np

from juanji.graph import Node
from juanji.interop.export.builder import Builder, Value, channels_first
from juanji.interop.export.movement import cut, padded
from juanji.interop.export.table import entry
from juanji.ops.convspec import ConvSpec, output_size
from juanji.ops.pool import lowest, overlaps
from juanji.tensor import Tensor

Pads = tuple[tuple[int, ...], tuple[int, ...]]


def kernels(w: Tensor) -> tuple[int, ...]:
    """Weights (*K, in, out) as (out, in, *K)."""
    return (w.ndim - 1, w.ndim - 2, *range(w.ndim - 2))


def attributes(spec: ConvSpec, pads: Pads) -> dict[str, Any]:
    return {
        "kernel_shape": list(spec.kernel),
        "strides": list(spec.stride),
        "pads": [*pads[0], *pads[1]],
        "dilations": list(spec.dilation),
    }


def pads_of(spec: ConvSpec) -> Pads | None:
    """The padding with which ONNX finds the same windows: what is left over at the end it leaves out by itself."""
    high = tuple(max(n, 0) for n in spec.high)
    sizes = zip(spec.input, spec.span, spec.stride, spec.low, high, strict=True)
    fits = spec.output == tuple(output_size(x, span, s, a + b) for x, span, s, a, b in sizes)
    return (spec.low, high) if fits and min(spec.low) >= 0 else None


def framed(b: Builder, x: Tensor, spec: ConvSpec) -> tuple[Value, Pads]:
    """x `(N, *X, C)` channels first, and the padding; where that is negative, x without what it takes away."""
    value = b.full(x, channels_first(x.ndim))
    if pads := pads_of(spec):
        return value, pads
    more = tuple(tuple(max(n, 0) for n in ends) for ends in (spec.low, spec.high))
    sizes = list(spec.input)
    if any(n + min(low, 0) + min(high, 0) < 1 for n, low, high in zip(sizes, spec.low, spec.high, strict=True)):
        # More is taken away than there is, padding from the other end too.
        value = padded(b, value, {axis: ends for axis, ends in enumerate(zip(*more, strict=True), 1) if any(ends)})
        sizes = [low + n + high for low, n, high in zip(more[0], sizes, more[1], strict=True)]
        more = ((0,) * spec.rank,) * 2
    ends = enumerate(zip(sizes, spec.low, spec.high, strict=True), 2)
    cuts = [(axis, max(-low, 0), n + min(high, 0), 1) for axis, (n, low, high) in ends if min(low, high) < 0]
    return cut(b, value, cuts), more  # type: ignore[return-value]


@entry("conv")
def conv(b: Builder, node: Node) -> Value:
    (x, w), spec = node.inputs, node.attrs["spec"]
    image, pads = framed(b, x, spec)
    name = b.node("Conv", image.name, b.take(w, kernels(w)), **attributes(spec, pads), group=spec.groups)
    return b.images(name, node.outputs[0])


@entry("conv_input_grad")
def conv_transpose(b: Builder, node: Node) -> Value:
    (w, g), (y,), spec = node.inputs, node.outputs, node.attrs["spec"]
    return transposed(b, b.first(g), b.take(w, kernels(w)), y, spec, spec.groups)


def transposed(b: Builder, image: str, weights: str, y: Tensor, spec: ConvSpec, groups: int) -> Value:
    """Transposed convolution; a size that its formula cannot give is padded with zeros or cut afterwards."""
    extra = tuple(max(-n, 0) for n in spec.high)
    fits = min(spec.low) >= 0 and all(e < s or not e for e, s in zip(extra, spec.stride, strict=True))
    none = (0,) * spec.rank
    pads = (spec.low, tuple(max(n, 0) for n in spec.high)) if fits else (none, none)
    options = attributes(spec, pads) | {"output_padding": list(extra if fits else none), "group": groups}
    name = b.node("ConvTranspose", image, weights, **options)
    return b.images(name, y) if fits else cropped(b, name, y, spec)


def cropped(b: Builder, name: str, y: Tensor, spec: ConvSpec) -> Value:
    """Images y out of everything that windows reach: without the padding, with zeros where they reach nothing."""
    n, *_, c = b.sizes.of(y)
    reach = tuple((y - 1) * s + span for y, s, span in zip(spec.output, spec.stride, spec.span, strict=True))
    ends = list(enumerate(zip(spec.low, spec.high, strict=True), 1))
    more = {axis: (max(-low, 0), max(-high, 0)) for axis, (low, high) in ends if min(low, high) < 0}
    value = padded(b, Value(name, channels_first(y.ndim), (n, c, *reach)), more)
    cuts = [
        (axis + 1, max(low, 0), size - max(high, 0), 1)
        for (axis, (low, high)), size in zip(ends, value.sizes[2:], strict=True)
        if max(low, high) > 0 and isinstance(size, int)
    ]
    return cut(b, value, cuts)


# Patches (N, *Y, C, *K) are a convolution of each channel with kernels that pick one tap each: (N, C·K, *Y).


def picks(b: Builder, x: Tensor, spec: ConvSpec) -> str:
    kernel = np.eye(spec.taps, dtype=x.dtype).reshape(spec.taps, 1, *spec.kernel)
    return b.initialiser(np.tile(kernel, (x.shape[-1], *[1] * (spec.rank + 1))))


def apart(spec: ConvSpec) -> tuple[int, ...]:
    """Patches as (N, C, *K, *Y)."""
    rank = spec.rank
    return (0, rank + 1, *range(rank + 2, 2 * rank + 2), *range(1, rank + 1))


@entry("unfold")
def unfold(b: Builder, node: Node) -> Value:
    (x,), (y,), spec = node.inputs, node.outputs, node.attrs["spec"]
    image, pads = framed(b, x, spec)
    name = b.node("Conv", image.name, picks(b, x, spec), **attributes(spec, pads), group=x.shape[-1])
    result = b.plain("", y, apart(spec))
    return replace(result, name=b.reshape(name, (result.sizes[0], x.shape[-1] * spec.taps, *spec.output), result.sizes))


@entry("fold")
def fold(b: Builder, node: Node) -> Value:
    (p,), (y,), spec = node.inputs, node.outputs, node.attrs["spec"]
    value, c = b.full(p, apart(spec)), y.shape[-1]
    name = b.reshape(value.name, value.sizes, (value.sizes[0], c * spec.taps, *spec.output))
    return transposed(b, name, picks(b, y, spec), y, spec, c)


# Pooling


def wide(spec: ConvSpec) -> bool:
    """Whether there is more padding than runtimes take of a pooling, which is less than the kernel."""
    high = (max(n, 0) for n in spec.high)
    return any(max(pads) >= k for *pads, k in zip(spec.low, high, spec.kernel, strict=True))


@entry("max_pool")
def max_pool(b: Builder, node: Node) -> Value | tuple[Value, ...] | None:
    (x,), (y, *places), spec = node.inputs, node.outputs, node.attrs["spec"]
    if places:
        return with_places(b, x, y, places[0], spec)
    image, pads = framed(b, x, spec)
    if wide(spec):
        fill = b.initialiser(np.asarray(lowest(x.dtype), x.dtype))
        image = padded(b, image, dict(enumerate(zip(*pads, strict=True), 1)), fill=fill)
        pads = ((0,) * spec.rank,) * 2
    return b.images(b.node("MaxPool", image.name, **attributes(spec, pads)), y)


@entry("window_argmax")
def window_argmax(b: Builder, node: Node) -> Value | None:
    (x,), (places,) = node.inputs, node.outputs
    found = with_places(b, x, places, places, node.attrs["spec"])
    return found and found[1]


def with_places(b: Builder, x: Tensor, y: Tensor, places: Tensor, spec: ConvSpec) -> tuple[Value, Value] | None:
    """Maxima and places. ONNX counts those through the whole batch, juanji through one image, and that uncut."""
    pads = pads_of(spec)
    if pads is None or wide(spec):
        return None
    name = b.node("MaxPool", b.first(x), outputs=2, **attributes(spec, pads))
    index = b.node("Mod", b.operations[-1].outputs[1], b.integers(math.prod(spec.input)))
    return b.images(name, y), b.images(index, places)


@entry("avg_pool")
def avg_pool(b: Builder, node: Node) -> Value | None:
    """The mean of a window. ONNX counts all of the padding or none; where some counts, the mean is scaled."""
    (x,), (y,), spec, attrs = node.inputs, node.outputs, node.attrs["spec"], node.attrs
    if wide(spec):
        return None
    if spec.taps == 1 and spec.input == spec.output and not any(spec.low):
        return b.full(x)
    none = ((0, 0),) * spec.rank
    met, inside = (
        functools.reduce(np.multiply.outer, overlaps(spec, margin))
        for margin in (attrs["padding"] if attrs["count_include_pad"] else none, none)
    )
    image, pads = framed(b, x, spec)
    options = attributes(spec, pads)
    if np.array_equal(met, inside):
        return b.images(b.node("AveragePool", image.name, **options, count_include_pad=0), y)
    mean = b.images(b.node("AveragePool", image.name, **options, count_include_pad=1), y)
    if (met == spec.taps).all():
        return mean
    share = b.initialiser((spec.taps / met).astype(x.dtype))
    return b.images(b.node("Mul", mean.name, share), y)


@entry("window_sum")
def window_sum(b: Builder, node: Node) -> Value:
    """A convolution of each channel with ones."""
    (x,), spec = node.inputs, node.attrs["spec"]
    image, pads = framed(b, x, spec)
    ones = b.initialiser(np.ones((x.shape[-1], 1, *spec.kernel), x.dtype))
    name = b.node("Conv", image.name, ones, **attributes(spec, pads), group=x.shape[-1])
    return b.images(name, node.outputs[0])
