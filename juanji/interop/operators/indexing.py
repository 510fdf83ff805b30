"""Values by their places, and values made from nothing but numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji import ops
from juanji.errors import ArgumentError, ShapeError
from juanji.graph import Array
from juanji.interop.operators.elements import element_type
from juanji.interop.operators.node import Operator, Value, array_of, held, operator, room
from juanji.ops._geometry import axis_of
from juanji.ops.movement import check_inside, from_front, scatter
from juanji.tensor import Tensor


@operator("Gather", looks=True)
def gather(node: Operator, x: Value, index: Value) -> Value:
    axis = node["axis"] or 0
    if not isinstance(x, Tensor):
        return held(np.take(x, array_of(index), axis))
    return ops.take(x, index, axis)


def flat_index(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Where the elements named by `index` along one axis lie in x flattened."""
    check_inside(x, index, axis)
    total: Any = from_front(index, x.shape[axis]) * math.prod(x.shape[axis + 1 :])
    for other, step in enumerate(np.cumprod([1, *x.shape[:0:-1]])[::-1].tolist()):
        if other != axis:
            along = np.arange(index.shape[other]).reshape(-1, *[1] * (x.ndim - 1 - other))
            total = total + Tensor(along * step)
    return total


@operator("GatherElements", looks=True)
def gather_elements(node: Operator, x: Tensor, index: Tensor) -> Tensor:
    axis = axis_of(node.op, node["axis"] or 0, x.ndim)
    return ops.take(ops.reshape(x, -1), flat_index(x, index, axis))


def tuple_index(x: Tensor, index: Array, batch: int = 0) -> Array:
    """Where the slices lie that the last axis of `index` names, one number for each axis after the batch."""
    depth = index.shape[-1]
    sizes = x.shape[batch : batch + depth]
    if (
        any((index[..., i] < -n).any() or (index[..., i] >= n).any() for i, n in enumerate(sizes))
        or depth > x.ndim - batch
    ):
        raise ArgumentError(
            "an index points outside", received=f"indices {index.shape}", rule=f"within {sizes} of {x.shape}"
        )
    total = np.zeros(index.shape[:-1], np.int64)
    for i, n in enumerate(sizes):
        total = total * n + index[..., i] % n
    first = np.arange(math.prod(x.shape[:batch])).reshape(*x.shape[:batch], *[1] * (index.ndim - 1 - batch))
    return total + first * math.prod(sizes)


@operator("GatherND", known=(1,))
def gather_nd(node: Operator, x: Tensor, index: Array) -> Tensor:
    batch, depth = node["batch_dims"] or 0, index.shape[-1]
    rest = x.shape[batch + depth :]
    rows = ops.reshape(x, math.prod(x.shape[: batch + depth]), *rest)
    return ops.take(rows, tuple_index(x, index, batch))


UPDATES = {"mul": np.multiply, "max": np.maximum, "min": np.minimum}


def scattered(node: Operator, x: Tensor, index: Array, updates: Tensor) -> Tensor:
    """x (P, …) with the rows that `index` (U,) names replaced by the updates (U, …), or combined with them."""
    how = node["reduction"] or "none"
    if how in UPDATES:
        return combined(node, x, index, updates)
    added = scatter(updates, Tensor(index), axis=0, size=x.shape[0])
    if how == "add":
        return x + added
    if len(np.unique(index)) < index.size:
        raise ArgumentError(f"{node.op}: a place is written twice", received=f"indices {index.shape}", rule="each once")
    named = np.zeros(x.shape[0], bool)
    named[index] = True
    return ops.where(named.reshape(-1, *[1] * (x.ndim - 1)), added, x)


def combined(node: Operator, x: Tensor, index: Array, updates: Tensor) -> Tensor:
    """By NumPy: these have no derivative here, and cannot be traced."""
    result = array_of(x).copy()
    UPDATES[node["reduction"]].at(result, index, array_of(updates))
    return Tensor(result)


