"""Sums, means, extremes and their places."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from juanji import ops
from juanji.graph import Array
from juanji.interop.operators.movement import places
from juanji.interop.operators.node import Operator, Value, array_of, operator
from juanji.interop.operators.pooling import rooted
from juanji.ops._geometry import axis_of
from juanji.tensor import Tensor

Rule = Callable[[Tensor, list[int]], Tensor]


def extreme(function: Callable[..., Tensor], neutral: Callable[[np.dtype[Any]], Any]) -> Rule:
    """The largest or smallest element, also of truth values, and of none: the one that is never chosen."""

    def apply(x: Tensor, axes: list[int]) -> Tensor:
        if x.dtype == bool:
            return apply(x.astype("uint8"), axes).astype("bool")
        if not math.prod(x.shape[a] for a in axes):
            return Tensor(np.full([1 if a in axes else n for a, n in enumerate(x.shape)], neutral(x.dtype), x.dtype))
        return function(x, axes, keepdims=True)

    return apply


def lowest(dtype: np.dtype[Any]) -> Any:
    return -math.inf if dtype.kind == "f" else np.iinfo(dtype).min


def highest(dtype: np.dtype[Any]) -> Any:
    return math.inf if dtype.kind == "f" else np.iinfo(dtype).max


def total(x: Tensor, axes: list[int]) -> Tensor:
    return ops.sum(x, axes, keepdims=True).astype(x.dtype)


def mean(x: Tensor, axes: list[int]) -> Tensor:
    return ops.mean(x, axes, keepdims=True) if x.is_floating else held_mean(x, axes)


def held_mean(x: Tensor, axes: list[int]) -> Tensor:
    """Of whole numbers, towards zero."""
    return Tensor(np.mean(array_of(x), tuple(axes), keepdims=True).astype(x.dtype))


REDUCTIONS: dict[str, Rule] = {
    "ReduceL1": lambda x, axes: total(ops.abs(x), axes),
    "ReduceL2": lambda x, axes: rooted(total(ops.square(x), axes), 2),
    "ReduceLogSum": lambda x, axes: ops.log(total(x, axes)),
    "ReduceLogSumExp": lambda x, axes: log_sum_exp(x, axes),
    "ReduceMax": extreme(ops.max, lowest),
    "ReduceMean": mean,
    "ReduceMin": extreme(ops.min, highest),
    "ReduceProd": lambda x, axes: ops.prod(x, axes, keepdims=True).astype(x.dtype),
    "ReduceSum": total,
    "ReduceSumSquare": lambda x, axes: total(ops.square(x), axes),
}


def log_sum_exp(x: Tensor, axes: list[int]) -> Tensor:
    """Of no elements it is ln 0."""
    empty = not math.prod(x.shape[a] for a in axes)
    return ops.log(total(x, axes)) if empty else ops.logsumexp(x, axes, keepdims=True)


def reduction(name: str, function: Rule) -> None:
    @operator(name, known=(1,), looks=True)
    def apply(node: Operator, x: Tensor, axes: Array | None = None) -> Tensor:
        """The axes are an attribute in older files, an input in newer ones; none are all, unless the node says so."""
        given = node["axes"] if axes is None else axes.tolist()
        chosen = [] if not given and node["noop_with_empty_axes"] else places(given or None, x.ndim)
        y = function(x, chosen)
        return y if node["keepdims"] else ops.reshape(y, [n for a, n in enumerate(x.shape) if a not in chosen])


for name, rule in REDUCTIONS.items():
    reduction(name, rule)


def arg(function: Callable[..., Tensor]) -> Callable[[Operator, Tensor], Tensor]:
    """The place of an extreme along one axis: the first, or the last where the node says so."""

    def apply(node: Operator, x: Tensor) -> Tensor:
        axis = axis_of(node.op, node["axis"], x.ndim)
        if node["select_last_index"]:
            place = x.shape[axis] - 1 - function(ops.flip(x, axis), axis)
        else:
            place = function(x, axis)
        return ops.expand_dims(place, axis) if node["keepdims"] else place

    return apply


operator("ArgMax")(arg(ops.argmax))
operator("ArgMin")(arg(ops.argmin))


@operator("CumSum", known=(1,))
def cumsum(node: Operator, x: Tensor, axis: Array) -> Value:
    """Running sums, from the end where `reverse`, of what came before where `exclusive`."""
    place = axis_of(node.op, axis.item(), x.ndim)
    x = ops.flip(x, place) if node["reverse"] else x
    y = ops.cumsum(x, place).astype(x.dtype)
    y = y - x if node["exclusive"] else y
    return ops.flip(y, place) if node["reverse"] else y
