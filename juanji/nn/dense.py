"""Dense layers, where every output sees every input, and the reshaping before them."""

from __future__ import annotations

import math
from typing import Any

from juanji.cell import Cell
from juanji.checks import counts
from juanji.errors import ShapeError
from juanji.nn import init
from juanji.nn._checks import shown
from juanji.nn.module import Module
from juanji.ops.linalg import linear
from juanji.ops.movement import reshape
from juanji.tensor import Tensor


class Linear(Module):
    """A dense layer's net activation z = x·Wᵀ + b (002 eq. 1.1, 003 eq. 1): (…, in_features) becomes (…, out_features).

    Cells: weight (out_features, in_features), bias (out_features,), both begin uniform in ±1/√in_features.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        counts("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Cell((out_features, in_features), init.kaiming_uniform)
        self.bias = Cell((out_features,), init.within(1 / math.sqrt(in_features))) if bias else None

    def forward(self, x: Any) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra(self) -> str:
        return shown(self.in_features, self.out_features, bias=(self.bias is not None, True))


class Flatten(Module):
    """Axes `start_dim` to `end_dim` made one: (N, H, W, C) becomes (N, H·W·C)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        first, last = (axis + x.ndim if axis < 0 else axis for axis in (self.start_dim, self.end_dim))
        if not 0 <= first <= last < x.ndim:
            raise ShapeError(
                "Flatten: there are no such axes",
                received=f"input of shape {x.shape}, axes {self.start_dim} to {self.end_dim}",
                rule=f"0 ≤ start ≤ end ≤ {x.ndim - 1}",
            )
        return reshape(x, *x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])

    def extra(self) -> str:
        return shown(start_dim=(self.start_dim, 1), end_dim=(self.end_dim, -1))


class Identity(Module):
    """Its input."""

    def forward(self, x: Any) -> Tensor:
        return Tensor.of(x)
