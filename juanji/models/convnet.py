"""Plain convolutional networks: a few blocks of convolution and pooling, then dense layers."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts
from juanji.errors import ArgumentError
from juanji.models._checks import Size, check_minimum
from juanji.models.network import Network
from juanji.nn import BatchNorm2d, Conv2d, Linear, MaxPool2d
from juanji.ops.math import relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


class ConvNet(Network):
    """Blocks of convolution, batch normalisation if wanted, 2×2 max pooling and ReLU; then dense layers with ReLU.

    channels    outputs of the convolutions `conv1`, `conv2`, …
    kernel      their size; no padding
    same_first  pad the first one so that it keeps the size, as LeNet-5 does with images of 28×28
    hidden      widths of the dense layers `fc1`, `fc2`, … before the last, which gives the logits
    batch_norm  put `bn1`, `bn2`, … behind the convolutions

    Pooling stands before ReLU, which changes no value, because both keep order, and is less work.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        channels: Sequence[int] = (8, 16),
        kernel: int = 5,
        hidden: Sequence[int] = (128,),
        same_first: bool = False,
        batch_norm: bool = False,
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        for number in (*channels, *hidden):
            counts(name, widths=number)
        if not channels:
            raise ArgumentError(f"{name}: no convolution", received="channels=()", rule="at least one")
        channels, hidden = [self.wide(m) for m in channels], [self.wide(n) for n in hidden]
        self.blocks, self.dense, self.batch_norm = len(channels), len(hidden) + 1, batch_norm
        paddings = ["same" if same_first and not i else 0 for i in range(self.blocks)]
        widths = itertools.pairwise([in_channels, *channels])
        for i, ((n, m), padding) in enumerate(zip(widths, paddings, strict=True), 1):
            self.add_block(i, Conv2d(n, m, kernel, padding=padding))
        left = check_minimum(name, input_size, functools.partial(pixels_left, kernel=kernel, paddings=paddings))
        features = math.prod(left) * channels[-1]
        for i, (n, m) in enumerate(itertools.pairwise([features, *hidden, classes]), 1):
            setattr(self, f"fc{i}", Linear(n, m))
        self.heads = (f"fc{self.dense}",)

    def add_block(self, i: int, conv: Conv2d) -> None:
        setattr(self, f"conv{i}", conv)
        if self.batch_norm:
            setattr(self, f"bn{i}", BatchNorm2d(conv.out_channels))
        setattr(self, f"pool{i}", MaxPool2d(2))

    def forward_head(self, features: Tensor) -> Tensor:
        x = flatten(features)
        for i in range(1, self.dense):
            x = relu(getattr(self, f"fc{i}")(x))
        return getattr(self, f"fc{self.dense}")(x)

    def forward_features(self, x: Any) -> Tensor:
        x = self.images(x)
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"conv{i}")(x)
            x = getattr(self, f"bn{i}")(x) if self.batch_norm else x
            x = relu(getattr(self, f"pool{i}")(x))
        return x


def pixels_left(size: int, *, kernel: int, paddings: Sequence[str | int]) -> int:
    """What is left of so many pixels after all blocks."""
    for padding in paddings:
        size = (size if padding else size - kernel + 1) // 2
    return size


MODELS: dict[str, dict[str, Any]] = {
    # CONV1, POOL1, CONV2, POOL2, FC, SOFTMAX (which the loss takes over).
    "cnn_small": {
        "about": "two 5×5 convolutions, two poolings, dense 128 (note 000)",
        "make": ConvNet,
        "in_channels": 3,
        "input_size": 32,
        "channels": (8, 16),
        "kernel": 5,
        "hidden": (128,),
    },
    "batchnorm_net": {
        "about": "convolutions with batch normalisation (note 003)",
        "make": ConvNet,
        "in_channels": 1,
        "input_size": 28,
        "channels": (6, 16),
        "kernel": 3,
        "hidden": (120, 84),
        "batch_norm": True,
    },
}
