"""Dropout: random zeros while training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.checks import share
from juanji.graph import Array
from juanji.nn._checks import images, shown
from juanji.nn.module import Module
from juanji.ops.noise import dropout
from juanji.tensor import Tensor

NEXT = np.array([0, 0, 1], np.uint32)


def stream(state: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A cell that begins as the random stream of its path."""
    return state


class Dropout(Module):
    """While training, each element is zero with probability p and otherwise divided by 1 − p; in `eval()`, x.

    Its random numbers depend on the seed, on its path in the model and on how often it was called (cell
    `random_state`, counted up by every call in training mode). Source: Srivastava et al., JMLR 2014 (002 §4.4.2).
    """

    axes: Sequence[int] = ()

    def __init__(self, p: float = 0.5) -> None:
        share(self.class_name, p=p)
        self.p = p
        self.random_state = Cell((3,), stream, kind="random", dtype="uint32")

    def forward(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        if not self.training or not self.p:
            return x
        state = self.random_state
        self.random_state = state + Tensor(NEXT)
        return dropout(x, state, rate=self.p, axes=self.axes)

    def extra(self) -> str:
        return shown(self.p)


class Dropout2d(Dropout):
    """`Dropout` of whole channels of images (N, H, W, C). Source: Tompson et al., CVPR 2015."""

    axes = (1, 2)

    def forward(self, x: Any) -> Tensor:
        return super().forward(images("Dropout2d", x, 2))
