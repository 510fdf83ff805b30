"""AlexNet (002 §4.4.2), in one column as it is used today, and in the two groups of 2012.

Sources: Krizhevsky, Sutskever, Hinton, "ImageNet classification with deep convolutional neural networks", NIPS 2012;
in one column: Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014. Parameters of
`alexnet` have torchvision's names and counts.
"""

from __future__ import annotations

import functools
from typing import Any

from juanji.models._checks import Size, check_minimum, size_after
from juanji.models.network import Network
from juanji.nn import (
    AdaptiveAvgPool2d,
    Conv2d,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

POOLED = 6


class AlexNet(Network):
    """`features`, five convolutions with overlapping 3×3 poolings in steps of 2; `classifier`, three dense layers.

    channels  of the five convolutions
    hidden    units of the first two dense layers, each with dropout before it

    Features are flattened channels last, so that the columns of `classifier.1.weight` are in another order than
    torchvision's.
    """

    heads = ("classifier.6",)

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        channels: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256),
        hidden: int = 4096,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        self.features = Sequential(*self.convolutions(*channels))
        check_minimum(name, input_size, size_after([*self.features]), "the model 'lenet5'")
        self.avgpool = AdaptiveAvgPool2d(POOLED)
        n, units = POOLED**2 * self.features[-3].out_channels, self.wide(hidden)
        first = Dropout(dropout), Linear(n, units), ReLU()
        self.classifier = Sequential(*first, Dropout(dropout), Linear(units, units), ReLU(), Linear(units, classes))

    def convolutions(self, c1: int, c2: int, c3: int, c4: int, c5: int) -> list[Module]:
        a, b, c, d, e = map(self.wide, (c1, c2, c3, c4, c5))
        first = [Conv2d(self.in_channels, a, 11, 4, 2), ReLU(), MaxPool2d(3, 2)]
        second = [Conv2d(a, b, 5, padding=2), ReLU(), MaxPool2d(3, 2)]
        third = [Conv2d(b, c, 3, padding=1), ReLU(), Conv2d(c, d, 3, padding=1), ReLU()]
        return [*first, *second, *third, Conv2d(d, e, 3, padding=1), ReLU(), MaxPool2d(3, 2)]

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(flatten(self.avgpool(features)))


class AlexNetOf2012(AlexNet):
    """As published: convolutions 2, 4 and 5 in two groups, one a GPU, and local response normalisation after 1 and 2.

    Weights begin normal with standard deviation 0.01; biases at 1 in convolutions 2, 4 and 5 and in the dense layers
    before the last, so that ReLU begins open, and else at 0 (§5). The paper says 224×224 images; its sizes come out
    with 227×227 (or a padding it does not mention). Its α is not divided by the size n = 5 of the neighbourhood, ours
    and Caffe's is: 1e-4·5.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        channels: tuple[int, int, int, int, int] = (96, 256, 384, 384, 256),
        hidden: int = 4096,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(
            name, classes, in_channels, input_size, channels=channels, hidden=hidden, dropout=dropout, width=width
        )
        layers = [layer for layer in self.modules().values() if isinstance(layer, Conv2d | Linear)]
        for place, layer in enumerate(layers):
            cells = layer.cells("parameter")
            cells["weight"].init = functools.partial(init.normal, std=0.01)
            cells["bias"].init = init.zeros if place in (0, 2, len(layers) - 1) else init.ones

    def convolutions(self, c1: int, c2: int, c3: int, c4: int, c5: int) -> list[Module]:
        a, b, c, d, e = (self.wide(m, groups=2) for m in (c1, c2, c3, c4, c5))

        def normalised() -> list[Module]:
            return [ReLU(), LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0), MaxPool2d(3, 2)]

        first = [Conv2d(self.in_channels, a, 11, 4), *normalised()]
        second = [Conv2d(a, b, 5, padding=2, groups=2), *normalised()]
        third = [Conv2d(b, c, 3, padding=1), ReLU(), Conv2d(c, d, 3, padding=1, groups=2), ReLU()]
        return [*first, *second, *third, Conv2d(d, e, 3, padding=1, groups=2), ReLU(), MaxPool2d(3, 2)]


MODELS: dict[str, dict[str, Any]] = {
    "alexnet": {
        "about": "five convolutions and three dense layers, in one column",
        "make": AlexNet,
        "in_channels": 3,
        "input_size": 224,
    },
    "alexnet_2012": {
        "about": "as published: two groups, local response normalisation",
        "make": AlexNetOf2012,
        "in_channels": 3,
        "input_size": 227,
    },
}
