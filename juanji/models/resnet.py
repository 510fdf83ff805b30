"""Residual networks of basic blocks: ResNet-18 and ResNet-34 (002 §4.4.4).

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1. Parameters have
torchvision's names and counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts, one_of
from juanji.errors import ArgumentError
from juanji.models._checks import Size, expect
from juanji.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, init
from juanji.ops.math import add, relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


class BasicBlock(Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + x), where x passes a 1×1 convolution if its size or channels change."""

    def __init__(self, c: int, m: int, stride: int) -> None:
        self.conv1 = Conv2d(c, m, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(m)
        self.conv2 = Conv2d(m, m, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(m)
        same = c == m and stride == 1
        self.downsample = None if same else Sequential(Conv2d(c, m, 1, stride, bias=False), BatchNorm2d(m))

    def forward(self, x: Any) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return relu(add(y, x if self.downsample is None else self.downsample(x)))


class ResNet(Module):
    """A stem, stages `layer1`, `layer2`, … of basic blocks, global mean pooling and a dense layer `fc`.

    blocks    how many a stage
    channels  of each stage; every stage but the first halves the size
    stem      "large": 7×7 convolution with stride 2 and 3×3 max pooling with stride 2, as published; "small", for
              images of about 32×32: 3×3 convolution with stride 1 and no pooling
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
    ) -> None:
        for number in (*blocks, *channels):
            counts(name, stages=number)
        if not channels or len(blocks) != len(channels):
            received = f"blocks={tuple(blocks)}, channels={tuple(channels)}"
            raise ArgumentError(
                f"{name}: blocks and channels, one a stage", received=received, rule="as many, not none"
            )
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        self.name, self.input_size, self.in_channels = name, input_size, in_channels
        self.stages = len(blocks)
        self.conv1 = Conv2d(in_channels, channels[0], *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.bn1 = BatchNorm2d(channels[0])
        self.maxpool = None if small else MaxPool2d(3, 2, 1)
        widths = itertools.pairwise([channels[0], *channels])
        for i, ((c, m), count) in enumerate(zip(widths, blocks, strict=True), 1):
            setattr(self, f"layer{i}", stage(c, m, count, 1 if i == 1 else 2))
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels[-1], classes)
        begin_for_relu(self)

    def forward(self, x: Any) -> Tensor:
        x = expect(self.name, x, self.input_size, self.in_channels)
        x = relu(self.bn1(self.conv1(x)))
        x = x if self.maxpool is None else self.maxpool(x)
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.fc(flatten(self.avgpool(x)))


def stage(c: int, m: int, count: int, stride: int) -> Sequential:
    """So many blocks, of which the first goes from c to m channels with that stride."""
    return Sequential(BasicBlock(c, m, stride), *(BasicBlock(m, m, 1) for _ in range(count - 1)))


def begin_for_relu(model: Module) -> None:
    """Let the convolutions of `model` begin normal with variance 2/fan in (He et al., ICCV 2015)."""
    for module in model.modules().values():
        if isinstance(module, Conv2d):
            module.cells("parameter")["weight"].init = init.kaiming_normal


MODELS: dict[str, dict[str, Any]] = {
    name: {
        "about": f"residual network of {layers} layers; stem='small' for 32×32 images",
        "make": ResNet,
        "in_channels": 3,
        "input_size": 224,
        "blocks": blocks,
    }
    for name, layers, blocks in [("resnet18", 18, (2, 2, 2, 2)), ("resnet34", 34, (3, 4, 6, 3))]
}
