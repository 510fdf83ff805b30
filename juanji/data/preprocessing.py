"""What is done to an image before a network sees it: kept with the network, so that prediction does the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from juanji.data.dataset import Images
from juanji.data.form import Form
from juanji.errors import ArgumentError
from juanji.graph import Array

BLOCK = 256  # images that are read at a time
FLAT = 1e-6  # a standard deviation that is only rounding


@dataclass(frozen=True)
class Preprocessing:
    """Size (H, W), number of channels, and the mean and standard deviation of each channel of images in 0…1.

    resize  how images come to this size: "crop", "stretch" or "pad", see `Form`
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str = "stretch"

    @classmethod
    def of(cls, images: Images, size: tuple[int, int] | None = None, resize: str = "stretch") -> Preprocessing:
        """What gives the channels of a training part mean 0 and variance 1; its own size (H, W) by default."""
        _, height, width, channels = images.x.shape
        count, total, squares = 0, np.zeros(channels), np.zeros(channels)
        for start in range(0, len(images), BLOCK):
            x = images.read(slice(start, start + BLOCK)).reshape(-1, channels).astype(np.float64)
            count, total, squares = count + len(x), total + x.sum(axis=0), squares + (x * x).sum(axis=0)
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean * mean, 0))
        std[std < FLAT] = 1  # a channel of one value has nothing to scale
        return cls(size or (height, width), channels, tuple(mean.tolist()), tuple(std.tolist()), resize)

    @property
    def form(self) -> Form:
        """The form of the images."""
        return Form(self.size, self.channels, self.resize)

    def __call__(self, x: Array) -> Array:
        """Images (N, H, W, C) in 0…1, of this size, standardised. Raises ArgumentError for other than floats."""
        dtype = getattr(x, "dtype", None)
        if dtype is None or np.dtype(dtype).kind != "f":
            raise ArgumentError(
                "preprocessing: no images in 0…1",
                received=f"a {type(x).__name__}" + (f" of {dtype}" if dtype is not None else ""),
                rule="floats (N, H, W, C)",
                fix="np.stack([run.config.preprocessing.read(file) for file in files])",
            )
        return (x - np.asarray(self.mean, x.dtype)) / np.asarray(self.std, x.dtype)

    def read(self, file: str | Path | bytes, name: str = "image") -> Array:
        """An image file, or its content, as float32 (H, W, C) in 0…1, brought to this size and number of channels as
        the images were that the network was trained on; not yet standardised.

        name  what errors call it where only the content is given
        """
        return self.form.read(file, name).astype(np.float32) * np.float32(1 / 255)
