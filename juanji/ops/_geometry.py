"""Checks of tensors and axes that several families of operators share."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.errors import DTypeError, ShapeError
from juanji.graph import Array, Geometry
from juanji.tensor import Tensor


def same(name: str, *tensors: Tensor) -> Geometry:
    """Tensors of one shape and dtype: those of the result."""
    same_dtype(name, *tensors)
    first = tensors[0]
    if any(t.shape != first.shape for t in tensors):
        raise ShapeError(f"{name}: shapes differ", received=", ".join(str(t.shape) for t in tensors), rule="one shape")
    return first.shape, first.dtype


def same_dtype(name: str, *tensors: Tensor) -> None:
    """Raise DTypeError unless all dtypes agree."""
    if len({t.dtype for t in tensors}) > 1:
        raise DTypeError(
            f"{name}: the tensors have different dtypes",
            received=", ".join(f"{t.dtype} {t.shape}" for t in tensors),
            rule="nothing is converted silently",
            fix='convert one of them, for example x.astype("float32")',
        )


def floating(name: str, *tensors: Tensor) -> None:
    """Raise DTypeError unless every tensor is floating and all agree."""
    for tensor in tensors:
        if not tensor.is_floating:
            raise DTypeError(
                f"{name}: needs floating-point numbers",
                received=f"{tensor.dtype} {tensor.shape}",
                fix=conversion(tensor.dtype, "float32"),
            )
    same_dtype(name, *tensors)


def conversion(dtype: np.dtype[Any], target: Any) -> str:
    """How to come from one dtype to a floating one, in Python; pixels of eight bits go to 0 … 1."""
    return f'x.astype("{target}")' + (" / 255" if dtype == np.uint8 else "")


def ranked(name: str, tensor: Tensor, rank: int, meaning: str) -> None:
    if tensor.ndim != rank:
        raise ShapeError(f"{name}: wrong rank", received=f"shape {tensor.shape}", rule=f"{rank} axes: {meaning}")


def axis_of(name: str, axis: int, ndim: int) -> int:
    """`axis` counted from the front."""
    if not -ndim <= axis < ndim:
        raise ShapeError(f"{name}: there is no axis {axis}", received=f"{ndim} axes", rule=f"{-ndim} … {ndim - 1}")
    return operator.index(axis) % ndim


def axes_of(name: str, axis: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """One axis, several, or None for all, counted from the front and sorted."""
    if axis is None:
        return tuple(range(ndim))
    given: Any = axis if np.ndim(axis) else [axis]
    axes = sorted(axis_of(name, a, ndim) for a in given)
    if len(set(axes)) < len(axes):
        raise ShapeError(f"{name}: every axis once, please", received=f"axis={axis!r}", rule=f"{ndim} axes")
    return tuple(axes)


def shape_of(name: str, sizes: Sequence[Any], size: int) -> tuple[int, ...]:
    """A shape for `size` elements, in which one −1 stands for whatever is left."""
    shape = tuple(map(operator.index, sizes))
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) == 1 and known > 0 and size % known == 0:
        shape = tuple(size // known if n == -1 else n for n in shape)
    if any(n < 0 for n in shape) or math.prod(shape) != size:
        raise ShapeError(f"{name}: the sizes do not fit", received=f"{size} elements", rule=f"shape {tuple(sizes)}")
    return shape


def away(rng: np.random.Generator, *shape: int, low: float = 0.3, high: float = 2.0) -> Array:
    """Random numbers of both signs with |x| between `low` and `high`: away from kinks at zero."""
    return rng.uniform(low, high, shape) * rng.choice([-1.0, 1.0], shape)
