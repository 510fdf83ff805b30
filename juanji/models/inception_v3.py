"""Inception v3 (002 §4.6): convolutions taken apart into 1×7 and 7×1, and an auxiliary head.

Source: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception architecture for computer vision", CVPR
2016, table 1 and figures 5 to 7. Parameters have torchvision's names and counts.
"""

from __future__ import annotations

import functools
from typing import Any

from juanji.checks import truth
from juanji.models._checks import Size, check_minimum, size_after
from juanji.models._units import BasicConv2d, Mixed, Step, halving_pool, mean_pool, module_of, out_channels
from juanji.models.network import PooledNetwork
from juanji.nn import AdaptiveAvgPool2d, AuxiliaryOutputs, AvgPool2d, Conv2d, Dropout, Linear, Module, init
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

Block = list[list[Step]]
ROW, COLUMN = (1, 7), (7, 1)


def block_a(last: int) -> Block:
    """Figure 5: 5×5 as it is, and as two of 3×3."""
    return [
        [{"branch1x1": (64, 1)}],
        [{"branch5x5_1": (48, 1)}, {"branch5x5_2": (64, 5)}],
        [{"branch3x3dbl_1": (64, 1)}, {"branch3x3dbl_2": (96, 3)}, {"branch3x3dbl_3": (96, 3)}],
        [{"pool": mean_pool}, {"branch_pool": (last, 1)}],
    ]


def block_c(m: int) -> Block:
    """Figure 6: 7×7 as 1×7 and 7×1, once and twice, with m channels inside."""
    double = [(m, 1), (m, COLUMN), (m, ROW), (m, COLUMN), (192, ROW)]
    return [
        [{"branch1x1": (192, 1)}],
        [{"branch7x7_1": (m, 1)}, {"branch7x7_2": (m, ROW)}, {"branch7x7_3": (192, COLUMN)}],
        [{f"branch7x7dbl_{i}": layer} for i, layer in enumerate(double, 1)],
        [{"pool": mean_pool}, {"branch_pool": (192, 1)}],
    ]


BLOCK_B: Block = [
    [{"branch3x3": (384, 3, 2)}],
    [{"branch3x3dbl_1": (64, 1)}, {"branch3x3dbl_2": (96, 3)}, {"branch3x3dbl_3": (96, 3, 2)}],
    [{"pool": halving_pool}],
]
BLOCK_D: Block = [
    [{"branch3x3_1": (192, 1)}, {"branch3x3_2": (320, 3, 2)}],
    [{f"branch7x7x3_{i}": layer} for i, layer in enumerate([(192, 1), (192, ROW), (192, COLUMN), (192, 3, 2)], 1)],
    [{"pool": halving_pool}],
]
# Figure 7: the last step of a branch in both directions side by side.
BLOCK_E: Block = [
    [{"branch1x1": (320, 1)}],
    [{"branch3x3_1": (384, 1)}, {"branch3x3_2a": (384, (1, 3)), "branch3x3_2b": (384, (3, 1))}],
    [
        {"branch3x3dbl_1": (448, 1)},
        {"branch3x3dbl_2": (384, 3)},
        {"branch3x3dbl_3a": (384, (1, 3)), "branch3x3dbl_3b": (384, (3, 1))},
    ],
    [{"pool": mean_pool}, {"branch_pool": (192, 1)}],
]
BLOCKS = {
    "Mixed_5b": block_a(32),
    "Mixed_5c": block_a(64),
    "Mixed_5d": block_a(64),
    "Mixed_6a": BLOCK_B,
    "Mixed_6b": block_c(128),
    "Mixed_6c": block_c(160),
    "Mixed_6d": block_c(160),
    "Mixed_6e": block_c(192),
    "Mixed_7a": BLOCK_D,
    "Mixed_7b": BLOCK_E,
    "Mixed_7c": BLOCK_E,
}
# Outputs, kernel, stride, padding; or a pooling.
STEM: Step = {
    "Conv2d_1a_3x3": (32, 3, 2),
    "Conv2d_2a_3x3": (32, 3, 1, 0),
    "Conv2d_2b_3x3": (64, 3),
    "maxpool1": halving_pool,
    "Conv2d_3b_1x1": (80, 1),
    "Conv2d_4a_3x3": (192, 3, 1, 0),
    "maxpool2": halving_pool,
}
AUXILIARY = "Mixed_6e"  # whose output the auxiliary head sees


