"""Highway networks (002 §4.4.4): a learnt gate decides between what a layer makes of its input and the input itself.

Sources: Srivastava, Greff, Schmidhuber, "Highway networks", 2015, and "Training very deep networks", NIPS 2015, §3.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts
from juanji.models._checks import Size, check_minimum
from juanji.models.network import Network, PooledNetwork
from juanji.models.resnet import begin_for_relu
from juanji.nn import AdaptiveAvgPool2d, Conv2d, Highway, Linear, MaxPool2d, Module, ReLU, Sequential, init
from juanji.ops.math import relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


def gated(body: Module, gate: Any, bias: float) -> Highway:
    """A highway layer of relu(body(x)), whose gate begins with that bias."""
    gate.cells("parameter")["bias"].init = functools.partial(init.constant, value=bias)
    return Highway(Sequential(body, ReLU()), gate)


class HighwayNetwork(Network):
    """Dense: a plain layer `first`, highway layers `layers.0`, …, and a dense layer `fc` (the paper's for MNIST).

    units      of every layer
    layers     highway layers between the plain first and the last
    gate_bias  of the gates at the beginning, where negative numbers hand the input on; further down for deeper networks
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        units: int = 50,
        layers: int = 9,
        gate_bias: float = -1.0,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        counts(name, units=units, layers=layers)
        n = self.wide(units)
        self.first = Linear(math.prod(input_size) * in_channels, n)
        self.layers = Sequential(*(gated(Linear(n, n), Linear(n, n), gate_bias) for _ in range(layers)))
        self.fc = Linear(n, classes)

    def forward_features(self, x: Any) -> Tensor:
        return self.layers(relu(self.first(flatten(self.images(x)))))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.fc(features)


class HighwayConvNet(PooledNetwork):
    """Convolutional: stages of a plain 3×3 convolution, highway ones and 2×2 max pooling; mean pooling and `fc`.

    channels   of each stage
    layers     highway convolutions of each stage, after the plain one, which changes the number of channels
    gate_bias  as in `highway`

    The paper's networks for CIFAR-10 are made in this way; these numbers of channels are those of its smallest model's
    first layer, doubled from stage to stage.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        channels: Sequence[int] = (16, 32, 64),
        layers: int = 2,
        gate_bias: float = -1.0,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        counts(name, layers=layers)
        for number in channels:
            counts(name, channels=number)
        check_minimum(name, input_size, lambda size: size >> len(channels))
        c, modules = in_channels, list[Module]()
        for m in map(self.wide, channels):
            gates = (gated(Conv2d(m, m, 3, padding=1), Conv2d(m, m, 3, padding=1), gate_bias) for _ in range(layers))
            modules += [Conv2d(c, m, 3, padding=1), ReLU(), *gates, MaxPool2d(2)]
            c = m
        self.features = Sequential(*modules)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(c, classes)
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))


MODELS: dict[str, dict[str, Any]] = {
    "highway": {
        "about": "eleven dense layers of 50, nine of them with a gate",
        "make": HighwayNetwork,
        "in_channels": 1,
        "input_size": 28,
    },
    "highway_conv": {
        "about": "nine convolutions, six of them with a gate, for 32×32 images",
        "make": HighwayConvNet,
        "in_channels": 3,
        "input_size": 32,
    },
}
