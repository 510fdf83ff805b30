"""Elementwise operators and activation functions in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji.graph import Node
from juanji.interop.export.builder import Builder, Constant, Value
from juanji.interop.export.table import ELEMENTWISE, elementwise, entry
from juanji.tensor import Tensor

for name, kind in {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "pow": "Pow",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "sin": "Sin",
    "cos": "Cos",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "erf": "Erf",
    "relu": "Relu",
    "equal": "Equal",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "logical_and": "And",
    "logical_or": "Or",
    "logical_not": "Not",
    "where": "Where",
    "selu": "Selu",
    "mish": "Mish",
    "hardswish": "HardSwish",
    "softsign": "Softsign",
}.items():
    elementwise(name, kind)
elementwise("hardsigmoid", "HardSigmoid", alpha=1 / 6, beta=0.5)
ELEMENTWISE |= {"cast", "power", "expm1", "log1p", "not_equal", "isfinite"}

EXPONENTS = {0.5: ("Sqrt",), -0.5: ("Sqrt", "Reciprocal"), -1: ("Reciprocal",)}


def scalar(x: Tensor, value: float) -> Constant:
    """A number that broadcasts against x."""
    return Constant(np.full((1,) * x.ndim, value, x.dtype))


@entry("identity", "stop_gradient")
def identity(b: Builder, node: Node) -> Value | Constant:
    return b.value(node.inputs[0])


@entry("cast")
def cast(b: Builder, node: Node) -> Value:
    from onnx import helper

    return b.elementwise("Cast", node.inputs[0], to=helper.np_dtype_to_tensor_dtype(np.dtype(node.attrs["dtype"])))


@entry("power")
def power(b: Builder, node: Node) -> Value:
    (x,), exponent = node.inputs, node.attrs["exponent"]
    if exponent not in EXPONENTS:
        return b.elementwise("Pow", x, scalar(x, exponent))
    y: Any = x
    for kind in EXPONENTS[exponent]:
        y = b.elementwise(kind, y)
    return y


@entry("expm1")
def expm1(b: Builder, node: Node) -> Value:
    (x,) = node.inputs
    return b.elementwise("Sub", b.elementwise("Exp", x), scalar(x, 1))


@entry("log1p")
def log1p(b: Builder, node: Node) -> Value:
    (x,) = node.inputs
    return b.elementwise("Log", b.elementwise("Add", x, scalar(x, 1)))


@entry("not_equal")
def not_equal(b: Builder, node: Node) -> Value:
    return b.elementwise("Not", b.elementwise("Equal", *node.inputs))


@entry("isfinite")
def isfinite(b: Builder, node: Node) -> Value:
    (x,) = node.inputs
    return b.elementwise("Not", b.elementwise("Or", b.elementwise("IsInf", x), b.elementwise("IsNaN", x)))


@entry("leaky_relu")
def leaky_relu(b: Builder, node: Node) -> Value:
    return b.elementwise("LeakyRelu", node.inputs[0], alpha=float(node.attrs["slope"]))


@entry("elu")
def elu(b: Builder, node: Node) -> Value:
    return b.elementwise("Elu", node.inputs[0], alpha=float(node.attrs["alpha"]))


@entry("gelu")
def gelu(b: Builder, node: Node) -> Value:
    return b.elementwise("Gelu", node.inputs[0], approximate=node.attrs["approximate"])


@entry("prelu")
def prelu(b: Builder, node: Node) -> Value:
    x, slope = node.inputs
    shape = (1,) * (x.ndim - 1)
    value = b.value(slope)
    if isinstance(value, Constant):
        value = Constant(value.array.reshape(*shape, -1), value.label)
    else:
        sizes = (*shape, slope.shape[0])
        value = Value(b.reshape(b.take(slope), b.sizes.of(slope), sizes), tuple(range(x.ndim)), sizes)
    return b.elementwise("PRelu", b.full(x), value)


def clipped(b: Builder, x: Tensor, low: float | None, high: float | None) -> Value:
    value = b.written(x)
    bounds = ["" if bound is None else b.initialiser(np.asarray(bound, x.dtype)) for bound in (low, high)]
    return Value(b.node("Clip", value.name, *bounds), value.order, value.sizes)


@entry("clip", "hardtanh")
def clip(b: Builder, node: Node) -> Value:
    return clipped(b, node.inputs[0], node.attrs["low"], node.attrs["high"])


@entry("relu6")
def relu6(b: Builder, node: Node) -> Value:
    return clipped(b, node.inputs[0], 0, 6)


@entry("dropout")
def dropout(b: Builder, node: Node) -> Value:
    """The identity, as in evaluation mode; the node says where it was in training."""
    value = b.written(node.inputs[0])
    ratio = b.initialiser(np.float32(node.attrs["rate"]))
    return Value(b.node("Dropout", value.name, ratio), value.order, value.sizes)
