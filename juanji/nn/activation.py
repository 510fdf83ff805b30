"""Activation functions as layers; each is the function of its name in `juanji.ops`."""

from __future__ import annotations

from typing import Any

from juanji.cell import Cell
from juanji.checks import counts, one_of
from juanji.errors import ArgumentError
from juanji.nn._checks import shown
from juanji.nn.init import constant_of
from juanji.nn.module import Module
from juanji.ops import activation as f
from juanji.ops.math import relu, sigmoid, softplus, tanh
from juanji.tensor import Tensor


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Tensor:
        return relu(x)


class ReLU6(Module):
    """min(max(x, 0), 6)."""

    def forward(self, x: Any) -> Tensor:
        return f.relu6(x)


class LeakyReLU(Module):
    """x where x > 0, negative_slope · x elsewhere."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Any) -> Tensor:
        return f.leaky_relu(x, self.negative_slope)

    def extra(self) -> str:
        return shown(self.negative_slope)


class PReLU(Module):
    """x where x > 0, w · x elsewhere, with a learnt slope for all, or for each of `num_parameters` channels.

    Cell: weight (num_parameters,), begins at `init`. Source: He, Zhang, Ren, Sun, ICCV 2015.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        counts("PReLU", num_parameters=num_parameters)
        self.num_parameters = num_parameters
        self.weight = Cell((num_parameters,), constant_of(init))

    def forward(self, x: Any) -> Tensor:
        return f.prelu(x, self.weight)

    def extra(self) -> str:
        return shown(num_parameters=(self.num_parameters, 1))


class ELU(Module):
    """x where x > 0, α·(eˣ − 1) elsewhere."""

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha

    def forward(self, x: Any) -> Tensor:
        return f.elu(x, self.alpha)

    def extra(self) -> str:
        return shown(alpha=(self.alpha, 1.0))


class SELU(Module):
    """The ELU whose two constants keep mean 0 and variance 1."""

    def forward(self, x: Any) -> Tensor:
        return f.selu(x)


class GELU(Module):
    """x·Φ(x), with Φ exact (approximate="none") or by tanh (approximate="tanh")."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = one_of("GELU", "approximate", approximate, ("none", "tanh"))

    def forward(self, x: Any) -> Tensor:
        return f.gelu(x, self.approximate)

    def extra(self) -> str:
        return shown(approximate=(self.approximate, "none"))


class SiLU(Module):
    """x·σ(x)."""

    def forward(self, x: Any) -> Tensor:
        return f.silu(x)


class Mish(Module):
    """x·tanh(ln(1 + eˣ))."""

    def forward(self, x: Any) -> Tensor:
        return f.mish(x)


class Sigmoid(Module):
    """σ(x) = 1/(1 + e⁻ˣ)."""

    def forward(self, x: Any) -> Tensor:
        return sigmoid(x)


class Tanh(Module):
    """tanh x."""

    def forward(self, x: Any) -> Tensor:
        return tanh(x)


class ScaledTanh(Module):
    """1.7159·tanh(2x/3), with which f(±1) = ±1. Source: LeCun, Bottou, Bengio, Haffner 1998, appendix A."""

    def forward(self, x: Any) -> Tensor:
        return f.scaled_tanh(x)


class Softplus(Module):
    """ln(1 + eˣ)."""

    def forward(self, x: Any) -> Tensor:
        return softplus(x)


class Hardsigmoid(Module):
    """relu6(x + 3)/6."""

    def forward(self, x: Any) -> Tensor:
        return f.hardsigmoid(x)


class Hardswish(Module):
    """x·relu6(x + 3)/6."""

    def forward(self, x: Any) -> Tensor:
        return f.hardswish(x)


class Hardtanh(Module):
    """x held between min_val and max_val."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        if min_val > max_val:
            raise ArgumentError(
                "Hardtanh: bad bounds", received=f"min_val={min_val}, max_val={max_val}", rule="min_val ≤ max_val"
            )
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Any) -> Tensor:
        return f.hardtanh(x, self.min_val, self.max_val)

    def extra(self) -> str:
        return shown(min_val=(self.min_val, -1.0), max_val=(self.max_val, 1.0))


class Softmax(Module):
    """eˣ/Σeˣ along axis `dim`, the last by default (000, 001, 003)."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return f.softmax(x, self.dim)

    def extra(self) -> str:
        return shown(dim=(self.dim, -1))


class LogSoftmax(Softmax):
    """The logarithm of softmax, without underflow."""

    def forward(self, x: Any) -> Tensor:
        return f.log_softmax(x, self.dim)
