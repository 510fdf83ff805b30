"""Residual networks with pre-activation: normalisation and ReLU before each convolution, and a shortcut left clean.

Source: He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, figure 1b and its appendix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from juanji.checks import one_of
from juanji.models._checks import Size
from juanji.models.network import PooledNetwork
from juanji.models.resnet import begin_for_relu, check_stages, conv3, stage
from juanji.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module
from juanji.ops.math import add, relu
from juanji.tensor import Tensor


class PreActBlock(Module):
    """conv2(relu(bn2(conv1(y)))) + x with y = relu(bn1(x)); where size or channels change, `downsample`(y) for x."""

    expansion = 1

    def __init__(self, c: int, m: int, stride: int = 1, dilation: int = 1) -> None:
        self.bn1 = BatchNorm2d(c)
        self.conv1 = conv3(c, m, stride, dilation)
        self.bn2 = BatchNorm2d(m)
        self.conv2 = conv3(m, m, 1, dilation)
        self.downsample = None if c == m and stride == 1 else Conv2d(c, m, 1, stride, bias=False)

    def forward(self, x: Any) -> Tensor:
        y = relu(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        return add(self.conv2(relu(self.bn2(self.conv1(y)))), shortcut)


class PreActResNet(PooledNetwork):
    """A stem of one convolution, stages `layer1`, `layer2`, …, normalisation `bn` and ReLU, mean pooling and `fc`.

    Options as in `resnet18`.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        blocks: Sequence[int] = (2, 2, 2, 2),
        channels: Sequence[int] = (64, 128, 256, 512),
        stem: str = "large",
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        check_stages(name, blocks, channels)
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        c, self.stages = self.wide(channels[0]), len(blocks)
        self.conv1 = Conv2d(in_channels, c, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.maxpool = None if small else MaxPool2d(3, 2, 1)
        for i, (m, count) in enumerate(zip(map(self.wide, channels), blocks, strict=True), 1):
            setattr(self, f"layer{i}", stage(PreActBlock, c, m, count, 1 if i == 1 else 2))
            c = m
        self.bn = BatchNorm2d(c)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(c, classes)
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        x = self.conv1(self.images(x))
        x = x if self.maxpool is None else self.maxpool(x)
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
        return relu(self.bn(x))


MODELS: dict[str, dict[str, Any]] = {
    "preact_resnet18": {
        "about": "residual network of 18 layers, normalisation and ReLU before convolutions",
        "make": PreActResNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
