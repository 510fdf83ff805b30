"""Plain convolutional networks: a few blocks of convolution and pooling, then dense layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from juanji.errors import ArgumentError
from juanji.models._checks import Size, check_minimum, expect
from juanji.nn import BatchNorm2d, Conv2d, Linear, MaxPool2d, Module
from juanji.nn._checks import counts
from juanji.ops.math import relu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor


class ConvNet(Module):
    """Blocks of convolution, batch normalisation if wanted, 2×2 max pooling and ReLU; then dense layers with ReLU.

    title       the model's name, for errors
    channels    outputs of the convolutions `conv1`, `conv2`, …
    kernel      their size; no padding
    same_first  pad the first one so that it keeps the size, as LeNet-5 does with images of 28×28
    hidden      widths of the dense layers `fc1`, `fc2`, … before the last, which gives the logits
    batch_norm  put `bn1`, `bn2`, … behind the convolutions

    Pooling stands before ReLU, which changes no value, because both keep order, and is less work.
    """

    def __init__(
        self,
        classes: int,
        in_channels: int,
        input_size: Size,
        title: str = "ConvNet",
        channels: Sequence[int] = (8, 16),
        kernel: int = 5,
        hidden: Sequence[int] = (128,),
        same_first: bool = False,
        batch_norm: bool = False,
    ) -> None:
        for width in (*channels, *hidden):
            counts(title, widths=width)
        if not channels:
            raise ArgumentError(f"{title}: no convolution", received="channels=()", rule="at least one")
        self.title, self.input_size, self.in_channels = title, input_size, in_channels
        self.blocks, self.dense = len(channels), len(hidden) + 1
        paddings = ["same" if same_first and not i else 0 for i in range(self.blocks)]

        def left(n: int) -> int:
            for padding in paddings:
                n = (n if padding else n - kernel + 1) // 2
            return n

        widths = [in_channels, *channels]
        for i, padding in enumerate(paddings, 1):
            setattr(self, f"conv{i}", Conv2d(widths[i - 1], widths[i], kernel, padding=padding))
            if batch_norm:
                setattr(self, f"bn{i}", BatchNorm2d(widths[i]))
            setattr(self, f"pool{i}", MaxPool2d(2))
        size = math.prod(check_minimum(title, input_size, left)) * channels[-1]
        for i, (n, m) in enumerate(zip([size, *hidden], [*hidden, classes], strict=True), 1):
            setattr(self, f"fc{i}", Linear(n, m))
        self.batch_norm = batch_norm

    def forward(self, x: Any) -> Tensor:
        x = self.features(x)
        for i in range(1, self.dense):
            x = relu(getattr(self, f"fc{i}")(x))
        logits: Tensor = getattr(self, f"fc{self.dense}")(x)
        return logits

    def features(self, x: Any) -> Tensor:
        """What the dense layers see: (N, features)."""
        x = expect(self.title, x, self.input_size, self.in_channels)
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"conv{i}")(x)
            x = getattr(self, f"bn{i}")(x) if self.batch_norm else x
            x = relu(getattr(self, f"pool{i}")(x))
        return flatten(x)


# The CNN of 000: CONV1, POOL1, CONV2, POOL2, FC, SOFTMAX (which the loss takes over).
CNN_SMALL = {"title": "cnn_small", "channels": (8, 16), "kernel": 5, "hidden": (128,)}

# The network of 003 with batch normalisation.
BATCHNORM_NET = {
    "title": "batchnorm_net",
    "channels": (6, 16),
    "kernel": 3,
    "hidden": (120, 84),
    "batch_norm": True,
}

# LeNet-5 as it is drawn today: ReLU, max pooling, softmax. 61,706 parameters for 28×28×1 and ten classes.
LENET5 = {"title": "lenet5", "channels": (6, 16), "kernel": 5, "hidden": (120, 84), "same_first": True}

MODELS: dict[str, dict[str, Any]] = {
    "cnn_small": {"make": ConvNet, "in_channels": 3, "input_size": 32, **CNN_SMALL},
    "batchnorm_net": {"make": ConvNet, "in_channels": 1, "input_size": 28, **BATCHNORM_NET},
    "lenet5": {"make": ConvNet, "in_channels": 1, "input_size": 28, **LENET5},
}
