"""Inception v4 (002 §4.6): a stem that branches, and three kinds of blocks with reductions between them.

Source: Szegedy, Ioffe, Vanhoucke, Alemi, "Inception-v4, Inception-ResNet and the impact of residual connections on
learning", AAAI 2017, figures 3 to 9. Parameters have the names and counts of the usual port to PyTorch, where the
layers are `features.0` to `features.21` and `last_linear`.
"""

from __future__ import annotations

import functools
from typing import Any

from juanji.models._checks import Size, check_minimum, size_after
from juanji.models._units import Mixed, Step, Wide, chain, halving_pool, out_channels, unit
from juanji.models.network import Network
from juanji.models.resnet import begin_for_relu
from juanji.nn import AdaptiveAvgPool2d, AvgPool2d, Branches, Conv2d, Dropout, Linear, MaxPool2d, Module, Sequential
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

ROW, COLUMN = (1, 7), (7, 1)


def mean_pool(c: int, wide: Wide) -> AvgPool2d:
    """3×3 in steps of 1; padding does not count."""
    return AvgPool2d(3, 1, 1, count_include_pad=False)


# Branches: layers one after the other. Figures 4, 7, 5, 8 and, of figure 3, the middle part of the stem.
STEM_4A = {
    "branch0": [(64, 1), (96, 3, 1, 0)],
    "branch1": [(64, 1), (64, ROW), (64, COLUMN), (96, 3, 1, 0)],
}
BLOCK_A = {
    "branch0": [(96, 1)],
    "branch1": [(64, 1), (96, 3)],
    "branch2": [(64, 1), (96, 3), (96, 3)],
    "branch3": [mean_pool, (96, 1)],
}
REDUCTION_A = {
    "branch0": [(384, 3, 2)],
    "branch1": [(192, 1), (224, 3), (256, 3, 2)],
    "branch2": [halving_pool],
}
BLOCK_B = {
    "branch0": [(384, 1)],
    "branch1": [(192, 1), (224, ROW), (256, COLUMN)],
    "branch2": [(192, 1), (192, COLUMN), (224, ROW), (224, COLUMN), (256, ROW)],
    "branch3": [mean_pool, (128, 1)],
}
REDUCTION_B = {
    "branch0": [(192, 1), (192, 3, 2)],
    "branch1": [(256, 1), (256, ROW), (320, COLUMN), (320, 3, 2)],
    "branch2": [halving_pool],
}
# Figure 6.
BLOCK_C: list[list[Step]] = [
    [{"branch0": (256, 1)}],
    [{"branch1_0": (384, 1)}, {"branch1_1a": (256, (1, 3)), "branch1_1b": (256, (3, 1))}],
    [
        {"branch2_0": (384, 1)},
        {"branch2_1": (448, (3, 1))},
        {"branch2_2": (512, (1, 3))},
        {"branch2_3a": (256, (1, 3)), "branch2_3b": (256, (3, 1))},
    ],
    [{"branch3": lambda c, wide: chain(c, wide, mean_pool, (256, 1))}],
]


def side_by_side(table: dict[str, Any], c: int, wide: Wide) -> Branches:
    """The branches of a table. One of a single layer is that layer."""
    chains = {name: chain(c, wide, *layers) for name, layers in table.items()}
    return Branches({name: layers[0] if len(layers) == 1 else layers for name, layers in chains.items()})


def pooled_and_convolved(names: tuple[str, str], m: int, c: int, wide: Wide) -> Branches:
    """3×3 max pooling and a 3×3 convolution, both in steps of 2, side by side, in the order of their names."""
    layers: dict[str, Module] = {"maxpool": MaxPool2d(3, 2), "conv": unit(c, wide, m, 3, 2)}
    return Branches({name: layers[name] for name in names})


LAYERS: list[Any] = [
    (32, 3, 2),
    (32, 3, 1, 0),
    (64, 3),
    functools.partial(pooled_and_convolved, ("maxpool", "conv"), 96),
    functools.partial(side_by_side, STEM_4A),
    functools.partial(pooled_and_convolved, ("conv", "maxpool"), 192),
    *[functools.partial(side_by_side, BLOCK_A)] * 4,
    functools.partial(side_by_side, REDUCTION_A),
    *[functools.partial(side_by_side, BLOCK_B)] * 7,
    functools.partial(side_by_side, REDUCTION_B),
    *[lambda c, wide: Mixed(c, wide, BLOCK_C)] * 3,
]


class InceptionV4(Network):
    """`features`, the stem and 17 blocks one after the other; global mean pooling, dropout, and `last_linear`."""

    heads = ("last_linear",)

    def __init__(self, name: str, classes: int, in_channels: int, input_size: Size, *, width: float = 1.0) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        self.features = chain(in_channels, self.wide, *LAYERS)
        check_minimum(name, input_size, size_after(shrinking(self.features)))
        self.avgpool, self.dropout = AdaptiveAvgPool2d(1), Dropout(0.2)
        self.last_linear = Linear(out_channels(self.features, in_channels), classes)
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        return self.features(self.images(x))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.last_linear(self.dropout(flatten(self.avgpool(features))))


def shrinking(features: Sequential) -> list[Module]:
    """The layers that change the size: those without padding, of branches the first that has any."""
    found: list[Module] = []
    for layer in features:
        branches = list(layer) if isinstance(layer, Branches) else [layer]
        inside = [list(branch.modules().values()) for branch in branches]
        changing = [[step for step in steps if changes_size(step)] for steps in inside]
        found += next(filter(None, changing), [])
    return found


def changes_size(layer: Module) -> bool:
    return isinstance(layer, Conv2d | MaxPool2d) and layer.padding == 0 and max(layer.kernel_size) > 1


MODELS: dict[str, dict[str, Any]] = {
    "inception_v4": {
        "about": "a stem that branches and three kinds of blocks",
        "make": InceptionV4,
        "in_channels": 3,
        "input_size": 299,
    },
}
