"""Convolution and pooling in ONNX, all channels first."""

from __future__ import annotations

import functools
import math
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


def framed(b: Builder, x: Tensor, spec: ConvSpec) -> tuple[str, Pads]:
    """x `(N, *X, C)` channels first, and the padding; where that is negative, x without what it takes away."""
    value = b.full(x, channels_first(x.ndim))
    if pads := pads_of(spec):
        return value.name, pads
    ends = list(zip(spec.input, spec.low, spec.high, strict=True))
    cuts = [
        (axis, max(-low, 0), n + min(high, 0), 1) for axis, (n, low, high) in enumerate(ends, 2) if min(low, high) < 0
    ]
    return cut(b, value, cuts).name, (tuple(max(n, 0) for n in spec.low), tuple(max(n, 0) for n in spec.high))


@entry("conv")
def conv(b: Builder, node: Node) -> Value:
    (x, w), spec = node.inputs, node.attrs["spec"]
    image, pads = framed(b, x, spec)
    name = b.node("Conv", image, b.take(w, kernels(w)), **attributes(spec, pads), group=spec.groups)
    return b.images(name, node.outputs[0])


@entry("conv_input_grad")
def conv_transpose(b: Builder, node: Node) -> Value:
    """Transposed convolution; a size that its formula cannot give is padded with zeros or cut afterwards."""
    (w, g), (y,), spec = node.inputs, node.outputs, node.attrs["spec"]
    extra = tuple(max(-n, 0) for n in spec.high)
    fits = min(spec.low) >= 0 and all(e < s or not e for e, s in zip(extra, spec.stride, strict=True))
    none = (0,) * spec.rank
    pads = (spec.low, tuple(max(n, 0) for n in spec.high)) if fits else (none, none)
    options = attributes(spec, pads) | {"output_padding": list(extra if fits else none), "group": spec.groups}
    name = b.node("ConvTranspose", b.first(g), b.take(w, kernels(w)), **options)
    return b.images(name, y) if fits else cropped(b, name, y, spec)


def reach(spec: ConvSpec) -> tuple[int, ...]:
    """The size of everything that windows reach, padding included."""
    return tuple((y - 1) * s + span for y, s, span in zip(spec.output, spec.stride, spec.span, strict=True))


def cropped(b: Builder, name: str, y: Tensor, spec: ConvSpec) -> Value:
    """Images y out of everything that windows reach: without the padding, with zeros where they reach nothing."""
    n, *_, c = b.sizes.of(y)
    value = Value(name, channels_first(y.ndim), (n, c, *reach(spec)))
    ends = list(enumerate(zip(reach(spec), spec.low, spec.high, strict=True), 1))
    cuts = [(axis + 1, max(a, 0), size - max(z, 0), 1) for axis, (size, a, z) in ends if max(a, z) > 0]
    more = {axis: (max(-a, 0), max(-z, 0)) for axis, (_, a, z) in ends if min(a, z) < 0}
    return padded(b, cut(b, value, cuts), more)


@entry("unfold")
def unfold(b: Builder, node: Node) -> Value:
    """Patches are a convolution with kernels that pick one tap each."""
    (x,), (y,), spec = node.inputs, node.outputs, node.attrs["spec"]
    c, taps = x.shape[-1], spec.taps
    picks = np.tile(np.eye(taps, dtype=x.dtype).reshape(taps, 1, *spec.kernel), (c, *[1] * (spec.rank + 1)))
    image, pads = framed(b, x, spec)
    name = b.node("Conv", image, b.initialiser(picks), **attributes(spec, pads), group=c)
    n = b.sizes.of(x)[0]
    name = b.reshape(name, (n, c * taps, *spec.output), (n, c, *spec.kernel, *spec.output))
    rank = spec.rank
    return b.plain(name, y, (0, rank + 1, *range(rank + 2, 2 * rank + 2), *range(1, rank + 1)))


@entry("fold")
def fold(b: Builder, node: Node) -> Value:
    (p,), (y,), spec = node.inputs, node.outputs, node.attrs["spec"]
    rank, n, c = spec.rank, b.sizes.of(p)[0], y.shape[-1]
    name = b.take(p, (0, rank + 1, *range(rank + 2, 2 * rank + 2), *range(1, rank + 1)))
    columns = n, c * spec.taps, math.prod(spec.output)
    name = b.reshape(name, (n, c, *spec.kernel, *spec.output), columns)
    pads = pads_of(spec)
    options = attributes(spec, pads or ((0,) * rank,) * 2)
    size = b.integers(spec.input if pads else reach(spec))
    name = b.node("Col2Im", name, size, b.integers(options.pop("kernel_shape")), **options)
    return b.images(name, y) if pads else cropped(b, name, y, spec)


# Pooling


@entry("max_pool")
def max_pool(b: Builder, node: Node) -> Value | tuple[Value, ...]:
    y, *places = node.outputs
    name, index = pooled(b, node, places)
    return (b.images(name, y), index) if places else b.images(name, y)


@entry("window_argmax")
def window_argmax(b: Builder, node: Node) -> Value:
    return pooled(b, node, node.outputs)[1]


def pooled(b: Builder, node: Node, places: Any) -> tuple[str, Any]:
    """The names of MaxPool's results; its indices count through the batch, those of juanji through one image."""
    (x,), spec = node.inputs, node.attrs["spec"]
    image, pads = framed(b, x, spec)
    wide = any(p >= k for ends in pads for p, k in zip(ends, spec.kernel, strict=True))
    if wide and not places:  # more padding than runtimes take of a pooling
        ends = dict(enumerate(zip(*pads, strict=True), 1))
        value = Value(image, channels_first(x.ndim), (0, 0, *spec.input))
        fill = b.initialiser(np.asarray(lowest(x.dtype), x.dtype))
        image, pads = padded(b, value, ends, fill=fill).name, ((0,) * spec.rank,) * 2
    name = b.node("MaxPool", image, outputs=1 + bool(places), **attributes(spec, pads))
    if not places:
        return name, None
    size = b.integers(math.prod(spec.input))
    return name, b.images(b.node("Mod", b.operations[-1].outputs[1], size), places[0])


@entry("avg_pool")
def avg_pool(b: Builder, node: Node) -> Value:
    """The mean of a window. ONNX counts all of the padding or none; where some counts, the mean is scaled."""
    (x,), (y,), spec, attrs = node.inputs, node.outputs, node.attrs["spec"], node.attrs
    if spec.taps == 1 and spec.input == spec.output:
        return b.full(x)
    none = ((0, 0),) * spec.rank
    met, inside = (
        functools.reduce(np.multiply.outer, overlaps(spec, margin))
        for margin in (attrs["padding"] if attrs["count_include_pad"] else none, none)
    )
    image, pads = framed(b, x, spec)
    options = attributes(spec, pads)
    if np.array_equal(met, inside):
        return b.images(b.node("AveragePool", image, **options, count_include_pad=0), y)
    mean = b.images(b.node("AveragePool", image, **options, count_include_pad=1), y)
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
    name = b.node("Conv", image, ones, **attributes(spec, pads), group=x.shape[-1])
    return b.images(name, node.outputs[0])
