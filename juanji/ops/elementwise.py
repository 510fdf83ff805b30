"""How an elementwise operator is made: operands brought to one shape and dtype, and one record."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

from juanji.errors import DTypeError, ShapeError
from juanji.graph import (
    Array,
    Geometry,
    Kind,
    Linear,
    NotDifferentiable,
    Pointwise,
    Primitive,
    Rule,
    primitive,
)
from juanji.ops._geometry import away, floating, same, same_dtype
from juanji.tensor import DTYPES, DTypeLike, Tensor, holds_tensors, method

Function = Callable[..., Tensor]


def broadcast_geometry(x: Tensor, *, shape: tuple[int, ...]) -> Geometry:
    if len(shape) < x.ndim or any(n not in (1, m) for n, m in zip(x.shape[::-1], shape[::-1], strict=False)):
        raise ShapeError(f"broadcast_to: {x.shape} does not stretch to {shape}", rule="sizes are equal or 1")
    return shape, x.dtype


def unbroadcast(g: Tensor, x: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """Sum over the axes that were stretched."""
    extra = len(shape) - x.ndim
    stretched = [extra + i for i, n in enumerate(x.shape) if n != shape[extra + i]]
    return g.sum(axis=(*range(extra), *stretched)).reshape(*x.shape)


broadcast_to_p: Primitive = primitive(
    "broadcast_to",
    broadcast_geometry,
    lambda x, shape: np.broadcast_to(x, shape),
    Linear(unbroadcast),
    lambda rng: [((away(rng, 3, 1),), {"shape": (2, 3, 4)}), ((away(rng, 1),), {"shape": (5,)})],
)


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """x stretched to `shape` by NumPy's rules. Raises ShapeError where it does not stretch."""
    x, shape = Tensor.of(x), tuple(shape) if np.ndim(shape) else (operator.index(shape),)
    return x if x.shape == shape else broadcast_to_p(x, shape=shape)


def operands(name: str, *values: Any) -> list[Tensor]:
    """Operands as tensors of one shape and dtype: as `alike`, and shapes are broadcast.

    Raises DTypeError for tensors of different dtypes and ShapeError for shapes that do not broadcast.
    """
    return stretched(name, *alike(name, *values))


def alike(name: str, *values: Any) -> list[Tensor]:
    """The values as tensors of one dtype: numbers, and lists of numbers, take that of the rest.

    Raises DTypeError for tensors and arrays of different dtypes, and for a fraction among whole numbers.
    """
    given = [np.asarray(value) if is_plain(value) else Tensor.of(value) for value in values]
    typed = [x.dtype for x in given if isinstance(x, Tensor)]
    dtype = typed[0] if typed else np.result_type(*given)
    if dtype.kind != "f" and any(x.dtype.kind == "f" for x in given if not isinstance(x, Tensor)):
        raise DTypeError(f"{name}: a fraction with whole numbers", received=f"dtype {dtype}", fix='x.astype("float32")')
    tensors = [
        x if isinstance(x, Tensor) else number(name, value, dtype) for x, value in zip(given, values, strict=True)
    ]
    same_dtype(name, *tensors)
    return tensors


def is_plain(value: Any) -> bool:
    """Whether `value` is made of Python's numbers, which have no dtype of their own."""
    return isinstance(value, Real) or (isinstance(value, list | tuple) and not holds_tensors(value))


def stretched(name: str, *tensors: Tensor) -> list[Tensor]:
    """The tensors broadcast to one shape. Raises ShapeError where that cannot be."""
    try:
        shape = np.broadcast_shapes(*(x.shape for x in tensors))
    except ValueError:
        raise ShapeError(
            f"{name}: the shapes do not broadcast",
            received=" and ".join(str(x.shape) for x in tensors),
            rule="from the last axis backwards, sizes are equal or one of them is 1",
        ) from None
    return [broadcast_to(x, shape) for x in tensors]


def number(name: str, value: Any, dtype: np.dtype[Any]) -> Tensor:
    try:
        return Tensor(value, dtype)
    except OverflowError:
        raise DTypeError(
            f"{name}: {value} does not fit the dtype of the rest", received=f"dtype {dtype}", fix='x.astype("int64")'
        ) from None


def pointwise(
    name: str,
    define: Callable[..., Array],
    *partials: Rule | None,
    doc: str,
    kinds: str = "f",
    low: float = 0.3,
    high: float = 2.0,
    positive: bool = False,
) -> Function:
    """Register an elementwise operator of as many tensors as it has partial derivatives.

    partials  `(y, *inputs)`: tensor or number, None where the derivative is zero
    kinds     the NumPy dtype kinds it takes
    low, high, positive  where its examples lie
    """

    def geometry(*inputs: Tensor) -> Geometry:
        return check_kinds(name, kinds, inputs)

    def examples(rng: np.random.Generator) -> Any:
        arrays = [away(rng, 3, 4, low=low, high=high) for _ in partials]
        yield tuple(np.abs(x) if positive else x for x in arrays), {}

    kind: Kind = Pointwise(*partials) if any(partials) else NotDifferentiable()
    return door(primitive(name, geometry, define, kind, examples), len(partials), doc)


