"""Matrix products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji.errors import ShapeError
from juanji.graph import Geometry, Multilinear, Primitive, primitive
from juanji.ops._geometry import away, floating
from juanji.ops.elementwise import broadcast_to
from juanji.ops.math import add
from juanji.ops.movement import reshape, transpose
from juanji.tensor import Tensor, method


def matmul_geometry(a: Tensor, b: Tensor) -> Geometry:
    floating("matmul", a, b)
    if a.shape[-1] != b.shape[-2] or a.shape[:-2] != b.shape[:-2]:
        raise ShapeError(
            "matmul: the matrices do not fit",
            received=f"{a.shape} @ {b.shape}",
            rule="(…, m, k) @ (…, k, n) = (…, m, n)",
        )
    return (*a.shape[:-1], b.shape[-1]), a.dtype


def swap(x: Tensor) -> Tensor:
    return transpose(x, *range(x.ndim - 2), x.ndim - 1, x.ndim - 2)


def matmul_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 3), away(rng, 3, 4)), {}
    yield (away(rng, 2, 2, 3), away(rng, 2, 3, 1)), {}


matmul_p: Primitive = primitive(
    "matmul",
    matmul_geometry,
    np.matmul,
    Multilinear(lambda g, a, b: matmul_p(g, swap(b)), lambda g, a, b: matmul_p(swap(a), g)),
    matmul_examples,
)


@method
def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product of the last two axes, the others broadcast; a vector is a row on the left, a column on the right.

    Raises ShapeError where the inner sizes differ, DTypeError for mixed or whole-number dtypes.
    """
    a, b = Tensor.of(a), Tensor.of(b)
    if not a.ndim or not b.ndim:
        raise ShapeError("matmul: a scalar is no matrix", received=f"{a.shape} @ {b.shape}", fix="multiply with *")
    if b.ndim == 1:
        return reshape(y := matmul(a, reshape(b, -1, 1)), *y.shape[:-1])
    if a.ndim == 1:
        return reshape(y := matmul(reshape(a, 1, -1), b), *y.shape[:-2], y.shape[-1])
    if b.ndim == 2 < a.ndim:
        rows = reshape(a, math.prod(a.shape[:-1]), a.shape[-1])
        return reshape(matmul_p(rows, b), *a.shape[:-1], b.shape[-1])
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError("matmul: the batches do not broadcast", received=f"{a.shape} @ {b.shape}") from None
    return matmul_p(broadcast_to(a, (*batch, *a.shape[-2:])), broadcast_to(b, (*batch, *b.shape[-2:])))


def linear(x: Any, w: Any, bias: Any | None = None) -> Tensor:
    """A dense layer's net activation z = x·Wᵀ + b, samples as rows (002 eq. 1.1, 001).

    x (…, in), w (out, in), bias (out,); returns (…, out). Raises ShapeError where the sizes differ.
    """
    x, w = Tensor.of(x), Tensor.of(w)
    if w.ndim != 2 or not x.ndim or x.shape[-1] != w.shape[1]:
        raise ShapeError(
            "linear: the inputs do not match",
            received=f"input of shape {x.shape}, weights (out, in) = {w.shape}",
            rule=f"the last axis has {w.shape[-1]} features" if w.ndim == 2 else "weights have two axes",
            fix=f"in_features={x.shape[-1]}" if x.ndim == 2 else "flatten images before a dense layer",
        )
    floating("linear", x, w)
    z = matmul(x, transpose(w))
    return z if bias is None else add(z, bias)
