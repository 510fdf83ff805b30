"""Arithmetic, functions of one variable, comparisons and logic."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from juanji import ops
from juanji.graph import Array
from juanji.interop.operators.elements import converted, element_type
from juanji.interop.operators.node import Operator, Value, array_of, by_numpy, has_value, is_floating, operator
from juanji.tensor import Tensor

Rule = Callable[..., Any]


def aligned(node: Operator, a: Value, b: Value) -> tuple[Value, Value]:
    """Both operands; b laid along a's axes from `axis` on, as files before opset 7 say it."""
    if node.version < 7 and node["broadcast"] and node["axis"] is not None:
        b = ops.reshape(b, *b.shape, *[1] * (a.ndim - node["axis"] % a.ndim - b.ndim))
    return a, b


def whole(*values: Value) -> bool:
    """Whether NumPy computes: whole numbers, truth values and strings that are known."""
    return all(map(has_value, values)) and not any(map(is_floating, values))


def truncated(a: Array, b: Array) -> Array:
    """a/b towards zero, in whole numbers."""
    quotient = a // b
    return quotient + ((a % b != 0) & ((a < 0) != (b < 0))).astype(quotient.dtype)


BINARY: dict[str, tuple[Rule, Rule]] = {
    "Add": (ops.add, np.add),
    "Sub": (ops.sub, np.subtract),
    "Mul": (ops.mul, np.multiply),
}
COMPARISONS: dict[str, tuple[Rule, Rule]] = {
    "Equal": (ops.equal, np.equal),
    "Less": (ops.less, np.less),
    "LessOrEqual": (ops.less_equal, np.less_equal),
    "Greater": (ops.greater, np.greater),
    "GreaterOrEqual": (ops.greater_equal, np.greater_equal),
    "And": (ops.logical_and, np.logical_and),
    "Or": (ops.logical_or, np.logical_or),
    "Xor": (ops.not_equal, np.logical_xor),
}


def binary(name: str, function: Rule, numpy: Rule, weights: tuple[int, ...]) -> None:
    @operator(name, weights=weights, looks=True)
    def apply(node: Operator, a: Value, b: Value) -> Value:
        a, b = aligned(node, a, b)
        return by_numpy(numpy, a, b) if whole(a, b) else function(a, b)


for name, pair in BINARY.items():
    binary(name, *pair, weights=(0, 1))
for name, pair in COMPARISONS.items():
    binary(name, *pair, weights=())


@operator("Div", weights=(0, 1), looks=True)
def divide(node: Operator, a: Value, b: Value) -> Value:
    a, b = aligned(node, a, b)
    return ops.div(a, b) if is_floating(a) else by_numpy(truncated, a, b)


@operator("Pow", looks=True)
def power(node: Operator, a: Value, b: Value) -> Value:
    """In the element type of the base, whatever that of the exponent."""
    a, b = aligned(node, a, b)
    if not is_floating(a):
        return by_numpy(lambda x, y: np.power(x, y).astype(x.dtype), a, b)
    if has_value(b) and b.size == 1 and b.ndim <= a.ndim:
        return ops.pow(a, float(array_of(b).item()))
    return ops.pow(a, converted(b, a.dtype))


@operator("Mod", known=None)
def modulo(node: Operator, a: Array, b: Array) -> Value:
    return by_numpy(np.fmod if node["fmod"] else np.mod, a, b)


def variadic(name: str, function: Rule, numpy: Rule) -> None:
    @operator(name, looks=True, weights=range(64) if name == "Sum" else ())
    def apply(node: Operator, *values: Value) -> Value:
        if whole(*values):
            return functools.reduce(lambda a, b: by_numpy(numpy, a, b), values)
        return functools.reduce(function, values)


VARIADIC: dict[str, tuple[Rule, Rule]] = {
    "Sum": (ops.add, np.add),
    "Max": (ops.maximum, np.maximum),
    "Min": (ops.minimum, np.minimum),
}
for name, pair in VARIADIC.items():
    variadic(name, *pair)


