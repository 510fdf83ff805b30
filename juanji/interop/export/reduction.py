"""Reductions, matrix products and losses in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from juanji.graph import Node
from juanji.interop.export.builder import Builder, Constant, Value, mix
from juanji.interop.export.movement import whole
from juanji.interop.export.table import Entry, entry
from juanji.tensor import Tensor


def reduced(b: Builder, kind: str, node: Node, axes: Sequence[int], keepdims: bool) -> Value:
    """A reduction of ONNX over axes of the tensor, whose order the others keep."""
    value = b.full(node.inputs[0])
    if not axes:
        return value
    places = sorted(value.order.index(axis) for axis in axes)
    name = b.node(kind, value.name, b.integers(places), keepdims=int(keepdims))
    return remaining(b, name, value, node.outputs[0], axes, keepdims)


def remaining(b: Builder, name: str, value: Value, y: Tensor, axes: Sequence[int], keepdims: bool) -> Value:
    if keepdims:
        return b.plain(name, y, value.order)
    kept = [axis for axis in value.order if axis not in axes]
    return b.plain(name, y, [sorted(kept).index(axis) for axis in kept])


def reduction(kind: str, overall: str = "") -> Entry:
    """The entry for a composite with `axes` and `keepdims`; `overall`: what it is called over all places of images."""

    def write(b: Builder, node: Node) -> Value:
        (x,), axes, keepdims = node.inputs, node.attrs["axes"], node.attrs["keepdims"]
        value = b.full(x)
        if overall and keepdims and x.ndim > 2 and x.is_floating and set(value.order[2:]) == set(axes):
            return b.plain(b.node(overall, value.name), node.outputs[0], value.order)
        return reduced(b, kind, node, axes, keepdims)

    return write


entry("mean")(reduction("ReduceMean", "GlobalAveragePool"))
entry("max")(reduction("ReduceMax", "GlobalMaxPool"))
entry("logsumexp")(reduction("ReduceLogSumExp"))


@entry("sum")
def sum_(b: Builder, node: Node) -> Value:
    return reduced(b, "ReduceSum", node, node.attrs["axes"], False)


@entry("argmax")
def argmax(b: Builder, node: Node) -> Value:
    value, axis = b.full(node.inputs[0]), node.attrs["axis"]
    name = b.node("ArgMax", value.name, axis=value.order.index(axis), keepdims=0)
    return remaining(b, name, value, node.outputs[0], [axis], False)


@entry("cumsum")
def cumsum(b: Builder, node: Node) -> Value:
    value = b.full(node.inputs[0])
    place = b.integers(value.order.index(node.attrs["axis"]))
    return b.plain(b.node("CumSum", value.name, place), node.outputs[0], value.order)


def along(kind: str) -> Entry:
    """The entry for a function along one `axis`."""

    def write(b: Builder, node: Node) -> Value:
        value = b.full(node.inputs[0])
        axis = node.attrs["axis"] % node.inputs[0].ndim
        return b.plain(b.node(kind, value.name, axis=value.order.index(axis)), node.outputs[0], value.order)

    return write


entry("softmax")(along("Softmax"))
entry("log_softmax")(along("LogSoftmax"))


@entry("matmul")
def matmul(b: Builder, node: Node) -> Value:
    """A dense layer, whose weights are known, is a Gemm: they lie (out, in) and take up the order of mixed features."""
    (x, w), (y,) = node.inputs, node.outputs
    value, weights = b.value(x), b.value(w)
    if x.ndim > 2 or not isinstance(weights, Constant) or isinstance(value, Constant):
        left, right = matrices(b, x), matrices(b, w)
        sizes = [m if n == 1 else n for n, m in zip(left.sizes[:-2], right.sizes[:-2], strict=True)]
        name = b.node("MatMul", left.name, right.name)
        return Value(name, tuple(range(y.ndim)), (*sizes, left.sizes[-2], right.sizes[-1]))
    if id(x) in b.rows:
        return product_of_rows(b, b.rows[id(x)], w, y)
    rows = np.broadcast_to(weights.array, w.shape)
    if value.mixed and value.mixed.axis == 1 and value.sizes == b.plain("", x, value.order).sizes:
        name, rows = b.ordered(value, (0, 1)).name, mix(rows, replace(value.mixed, axis=0))
    else:
        name = b.take(x)
    return b.plain(b.node("Gemm", name, b.initialiser(rows.T, weights.label), transB=1), y)


def matrices(b: Builder, x: Tensor) -> Value:
    """A stack of matrices as a factor: of one that repeats ONNX needs the one."""
    value = b.written(x, range(x.ndim))
    return value if value.sizes[-2:] == b.sizes.of(x)[-2:] else b.full(x, range(x.ndim))


def product_of_rows(b: Builder, x: Tensor, w: Tensor, y: Tensor) -> Value:
    """The product of tensors of more axes, which `linear` makes a matrix of before and takes apart again after.

    ONNX multiplies by the last axis of any rank, and from the left by the last but one. The matrix is written too, for
    whoever wants it; mostly no one does, and it is left out in the end.
    """
    value, last = b.full(x), x.ndim - 1
    if value.order[-1] != last and value.order[-2] == last:
        name = b.node("MatMul", b.take(w, (1, 0)), value.name)
    else:
        order = [axis for axis in value.order if axis != last]
        value = b.full(x, [*order, last])
        name = b.node("MatMul", value.name, b.take(w))
    sizes = b.sizes.of(x)[:-1] + b.sizes.of(y)[-1:]
    result = Value(name, value.order, tuple(sizes[axis] for axis in value.order))
    b.products[id(y)] = (*x.shape[:-1], y.shape[-1]), result
    matrix = b.ordered(result, range(x.ndim))
    return b.plain(b.reshape(matrix.name, matrix.sizes, b.sizes.of(y)), y)


@entry("cross_entropy", "nll_loss")
def loss_by_label(b: Builder, node: Node) -> Value | None:
    """Of class numbers, without smoothing; everything else by its parts."""
    (scores, target, weight), attrs = node.inputs, node.attrs
    if attrs.get("label_smoothing") or target.is_floating:
        return None
    kind = "SoftmaxCrossEntropyLoss" if node.name == "cross_entropy" else "NegativeLogLikelihoodLoss"
    parts = [b.first(scores), whole(b, target, b.take(target)), *([] if weight is None else [b.take(weight)])]
    name = b.node(kind, *parts, ignore_index=attrs["ignore_index"], reduction=attrs["reduction"])
    return b.plain(name, node.outputs[0])
