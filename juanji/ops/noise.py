"""Random tensors. Numbers come from a state, three uint32 words (see random.py): the same state, the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji import random
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.graph import Geometry, NotDifferentiable, primitive
from juanji.ops._geometry import away, axes_of, floating
from juanji.ops.elementwise import astype, where
from juanji.ops.math import cos, greater_equal, log1p, sin, sqrt
from juanji.ops.movement import concat, reshape
from juanji.tensor import DTypeLike, Tensor, composite


def uniform_geometry(state: Tensor, *, shape: tuple[int, ...], dtype: str) -> Geometry:
    if (state.shape, state.dtype) != ((3,), np.dtype(np.uint32)):
        raise ShapeError(
            "uniform: this is not a random state",
            received=f"{state.dtype} {state.shape}",
            rule="uint32 (3,): two words of key and a step",
            fix="juanji.random.state(seed)",
        )
    if dtype not in ("float32", "float64"):
        raise DTypeError("uniform: needs a floating-point dtype", received=dtype, rule='"float32" or "float64"')
    return shape, np.dtype(dtype)


def uniform_examples(rng: np.random.Generator) -> Any:
    yield (random.state(1),), {"shape": (2, 3), "dtype": "float32"}
    yield (random.state(2),), {"shape": (), "dtype": "float64"}


uniform_p = primitive("uniform", uniform_geometry, random.uniform, NotDifferentiable(), uniform_examples)


def uniform(state: Any, shape: Sequence[int], dtype: DTypeLike = "float32") -> Tensor:
    """Uniform numbers in [0, 1), multiples of 2⁻²⁴, the same in both precisions."""
    return uniform_p(Tensor.of(state), shape=tuple(shape), dtype=np.dtype(dtype).name)


def normal_examples(rng: np.random.Generator) -> Any:
    yield (random.state(1),), {"shape": (3, 5), "dtype": "float32"}


@composite(normal_examples, "normal")
def normal_c(state: Tensor, *, shape: tuple[int, ...], dtype: str) -> Tensor:
    size = math.prod(shape)
    pairs = uniform(state, (2, -(-size // 2)), "float64")
    radius, angle = sqrt(log1p(-pairs[0]) * -2), pairs[1] * (2 * math.pi)
    both = concat([radius * cos(angle), radius * sin(angle)])
    return astype(reshape(both[:size], *shape), dtype)


def normal(state: Any, shape: Sequence[int], dtype: DTypeLike = "float32") -> Tensor:
    """Standard normal numbers, by Box and Muller's transform of pairs of uniform ones, in float64 and then rounded."""
    return normal_c(Tensor.of(state), shape=tuple(shape), dtype=np.dtype(dtype).name)


def dropout_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 3, 4), random.state(1)), {"rate": 0.4, "axes": ()}
    yield (away(rng, 2, 3, 3, 2), random.state(2)), {"rate": 0.5, "axes": (1, 2)}


@composite(dropout_examples, "dropout")
def dropout_c(x: Tensor, state: Tensor, *, rate: float, axes: tuple[int, ...]) -> Tensor:
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    keep = greater_equal(uniform(state, shape), rate)
    return where(keep, x * (1 / (1 - rate) if rate < 1 else 0.0), 0.0)


def dropout(x: Any, state: Any, *, rate: float = 0.5, axes: int | Sequence[int] = ()) -> Tensor:
    """x with a random part `rate` of its elements at 0 and the others divided by 1 − rate, so that the mean stays.

    state  three uint32 words, `juanji.random.state(seed, path, step)`
    axes   axes along which elements are dropped or kept together: (1, 2) drops whole channels of (N, H, W, C)

    For training only (Srivastava et al. 2014). Raises ArgumentError for a rate outside 0 … 1.
    """
    x = Tensor.of(x)
    floating("dropout", x)
    if not 0 <= rate <= 1:
        raise ArgumentError("dropout: bad rate", received=f"rate={rate}", rule="the part that is dropped, 0 … 1")
    return dropout_c(x, Tensor.of(state), rate=rate, axes=axes_of("dropout", axes, x.ndim))
