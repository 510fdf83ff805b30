"""Steps along the orthogonal part of a kernel's momentum."""

from __future__ import annotations

import math

from juanji.cell import Stateful
from juanji.checks import counts, fraction
from juanji.ops.math import sqrt
from juanji.optim.optimizer import Factors, Optimizer, Slots
from juanji.tensor import Tensor

POLYNOMIAL = 3.4445, -4.7750, 2.0315  # of x, x³, x⁵: takes singular values in 0…1 to about 1 in a few rounds
OTHERS = 0.9  # momentum of what is no kernel
TINY = 1e-7  # beside the length of a gradient


class Muon(Optimizer):
    """Momentum made orthogonal, for kernels: whatever has three axes or more, as a matrix W of the last one, m long, by
    all others.

        V ← μ·V + G,   W ← √m·W/‖W‖ − α·O(G + μ·V)

    O gives all singular values about the size 1, by rounds of X ← a·X + b·X·XᵀX + c·X·(XᵀX)² from X/‖X‖. A kernel keeps
    the length √m, which changes nothing where batch normalisation follows, and is turned as fast in every layer. What
    has fewer axes, such as biases, normalisations and dense layers, learns by `SGD` with Nesterov's momentum of 0.9.

    lr            α
    momentum      μ in [0, 1), of kernels
    rounds        of the polynomial
    weight_decay  λ, for all but kernels

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the length and the numbers
    are those of Jordan's recipe for CIFAR-10, airbench94_muon.
    """

    slots = ("velocity",)

    def __init__(
        self, model: Stateful, lr: float = 0.24, momentum: float = 0.6, *, rounds: int = 3, weight_decay: float = 0.0
    ) -> None:
        fraction("Muon", momentum=momentum)
        counts("Muon", rounds=rounds)
        self.momentum, self.rounds = momentum, rounds
        super().__init__(model, lr, weight_decay=weight_decay)

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        kernel = p.ndim > 2
        momentum = self.momentum if kernel else OTHERS
        g = g if kernel else self.decayed(p, g, factors)
        velocity = slots["velocity"] * momentum + g
        direction = g + velocity * momentum
        if kernel:
            direction = orthogonal(direction.reshape(-1, p.shape[-1]), self.rounds).reshape(*p.shape)
            p = p * (math.sqrt(p.shape[-1]) / (length(p) + TINY))
        return p - factors["rate"] * direction, {"velocity": velocity}


def orthogonal(x: Tensor, rounds: int) -> Tensor:
    """About U·Vᵀ of a matrix x = U·S·Vᵀ (m, n): its singular values become about 1, but for those near 0."""
    a, b, c = POLYNOMIAL
    m, n = x.shape
    x = x / (length(x) + TINY)
    for _ in range(rounds):
        # The smaller one of the two products of x with itself.
        square = x.T @ x if m >= n else x @ x.T
        rest = square * b + square @ square * c
        x = x * a + (x @ rest if m >= n else rest @ x)
    return x


def length(x: Tensor) -> Tensor:
    return sqrt((x * x).sum())