@operator("Mean")
def mean(node: Operator, *values: Value) -> Value:
    return functools.reduce(ops.add, values) * (1 / len(values))


# Functions of one variable: of tensors, and of known whole numbers where ONNX defines them there.
UNARY: dict[str, Rule] = {
    "Abs": ops.abs,
    "Acosh": lambda x: ops.log(x + ops.sqrt(ops.square(x) - 1)),
    "Asinh": lambda x: ops.sign(x) * ops.log(ops.abs(x) + ops.sqrt(ops.square(x) + 1)),
    "Atanh": lambda x: (ops.log1p(x) - ops.log1p(-x)) * 0.5,
    "Ceil": ops.ceil,
    "Cos": ops.cos,
    "Cosh": lambda x: (ops.exp(x) + ops.exp(-x)) * 0.5,
    "Erf": ops.erf,
    "Exp": ops.exp,
    "Floor": ops.floor,
    "Identity": lambda x: x,
    "IsNaN": lambda x: ops.not_equal(x, x),
    "Log": ops.log,
    "Neg": ops.neg,
    "Not": ops.logical_not,
    "Reciprocal": lambda x: 1 / x,
    "Round": ops.round,
    "Sign": ops.sign,
    "Sin": ops.sin,
    "Sinh": lambda x: (ops.expm1(x) - ops.expm1(-x)) * 0.5,
    "Sqrt": ops.sqrt,
    "Tan": lambda x: ops.sin(x) / ops.cos(x),
}
# What juanji has no derivative for, nor needs one.
VALUES: dict[str, Rule] = {
    "Acos": np.arccos,
    "Asin": np.arcsin,
    "Atan": np.arctan,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseNot": np.bitwise_not,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
}


def unary(name: str, function: Rule) -> None:
    @operator(name, moves=name == "Identity")
    def apply(node: Operator, x: Value) -> Value:
        return function(x)


def by_value(name: str, function: Rule) -> None:
    @operator(name, known=None)
    def apply(node: Operator, *arrays: Array) -> Value:
        return by_numpy(function, *arrays)


for name, rule in UNARY.items():
    unary(name, rule)
for name, rule in VALUES.items():
    by_value(name, rule)


@operator("BitShift", known=None)
def bit_shift(node: Operator, x: Array, by: Array) -> Value:
    return by_numpy(np.left_shift if node["direction"] == "LEFT" else np.right_shift, x, by)


@operator("IsInf")
def is_inf(node: Operator, x: Tensor) -> Tensor:
    high, low = ops.equal(x, math.inf), ops.equal(x, -math.inf)
    wanted = [side for side, asked in ((high, "detect_positive"), (low, "detect_negative")) if node[asked]]
    return functools.reduce(ops.logical_or, wanted) if wanted else ops.not_equal(high, high)


@operator("Where", looks=True)
def where(node: Operator, condition: Value, x: Value, y: Value) -> Value:
    return by_numpy(np.where, condition, x, y) if whole(condition, x, y) else ops.where(condition, x, y)


@operator("Clip", known=(1, 2))
def clip(node: Operator, x: Tensor, low: Array | None = None, high: Array | None = None) -> Tensor:
    """Bounds are attributes before opset 11, inputs since."""
    bounds = [node["min"], node["max"]] if node.version < 11 else [None if b is None else b.item() for b in (low, high)]
    return ops.clip(x, *bounds)


@operator("Cast", looks=True, moves=True)
def cast(node: Operator, x: Value) -> Value:
    return converted(x, element_type(node, number_of(node["to"])))


def number_of(element: Any) -> Any:
    """The element type's number, which the first opset gave by name."""
    from onnx import TensorProto

    return dict(TensorProto.DataType.items()).get(element) if isinstance(element, str) else element


@operator("CastLike", looks=True, moves=True)
def cast_like(node: Operator, x: Value, other: Value) -> Value:
    return converted(x, other.dtype)
