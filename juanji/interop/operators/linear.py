"""Matrix products."""

from __future__ import annotations

import numpy as np

from juanji import ops
from juanji.interop.operators.arithmetic import whole
from juanji.interop.operators.node import Operator, Value, operator, room
from juanji.tensor import Tensor


@operator("MatMul", weights=(0, 1), looks=True)
def matmul(node: Operator, a: Value, b: Value) -> Value:
    if not whole(a, b):
        return ops.matmul(a, b)
    room((*a.shape[:-1], *b.shape[-1:]), 8)
    return Tensor(np.matmul(a, b))


@operator("Gemm", weights=(1, 2))
def gemm(node: Operator, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """α·A·B + β·C, with A and B transposed where the node says so."""
    y = ops.matmul(ops.transpose(a) if node["transA"] else a, ops.transpose(b) if node["transB"] else b)
    y = y if node["alpha"] == 1 else y * node["alpha"]
    if c is None or node["beta"] == 0:
        return y
    return y + (c if node["beta"] == 1 else c * node["beta"])
