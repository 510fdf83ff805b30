"""Keeping gradients within bounds."""

from __future__ import annotations

from collections.abc import Mapping

from juanji.checks import positive
from juanji.errors import ArgumentError
from juanji.ops.math import clip, minimum, sqrt
from juanji.ops.movement import stack
from juanji.tensor import Tensor


def grad_norm(grads: Mapping[str, Tensor]) -> Tensor:
    """√Σ g² over all elements of all gradients, float64. Raises ArgumentError for no gradients."""
    if not grads:
        raise ArgumentError("grad_norm: no gradients", received="an empty dictionary")
    return sqrt(stack([(g * g).sum().astype("float64") for g in grads.values()]).sum())


def clip_grad_norm(grads: Mapping[str, Tensor], max_norm: float) -> dict[str, Tensor]:
    """The gradients, all scaled by min(1, max_norm/(norm + 1e-6)), as PyTorch's `clip_grad_norm_`; see `grad_norm`."""
    positive("clip_grad_norm", max_norm=max_norm)
    scale = minimum(max_norm / (grad_norm(grads) + 1e-6), 1.0)
    return {name: g * scale.astype(g.dtype) for name, g in grads.items()}


def clip_grad_value(grads: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """The gradients with every element held between −limit and limit."""
    positive("clip_grad_value", limit=limit)
    return {name: clip(g, -limit, limit) for name, g in grads.items()}
