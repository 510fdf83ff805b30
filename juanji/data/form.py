"""How an image of any size becomes one of the network's size: cut, stretched or with a border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from juanji.checks import one_of
from juanji.data.images import eight_bits, opened, upright
from juanji.errors import ArgumentError
from juanji.graph import Array

Box = tuple[float, float, float, float]
MEANING = 2  # is raised when the same form comes to give other pixels, and what was kept must be decoded anew
GAP = 2  # a JPEG is decoded smaller where it stays so many times as large as what is wanted; then it is averaged


def whole(height: int, width: int, size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
    return (0, 0, width, height), size


def middle(height: int, width: int, size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
    scale = min(height / size[0], width / size[1])
    rows, columns = size[0] * scale, size[1] * scale
    # Whole pixels, so that what is only cut stays sharp; and never −1, where rounding makes the cut a little too large.
    top, left = max((height - rows) // 2, 0), max((width - columns) // 2, 0)
    return (left, top, min(left + columns, width), min(top + rows, height)), size


def within(height: int, width: int, size: tuple[int, int]) -> tuple[Box, tuple[int, int]]:
    scale = max(height / size[0], width / size[1])
    return (0, 0, width, height), (max(round(height / scale), 1), max(round(width / scale), 1))


# By name: of an image (height, width), what is shown (left, top, right, bottom) and the size (H, W) it is brought to.
RESIZE: dict[str, Callable[[int, int, tuple[int, int]], tuple[Box, tuple[int, int]]]] = {
    "crop": middle,
    "stretch": whole,
    "pad": within,
}


@dataclass(frozen=True)
class Form:
    """The form that all images of a set are brought to.

    size      (H, W)
    channels  1 grey, 3 colour, 4 colour with transparency
    resize    "crop": the largest middle part of the same proportions; "stretch": all of it, proportions changed;
              "pad": all of it, with a black border. Where an image gets smaller, pixels are averaged.

    Raises ArgumentError for anything else.
    """

    size: tuple[int, int]
    channels: int
    resize: str = "crop"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ArgumentError("images: bad size", received=str(self.size), rule="(H, W), at least 1 each")
        one_of("images", "resize", self.resize, RESIZE)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return (*self.size, self.channels)

    @property
    def identity(self) -> str:
        """What changes when the pixels do that an image becomes."""
        return f"{self!r} {MEANING}"

    def read(self, file: str | Path | bytes, name: str = "image") -> Array:
        """The image in a file, or of its content, as uint8 (H, W, C). Raises DataError, as `read_image`."""
        with opened(file, name) as (image, named):
            least = GAP * max(self.size)
            image.draft(None, (least, least))
            image = eight_bits(upright(image), named, self.channels)
            values = self.fitted(image)
        return values if values.ndim == 3 else values[..., None]

    def of(self, x: Array) -> Array:
        """An image (H, W, C) of bytes, or of float32 in 0…1, in this form; its channels stay as they are."""
        from PIL import Image

        if x.shape[:2] == self.size:
            return x
        planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(x, -1, 0))
        return np.stack([self.fitted(plane) for plane in planes], axis=-1)

    def fitted(self, image: Any) -> Array:
        """The pixels of a Pillow image, brought to the size: (H, W) or (H, W, C)."""
        from PIL import Image

        box, (height, width) = RESIZE[self.resize](image.height, image.width, self.size)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), Image.Resampling.BILINEAR, box, reducing_gap=GAP)
        values = np.asarray(image)
        if (height, width) == self.size:
            return values
        top, left = (self.size[0] - height) // 2, (self.size[1] - width) // 2
        framed = np.zeros((*self.size, *values.shape[2:]), values.dtype)
        framed[top : top + height, left : left + width] = values
        return framed
