"""VGG-11 to VGG-19: stacks of 3×3 convolutions between 2×2 poolings (002 §4.6).

Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1,
columns A, B, D and E. Parameters have torchvision's names and counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts
from juanji.errors import ArgumentError
from juanji.models._checks import Size, check_minimum, size_after
from juanji.models.network import Network
from juanji.models.resnet import begin_dense, begin_for_relu
from juanji.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Dropout, Linear, MaxPool2d, Module, ReLU, Sequential
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

Stages = Sequence[Sequence[int]]
STAGES = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg13": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "vgg19": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


class VGG(Network):
    """`features`, stages of 3×3 convolutions that each end in 2×2 max pooling; mean pooling; and a dense `classifier`.

    stages      outputs of the convolutions of each stage
    batch_norm  behind every convolution
    pooled      the size that mean pooling brings the features to: 7 as published
    hidden      widths of the dense layers before the last, each followed by ReLU and dropout

    The usual form for small images is `pooled=1, hidden=()`: global mean pooling and one dense layer. Features are
    flattened channels last, so that `classifier.0.weight` has torchvision's shape but its columns in another order.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        stages: Stages = STAGES["vgg11"],
        batch_norm: bool = False,
        pooled: int = 7,
        hidden: Sequence[int] = (4096, 4096),
        dropout: float = 0.5,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        for number in (*itertools.chain(*stages), *hidden):
            counts(name, widths=number)
        if not stages or not all(stages):
            raise ArgumentError(
                f"{name}: a stage without convolution", received=f"stages={stages}", rule="at least one"
            )
        stages = [[self.wide(m) for m in maps] for maps in stages]
        self.features = features(in_channels, stages, batch_norm)
        check_minimum(name, input_size, size_after([*self.features]))
        self.avgpool = AdaptiveAvgPool2d(pooled)
        units = [self.wide(n) for n in hidden]
        self.classifier = classifier([stages[-1][-1] * pooled**2, *units, classes], dropout)
        self.heads = (f"classifier.{3 * len(units)}",)
        begin_for_relu(self)
        begin_dense(self)

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.classifier(flatten(self.avgpool(features)))


def features(in_channels: int, stages: Stages, batch_norm: bool = False, ceil_mode: bool = False) -> Sequential:
    """The convolutions and poolings, numbered through. `ceil_mode` is that of the poolings."""
    modules: list[Module] = []
    c = in_channels
    for widths in stages:
        for m in widths:
            modules += [Conv2d(c, m, 3, padding=1), *([BatchNorm2d(m)] if batch_norm else []), ReLU()]
            c = m
        modules.append(MaxPool2d(2, ceil_mode=ceil_mode))
    return Sequential(*modules)


def classifier(widths: Sequence[int], dropout: float) -> Sequential:
    """Dense layers with ReLU and dropout between them, numbered through."""
    modules: list[Module] = []
    for n, m in itertools.pairwise(widths):
        modules += [Linear(n, m), ReLU(), Dropout(dropout)]
    return Sequential(*modules[:-2])


MODELS: dict[str, dict[str, Any]] = {
    name + "_bn" * batch_norm: {
        "about": f"{len([*itertools.chain(*stages)])} convolutions of 3×3" + ", batch normalisation" * batch_norm,
        "make": VGG,
        "in_channels": 3,
        "input_size": 224,
        "stages": stages,
        "batch_norm": batch_norm,
    }
    for name, stages in STAGES.items()
    for batch_norm in (False, True)
}
