"""Networks with auxiliary heads: what they return while training, and losses of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from juanji.tensor import Tensor

Loss = Callable[[Any, Any], Tensor]


class AuxiliaryOutputs(NamedTuple):
    """What a network with auxiliary heads returns in training mode; in `eval()` it returns the logits alone.

    logits      (N, …, classes), those of the head that stays
    aux_logits  the same of each auxiliary head, from the first on
    aux_weight  how much the loss of an auxiliary head counts beside that of the logits; the kind of network says it
    """

    logits: Tensor
    aux_logits: tuple[Tensor, ...]

    @property
    def aux_weight(self) -> float:
        """0.3, as published with the first of these networks."""
        return 0.3


def main_logits(outputs: Any) -> Tensor:
    """The logits of the head that stays, from a network with auxiliary heads or without."""
    return outputs.logits if isinstance(outputs, AuxiliaryOutputs) else outputs


def with_auxiliary(loss: Loss) -> Loss:
    """`loss(logits, target)` as a loss of what a network returns, whether it has auxiliary heads or not.

    For `AuxiliaryOutputs` it is loss(logits) + aux_weight·Σ loss(aux_logits), else `loss` itself::

        loss = nn.with_auxiliary(jj.cross_entropy)(model(x), y)

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, §5.
    """

    def total(outputs: Any, target: Any) -> Tensor:
        value = loss(main_logits(outputs), target)
        for logits in outputs.aux_logits if isinstance(outputs, AuxiliaryOutputs) else ():
            value = value + outputs.aux_weight * loss(logits, target)
        return value

    return total
