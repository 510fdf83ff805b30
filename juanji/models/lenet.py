"""LeNet-5 as published, and as it is drawn today.

Source: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE 1998.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji import random
from juanji.cell import Cell
from juanji.errors import ArgumentError
from juanji.graph import Array
from juanji.models._checks import Size
from juanji.models.convnet import ConvNet
from juanji.models.network import Network, with_classes
from juanji.nn import Conv2d, Linear, Module, PartialConv2d, TrainablePool2d, init
from juanji.ops.activation import scaled_tanh
from juanji.ops.math import square
from juanji.ops.movement import expand_dims, flatten
from juanji.ops.reduction import sum
from juanji.tensor import Tensor

# Table I: which maps of S2 each map of C3 sees. Six see three neighbours, six see four, three see four apart, one all.
TABLE = (
    *(tuple(sorted((i + j) % 6 for j in range(3))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in range(4))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in (0, 1, 3, 4))) for i in range(3)),
    tuple(range(6)),
)

# Ten digits of 7×12 pixels in the manner of the paper's figure 3, drawn for this file: # is +1, a point is −1.
DIGITS = """
..###.. ...#... .#####. .#####. .#...#. ####### ..####. ####### .#####. .#####.
.#...#. ..##... #.....# #.....# .#...#. #...... .#..... #.....# #.....# #.....#
#.....# .#.#... ......# ......# .#...#. #...... #...... ......# #.....# #.....#
#.....# ...#... ......# ......# .#...#. #...... #...... .....#. #.....# #.....#
#.....# ...#... .....#. ....##. #....#. #.####. #.####. .....#. .#...#. #....##
#.....# ...#... ....#.. ..###.. #....#. ##....# ##....# ....#.. ..###.. .####.#
#.....# ...#... ...#... .....#. ####### ......# #.....# ....#.. .#...#. ......#
#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... .#..... ......# .....#. ......# #.....# ...#... #.....# ......#
#.....# ...#... #...... ......# .....#. #.....# #.....# ..#.... #.....# .....#.
.#...#. ...#... #...... #.....# .....#. #.....# .#...#. ..#.... #.....# ....#..
..###.. .#####. ####### .#####. .....#. .#####. ..###.. ..#.... .#####. .###...
"""


def codes(classes: int) -> Array:
    """(classes, 84): a picture of ±1 for each class. The first ten are digits; any more are random, the same always."""
    rows = np.array([[list(digit) for digit in line.split()] for line in DIGITS.split("\n") if line])
    digits = np.where(rows == "#", 1.0, -1.0).transpose(1, 0, 2).reshape(10, 84)
    more = np.where(random.uniform(random.state(0, "codes"), (max(classes - 10, 0), 84)) < 0.5, -1.0, 1.0)
    return np.concatenate([digits, more])[:classes]


class RadialBasis(Module):
    """The squared distances of x to fixed codes, negated: −Σⱼ (xⱼ − wᵢⱼ)², (N, F) to (N, classes).

    The paper's output units give the distance, and the smallest one is the answer. Negated they are logits: argmax is
    the answer and cross-entropy the loss, close to the paper's equation 9 (whose "rubbish class" is left out).
    """

    def __init__(self, centres: Array) -> None:
        self.centres = Cell(centres.shape, init.constant_of(centres), kind="buffer")

    def forward(self, x: Any) -> Tensor:
        return -sum(square(expand_dims(x, 1) - self.centres), axis=-1)

    def extra(self) -> str:
        classes, features = self._cells["centres"].shape
        return f"{features}, {classes}"


@with_classes.register
def pictures(layer: RadialBasis, classes: int) -> Module:
    return RadialBasis(codes(classes))


class LeNet5Of1998(Network):
    """The network of figure 2: 60,000 trained parameters for 32×32×1 images.

    layer   what it does                                                                  trained
    c1      6 maps, 5×5 convolution                                                           156
    s2      sum over 2×2, learnt scale and bias                                                12
    c3      16 maps, 5×5, partly connected (table I)                                        1,516
    s4      as s2                                                                              32
    c5      120 maps, 5×5, which leaves one pixel                                          48,120
    f6      84 units                                                                       10,164
    output  distance to a fixed ±1 picture of 7×12 a class                                       0

    After every layer up to f6 comes 1.7159·tanh(2x/3). Weights begin uniform in ±2.4/fan in (appendix A). The pictures
    of the first ten classes are digits; further classes get random ±1 codes, so the trained parameters stay the same.
    """

    heads = ("output",)

    def __init__(self, name: str, classes: int, in_channels: int, input_size: Size) -> None:
        super().__init__(name, classes, in_channels, input_size)
        if tuple(input_size) != (32, 32):
            raise ArgumentError(
                f"{name}: takes 32×32 images only",
                received=f"input_size {input_size}",
                rule="as published: the last convolution leaves one pixel of 32×32",
                fix="resize to 32×32, or the model 'lenet5', which takes any size",
            )
        self.c1 = Conv2d(in_channels, 6, 5)
        self.s2 = TrainablePool2d(6)
        self.c3 = PartialConv2d(6, TABLE, 5)
        self.s4 = TrainablePool2d(16)
        self.c5 = Conv2d(16, 120, 5)
        self.f6 = Linear(120, 84)
        self.output = RadialBasis(codes(classes))
        for layer in (self.c1, self.c3, self.c5, self.f6):
            for cell in layer.cells("parameter").values():
                cell.init = as_published if len(cell.shape) > 1 else init.zeros

    def forward_features(self, x: Any) -> Tensor:
        x = self.s2(scaled_tanh(self.c1(self.images(x))))
        x = self.s4(scaled_tanh(self.c3(x)))
        return scaled_tanh(self.c5(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.output(scaled_tanh(self.f6(flatten(features))))


def as_published(state: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Uniform in ±2.4/fan in (appendix A)."""
    return init.symmetric(state, shape, dtype, 2.4 / init.fans(shape)[0])


MODELS: dict[str, dict[str, Any]] = {
    "lenet5_1998": {
        "about": "LeNet-5 as published, for 32×32 images",
        "make": LeNet5Of1998,
        "in_channels": 1,
        "input_size": 32,
    },
    # ReLU, max pooling, softmax: 61,706 parameters for 28×28×1 and ten classes.
    "lenet5": {
        "about": "LeNet-5 as used today: ReLU, max pooling, any input size",
        "make": ConvNet,
        "in_channels": 1,
        "input_size": 28,
        "channels": (6, 16),
        "kernel": 5,
        "hidden": (120, 84),
        "same_first": True,
    },
}
