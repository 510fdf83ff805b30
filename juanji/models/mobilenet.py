"""MobileNet v2: depthwise convolutions between 1×1 ones that widen and narrow, with the shortcut between the narrow.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018,
tables 1 and 2. Parameters have torchvision's names and counts.
"""

from __future__ import annotations

from typing import Any

from juanji.checks import one_of
from juanji.models._checks import Size
from juanji.models.network import Network
from juanji.models.resnet import begin_dense, begin_for_relu
from juanji.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Linear, Module, ReLU6, Sequential
from juanji.ops.math import add
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

# Table 2: how many times wider inside, outputs, blocks, stride of the first of them.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
STEP = 8  # channels are multiples of it


def conv_bn_relu6(c: int, m: int, kernel: int, stride: int = 1, groups: int = 1) -> Sequential:
    conv = Conv2d(c, m, kernel, stride, kernel // 2, groups=groups, bias=False)
    return Sequential(conv, BatchNorm2d(m), ReLU6())


class InvertedResidual(Module):
    """1×1 to `times` as many channels, 3×3 depthwise, 1×1 to m without activation; plus x if the shape is the same."""

    def __init__(self, c: int, m: int, stride: int, times: int) -> None:
        inside = c * times
        widen = [conv_bn_relu6(c, inside, 1)] if times > 1 else []
        depthwise = conv_bn_relu6(inside, inside, 3, stride, groups=inside)
        self.conv = Sequential(*widen, depthwise, Conv2d(inside, m, 1, bias=False), BatchNorm2d(m))
        self.shortcut = c == m and stride == 1

    def forward(self, x: Any) -> Tensor:
        return add(x, self.conv(x)) if self.shortcut else self.conv(x)


class MobileNetV2(Network):
    """`features`: a 3×3 convolution, 17 inverted residual blocks, a 1×1 convolution; mean pooling; `classifier`.

    stem   "large": the first convolution and the second stage have stride 2, as published; "small", for images of about
           32×32: stride 1 there
    width  as published: channels are rounded to multiples of 8 but never down by more than a tenth, and the last
           convolution does not become narrower than 1280
    """

    heads = ("classifier.1",)

    def __init__(
        self, name: str, classes: int, in_channels: int, input_size: Size, *, stem: str = "large", width: float = 1.0
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        c = self.wide(32)
        modules: list[Module] = [conv_bn_relu6(in_channels, c, 3, 1 if small else 2)]
        for place, (times, m, count, stride) in enumerate(STAGES):
            for i in range(count):
                first = stride if i == 0 and not (small and place == 1) else 1
                modules.append(InvertedResidual(c, self.wide(m), first, times))
                c = self.wide(m)
        last = max(self.wide(1280), 1280)
        self.features = Sequential(*modules, conv_bn_relu6(c, last, 1))
        self.avgpool = AdaptiveAvgPool2d(1)
        self.classifier = Sequential(Dropout(0.2), Linear(last, classes))
        begin_for_relu(self)
        begin_dense(self)

    def wide(self, channels: int, groups: int = STEP) -> int:
        rounded = max(int(channels * self.width / groups + 0.5), 1) * groups
        return rounded if rounded >= 0.9 * channels * self.width else rounded + groups

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(flatten(self.avgpool(features)))


MODELS: dict[str, dict[str, Any]] = {
    "mobilenet_v2": {
        "about": "depthwise convolutions, for telephones; stem='small' for 32×32 images",
        "make": MobileNetV2,
        "in_channels": 3,
        "input_size": 224,
    },
}
