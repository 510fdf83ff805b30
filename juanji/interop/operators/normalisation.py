"""Normalisation. Images are channels first, (N, C, *X), as ONNX has them."""

from __future__ import annotations

from typing import Any

from juanji import ops
from juanji.checks import dividing
from juanji.errors import ArgumentError
from juanji.interop.operators.node import Operator, operator
from juanji.interop.operators.pooling import rooted
from juanji.ops.norm import standardised
from juanji.tensor import Tensor


@operator("BatchNormalization", weights=(1, 2), buffers=(3, 4))
def batch_normalization(node: Operator, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Any:
    """By the running statistics, or while training by the batch's.

    Statistics that are cells of the module move towards the batch's as PyTorch moves them, with the unbiased variance.
    The outputs of a node in training mode are ONNX's, whose running variance is the biased one.
    """
    if node["spatial"] == 0:
        raise ArgumentError(
            f"{node.op}: statistics for every place of the image", received="spatial=0", rule="spatial=1"
        )
    asked = bool(node["training_mode"]) or (node.version < 14 and node.wants(1))
    last = ops.moveaxis(x, 1, -1)
    mean, var = mean.astype(x.dtype), var.astype(x.dtype)
    options = {"momentum": 1 - node["momentum"], "epsilon": node["epsilon"]}
    if not node.training and not asked:
        return ops.moveaxis(ops.batch_norm(last, scale, bias, mean, var, **options), -1, 1)
    y, centre, variance = ops.batch_norm(last, scale, bias, mean, var, training=True, unbiased=False, **options)
    if node.training:
        count = last.size // last.shape[-1]
        kept = var * node["momentum"]
        node.update(3, centre)
        node.update(4, kept + (variance - kept) * (count / (count - 1)))
    return ops.moveaxis(y, -1, 1), centre, variance


@operator("InstanceNormalization", weights=(1, 2))
def instance_normalization(node: Operator, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    y = ops.instance_norm(ops.moveaxis(x, 1, -1), scale, bias, epsilon=node["epsilon"])
    return ops.moveaxis(y, -1, 1)


@operator("GroupNormalization", weights=(1, 2))
def group_normalization(node: Operator, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale and bias are one for each channel; before opset 21 one for each group."""
    groups, channels = node["num_groups"], x.shape[1]
    dividing(node.op, groups, channels, received=f"num_groups={groups}, input of shape {x.shape}")
    if node.version < 21:
        scale, bias = (each(p, channels // groups) for p in (scale, bias))
    y = ops.group_norm(ops.moveaxis(x, 1, -1), groups, scale, bias, epsilon=node["epsilon"])
    return ops.moveaxis(y, -1, 1)


def each(p: Tensor, times: int) -> Tensor:
    """Every element repeated."""
    return ops.reshape(ops.broadcast_to(ops.expand_dims(p, -1), (*p.shape, times)), -1)


@operator("LayerNormalization", weights=(1, 2))
def layer_normalization(node: Operator, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Any:
    """Over the axes from `axis` on; the mean and 1/√(σ² + ε) too, where they are asked for."""
    axes = tuple(range(node["axis"] % x.ndim, x.ndim))
    fits = all(p is None or p.shape == x.shape[axes[0] :] for p in (scale, bias))
    if fits and x.ndim > 1 and not node.wants(1) and not node.wants(2):
        return ops.layer_norm(x, scale, bias, axes=axes, epsilon=node["epsilon"])
    y, mean, var = standardised(x, axes, node["epsilon"])
    y = y * scale if bias is None else y * scale + bias
    return y, mean, ops.rsqrt(var + node["epsilon"])


@operator("RMSNormalization", weights=(1,))
def rms_normalization(node: Operator, x: Tensor, scale: Tensor) -> Tensor:
    axes = range(node["axis"] % x.ndim, x.ndim)
    return x * ops.rsqrt(ops.mean(ops.square(x), axes, keepdims=True) + node["epsilon"]) * scale


@operator("MeanVarianceNormalization")
def mean_variance_normalization(node: Operator, x: Tensor) -> Tensor:
    """(x − μ)/(σ + 10⁻⁹) over `axes`."""
    axes = node["axes"] or [0, 2, 3]
    centred = x - ops.mean(x, axes, keepdims=True)
    return centred / (rooted(ops.mean(ops.square(centred), axes, keepdims=True), 2) + 1e-9)


@operator("LRN")
def lrn(node: Operator, x: Tensor) -> Tensor:
    """The odd neighbour of an even size lies behind in ONNX, before in PyTorch and juanji.

    No more neighbours are added up than there are; α is divided by the size that was asked for.
    """
    last = ops.moveaxis(x, 1, -1)
    even = node["size"] % 2 == 0
    last = ops.flip(last, -1) if even else last
    size = min(node["size"], 2 * last.shape[-1] - (not even))
    y = ops.local_response_norm(last, size, node["alpha"] * size / node["size"], node["beta"], node["bias"])
    return ops.moveaxis(ops.flip(y, -1) if even else y, -1, 1)


@operator("LpNormalization")
def lp_normalization(node: Operator, x: Tensor) -> Tensor:
    """x divided by its p-norm along `axis`; zeros stay."""
    norm = rooted(ops.sum(ops.pow(ops.abs(x), node["p"]), node["axis"], keepdims=True), node["p"])
    return ops.where(ops.equal(norm, 0), 0.0, x / ops.where(ops.equal(norm, 0), 1.0, norm))
