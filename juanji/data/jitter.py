"""Small random changes of the images, so that a network does not learn them by heart (002 §4.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from juanji.checks import nonnegative
from juanji.graph import Array


@dataclass(frozen=True)
class Jitter:
    """A small random shift, turn, zoom and slant of each image; what comes in from outside is black.

    shift   at most this part of the height or width, each way
    turn    at most so many degrees, each way
    zoom    at most this part larger or smaller, height and width each for itself
    slant   at most this shear, x += slant·y

    Raises ArgumentError for a number below 0.
    """

    shift: float = 0.0
    turn: float = 0.0
    zoom: float = 0.0
    slant: float = 0.0

    def __post_init__(self) -> None:
        nonnegative("jitter", shift=self.shift, turn=self.turn, zoom=self.zoom, slant=self.slant)

    def __call__(self, x: Array, draws: Array) -> Array:
        """Images x (N, H, W, C) changed by numbers `draws` (N, 6 or more) in [0, 1)."""
        signed = (2 * draws[:, :6].T - 1).astype(np.float32)
        shift_y, shift_x, turn, zoom_y, zoom_x, slant = signed[:, :, None, None]  # each (N, 1, 1)
        angle = math.radians(self.turn) * turn
        cos, sin, slant = np.cos(angle), np.sin(angle), self.slant * slant
        height, width = x.shape[1:3]
        # Where in the old image a pixel of the new one comes from: rotation · shear · scaling around the centre.
        rows = np.arange(height, dtype=np.float32)[None, :, None] - (height - 1) / 2
        columns = np.arange(width, dtype=np.float32)[None, None, :] - (width - 1) / 2
        across = columns + slant * rows
        source_y = (1 + self.zoom * zoom_y) * (cos * rows + sin * across) + self.shift * height * shift_y
        source_x = (1 + self.zoom * zoom_x) * (cos * across - sin * rows) + self.shift * width * shift_x
        return sample(x, source_y + (height - 1) / 2, source_x + (width - 1) / 2)


def sample(x: Array, rows: Array, columns: Array) -> Array:
    """x (N, H, W, C) at fractional positions (N, Y, X) between pixels, bilinearly; zero outside."""
    n, height, width, channels = x.shape
    # A border of zeros takes every position outside.
    padded = np.pad(x, ((0, 0), (1, 2), (1, 2), (0, 0))).reshape(-1, channels)
    rows, columns = np.clip(rows, -1, height) + 1, np.clip(columns, -1, width) + 1
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top)[..., None], (columns - left)[..., None]
    first = (np.arange(n)[:, None, None] * (height + 3) + top) * (width + 3) + left
    upper = padded[first] * (1 - right) + padded[first + 1] * right
    lower = padded[first + width + 3] * (1 - right) + padded[first + width + 4] * right
    changed: Array = (upper * (1 - down) + lower * down).astype(x.dtype)
    return changed
