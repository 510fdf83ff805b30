"""What is done to an image before a network sees it: kept with the network, so that prediction does the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from juanji.data.dataset import Images
from juanji.data.images import read_image
from juanji.graph import Array

BLOCK = 256  # images that are read at a time
FLAT = 1e-6  # a standard deviation that is only rounding


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
        count, total, squares = 0, np.zeros(channels), np.zeros(channels)
        for start in range(0, len(images), BLOCK):
            x = images.read(slice(start, start + BLOCK)).reshape(-1, channels).astype(np.float64)
            count, total, squares = count + len(x), total + x.sum(axis=0), squares + (x * x).sum(axis=0)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean * mean, 0))
        std[std < FLAT] = 1  # a channel of one value has nothing to scale
        return cls((height, width), channels, tuple(mean.tolist()), tuple(std.tolist()))

    def __call__(self, x: Array) -> Array:
        """Images (N, H, W, C) in 0…1, of this size, standardised."""
        return (x - np.asarray(self.mean, x.dtype)) / np.asarray(self.std, x.dtype)

    def read(self, source: str | Path | bytes, name: str | None = None) -> Array:
        """An image file, or the bytes of one, as (H, W, C) in 0…1, brought to this size and number of channels; not yet
        standardised. `name` is what errors call it."""
        return read_image(source, self.channels, self.size, name)
