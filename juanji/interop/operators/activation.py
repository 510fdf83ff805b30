"""Activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from juanji import ops
from juanji.interop.operators.node import Operator, operator
from juanji.tensor import Tensor

Rule = Callable[[Tensor, Operator], Tensor]


def shrink(x: Tensor, node: Operator) -> Tensor:
    if not x.is_floating:
        return shrink(x.astype("float64"), node).astype(x.dtype)
    bias, bound = node["bias"], node["lambd"]
    return ops.where(ops.less(x, -bound), x + bias, ops.where(ops.greater(x, bound), x - bias, 0.0))


ACTIVATIONS: dict[str, Rule] = {
    "Celu": lambda x, node: ops.elu(x * (1 / node["alpha"])) * node["alpha"],
    "Elu": lambda x, node: ops.elu(x, node["alpha"]),
    "Gelu": lambda x, node: ops.gelu(x, node["approximate"]),
    "HardSigmoid": lambda x, node: ops.clip(x * node["alpha"] + node["beta"], 0.0, 1.0),
    "HardSwish": lambda x, node: ops.hardswish(x),
    "LeakyRelu": lambda x, node: ops.leaky_relu(x, node["alpha"]),
    "Mish": lambda x, node: ops.mish(x),
    "Relu": lambda x, node: ops.relu(x) if x.is_floating else ops.maximum(x, 0),
    "Selu": lambda x, node: ops.elu(x, node["alpha"]) * node["gamma"],
    "Shrink": shrink,
    "Sigmoid": lambda x, node: ops.sigmoid(x),
    "Softplus": lambda x, node: ops.softplus(x),
    "Softsign": lambda x, node: ops.softsign(x),
    "Swish": lambda x, node: x * ops.sigmoid(x * node["alpha"]),
    "Tanh": lambda x, node: ops.tanh(x),
    "ThresholdedRelu": lambda x, node: ops.where(ops.greater(x, node["alpha"]), x, 0.0),
}


def activation(name: str, function: Rule) -> None:
    @operator(name)
    def apply(node: Operator, x: Tensor) -> Tensor:
        return function(x, node)


for name, rule in ACTIVATIONS.items():
    activation(name, rule)


@operator("PRelu", weights=(1,))
def prelu(node: Operator, x: Tensor, slope: Tensor) -> Tensor:
    """The slope broadcasts to x; before opset 7 a vector lies along the channels."""
    if node.version < 7 and slope.ndim == 1:
        slope = ops.reshape(slope, -1, *[1] * (x.ndim - 2))
    return ops.where(ops.greater(x, 0), x, x * slope)


def along(function: Callable[..., Tensor]) -> Callable[[Operator, Tensor], Tensor]:
    """Over one axis; before opset 13 over all from there on."""

    def apply(node: Operator, x: Tensor) -> Tensor:
        axis = node["axis"]
        if node.version >= 13:
            return function(x, axis)
        axis %= max(x.ndim, 1)
        rows = ops.reshape(x, math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        return ops.reshape(function(rows, -1), *x.shape)

    return apply


def hardmax(x: Tensor, axis: int) -> Tensor:
    """1 at the first largest element, 0 elsewhere."""
    places: Any = range(x.shape[axis])
    hits = ops.equal(ops.expand_dims(ops.argmax(x, axis), -1), list(places))
    return ops.moveaxis(hits.astype(x.dtype), -1, axis)


operator("Softmax")(along(ops.softmax))
operator("LogSoftmax")(along(ops.log_softmax))
operator("Hardmax")(along(hardmax))
