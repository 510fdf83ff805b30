"""Random zeros."""

from __future__ import annotations

import numpy as np

from juanji import ops
from juanji.graph import Array
from juanji.interop.operators.node import Operator, operator
from juanji.ops.elementwise import broadcast_to
from juanji.tensor import Tensor


@operator("Dropout", known=(1, 2), random=True)
def dropout(
    node: Operator, x: Tensor, ratio: Array | None = None, training: Array | None = None
) -> tuple[Tensor, Tensor]:
    """While the module or the node is in training mode, zeros of that ratio; and where something was kept.

    The ratio is an attribute before opset 12, an input since. The numbers are juanji's, not those of the node's seed.
    """
    rate = node["ratio"] if ratio is None else float(ratio.item())
    rate = 0.5 if rate is None else rate
    kept = broadcast_to(Tensor(np.array(True)), x.shape)
    asked = training is not None and bool(training)
    if not rate or not (node.training or asked):
        return x, mask_of(node, x, kept)
    kept = ops.greater_equal(ops.uniform(node.draw(), x.shape, x.dtype), rate)
    scale = 1 / (1 - rate) if rate < 1 else 0.0
    return ops.where(kept, x * scale, 0.0), mask_of(node, x, kept)


def mask_of(node: Operator, x: Tensor, kept: Tensor) -> Tensor:
    """The mask, of truth values since opset 10."""
    return kept if node.version >= 10 else kept.astype(x.dtype)
