"""A network that is quick to train on images of 32×32: it begins with whitened patches and pools as early as it can.

Source: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, 2024, and Page's ResNet-9 of 2018
that it descends from. Here the first convolution has no bias.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from juanji.errors import ShapeError
from juanji.graph import Array
from juanji.models._checks import Size
from juanji.models.network import Network
from juanji.nn import AdaptiveMaxPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, init
from juanji.nn.init import DType, Shape
from juanji.ops.activation import gelu
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

LEAST = 5e-4  # what is added to the variances of patches before they are made equal
LOOKED = 5000  # images whose patches are made white
AT_ONCE = 64  # images whose patches are written out at a time
COOL = 9  # what logits are divided by
STEP = 0.4  # share of the new in running statistics, which 1/0.4 batches are enough for


class Block(Module):
    """Two 3×3 convolutions to m channels, with batch normalisation and GELU; the first one is pooled."""

    def __init__(self, c: int, m: int) -> None:
        self.conv1 = self.conv(c, m)
        self.pool = MaxPool2d(2)
        self.norm1 = self.norm(m)
        self.conv2 = self.conv(m, m)
        self.norm2 = self.norm(m)

    def conv(self, c: int, m: int) -> Conv2d:
        conv = Conv2d(c, m, 3, padding=1, bias=False)
        conv.cells()["weight"].init = identity_first
        return conv

    def norm(self, m: int) -> BatchNorm2d:
        """With a scale that stays 1: weight decay, which pulls on the weights before it, would pull on it, too."""
        norm = BatchNorm2d(m, momentum=STEP)
        norm.cells()["weight"].kind = "buffer"
        return norm

    def forward(self, x: Any) -> Tensor:
        x = gelu(self.norm1(self.pool(self.conv1(x))))
        return gelu(self.norm2(self.conv2(x)))


class Airbench(Network):
    """`whiten`, a 2×2 convolution of patches; three blocks that halve the size; the maximum of each map; `head`.

    channels  of the blocks

    `begin_with` has `whiten` make the patches of training images white. It is best not trained: freeze="whiten".
    """

    heads = ("head",)

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        channels: Sequence[int] = (64, 256, 256),
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        least = 2 ** len(channels) + 1
        if min(input_size) < least:
            raise ShapeError(
                f"{name}: the images are too small",
                received=f"{input_size[0]}×{input_size[1]}",
                rule=f"at least {least}×{least}: a patch of 2×2, and {len(channels)} times half of what is left",
                fix="larger images, or fewer channels=, one number a block",
            )
        self.whiten = Conv2d(in_channels, 8 * in_channels, 2, bias=False)
        c, blocks = 8 * in_channels, list[Module]()
        for m in map(self.wide, channels):
            blocks.append(Block(c, m))
            c = m
        self.blocks = Sequential(*blocks)
        self.pool = AdaptiveMaxPool2d(1)
        self.head = Linear(c, classes, bias=False)

    def begin_with(self, images: Callable[[int], Array]) -> None:
        self.whiten.weight = whitening(images(LOOKED)).astype(np.float32)

    def forward_features(self, x: Any) -> Tensor:
        return self.blocks(gelu(self.whiten(self.images(x))))

    def forward_head(self, features: Tensor) -> Tensor:
        return self.head(flatten(self.pool(features))) / COOL


def whitening(images: Array) -> Array:
    """Filters (2, 2, C, 8C) whose answers to the patches of images (N, H, W, C) have variance 1 and no correlation.

    They are the eigenvectors of the patches' second moments, each divided by the root of its eigenvalue, and their
    negatives, for which GELU keeps the other half. Source: as above, section 3.1.
    """
    c = images.shape[-1]
    moments, count = np.zeros((4 * c, 4 * c)), 0
    for start in range(0, len(images), AT_ONCE):
        windows = np.lib.stride_tricks.sliding_window_view(images[start : start + AT_ONCE], (2, 2), axis=(1, 2))
        patches = windows.reshape(-1, 4 * c).astype(np.float64)
        moments, count = moments + patches.T @ patches, count + len(patches)
    values, vectors = np.linalg.eigh(moments / count)
    filters = (vectors / np.sqrt(values + LEAST))[:, ::-1].reshape(c, 2, 2, 4 * c).transpose(1, 2, 0, 3)
    return np.concatenate([filters, -filters], axis=-1)


def identity_first(state: Array, shape: Shape, dtype: DType) -> Array:
    """As `kaiming_uniform`, but the first outputs are the inputs as they are, one for each as far as they reach."""
    weight = init.kaiming_uniform(state, shape, dtype)
    first = np.arange(min(shape[-2:]))
    weight[..., first] = 0
    weight[shape[0] // 2, shape[1] // 2, first, first] = 1
    return weight


MODELS: dict[str, dict[str, Any]] = {
    "airbench94": {
        "about": "whitened patches and three blocks, quick to train on 32×32 images",
        "make": Airbench,
        "in_channels": 3,
        "input_size": 32,
    },
}
