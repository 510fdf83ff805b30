"""Inception v1 (002 §4.4.3, 004 §10): GoogLeNet as published, and with batch normalisation as torchvision has it.

Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, table 1 and §5. Parameters of `googlenet` have
torchvision's names and counts; those of `inception_v1` the same names where there is no batch normalisation.
"""

from __future__ import annotations

import functools
from typing import Any

from juanji.checks import one_of, truth
from juanji.models._checks import Size, check_minimum, size_after
from juanji.models._units import BasicConv2d
from juanji.models.network import PooledNetwork
from juanji.nn import (
    AdaptiveAvgPool2d,
    AuxiliaryOutputs,
    Branches,
    Conv2d,
    Dropout,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Sequential,
    init,
)
from juanji.ops.math import relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

# Table 1: outputs of the 1×1 branch; of the bottleneck and the 3×3 convolution; the same for 5×5; after pooling.
BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
POOLED_BEFORE = {"inception4a": "maxpool3", "inception5a": "maxpool4"}
AUXILIARY = {"aux1": "inception4a", "aux2": "inception4d"}  # the heads, and whose output they see


class Inception(Branches):
    """1×1, 3×3 and 5×5 convolutions (or 3×3 instead, as torchvision has it) and 3×3 max pooling, side by side."""

    def __init__(self, c: int, widths: tuple[int, ...], kernel: int, batch_norm: bool) -> None:
        unit = functools.partial(BasicConv2d, batch_norm=batch_norm)
        b1, reduce3, b3, reduce5, b5, pool = widths
        super().__init__(
            {
                "branch1": unit(c, b1, 1),
                "branch2": Sequential(unit(c, reduce3, 1), unit(reduce3, b3, 3, padding=1)),
                "branch3": Sequential(unit(c, reduce5, 1), unit(reduce5, b5, kernel, padding=kernel // 2)),
                "branch4": Sequential(MaxPool2d(3, 1, 1), unit(c, pool, 1)),
            }
        )
        self.out_channels = b1 + b3 + b5 + pool


class AuxiliaryHead(Module):
    """Mean pooling to 4×4, a 1×1 convolution, a dense layer with ReLU, dropout, logits.

    The paper pools 5×5 in steps of 3, which makes 4×4 of the 14×14 that there are with images of 224×224.
    """

    def __init__(self, c: int, maps: int, units: int, classes: int, batch_norm: bool) -> None:
        self.avgpool = AdaptiveAvgPool2d(4)
        self.conv = BasicConv2d(c, maps, 1, batch_norm=batch_norm)
        self.fc1 = Linear(16 * maps, units)
        self.dropout = Dropout(0.7)
        self.fc2 = Linear(units, classes)

    def forward(self, x: Any) -> Tensor:
        x = flatten(self.conv(self.avgpool(x)))
        return self.fc2(self.dropout(relu(self.fc1(x))))


class GoogLeNet(PooledNetwork):
    """A stem, nine Inception blocks with two poolings between them, and in training mode two auxiliary heads.

    stem  "large": 7×7 convolution with stride 2 and two 3×3 poolings with stride 2, as published; "small", for images
          of about 32×32: a 3×3 convolution with stride 1 and no pooling
    aux   heads after `inception4a` and `inception4d`, each with 0.3 of the loss: in training mode the network returns
          `nn.AuxiliaryOutputs`
    """

    batch_norm, kernel, last_pool, drop = True, 3, 2, 0.2

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        stem: str = "large",
        aux: bool = True,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        self.add_stem(one_of(name, "stem", stem, ("large", "small")) == "small")
        self.maxpool3 = MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = MaxPool2d(self.last_pool, 2, ceil_mode=True)
        check_minimum(name, input_size, size_after(self.shrinking()))
        c = self.conv3.out_channels
        inputs = {}
        for block, widths in BLOCKS.items():
            setattr(self, block, Inception(c, tuple(map(self.wide, widths)), self.kernel, self.batch_norm))
            inputs[block] = c = getattr(self, block).out_channels
        self.aux = truth(name, "aux", aux)
        for head, block in AUXILIARY.items() if aux else ():
            sizes = inputs[block], self.wide(128), self.wide(1024)
            setattr(self, head, AuxiliaryHead(*sizes, classes, self.batch_norm))
        self.avgpool, self.dropout = AdaptiveAvgPool2d(1), Dropout(self.drop)
        self.fc = Linear(c, classes)
        self.heads = ("fc", *(f"{head}.fc2" for head in AUXILIARY if aux))
        self.begin()

    def add_stem(self, small: bool) -> None:
        a, b, m = self.wide(64), self.wide(64), self.wide(192)
        unit = functools.partial(BasicConv2d, batch_norm=self.batch_norm)
        self.conv1 = unit(self.in_channels, a, *((3, 1, 1) if small else (7, 2, 3)))
        self.maxpool1 = None if small else MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = unit(a, b, 1)
        self.conv3 = unit(b, m, 3, padding=1)
        self.maxpool2 = None if small else MaxPool2d(3, 2, ceil_mode=True)

    def shrinking(self) -> list[Any]:
        """The layers that change the size, in order."""
        return [self.conv1.conv, self.maxpool1, self.maxpool2, self.maxpool3, self.maxpool4]

    def begin(self) -> None:
        """torchvision's: normal with standard deviation 0.01 everywhere, which batch normalisation makes up for."""
        for layer in self.modules().values():
            if isinstance(layer, Conv2d | Linear):
                layer.cells("parameter")["weight"].init = functools.partial(init.normal, std=0.01)

    def stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = x if self.maxpool1 is None else self.maxpool1(x)
        x = self.conv3(self.conv2(x))
        return x if self.maxpool2 is None else self.maxpool2(x)

    def outputs(self, x: Any) -> dict[str, Tensor]:
        """What each block gives."""
        x, outputs = self.stem(self.images(x)), {}
        for block in BLOCKS:
            if block in POOLED_BEFORE:
                x = getattr(self, POOLED_BEFORE[block])(x)
            outputs[block] = x = getattr(self, block)(x)
        return outputs

    def forward_features(self, x: Any) -> Tensor:
        return self.outputs(x)["inception5b"]

    def forward(self, x: Any) -> Any:
        """Logits; with auxiliary heads and in training mode `AuxiliaryOutputs`."""
        outputs = self.outputs(x)
        logits = self.forward_head(outputs["inception5b"])
        if not (self.aux and self.training):
            return logits
        aux_logits = tuple(getattr(self, head)(outputs[block]) for head, block in AUXILIARY.items())
        return AuxiliaryOutputs(logits, aux_logits)


class InceptionV1(GoogLeNet):
    """As published: no batch normalisation but local response normalisation in the stem, and true 5×5 convolutions.

    Weights begin uniform with variance 1/fan in and biases at 0.2, those of logits at 0, as in the replication that
    came with Caffe; the paper says nothing of it.
    """

    batch_norm, kernel, last_pool, drop = False, 5, 3, 0.4

    def add_stem(self, small: bool) -> None:
        super().add_stem(small)
        self.norm1, self.norm2 = LocalResponseNorm(5), LocalResponseNorm(5)

    def stem(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.norm1(x if self.maxpool1 is None else self.maxpool1(x))
        x = self.norm2(self.conv3(self.conv2(x)))
        return x if self.maxpool2 is None else self.maxpool2(x)

    def begin(self) -> None:
        for path, layer in self.modules().items():
            if isinstance(layer, Conv2d | Linear):
                cells = layer.cells("parameter")
                cells["weight"].init = functools.partial(init.kaiming_uniform, gain=1.0)
                cells["bias"].init = init.zeros if path in self.heads else functools.partial(init.constant, value=0.2)


MODELS: dict[str, dict[str, Any]] = {
    "inception_v1": {
        "about": "GoogLeNet as published: 5×5 convolutions, local response normalisation",
        "make": InceptionV1,
        "in_channels": 3,
        "input_size": 224,
    },
    "googlenet": {
        "about": "GoogLeNet with batch normalisation and 3×3 for 5×5, as torchvision's",
        "make": GoogLeNet,
        "in_channels": 3,
        "input_size": 224,
    },
}
