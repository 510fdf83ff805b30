"""Losses. Classes are channels, (N, C, …), as ONNX has them."""

from __future__ import annotations

from juanji import ops
from juanji.interop.operators.node import Operator, operator
from juanji.ops.loss import IGNORED
from juanji.tensor import Tensor


@operator("NegativeLogLikelihoodLoss")
def nll_loss(node: Operator, log_p: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    return ops.nll_loss(
        ops.moveaxis(log_p, 1, -1), target, weight=weight, ignore_index=ignored(node), reduction=node["reduction"]
    )


def ignored(node: Operator) -> int:
    return IGNORED if node["ignore_index"] is None else int(node["ignore_index"])


@operator("SoftmaxCrossEntropyLoss")
def cross_entropy(
    node: Operator, scores: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor] | Tensor:
    """The loss; and where it is asked for, ln softmax of the scores."""
    loss = ops.cross_entropy(
        ops.moveaxis(scores, 1, -1), target, weight=weight, ignore_index=ignored(node), reduction=node["reduction"]
    )
    return (loss, ops.log_softmax(scores, 1)) if node.wants(1) else loss