@operator("ScatterND", known=(1,))
def scatter_nd(node: Operator, x: Tensor, index: Array, updates: Tensor) -> Tensor:
    depth = index.shape[-1]
    rest = x.shape[depth:]
    rows = ops.reshape(x, math.prod(x.shape[:depth]), *rest)
    y = scattered(node, rows, tuple_index(x, index).reshape(-1), ops.reshape(updates, index[..., 0].size, *rest))
    return ops.reshape(y, *x.shape)


@operator("Scatter", "ScatterElements", known=(1,))
def scatter_elements(node: Operator, x: Tensor, index: Array, updates: Tensor) -> Tensor:
    axis = axis_of(node.op, node["axis"] or 0, x.ndim)
    flat = flat_index(x, Tensor(index), axis).array.reshape(-1)
    return ops.reshape(scattered(node, ops.reshape(x, -1), flat, ops.reshape(updates, -1)), *x.shape)


@operator("Compress", known=(1,))
def compress(node: Operator, x: Tensor, condition: Array) -> Tensor:
    x = ops.reshape(x, -1) if node["axis"] is None else x
    return ops.take(x, np.flatnonzero(condition[: x.shape[node["axis"] or 0]]), node["axis"] or 0)


@operator("OneHot", known=(1, 2), looks=True)
def one_hot(node: Operator, index: Tensor, depth: Array, values: Array) -> Tensor:
    """`values` are those of the other classes and of the one that is named."""
    count = int(depth.item())
    room((*index.shape, count), 8)
    axis = axis_of(node.op, -1 if node["axis"] is None else node["axis"], index.ndim + 1)
    hits = ops.equal(ops.expand_dims(from_front(index, count), -1), Tensor(np.arange(count)))
    chosen = ops.where(hits, Tensor(values[1]), Tensor(values[0]))
    return ops.moveaxis(chosen, -1, axis)


@operator("NonZero", known=None)
def non_zero(node: Operator, x: Array) -> Tensor:
    return Tensor(np.array(np.nonzero(x), np.int64))


@operator("TopK", known=None)
def top_k(node: Operator, x: Array, k: Array | None = None) -> tuple[Value, Value]:
    """The k largest or smallest elements along an axis and their places; of equal ones the first."""
    axis, count = node["axis"], int(node["k"] if k is None else k.item())
    largest = node["largest"] is None or node["largest"]
    if not 0 <= count <= x.shape[axis]:
        raise ShapeError(f"{node.op}: there are not so many", received=f"k={count}, axis {axis} of {x.shape}")
    backwards = np.flip(x, axis) if largest else x
    order = np.argsort(backwards, axis, kind="stable")
    order = np.flip(x.shape[axis] - 1 - order, axis) if largest else order
    index = np.take(order, np.arange(count), axis)
    return held(np.take_along_axis(x, index, axis)), Tensor(index)


# Made from numbers


@operator("Constant")
def constant(node: Operator) -> Value:
    """The one attribute that is given; Python's numbers are of the type that the attribute's name says."""
    (name,) = node.given
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    value = node[name]
    if name in ("value_string", "value_strings"):
        return np.array(value, np.object_)
    return held(np.asarray(value, kinds.get(name)), node.floating)


@operator("ConstantOfShape", known=(0,))
def constant_of_shape(node: Operator, shape: Array) -> Value:
    value = np.zeros(1, np.float32) if node["value"] is None else node["value"]
    sizes = tuple(int(n) for n in shape)
    room(sizes, value.dtype.itemsize)
    return Tensor.result(np.broadcast_to(array_of(held(value.reshape(()), node.floating)), sizes), sizes, value.dtype)


@operator("Range", known=None)
def count_up(node: Operator, start: Array, end: Array, step: Array) -> Value:
    bounds: Any = (start.item(), end.item(), step.item())
    room([max(math.ceil((bounds[1] - bounds[0]) / bounds[2]), 0)], 8)
    return held(np.arange(*bounds, dtype=start.dtype), node.floating)


@operator("EyeLike")
def eye_like(node: Operator, x: Value) -> Value:
    dtype = x.dtype if node["dtype"] is None else element_type(node, node["dtype"])
    rows, columns = x.shape
    return held(np.eye(rows, columns, node["k"], dtype), node.floating)
