"""Maps of the plane, and images seen through them: however many are composed, pixels are resampled once.

A map is a 3×3 matrix on (x, y, 1): where in the old image a place of the new one comes from. Places are measured in
pixels from the top left corner, so that the middle of the first pixel is (½, ½). One change after another is the
product of their matrices in that order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji.graph import Array

ROUNDING = 1e-6  # pixels


def box(top: Array, left: Array, height: Array, width: Array, size: tuple[int, int]) -> Array:
    """The part of an image in a box, brought to `size` (H, W): (n, 3, 3) for boxes given by (n,) each."""
    maps = np.zeros((len(top), 3, 3))
    maps[:, 0, 0], maps[:, 0, 2] = width / size[1], left
    maps[:, 1, 1], maps[:, 1, 2] = height / size[0], top
    maps[:, 2, 2] = 1
    return maps


def mirror(across: Array, down: Array, size: tuple[int, int]) -> Array:
    """Left and right exchanged where `across`, top and bottom where `down`: (n, 3, 3) for booleans (n,) each."""
    height, width = size
    return box(height * down, width * across, height * (1.0 - 2 * down), width * (1.0 - 2 * across), size)


def rotation(degrees: Any, size: tuple[int, int]) -> Array:
    """The image turned about its centre: (…, 3, 3) for angles (…)."""
    angle, (y, x) = np.deg2rad(degrees), (size[0] / 2, size[1] / 2)
    cos, sin, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rows = [[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y], [zero, zero, zero + 1]]
    return np.moveaxis(np.array(rows, np.float64), (0, 1), (-2, -1))


def shear(x: float = 0.0, y: float = 0.0) -> Array:
    """x += x·y and y += y·x, about the top left corner."""
    return np.array([[1, x, 0], [y, 1, 0], [0, 0, 1]], np.float64)


def translation(x: float = 0.0, y: float = 0.0) -> Array:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def resample(image: Any, matrix: Array, size: tuple[int, int]) -> Any:
    """A Pillow image seen through a map (3, 3), `size` (H, W): bilinearly, averaging where it gets smaller; what comes
    in from outside is black."""
    from PIL import Image

    height, width = size
    if image.size == (width, height) and np.array_equal(matrix, np.eye(3)):
        return image
    a, b, c, d, e, f = matrix[:2].ravel().tolist()
    if b == d == 0 and contains(image.size[0], c, c + a * width) and contains(image.size[1], f, f + e * height):
        return stretched(image, (c, f, c + a * width, f + e * height), size)
    # Four pixels are looked at, which would leave out some of an image that gets much smaller: it is averaged before.
    smaller = max(1, math.floor(math.sqrt(abs(a * e - b * d))))
    if smaller > 1:
        image = image.reduce(smaller)
    data = (matrix[:2] / smaller).ravel().tolist()
    return image.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def contains(extent: int, start: float, end: float) -> bool:
    return min(start, end) >= -ROUNDING and max(start, end) <= extent + ROUNDING


def stretched(image: Any, corners: tuple[float, float, float, float], size: tuple[int, int]) -> Any:
    """The part of an image from (left, top) to (right, bottom), in reverse where these come first."""
    from PIL import Image

    x, y = np.clip(corners[::2], 0, image.size[0]), np.clip(corners[1::2], 0, image.size[1])
    part = (float(x.min()), float(y.min()), float(x.max()), float(y.max()))
    image = image.resize(size[::-1], Image.Resampling.BILINEAR, box=part)
    if x[0] > x[1]:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if y[0] > y[1] else image
