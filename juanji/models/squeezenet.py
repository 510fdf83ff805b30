"""SqueezeNet: 1×1 bottlenecks (004 §9) before 1×1 and 3×3 convolutions side by side, and no dense layer.

Source: Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet", 2016, and version 1.1 of the authors' network.
Parameters have torchvision's names and counts.
"""

from __future__ import annotations

import functools
from typing import Any

from juanji.checks import one_of
from juanji.models._checks import Size, check_minimum, size_after
from juanji.models.network import Network
from juanji.nn import AdaptiveAvgPool2d, Conv2d, Dropout, MaxPool2d, Module, ReLU, Sequential, init
from juanji.ops.math import relu
from juanji.ops.movement import concat, flatten
from juanji.tensor import Tensor

# Outputs of the squeezing 1×1 convolution, and of each of the two expanding ones; None for a pooling.
FIRES = (None, (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(Module):
    """A 1×1 convolution, then one of 1×1 and one of 3×3 side by side, each with ReLU."""

    def __init__(self, c: int, squeezed: int, expanded: int) -> None:
        self.squeeze = Conv2d(c, squeezed, 1)
        self.expand1x1 = Conv2d(squeezed, expanded, 1)
        self.expand3x3 = Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Any) -> Tensor:
        x = relu(self.squeeze(x))
        return relu(concat([self.expand1x1(x), self.expand3x3(x)], axis=-1))


class SqueezeNet(Network):
    """`features`: a convolution, eight `Fire` modules and three 3×3 poolings; `classifier`: a map a class, its mean.

    stem  "large": 3×3 convolution with stride 2 and max pooling after it, as published; "small", for images of about
          32×32: the same convolution with stride 1 and padding, and no pooling
    """

    heads = ("classifier.1",)

    def __init__(
        self, name: str, classes: int, in_channels: int, input_size: Size, *, stem: str = "large", width: float = 1.0
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        c = self.wide(64)
        modules: list[Module] = [Conv2d(in_channels, c, 3, *((1, 1) if small else (2, 0))), ReLU()]
        for sizes in FIRES[small:]:
            if sizes is None:
                modules.append(MaxPool2d(3, 2, ceil_mode=True))
            else:
                squeezed, expanded = map(self.wide, sizes)
                modules.append(Fire(c, squeezed, expanded))
                c = 2 * expanded
        self.features = Sequential(*modules)
        check_minimum(name, input_size, size_after(modules))
        self.classifier = Sequential(Dropout(0.5), Conv2d(c, classes, 1), ReLU(), AdaptiveAvgPool2d(1))
        self.begin()

    def begin(self) -> None:
        """torchvision's: uniform with variance 2/fan in, biases 0; the last convolution normal with deviation 0.01."""
        for path, layer in self.modules().items():
            if isinstance(layer, Conv2d):
                cells = layer.cells("parameter")
                last = functools.partial(init.normal, std=0.01)
                usual = functools.partial(init.kaiming_uniform, gain=2**0.5)
                cells["weight"].init = last if path in self.heads else usual
                cells["bias"].init = init.zeros

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return flatten(self.classifier(features))


MODELS: dict[str, dict[str, Any]] = {
    "squeezenet1_1": {
        "about": "few parameters: bottlenecks before everything, no dense layer",
        "make": SqueezeNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