def comparison(name: str, define: Callable[..., Array], *, doc: str, kinds: str = "fiub", arity: int = 2) -> Function:
    """Register an elementwise operator whose values are true and false."""

    def geometry(*inputs: Tensor) -> Geometry:
        return check_kinds(name, kinds, inputs)[0], np.dtype(bool)

    def examples(rng: np.random.Generator) -> Any:
        arrays = [rng.integers(0, 3, (3, 4)).astype(float) for _ in range(arity)]
        yield tuple(x > 0 if kinds == "b" else x for x in arrays), {}

    return door(primitive(name, geometry, define, NotDifferentiable(), examples), arity, doc)


def check_kinds(name: str, kinds: str, inputs: tuple[Tensor, ...]) -> Geometry:
    if inputs[0].dtype.kind not in kinds:
        if kinds == "f":
            floating(name, *inputs)
        raise DTypeError(
            f"{name}: not for this dtype",
            received=str(inputs[0].dtype),
            fix="compare first, as in x > 0" if kinds == "b" else 'x.astype("float32")',
        )
    return same(name, *inputs)


def door(record: Primitive, arity: int, doc: str) -> Function:
    """The user's door to an elementwise primitive, also found by Tensor's operators."""

    def unary(x: Any) -> Tensor:
        return record(*operands(record.name, x))

    def binary(x: Any, y: Any) -> Tensor:
        return record(*operands(record.name, x, y))

    call: Function = unary if arity == 1 else binary
    call.__name__ = call.__qualname__ = record.name
    call.__module__ = "juanji.ops"  # where it is found, by pickle too
    call.__doc__ = doc
    return method(call)


def cast_geometry(x: Tensor, *, dtype: str) -> Geometry:
    return x.shape, np.dtype(dtype)


cast: Primitive = primitive(
    "cast",
    cast_geometry,
    lambda x, dtype: x.astype(dtype),
    Linear(lambda g, x, dtype: astype(g, x.dtype)),
    lambda rng: [
        ((away(rng, 3, 4),), {"dtype": "float64"}),
        ((rng.integers(0, 9, 5),), {"dtype": "float32"}),
    ],
)


@method
def astype(x: Any, dtype: DTypeLike) -> Tensor:
    """x converted to `dtype`; differentiable from float to float. Raises DTypeError for a dtype juanji has not."""
    x, name = Tensor.of(x), np.dtype(dtype).name
    if name not in DTYPES:
        raise DTypeError(
            "astype: this element type is not supported", received=name, rule="one of " + ", ".join(DTYPES)
        )
    return x if x.dtype == name else cast(x, dtype=name)


def identity_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 3, 4),), {}


identity: Primitive = primitive(
    "identity", lambda x: (x.shape, x.dtype), lambda x: x, Linear(lambda g, x: g), identity_examples
)
stop_gradient_p: Primitive = primitive(
    "stop_gradient", lambda x: (x.shape, x.dtype), lambda x: x, NotDifferentiable(), identity_examples
)


def stop_gradient(x: Any) -> Tensor:
    """x, held constant by every derivative."""
    return stop_gradient_p(Tensor.of(x))


def where_geometry(condition: Tensor, x: Tensor, y: Tensor) -> Geometry:
    if condition.dtype != bool:
        raise DTypeError("where: the condition must be true or false", received=str(condition.dtype), fix="x > 0")
    if condition.shape != x.shape:
        raise ShapeError("where: shapes differ", received=f"{condition.shape}, {x.shape}", rule="one shape")
    return same("where", x, y)


def where_examples(rng: np.random.Generator) -> Any:
    yield (rng.random((3, 4)) > 0.5, away(rng, 3, 4), away(rng, 3, 4)), {}


where_p: Primitive = primitive(
    "where",
    where_geometry,
    np.where,
    Linear(
        None,
        lambda g, condition, x, y: where_p(condition, g, g.zeros_like()),
        lambda g, condition, x, y: where_p(condition, g.zeros_like(), g),
    ),
    where_examples,
)


@method
def where(condition: Any, x: Any, y: Any) -> Tensor:
    """x where `condition` is true, y elsewhere; all three broadcast. The side not taken gets no gradient, nor NaN."""
    return where_p(*stretched("where", Tensor.of(condition), *operands("where", x, y)))
