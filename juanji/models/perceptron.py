"""The multi-layer perceptron of 003: 784-256-256-256-10."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts
from juanji.models._checks import Size, expect
from juanji.nn import Linear, Module, ModuleList
from juanji.ops.math import relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


class Perceptron(Module):
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
    ) -> None:
        for width in hidden:
            counts(name, hidden=width)
        self.name, self.input_size, self.in_channels = name, input_size, in_channels
        widths = [math.prod(input_size) * in_channels, *hidden, classes]
        self.layers = ModuleList([Linear(n, m) for n, m in itertools.pairwise(widths)])

    def forward(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        if x.ndim != 2:
            x = flatten(expect(self.name, x, self.input_size, self.in_channels))
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        return self.layers[-1](x)


MODELS: dict[str, dict[str, Any]] = {
    "perceptron": {
        "about": "three dense layers of 256 (note 003)",
        "make": Perceptron,
        "in_channels": 1,
        "input_size": 28,
        "hidden": (256, 256, 256),
    },
}
