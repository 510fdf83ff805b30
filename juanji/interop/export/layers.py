"""Normalisation, resampling and deformable convolution in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji.graph import Node
from juanji.interop.export.builder import Builder, Value, channels_first
from juanji.interop.export.table import entry
from juanji.interop.export.windows import attributes, kernels, pads_of
from juanji.ops.resample import SLOPE
from juanji.tensor import Tensor

# Normalisation


def parameters(b: Builder, x: Tensor, scale: Tensor | None, bias: Tensor | None) -> list[str]:
    """The names of γ and β (C,); ones and zeros where they are left out."""
    shape = x.shape[-1:]
    return [
        b.initialiser(np.full(shape, value, x.dtype)) if tensor is None else b.take(tensor)
        for tensor, value in ((scale, 1), (bias, 0))
    ]


@entry("batch_norm")
def batch_norm(b: Builder, node: Node) -> Value:
    (x, scale, bias, mean, var), (y,) = node.inputs, node.outputs
    statistics = b.take(mean), b.take(var)
    names = b.first(x), *parameters(b, x, scale, bias), *statistics
    return b.images(b.node("BatchNormalization", *names, epsilon=node.attrs["epsilon"]), y)


@entry("instance_norm")
def instance_norm(b: Builder, node: Node) -> Value:
    x, scale, bias = node.inputs
    names = b.first(x), *parameters(b, x, scale, bias)
    return b.images(b.node("InstanceNormalization", *names, epsilon=node.attrs["epsilon"]), node.outputs[0])


@entry("group_norm")
def group_norm(b: Builder, node: Node) -> Value:
    (x, scale, bias), attrs = node.inputs, node.attrs
    names = b.first(x), *parameters(b, x, scale, bias)
    name = b.node("GroupNormalization", *names, epsilon=attrs["epsilon"], num_groups=attrs["groups"])
    return b.images(name, node.outputs[0])


@entry("layer_norm")
def layer_norm(b: Builder, node: Node) -> Value | None:
    """Over the last axes, in any order; others by the parts."""
    (x, scale, bias), (y,), axes = node.inputs, node.outputs, node.attrs["axes"]
    count = len(axes)
    if axes != tuple(range(x.ndim - count, x.ndim)):
        return None
    value = b.full(x)
    if set(value.order[-count:]) != set(axes):
        value = b.full(x, range(x.ndim))
    order = [axes.index(axis) for axis in value.order[-count:]]
    shape = [x.shape[axis] for axis in value.order[-count:]]
    weight = b.initialiser(np.ones(shape, x.dtype)) if scale is None else b.take(scale, order)
    shift = "" if bias is None else b.take(bias, order)
    options = {"axis": x.ndim - count, "epsilon": node.attrs["epsilon"]}
    return b.plain(b.node("LayerNormalization", value.name, weight, shift, **options), y, value.order)


@entry("local_response_norm")
def local_response_norm(b: Builder, node: Node) -> Value | None:
    """Of images and an odd number of channels; ONNX counts an even one from another end."""
    (x,), attrs = node.inputs, node.attrs
    if x.ndim != 4 or attrs["size"] % 2 == 0:
        return None
    options = {"size": attrs["size"], "alpha": float(attrs["alpha"]), "beta": float(attrs["beta"])}
    return b.images(b.node("LRN", b.first(x), **options, bias=float(attrs["k"])), node.outputs[0])


# Resampling


@entry("resize")
def resize(b: Builder, node: Node) -> Value | None:
    """By scales where float32 reaches the size by them exactly, else to sizes.

    Of all axes: where onnxruntime moves a Transpose over a Resize, it forgets to move its `axes`. A cubic one it cannot
    run then, so that is written only where no Transpose is.
    """
    (x,), attrs = node.inputs, node.attrs
    sizes, size, steps = x.shape[1:-1], attrs["size"], attrs["steps"]
    ratios = tuple(n / m for n, m in zip(sizes, size, strict=True))
    options: dict[str, Any] = {"coordinate_transformation_mode": "half_pixel"}
    if attrs["mode"] == "nearest":
        options |= {"coordinate_transformation_mode": "asymmetric", "mode": "nearest", "nearest_mode": "floor"}
        if not all(map(nearest_agrees, sizes, size, steps)):
            return None
    elif attrs["mode"] == "bicubic" and (x.ndim != 4 or b.full(x).order != channels_first(4)):
        return None  # runtimes know it of images alone, channels first
    else:
        options |= {"mode": "linear"} if attrs["mode"] == "bilinear" else {"mode": "cubic", "cubic_coeff_a": SLOPE}
        if attrs["align_corners"]:
            options["coordinate_transformation_mode"] = "align_corners"
            steps = ratios
    scales = np.asarray([1, 1, *(1 / step for step in steps)], np.float32)
    pairs = [*zip(sizes, scales[2:], strict=True)]
    if steps == ratios and tuple(n * float(scale) for n, scale in pairs) != size:
        batch, *_, channels = b.sizes.of(x)
        given = ["", b.shape((batch, channels, *size))]
    elif tuple(int(np.floor(np.float32(n) * scale)) for n, scale in pairs) == size:
        given = [b.initialiser(scales)]
    else:
        return None
    return b.images(b.node("Resize", b.first(x), "", *given, **options), node.outputs[0])


def nearest_agrees(n: int, size: int, step: float) -> bool:
    """Whether pixels found in float32, as runtimes do it, are those found exactly."""
    exact = np.arange(size) * n // size if step == n / size else np.floor(np.arange(size) * step)
    scale = np.float32(size) / np.float32(n) if step == n / size else np.float32(1 / step)
    found = np.floor(np.arange(size, dtype=np.float32) / scale)
    return bool((np.minimum(exact, n - 1) == np.minimum(found, n - 1)).all())


@entry("grid_sample")
def grid_sample(b: Builder, node: Node) -> Value | None:
    """Of images and volumes, by cubic convolution of images alone; runtimes take no signals."""
    (x, grid), attrs = node.inputs, node.attrs
    if x.ndim not in ((4,) if attrs["mode"] == "bicubic" else (4, 5)) or grid.ndim != x.ndim:
        return None
    options = {
        "mode": {"bilinear": "linear", "bicubic": "cubic"}.get(attrs["mode"], attrs["mode"]),
        "padding_mode": attrs["padding_mode"],
        "align_corners": int(attrs["align_corners"]),
    }
    return b.images(b.node("GridSample", b.first(x), b.take(grid), **options), node.outputs[0])


@entry("deform_conv")
def deform_conv(b: Builder, node: Node) -> Value | None:
    (x, offset, w, bias, mask), spec = node.inputs, node.attrs["spec"]
    pads = pads_of(spec)
    if spec.rank != 2 or pads is None:
        return None
    names = [b.first(x), b.take(w, kernels(w)), b.first(offset)]
    names += ["" if bias is None else b.take(bias), "" if mask is None else b.first(mask)]
    options = {"group": spec.groups, "offset_group": node.attrs["offset_groups"]}
    return b.images(b.node("DeformConv", *names, **attributes(spec, pads), **options), node.outputs[0])
