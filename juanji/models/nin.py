"""Network in network: 1×1 convolutions (001, 004 §9) after every convolution, and no dense layer.

Source: Lin, Chen, Yan, "Network in network", ICLR 2014, and the authors' network for CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from juanji.models._checks import Size
from juanji.models.network import Network
from juanji.models.resnet import begin_for_relu
from juanji.nn import AdaptiveAvgPool2d, AvgPool2d, Conv2d, Dropout, MaxPool2d, Module, ReLU, Sequential
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


class NIN(Network):
    """`features`: three blocks of a convolution and two of 1×1, with ReLU; `classifier`: a map a class, and its mean.

    channels  of the convolutions of each block; the last 1×1 convolution of the last block gives the classes

    Between blocks stand 3×3 poolings in steps of 2, maximum and then mean, each followed by dropout.
    """

    heads = ("classifier.0",)

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        channels: Sequence[Sequence[int]] = ((192, 160, 96), (192, 192, 192), (192, 192)),
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        c, modules = in_channels, list[Module]()
        pools = [MaxPool2d(3, 2, 1), AvgPool2d(3, 2, 1), None]
        for kernel, maps, pool in zip((5, 5, 3), channels, pools, strict=True):
            for size, m in zip((kernel, 1, 1), map(self.wide, maps), strict=False):
                modules += [Conv2d(c, m, size, padding=size // 2), ReLU()]
                c = m
            modules += [pool, Dropout(dropout)] if pool else []
        self.features = Sequential(*modules)
        self.classifier = Sequential(Conv2d(c, classes, 1), ReLU(), AdaptiveAvgPool2d(1))
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return flatten(self.classifier(features))


MODELS: dict[str, dict[str, Any]] = {
    "nin": {
        "about": "1×1 convolutions everywhere and no dense layer, for 32×32 images",
        "make": NIN,
        "in_channels": 3,
        "input_size": 32,
    },
}
