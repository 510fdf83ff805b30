"""Optimisers as operators: of ONNX's preview of training. Inputs are the rate R, the count T of updates done, then for
all parameters X, their gradients G and what is remembered of each; outputs are the new X and what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from juanji import ops
from juanji.graph import Array
from juanji.interop.operators.node import TRAINING, Operator, operator
from juanji.tensor import Tensor

Step = Callable[..., tuple[Tensor, ...]]


def optimiser(name: str, slots: int, step: Step) -> None:
    """Register `step(node, rate, count, x, g, *remembered)`, which gives the new x and what is remembered."""

    @operator(name, domain=TRAINING, known=(1,))
    def apply(node: Operator, rate: Tensor, count: Array, *tensors: Tensor) -> tuple[Tensor, ...]:
        columns = grouped(tensors, slots + 2)
        results = [step(node, rate, float(count), *parts) for parts in zip(*columns, strict=True)]
        return tuple(value for column in zip(*results, strict=True) for value in column)


def grouped(tensors: Sequence[Tensor], kinds: int) -> list[Sequence[Tensor]]:
    count = len(tensors) // kinds
    if count * kinds != len(tensors) or not count:
        raise ValueError(f"{len(tensors)} tensors are not {kinds} for each parameter")
    return [tensors[i : i + count] for i in range(0, len(tensors), count)]


def regular(node: Operator, x: Tensor, g: Tensor) -> Tensor:
    """The gradient with that of ½·norm_coefficient·‖x‖² added."""
    return g + x * node["norm_coefficient"]


def adagrad(node: Operator, rate: Any, count: float, x: Tensor, g: Tensor, squares: Tensor) -> tuple[Tensor, ...]:
    g = regular(node, x, g)
    squares = squares + ops.square(g)
    step = rate * (1 / (1 + count * node["decay_factor"]))
    return x - step * g / (ops.sqrt(squares) + node["epsilon"]), squares


def adam(
    node: Operator, rate: Any, count: float, x: Tensor, g: Tensor, mean: Tensor, squares: Tensor
) -> tuple[Tensor, ...]:
    g = regular(node, x, g)
    alpha, beta = node["alpha"], node["beta"]
    mean, squares = mean * alpha + g * (1 - alpha), squares * beta + ops.square(g) * (1 - beta)
    step = rate * ((1 - beta**count) ** 0.5 / (1 - alpha**count)) if count > 0 else rate
    x = x - step * mean / (ops.sqrt(squares) + node["epsilon"])
    return x * (1 - (node["norm_coefficient_post"] or 0)), mean, squares


def momentum(node: Operator, rate: Any, count: float, x: Tensor, g: Tensor, velocity: Tensor) -> tuple[Tensor, ...]:
    g = regular(node, x, g)
    velocity = velocity * node["alpha"] + g * (node["beta"] if count > 0 else 1.0)
    step = g + velocity * node["alpha"] if node["mode"] == "nesterov" else velocity
    return x - rate * step, velocity


optimiser("Adagrad", 1, adagrad)
optimiser("Adam", 2, adam)
optimiser("Momentum", 1, momentum)
