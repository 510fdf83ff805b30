"""Fully convolutional networks (002 §4.6): a class for every pixel, from VGG-16 or a dilated ResNet-50.

Sources: Long, Shelhamer, Darrell, "Fully convolutional networks for semantic segmentation", CVPR 2015, §3 and §4.2;
for `fcn_resnet50` torchvision's network, whose names and counts its parameters have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.errors import ArgumentError
from juanji.graph import Array
from juanji.models import vgg
from juanji.models._checks import Size
from juanji.models.network import Network
from juanji.models.resnet import Bottleneck, Trunk, begin_dense, begin_for_relu, check_stages
from juanji.nn import AuxiliaryOutputs, BatchNorm2d, Conv2d, ConvTranspose2d, Dropout, ReLU, Sequential
from juanji.ops.math import add
from juanji.ops.resample import resize
from juanji.tensor import Tensor


def bilinear(state: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """The weight (k, k, M, M) of a transposed convolution of stride k/2 that interpolates each map by itself."""
    k, _, maps, _ = shape
    tent = 1 - np.abs(np.arange(k) - (k - 1) / 2) / (k / 2)
    return np.asarray(np.outer(tent, tent)[:, :, None, None] * np.eye(maps), dtype)


def upsampling(classes: int, times: int) -> ConvTranspose2d:
    """So many times as large, beginning as bilinear interpolation, for even `times`."""
    layer = ConvTranspose2d(classes, classes, 2 * times, times, times // 2, bias=False)
    layer.cells("parameter")["weight"].init = bilinear
    return layer


# By the stride of the finest map that is scored: the steps from coarse to fine. Each is a transposed convolution, and
# the pooling whose scores are added to what it gives.
STEPS: dict[int, tuple[tuple[str, str], ...]] = {
    32: (),
    16: (("upscore2", "pool4"),),
    8: (("upscore2", "pool4"), ("upscore_pool4", "pool3")),
}
POOLS = {"pool3": 16, "pool4": 23}  # places in `features`, as in torchvision's VGG-16


class FCN(Network):
    """VGG-16 with its dense layers as convolutions, a score map a class, made large again by transposed convolutions.

    stride  of the finest map that is scored: 32 the last alone; 16 also `pool4`, added to twice the last; 8 also
            `pool3`. The rest of the way is one step, `upscore32`, `upscore16` or `upscore8`

    Images (N, H, W, C) to logits (N, H, W, classes), for any size: poolings keep a last window that hangs over, and
    what is too much is cut off at the end. `features` has VGG-16's names; `fc6` and `fc7` are its first two dense
    layers as 7×7 and 1×1 convolutions. The published networks pad the image with 100 pixels, cut maps in their middle
    and begin with scores of 0; here `fc6` is padded, all maps begin at the same corner, and scores begin as other
    layers do, so that everything learns from the first step.
    """

    task = "segmentation"

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        stride: int = 8,
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        if stride not in STEPS:
            raise ArgumentError(f"{name}: no such stride", received=f"stride={stride!r}", rule="8, 16 or 32")
        stages = [[self.wide(m) for m in maps] for maps in vgg.STAGES["vgg16"]]
        hidden = self.wide(4096)
        self.features = vgg.features(in_channels, stages, ceil_mode=True)
        self.fc6, self.relu6, self.drop6 = Conv2d(stages[-1][-1], hidden, 7, padding=3), ReLU(), Dropout(dropout)
        self.fc7, self.relu7, self.drop7 = Conv2d(hidden, hidden, 1), ReLU(), Dropout(dropout)
        begin_for_relu(self)
        begin_dense(self)
        self.steps, self.last = STEPS[stride], f"upscore{stride}"
        self.score_fr = Conv2d(hidden, classes, 1)
        for step, pool in self.steps:
            setattr(self, step, upsampling(classes, 2))
            setattr(self, f"score_{pool}", Conv2d(stages[int(pool[-1]) - 1][-1], classes, 1))
        setattr(self, self.last, upsampling(classes, stride))
        self.heads = tuple(name for name in self._children if "score" in name)

    def maps(self, x: Any) -> dict[str, Tensor]:
        """What the poolings give that may be scored, and `fc7`, the last map."""
        places, maps = {place: pool for pool, place in POOLS.items()}, {}
        x = self.images(x)
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in places:
                maps[places[place]] = x
        x = self.drop6(self.relu6(self.fc6(x)))
        return {**maps, "fc7": self.drop7(self.relu7(self.fc7(x)))}

    def forward_features(self, x: Any) -> Tensor:
        return self.maps(x)["fc7"]

    def forward(self, x: Any) -> Tensor:
        maps = self.maps(x)
        scores = self.score_fr(maps["fc7"])
        for step, pool in self.steps:
            finer = getattr(self, f"score_{pool}")(maps[pool])
            scores = add(cut(getattr(self, step)(scores), finer.shape[1:3]), finer)
        return cut(getattr(self, self.last)(scores), self.input_size)


def cut(x: Tensor, size: Sequence[int]) -> Tensor:
    """The first rows and columns of images x (N, H, W, C)."""
    height, width = size
    return x[:, :height, :width]


class Backbone(Trunk):
    """ResNet-50 whose last two stages keep the size and dilate instead, at a stride of 8."""

    block = Bottleneck

    def __init__(self, in_channels: int, blocks: Sequence[int], channels: Sequence[int]) -> None:
        self.add_trunk(in_channels, blocks, channels, small=False, dilated=2)

    def forward(self, x: Any) -> list[Tensor]:
        return self.trunk(x)


def head(c: int, classes: int) -> Sequential:
    """torchvision's FCNHead: a 3×3 convolution to a quarter of the channels, dropout, scores."""
    m = max(c // 4, 1)
    conv = Conv2d(c, m, 3, padding=1, bias=False)
    return Sequential(conv, BatchNorm2d(m), ReLU(), Dropout(0.1), Conv2d(m, classes, 1))


class FCNOutputs(AuxiliaryOutputs):
    """`AuxiliaryOutputs` whose auxiliary loss counts 0.5, as in torchvision's recipe."""

    @property
    def aux_weight(self) -> float:
        return 0.5


class FCNResNet(Network):
    """A `backbone`, ResNet-50 dilated in its last two stages; a `classifier` of its last map; bilinear interpolation.

    aux  an `aux_classifier` of the last stage but one, with 0.5 of the loss: in training mode the network returns
         `nn.AuxiliaryOutputs`; torchvision's published weights have one

    Images (N, H, W, C) to logits (N, H, W, classes), for any size.
    """

    task = "segmentation"

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        blocks: Sequence[int] = (3, 4, 6, 3),
        channels: Sequence[int] = (64, 128, 256, 512),
        aux: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        check_stages(name, blocks, channels)
        widths = [self.wide(m) for m in channels]
        self.backbone = Backbone(in_channels, blocks, widths)
        self.classifier = head(widths[-1] * Bottleneck.expansion, classes)
        self.aux_classifier = head(widths[-2] * Bottleneck.expansion, classes) if aux else None
        self.heads = ("classifier.4", "aux_classifier.4") if aux else ("classifier.4",)
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        return self.backbone(self.images(x))[-1]

    def forward_head(self, features: Tensor) -> Tensor:
        return self.enlarged(self.classifier(features))

    def enlarged(self, scores: Tensor) -> Tensor:
        return resize(scores, self.input_size, mode="bilinear")

    def forward(self, x: Any) -> Any:
        """Logits; with the auxiliary head and in training mode `AuxiliaryOutputs`."""
        *_, before, last = self.backbone(self.images(x))
        logits = self.forward_head(last)
        if self.aux_classifier is None or not self.training:
            return logits
        return FCNOutputs(logits, (self.enlarged(self.aux_classifier(before)),))


MODELS: dict[str, dict[str, Any]] = {
    f"fcn{stride}s": {
        "about": f"VGG-16 for a class a pixel, scored at a stride of {stride}",
        "make": FCN,
        "in_channels": 3,
        "input_size": 224,
        "stride": stride,
    }
    for stride in (32, 16, 8)
} | {
    "fcn_resnet50": {
        "about": "dilated ResNet-50 for a class a pixel, as torchvision's",
        "make": FCNResNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
