"""VGG-11 and VGG-16: stacks of 3×3 convolutions between 2×2 poolings (002 §4.6).

Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015, table 1,
columns A and D. Parameters have torchvision's names and counts.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts
from juanji.errors import ArgumentError
from juanji.models._checks import Size, check_minimum, expect
from juanji.models.resnet import begin_for_relu
from juanji.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
    init,
)
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

Stages = Sequence[Sequence[int]]
STAGES = {
    "vgg11": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "vgg16": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}


class VGG(Module):
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
    ) -> None:
        for width in (*itertools.chain(*stages), *hidden):
            counts(name, widths=width)
        if not stages or not all(stages):
            raise ArgumentError(
                f"{name}: a stage without convolution", received=f"stages={stages}", rule="at least one"
            )
        self.name, self.input_size, self.in_channels = name, input_size, in_channels
        check_minimum(name, input_size, lambda size: size >> len(stages))
        self.features = features(in_channels, stages, batch_norm)
        self.avgpool = AdaptiveAvgPool2d(pooled)
        self.classifier = classifier([stages[-1][-1] * pooled**2, *hidden, classes], dropout)
        begin_for_relu(self)
        for path, cell in self.cells("parameter").items():
            if path.startswith("classifier") and path.endswith("weight"):
                cell.init = functools.partial(init.normal, std=0.01)
            elif path.endswith("bias"):
                cell.init = init.zeros

    def forward(self, x: Any) -> Tensor:
        x = self.features(expect(self.name, x, self.input_size, self.in_channels))
        return self.classifier(flatten(self.avgpool(x)))


def features(in_channels: int, stages: Stages, batch_norm: bool) -> Sequential:
    """The convolutions and poolings, numbered through."""
    modules: list[Module] = []
    c = in_channels
    for widths in stages:
        for m in widths:
            modules += [Conv2d(c, m, 3, padding=1), *([BatchNorm2d(m)] if batch_norm else []), ReLU()]
            c = m
        modules.append(MaxPool2d(2))
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
