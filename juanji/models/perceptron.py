"""The multi-layer perceptron of 003: 784-256-256-256-10."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts
from juanji.models._checks import Size
from juanji.models.network import Network
from juanji.nn import Linear, ModuleList
from juanji.ops.math import relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


class Perceptron(Network):
    """Dense layers `layers.0`, `layers.1`, … with ReLU between them (002 §2, 003): images (N, H, W, C) to logits.

    hidden  the widths between input and output

    Images are flattened; (N, H·W·C) is taken too.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        hidden: Sequence[int] = (256, 256, 256),
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        for number in hidden:
            counts(name, hidden=number)
        widths = [math.prod(input_size) * in_channels, *map(self.wide, hidden), classes]
        self.layers = ModuleList([Linear(n, m) for n, m in itertools.pairwise(widths)])
        self.heads = (f"layers.{len(hidden)}",)

    def forward_features(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        x = x if x.ndim == 2 else flatten(self.images(x))
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return x

    def forward_head(self, features: Tensor) -> Tensor:
        return self.layers[-1](features)


MODELS: dict[str, dict[str, Any]] = {
    "perceptron": {
        "about": "three dense layers of 256 (note 003)",
        "make": Perceptron,
        "in_channels": 1,
        "input_size": 28,
        "hidden": (256, 256, 256),
    },
}
