"""Steps along the orthogonal part of a kernel's momentum."""

from __future__ import annotations

import math

from juanji.cell import Stateful
from juanji.checks import counts, fraction
from juanji.ops.math import sqrt
from juanji.optim.optimizer import Factors, Slots
from juanji.optim.sgd import SGD
from juanji.tensor import Tensor

POLYNOMIAL = 3.4445, -4.7750, 2.0315  # of x, x³, x⁵: takes singular values in 0…1 to about 1 in a few rounds
TINY = 1e-7  # beside the length of a gradient


class Muon(SGD):
    """Momentum made orthogonal, for the kernels of convolutions (*k, in, out), as matrices W of (∏k·in, out):

        V ← μ·V + G,   W ← √out·W/‖W‖ − α·O(G + μ·V)

    O gives all singular values about the size 1, by rounds of X ← a·X + b·X·XᵀX + c·X·(XᵀX)² from X/‖X‖. A kernel keeps
    the length √out, which changes nothing where batch normalisation follows and a step of α turns it by the same angle
    in every layer. Biases, normalisations and dense layers learn by `SGD` with Nesterov's momentum of 0.9.

    lr            α
    momentum      μ in [0, 1), of kernels
    rounds        of the polynomial
    weight_decay  λ, for all but kernels

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the length and the numbers
    are those of Jordan's recipe for CIFAR-10, airbench94_muon.
    """

    def __init__(
        self, model: Stateful, lr: float = 0.24, momentum: float = 0.6, *, rounds: int = 3, weight_decay: float = 0.0
    ) -> None:
        fraction("Muon", momentum=momentum)
        counts("Muon", rounds=rounds)
        super().__init__(model, lr, 0.9, nesterov=True, weight_decay=weight_decay)
        self.momentum_of_kernels, self.rounds = momentum, rounds

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        if p.ndim < 3:
            return super().step(p, g, slots, factors)
        velocity = slots["velocity"] * self.momentum_of_kernels + g
        direction = orthogonal((g + velocity * self.momentum_of_kernels).reshape(-1, p.shape[-1]), self.rounds)
        unit = p * (math.sqrt(p.shape[-1]) / (length(p) + TINY))
        return unit - factors["rate"] * direction.reshape(*p.shape), {"velocity": velocity}


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
