"""Stochastic gradient descent."""

from __future__ import annotations

from juanji.cell import Stateful
from juanji.checks import fraction
from juanji.errors import ArgumentError
from juanji.optim.optimizer import Factors, Optimizer, Slots
from juanji.tensor import Tensor


class SGD(Optimizer):
    """W ← W − α·∂J/∂W (003, the training algorithm), with momentum and weight decay as PyTorch has them:

        g ← g + λ·p,   v ← μ·v + g,   p ← p − α·v   (Nesterov: p − α·(g + μ·v))

    lr            α, the learning rate
    momentum      μ in [0, 1)
    nesterov      look ahead along the momentum; needs momentum
    weight_decay  λ, for every parameter
    """

    def __init__(
        self,
        model: Stateful,
        lr: float = 0.01,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        fraction("SGD", momentum=momentum)
        if nesterov and not momentum:
            raise ArgumentError("SGD: Nesterov's step needs momentum", received="momentum=0", fix="momentum=0.9")
        self.momentum, self.nesterov = momentum, nesterov
        self.slots = ("velocity",) if momentum else ()
        super().__init__(model, lr, weight_decay=weight_decay)

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        g = self.decayed(p, g, factors)
        if self.momentum and not self.slots:
            raise ArgumentError(
                "SGD: there is no velocity for a momentum",
                received=f"momentum={self.momentum}, set after it was made without",
                rule="a velocity for each parameter, from the beginning",
                fix="SGD(model, lr, momentum=0.9), which can be set to others",
            )
        if not self.slots:
            return p - factors["rate"] * g, {}
        velocity = slots["velocity"] * self.momentum + g
        direction = g + velocity * self.momentum if self.nesterov else velocity
        return p - factors["rate"] * direction, {"velocity": velocity}
