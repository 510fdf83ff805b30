"""Looking at an image several times: what a network says of it is the mean over views of it (test-time augmentation).

Source of the views and their weights: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498,
2024.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji.nn.module import Module
from juanji.ops.movement import concat, flip, reshape
from juanji.tensor import Tensor

HEIGHT, WIDTH = 1, 2  # axes of images (N, H, W, C)
View = tuple[float, bool, int]
# By name: how much a view counts, whether it is mirrored, and by how many pixels it is moved down and right.
TTA: dict[str, tuple[View, ...]] = {
    "none": ((1.0, False, 0),),
    "mirror": tuple((0.5, mirrored, 0) for mirrored in (False, True)),
    "shifts": tuple((0.125 if by else 0.25, mirrored, by) for by in (0, -1, 1) for mirrored in (False, True)),
}


class Averaged(Module):
    """A network whose logits are the weighted mean of those for the views `TTA[tta]`; its cells are the network's."""

    def __init__(self, model: Module, tta: str) -> None:
        self.views = TTA[tta]
        self._children["model"] = model  # which keeps its own place, by which errors name it and cells draw values

    def forward(self, x: Any) -> Tensor:
        """(N, H, W, C) to logits (N, classes)."""
        x = Tensor.of(x)
        logits = self.model(concat([view(x, mirrored, by) for _, mirrored, by in self.views]))
        shares = np.asarray([weight for weight, _, _ in self.views], x.dtype)[:, None, None]
        return (reshape(logits, (len(self.views), x.shape[0], -1)) * shares).sum(axis=0)


def averaged(model: Module, tta: str) -> Module:
    """The network as it is to be asked: itself for "none"."""
    return model if tta == "none" else Averaged(model, tta)


def view(x: Tensor, mirrored: bool, by: int) -> Tensor:
    """Images (N, H, W, C) moved by a pixel or none along both axes, then mirrored; what comes in is the second row or
    column from there, as reflected."""
    if by and min(x.shape[1:3]) > 1:
        x = moved(moved(x, HEIGHT, by), WIDTH, by)
    return flip(x, WIDTH) if mirrored else x


def moved(x: Tensor, axis: int, by: int) -> Tensor:
    size, before = x.shape[axis], (slice(None),) * axis
    if by > 0:
        return concat([x[(*before, slice(1, 2))], x[(*before, slice(0, size - 1))]], axis)
    return concat([x[(*before, slice(1, size))], x[(*before, slice(size - 2, size - 1))]], axis)
