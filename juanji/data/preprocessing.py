"""What is done to an image before a network sees it: kept with the network, so that prediction does the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from juanji.data.dataset import Images
from juanji.data.images import read_image
from juanji.graph import Array


@dataclass(frozen=True)
class Preprocessing:
    """Size (H, W), number of channels, and the mean and standard deviation of each channel of images in 0…1."""

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, images: Images) -> Preprocessing:
        """That of a training part: its size, and what gives its channels mean 0 and variance 1."""
        _, height, width, channels = images.x.shape
        mean = images.x.mean(axis=(0, 1, 2), dtype=np.float64)
        std = images.x.std(axis=(0, 1, 2), dtype=np.float64)
        std[std == 0] = 1  # a channel of one value has nothing to scale
        return cls((height, width), channels, tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, x: Array) -> Array:
        """Images (N, H, W, C) in 0…1, of this size, standardised."""
        return (x - np.asarray(self.mean, x.dtype)) / np.asarray(self.std, x.dtype)

    def read(self, path: str | Path) -> Array:
        """An image file as (H, W, C) in 0…1, brought to this size and number of channels; not yet standardised."""
        return read_image(path, self.channels, self.size)
