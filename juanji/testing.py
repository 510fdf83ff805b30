"""Checks of derivatives, for your own functions and primitives as for juanji's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from juanji import tree
from juanji.autodiff import grad, jvp, vjp
from juanji.errors import ArgumentError
from juanji.graph import COMPOSITES, PRIMITIVES, Composite, NotDifferentiable, Primitive
from juanji.tensor import Tensor

Function = Callable[..., Any]


def check_grads(
    function: Function,
    args: Sequence[Any],
    order: int = 2,
    modes: Sequence[str] = ("forward", "reverse"),
    tolerance: float = 1e-5,
    step: float = 1e-5,
    seed: int = 0,
) -> None:
    """Compare both modes with central differences along one random direction, up to derivatives of `order`.

    args       floating tensors or arrays; they are taken in float64
    tolerance  allowed distance, relative to the size of the derivative (or 1)

    Also checks that the modes are each other's transposes, ⟨J v, u⟩ = ⟨v, Jᵀ u⟩, to 1e-9. Raises AssertionError with
    the two numbers.
    """
    if not set(modes) <= {"forward", "reverse"}:
        raise ArgumentError("check_grads: unknown mode", received=repr(modes), rule='"forward", "reverse"')
    rng = np.random.default_rng(seed)
    primals = [Tensor(np.asarray(arg, np.float64)) for arg in args]
    direction = [Tensor(rng.normal(size=x.shape)) for x in primals]
    output, pull = vjp(function, *primals)
    weights = tree.map(lambda y: Tensor(rng.normal(size=y.shape)), output)

    def along(t: float) -> float:
        return inner(weights, function(*(x + v * t for x, v in zip(primals, direction, strict=True))))

    expected = (along(step) - along(-step)) / (2 * step)
    forward = inner(weights, jvp(function, primals, direction)[1])
    reverse = inner(direction, pull(weights))
    for mode in modes:
        agree(mode, order, {"forward": forward, "reverse": reverse}[mode], expected, tolerance)
    if len(modes) == 2:
        agree("forward against reverse", order, forward, reverse, 1e-9)
    if order > 1:

        def directional(*xs: Tensor) -> Tensor:
            return inner_tensor(weights, jvp(function, xs, direction)[1])

        def gradients(*xs: Tensor) -> Any:
            return grad(lambda *inner_xs: inner_tensor(weights, function(*inner_xs)), tuple(range(len(xs))))(*xs)

        for mode, derivative in {"forward": directional, "reverse": gradients}.items():
            if mode in modes:
                check_grads(derivative, primals, order - 1, modes, tolerance * 10, step, seed + 1)


def inner_tensor(a: Any, b: Any) -> Any:
    """⟨a, b⟩ over the leaves of two trees."""
    terms = [(x * y).sum() for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True)]
    return sum(terms[1:], terms[0])


def inner(a: Any, b: Any) -> float:
    return float(inner_tensor(a, b))


def agree(what: str, order: int, received: float, expected: float, tolerance: float) -> None:
    if not abs(received - expected) <= tolerance * max(1.0, abs(expected)):
        raise AssertionError(f"{what} derivative (order {order} to go): received {received!r}, expected {expected!r}")


def check_op(operator: Primitive | Composite | str, order: int = 2, seed: int = 0) -> None:
    """Check a registered operator on its own examples: geometry against definition in float32 and float64, derivatives.

    Raises AssertionError where its record contradicts itself, or has no examples.
    """
    record: Any = {**PRIMITIVES, **COMPOSITES}[operator] if isinstance(operator, str) else operator
    examples = list(record.examples(np.random.default_rng(seed)))
    if not examples:
        raise AssertionError(f"{record.name} has no examples")
    for (arrays, attrs), dtype in itertools.product(examples, ("float32", "float64")):
        inputs = [None if array is None else as_dtype(array, dtype) for array in arrays]
        if isinstance(record, Primitive):
            check_definition(record, inputs, attrs)
        if dtype == "float64":
            check_derivatives(record, inputs, attrs, order)


def as_dtype(array: Any, dtype: str) -> Tensor:
    array = np.asarray(array)
    return Tensor(array, dtype if array.dtype.kind == "f" else None)


def check_definition(record: Primitive, inputs: Sequence[Any], attrs: dict[str, Any]) -> None:
    defined = np.asarray(record.define(*(x.array for x in inputs), **attrs))
    promised = record.geometry(*inputs, **attrs)
    if (defined.shape, defined.dtype) != promised:
        raise AssertionError(f"{record.name}: geometry says {promised}, define gives {defined.shape}, {defined.dtype}")


def check_derivatives(record: Primitive | Composite, inputs: Sequence[Any], attrs: dict[str, Any], order: int) -> None:
    kind = getattr(record, "kind", None)
    places = [i for i, x in enumerate(inputs) if x is not None and x.is_floating and (kind is None or kind.rule(i))]
    output = record(*inputs, **attrs)
    if isinstance(kind, NotDifferentiable) or not places or not all(y.is_floating for y in tree.leaves(output)):
        return

    def function(*xs: Tensor) -> Any:
        full = list(inputs)
        for place, x in zip(places, xs, strict=True):
            full[place] = x
        return record(*full, **attrs)

    check_grads(function, [inputs[place] for place in places], order)
