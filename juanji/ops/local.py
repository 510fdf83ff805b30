"""The locally connected layer: a convolution that shares no weights (004 §5.4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji.checks import per_axis
from juanji.errors import ShapeError
from juanji.ops._geometry import away, floating
from juanji.ops.conv import unfold_p
from juanji.ops.convspec import ConvSpec, plan, spatial_rank
from juanji.ops.linalg import matmul
from juanji.ops.math import add
from juanji.ops.movement import moveaxis, reshape
from juanji.tensor import Tensor, composite


def local_examples(rng: np.random.Generator) -> Any:
    for spec in [plan("local", (5,), (3,), 2, 1, 1), plan("local", (3, 4), (2, 2), 1, 0, 1)]:
        x, w = away(rng, 2, *spec.input, 2), away(rng, *spec.output, *spec.kernel, 2, 3)
        yield (x, w, away(rng, *spec.output, 3)), {"spec": spec}
        yield (x, w, None), {"spec": spec}


@composite(local_examples, "locally_connected")
def locally_connected_c(x: Tensor, w: Tensor, bias: Tensor | None, *, spec: ConvSpec) -> Tensor:
    """A matrix product for each place: patches (Y, N, K·C) by weights (Y, K·C, M)."""
    n, places = x.shape[0], math.prod(spec.output)
    taps = spec.taps * x.shape[-1]
    patches = moveaxis(unfold_p(x, spec=spec), spec.rank + 1, -1)
    by_place = moveaxis(reshape(patches, n, places, taps), 0, 1)
    y = moveaxis(matmul(by_place, reshape(w, places, taps, w.shape[-1])), 1, 0)
    y = reshape(y, n, *spec.output, w.shape[-1])
    return y if bias is None else add(y, bias)


def locally_connected(
    x: Any, w: Any, bias: Any | None = None, *, size: Any, stride: Any = 1, padding: Any = 0
) -> Tensor:
    """Windows as in `conv`, each place with weights of its own (004 §5.4).

    x     (N, *X, C)
    w     (*Y, *K, C, M), Y being the output's size
    bias  (*Y, M)
    size  the window's, an integer or one a spatial axis

    Returns (N, *Y, M). It has (K·C + 1)·M weights at every place where `conv` has them once: 756,560 against 3,860 for
    8×8×3 windows, 14×14 places and 20 channels. Raises ShapeError for weights or bias of another shape, and everything
    `conv` raises.
    """
    x, w = Tensor.of(x), Tensor.of(w)
    rank = spatial_rank("locally_connected", x, "NHWC")
    floating("locally_connected", x, w)
    kernel = per_axis("locally_connected", "size", size, rank, least=1)
    spec = plan("locally_connected", x.shape[1:-1], kernel, stride, padding, 1)
    bias = None if bias is None else Tensor.of(bias)
    expected = (*spec.output, *kernel, x.shape[-1])
    if w.shape[:-1] != expected:
        raise ShapeError(
            "locally_connected: the weights have the wrong shape",
            received=str(w.shape),
            rule=f"(*Y, *K, C, M) = ({', '.join(map(str, expected))}, M)",
        )
    if bias is not None and bias.shape != (*spec.output, w.shape[-1]):
        raise ShapeError(
            "locally_connected: one bias for each place and channel",
            received=f"bias of shape {bias.shape}",
            rule=f"(*Y, M) = {(*spec.output, w.shape[-1])}",
        )
    return locally_connected_c(x, w, bias, spec=spec)
