"""DenseNet: every layer sees the outputs of all layers before it.

Source: Huang, Liu, van der Maaten, Weinberger, "Densely connected convolutional networks", CVPR 2017, table 1.
Parameters have torchvision's names and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from juanji.checks import counts, one_of
from juanji.models._checks import Size, check_minimum, size_after
from juanji.models.network import Network
from juanji.models.resnet import begin_for_relu
from juanji.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from juanji.nn.container import Container
from juanji.ops.math import relu
from juanji.ops.movement import concat, flatten
from juanji.tensor import Tensor


class DenseLayer(Module):
    """Normalise, ReLU, 1×1 to `inside` channels; normalise, ReLU, 3×3 to `growth` channels."""

    def __init__(self, c: int, inside: int, growth: int) -> None:
        self.norm1 = BatchNorm2d(c)
        self.conv1 = Conv2d(c, inside, 1, bias=False)
        self.norm2 = BatchNorm2d(inside)
        self.conv2 = Conv2d(inside, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Tensor:
        x = self.conv1(relu(self.norm1(x)))
        return self.conv2(relu(self.norm2(x)))


class DenseBlock(Container):
    """Layers that each add their channels to what they see."""

    def forward(self, x: Any) -> Tensor:
        for layer in self:
            x = concat([x, layer(x)], axis=-1)
        return x


class DenseNet(Network):
    """`features`: a stem, dense blocks with transitions between them that halve channels and size; `classifier`.

    blocks    layers of each block
    growth    channels that a layer adds; its 1×1 convolution has four times as many
    stem      "large": 7×7 convolution with stride 2 and 3×3 max pooling with stride 2, as published; "small", for
              images of about 32×32: 3×3 convolution with stride 1 and no pooling
    """

    heads = ("classifier",)

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        blocks: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        stem: str = "large",
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        for number in (growth, *blocks):
            counts(name, blocks=number)
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        k = self.wide(growth)
        layers = stem_of(in_channels, 2 * k, small)
        c = 2 * k
        for i, count in enumerate(blocks, 1):
            named = {f"denselayer{j + 1}": DenseLayer(c + j * k, 4 * k, k) for j in range(count)}
            layers[f"denseblock{i}"] = DenseBlock(named)
            c += count * k
            if i < len(blocks):
                layers[f"transition{i}"] = transition(c)
                c //= 2
        self.features = Sequential({**layers, f"norm{len(blocks) + 1}": BatchNorm2d(c)})
        check_minimum(name, input_size, size_after([getattr(layer, "pool", layer) for layer in self.features]))
        self.avgpool = AdaptiveAvgPool2d(1)
        self.classifier = Linear(c, classes)
        begin_for_relu(self)
        self.classifier.cells("parameter")["bias"].init = init.zeros

    def forward_features(self, x: Any) -> Tensor:
        return relu(self.features(self.images(x)))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(flatten(self.avgpool(features)))


def stem_of(in_channels: int, c: int, small: bool) -> dict[str, Module]:
    if small:
        conv = Conv2d(in_channels, c, 3, padding=1, bias=False)
        return {"conv0": conv, "norm0": BatchNorm2d(c), "relu0": ReLU()}
    conv = Conv2d(in_channels, c, 7, 2, 3, bias=False)
    return {"conv0": conv, "norm0": BatchNorm2d(c), "relu0": ReLU(), "pool0": MaxPool2d(3, 2, 1)}


def transition(c: int) -> Sequential:
    """Half the channels, half the size."""
    half = max(c // 2, 1)
    return Sequential(
        {"norm": BatchNorm2d(c), "relu": ReLU(), "conv": Conv2d(c, half, 1, bias=False), "pool": AvgPool2d(2)}
    )


MODELS: dict[str, dict[str, Any]] = {
    "densenet121": {
        "about": "every layer sees all before it; stem='small' for 32×32 images",
        "make": DenseNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
