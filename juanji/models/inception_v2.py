"""Inception v2 (002 §4.6): Inception with batch normalisation, and two 3×3 convolutions in place of 5×5.

Source: Ioffe, Szegedy, "Batch normalization", ICML 2015, §4.2.1 and the table of its appendix.
"""

from __future__ import annotations

from typing import Any

from juanji.checks import one_of
from juanji.models._checks import Size
from juanji.models._units import BasicConv2d, Wide, chain, mean_pool, out_channels
from juanji.models.network import PooledNetwork
from juanji.models.resnet import begin_for_relu
from juanji.nn import AdaptiveAvgPool2d, Branches, Linear, MaxPool2d
from juanji.tensor import Tensor

# The appendix: 1×1; bottleneck, 3×3; bottleneck, double 3×3; after pooling. Without outputs after it, the pooling is
# maximum in steps of 2 and handed on as it is, and so are the steps of the other branches.
BLOCKS: dict[str, tuple[int, int, int, int, int, str, int]] = {
    "inception3a": (64, 64, 64, 64, 96, "mean", 32),
    "inception3b": (64, 64, 96, 64, 96, "mean", 64),
    "inception3c": (0, 128, 160, 64, 96, "max", 0),
    "inception4a": (224, 64, 96, 96, 128, "mean", 128),
    "inception4b": (192, 96, 128, 96, 128, "mean", 128),
    "inception4c": (160, 128, 160, 128, 160, "mean", 96),
    "inception4d": (96, 128, 192, 160, 192, "mean", 96),
    "inception4e": (0, 128, 192, 192, 256, "max", 0),
    "inception5a": (352, 192, 320, 160, 224, "mean", 128),
    "inception5b": (352, 192, 320, 192, 224, "max", 128),
}


def block(c: int, wide: Wide, b1: int, reduce3: int, b3: int, reduce5: int, b5: int, pool: str, last: int) -> Branches:
    """1×1, 3×3, double 3×3 and pooling side by side; halving the size where nothing follows the pooling."""
    stride = 1 if last else 2
    pooling = mean_pool() if pool == "mean" else MaxPool2d(3, stride, 1)
    branches = {
        "branch1": chain(c, wide, (b1, 1)) if b1 else None,
        "branch2": chain(c, wide, (reduce3, 1), (b3, 3, stride, 1)),
        "branch3": chain(c, wide, (reduce5, 1), (b5, 3), (b5, 3, stride, 1)),
        "branch4": chain(c, wide, pooling, *([(last, 1)] if last else [])),
    }
    return Branches({name: branch for name, branch in branches.items() if branch})


class InceptionV2(PooledNetwork):
    """A stem, ten Inception blocks of which two halve the size, global mean pooling and a dense layer `fc`.

    stem  "large": 7×7 convolution with stride 2 and two 3×3 poolings with stride 2, as published; "small", for images
          of about 32×32: a 3×3 convolution with stride 1 and no pooling

    The published first convolution is separable, with 8 maps a channel before it mixes them: a saving of arithmetic at
    the price of memory. Here it is an ordinary one.
    """

    def __init__(
        self, name: str, classes: int, in_channels: int, input_size: Size, *, stem: str = "large", width: float = 1.0
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        a, c = self.wide(64), self.wide(192)
        self.conv1 = BasicConv2d(in_channels, a, *((3, 1, 1) if small else (7, 2, 3)))
        self.maxpool1 = None if small else MaxPool2d(3, 2, 1)
        self.conv2 = BasicConv2d(a, a, 1)
        self.conv3 = BasicConv2d(a, c, 3, padding=1)
        self.maxpool2 = None if small else MaxPool2d(3, 2, 1)
        for path, widths in BLOCKS.items():
            setattr(self, path, block(c, self.wide, *widths))
            c = out_channels(getattr(self, path), c)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(c, classes)
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        x = self.conv1(self.images(x))
        x = x if self.maxpool1 is None else self.maxpool1(x)
        x = self.conv3(self.conv2(x))
        x = x if self.maxpool2 is None else self.maxpool2(x)
        for path in BLOCKS:
            x = getattr(self, path)(x)
        return x


MODELS: dict[str, dict[str, Any]] = {
    "inception_v2": {
        "about": "Inception with batch normalisation, two 3×3 convolutions for 5×5",
        "make": InceptionV2,
        "in_channels": 3,
        "input_size": 224,
    },
}
