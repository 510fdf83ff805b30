"""Losses as modules: called with the network's output and the target. Each is the function in `juanji.ops`."""

from __future__ import annotations

from typing import Any

from juanji.checks import one_of, positive, share
from juanji.nn._checks import shown
from juanji.nn.module import Module
from juanji.nn.parameter import Buffer
from juanji.ops import loss as f
from juanji.tensor import Tensor

REDUCTIONS = ("mean", "sum", "none")


class Loss(Module):
    """Base of the losses. `reduction` of the samples' losses: "mean", "sum" or "none"."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = one_of(self.class_name, "reduction", reduction, REDUCTIONS)

    def extra(self) -> str:
        return shown(reduction=(self.reduction, "mean"))


class WeightedLoss(Loss):
    """Base of the losses over classes; `weight` is one factor a class, kept as a buffer."""

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.ignore_index = ignore_index
        self.weight = None if weight is None else Buffer(weight, dtype=None)


class CrossEntropyLoss(WeightedLoss):
    """−ln softmax(logits) at the target: whole numbers (N, …), or probabilities (N, …, C) like the logits (003)."""

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, ignore_index, reduction)
        share("CrossEntropyLoss", label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Any, target: Any) -> Tensor:
        return f.cross_entropy(
            logits,
            target,
            weight=self.weight,
            label_smoothing=self.label_smoothing,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )


class NLLLoss(WeightedLoss):
    """−ln p at the target class, from logarithms of probabilities (what `LogSoftmax` gives)."""

    def forward(self, log_p: Any, target: Any) -> Tensor:
        return f.nll_loss(log_p, target, weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(Loss):
    """(x − target)²."""

    def forward(self, x: Any, target: Any) -> Tensor:
        return f.mse_loss(x, target, reduction=self.reduction)


class L1Loss(Loss):
    """|x − target|."""

    def forward(self, x: Any, target: Any) -> Tensor:
        return f.l1_loss(x, target, reduction=self.reduction)


class HuberLoss(Loss):
    """½d² where |d| < δ, δ·(|d| − δ/2) beyond, with d = x − target."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        positive("HuberLoss", delta=delta)
        self.delta = delta

    def forward(self, x: Any, target: Any) -> Tensor:
        return f.huber_loss(x, target, delta=self.delta, reduction=self.reduction)


class BCEWithLogitsLoss(Loss):
    """−t·ln σ(x) − (1 − t)·ln(1 − σ(x)) for targets t from 0 to 1; `pos_weight` multiplies the first term."""

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else Buffer(weight, dtype=None)
        self.pos_weight = None if pos_weight is None else Buffer(pos_weight, dtype=None)

    def forward(self, logits: Any, target: Any) -> Tensor:
        return f.binary_cross_entropy_with_logits(
            logits, target, weight=self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )
