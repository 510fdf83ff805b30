"""Residual networks with pre-activation: normalisation and ReLU before each convolution, and a shortcut left clean.

Source: He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, figure 1b and its appendix.
"""

from __future__ import annotations

from typing import Any

from juanji.models.resnet import ResNet, conv3
from juanji.nn import BatchNorm2d, Conv2d, Module
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


class PreActResNet(ResNet):
    """`ResNet` of `PreActBlock`s: its stem is one convolution; normalisation `bn` and ReLU follow the last stage."""

    block = PreActBlock
    normalised = False

    def add_trunk(self, *args: Any, **options: Any) -> int:
        channels = super().add_trunk(*args, **options)
        self.bn = BatchNorm2d(channels)
        return channels

    def forward_features(self, x: Any) -> Tensor:
        return relu(self.bn(super().forward_features(x)))


MODELS: dict[str, dict[str, Any]] = {
    "preact_resnet18": {
        "about": "residual network of 18 layers, normalisation and ReLU before convolutions",
        "make": PreActResNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