class InceptionV3Outputs(AuxiliaryOutputs):
    """`AuxiliaryOutputs` whose auxiliary loss counts 0.4, as in the recipe of PyTorch's examples."""

    @property
    def aux_weight(self) -> float:
        return 0.4


class AuxiliaryHead(Module):
    """5×5 mean pooling in steps of 3, a 1×1 and a 5×5 convolution, the mean of what is left, logits."""

    def __init__(self, c: int, maps: int, units: int, classes: int) -> None:
        self.pool = AvgPool2d(5, 3)
        self.conv0 = BasicConv2d(c, maps, 1)
        self.conv1 = BasicConv2d(maps, units, 5)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(units, classes)

    def forward(self, x: Any) -> Tensor:
        return self.fc(flatten(self.avgpool(self.conv1(self.conv0(self.pool(x))))))


class InceptionV3(PooledNetwork):
    """A stem of five convolutions and two poolings, eleven blocks of which two halve the size, mean pooling and `fc`.

    aux  a head after `Mixed_6e` with 0.4 of the loss: in training mode the network returns `nn.AuxiliaryOutputs`. It
         sees a map of at least 17×17, so the smallest images are larger with it
    """

    def __init__(
        self, name: str, classes: int, in_channels: int, input_size: Size, *, aux: bool = True, width: float = 1.0
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        self.aux, c = truth(name, "aux", aux), in_channels
        for path, layer in STEM.items():
            setattr(self, path, module_of(layer, c, self.wide))
            c = out_channels(getattr(self, path), c)
        for path, branches in BLOCKS.items():
            setattr(self, path, Mixed(c, self.wide, branches))
            c = getattr(self, path).out_channels
            if path == AUXILIARY and aux:
                self.AuxLogits = AuxiliaryHead(c, self.wide(128), self.wide(768), classes)
        fix = "aux=False, which takes smaller ones" if aux else "the model 'googlenet' with stem='small'"
        check_minimum(name, input_size, size_after(self.shrinking()), fix)
        self.avgpool, self.dropout = AdaptiveAvgPool2d(1), Dropout(0.5)
        self.fc = Linear(c, classes)
        self.heads = ("fc", "AuxLogits.fc") if aux else ("fc",)
        self.begin()

    def shrinking(self) -> list[Any]:
        """The layers that change the size on the way to the auxiliary head, which wants most, or to the end."""
        stem = [getattr(getattr(self, path), "conv", getattr(self, path)) for path in STEM]
        stem.append(self.Mixed_6a.pool)
        return [*stem, self.AuxLogits.pool, self.AuxLogits.conv1.conv] if self.aux else [*stem, self.Mixed_7a.pool]

    def begin(self) -> None:
        """torchvision's: normal with standard deviation 0.1, in the auxiliary head 0.01 and 0.001."""
        special = {"AuxLogits.conv1.conv": 0.01, "AuxLogits.fc": 0.001}
        for path, layer in self.modules().items():
            if isinstance(layer, Conv2d | Linear):
                std = special.get(path, 0.1)
                layer.cells("parameter")["weight"].init = functools.partial(init.normal, std=std)

    def outputs(self, x: Any) -> dict[str, Tensor]:
        """What the stem's layers and the blocks give."""
        x, outputs = self.images(x), {}
        for path in (*STEM, *BLOCKS):
            outputs[path] = x = getattr(self, path)(x)
        return outputs

    def forward_features(self, x: Any) -> Tensor:
        return self.outputs(x)["Mixed_7c"]

    def forward(self, x: Any) -> Any:
        """Logits; with the auxiliary head and in training mode `AuxiliaryOutputs`."""
        outputs = self.outputs(x)
        logits = self.forward_head(outputs["Mixed_7c"])
        if not (self.aux and self.training):
            return logits
        return InceptionV3Outputs(logits, (self.AuxLogits(outputs[AUXILIARY]),))


MODELS: dict[str, dict[str, Any]] = {
    "inception_v3": {
        "about": "convolutions taken apart into 1×7 and 7×1, as torchvision's",
        "make": InceptionV3,
        "in_channels": 3,
        "input_size": 299,
    },
}
