"""Optimisers that scale each parameter's step by the size of its recent gradients."""

from __future__ import annotations

from juanji.cell import Stateful
from juanji.checks import fraction, nonnegative
from juanji.errors import ArgumentError
from juanji.ops.math import sqrt
from juanji.optim.optimizer import Factors, Optimizer, Slots
from juanji.tensor import DType, Tensor


class RMSprop(Optimizer):
    """Steps divided by the root of a running mean of squares, as in PyTorch:

        g ← g + λ·p,   s ← α·s + (1 − α)·g²,   p ← p − lr·g/(√s + ε)

    With `momentum` μ: v ← μ·v + g/(√s + ε), p ← p − lr·v. Source: Tieleman and Hinton, lecture 6.5, 2012.
    """

    def __init__(
        self,
        model: Stateful,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        fraction("RMSprop", alpha=alpha, momentum=momentum)
        nonnegative("RMSprop", eps=eps)
        self.alpha, self.eps, self.momentum = alpha, eps, momentum
        self.slots = ("square", "velocity") if momentum else ("square",)
        super().__init__(model, lr, weight_decay=weight_decay)

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        g = self.decayed(p, g, factors)
        square = slots["square"] * self.alpha + g * g * (1 - self.alpha)
        direction = g / (sqrt(square) + self.eps)
        if not self.momentum:
            return p - factors["rate"] * direction, {"square": square}
        velocity = slots["velocity"] * self.momentum + direction
        return p - factors["rate"] * velocity, {"square": square, "velocity": velocity}


class Adam(Optimizer):
    """Running means of gradients and of their squares, corrected for their start at 0, as in PyTorch:

        g ← g + λ·p,   m ← β₁·m + (1 − β₁)·g,   s ← β₂·s + (1 − β₂)·g²
        p ← p − lr/(1 − β₁ᵗ) · m/(√s/√(1 − β₂ᵗ) + ε)

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    slots = ("mean", "square")

    def __init__(
        self,
        model: Stateful,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        name = self.class_name
        try:
            beta1, beta2 = betas
        except (TypeError, ValueError):
            raise ArgumentError(f"{name}: bad betas", received=f"betas={betas!r}", rule="two numbers") from None
        fraction(name, beta1=beta1, beta2=beta2)
        nonnegative(name, eps=eps)
        self.betas, self.eps = (float(beta1), float(beta2)), eps
        super().__init__(model, lr, weight_decay=weight_decay)

    def factors(self, dtype: DType, multiplier: float = 1.0) -> Factors:
        """With t updates done, lr/(1 − β₁ᵗ) and √(1 − β₂ᵗ): running means that began at 0 fall short by 1 − βᵗ."""
        factors, updates = super().factors(dtype, multiplier), self.updates.astype("float64")
        first, second = ((1 - beta**updates).astype(dtype) for beta in self.betas)
        return factors | {"corrected rate": factors["rate"] / first, "scale": sqrt(second)}

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        return self.descend(p, self.decayed(p, g, factors), slots, factors)

    def descend(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        beta1, beta2 = self.betas
        mean = slots["mean"] * beta1 + g * (1 - beta1)
        square = slots["square"] * beta2 + g * g * (1 - beta2)
        direction = mean / (sqrt(square) / factors["scale"] + self.eps)
        return p - factors["corrected rate"] * direction, {"mean": mean, "square": square}


class AdamW(Adam):
    """Adam with the weight decay taken out of the gradient: p ← p·(1 − lr·λ) before Adam's step.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019.
    """

    def __init__(
        self,
        model: Stateful,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(model, lr, betas, eps, weight_decay)

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        return self.descend(p * (1 - factors["rate"] * factors["decay"]), g, slots, factors)
