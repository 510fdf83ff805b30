"""Which part of an image is seen, and whether it is mirrored."""

from __future__ import annotations

import numpy as np

from juanji.graph import Array

TRIES = 10  # as torchvision's; so that every image draws the same number of random numbers
DRAWS = 4 * TRIES  # of `boxes`, for each image


def places(extent: int, size: int, start: Array, mirrored: Array) -> Array:
    """Where the pixels of a cut come from along an axis of `extent` pixels, (n, size).

    The cuts begin at `start` (n,) and run backwards where `mirrored` (n,). Beyond the ends the image is reflected; the
    outermost pixels are not repeated, as in NumPy's "reflect".
    """
    along = np.arange(size)
    at = start[:, None] + np.where(mirrored[:, None], size - 1 - along, along)
    period = max(1, 2 * (extent - 1))
    at %= period
    return np.minimum(at, period - at)


def cut(x: Array, rows: Array, columns: Array) -> Array:
    """The pixels of x (n, H, W, C) at `rows` (n, Y) and `columns` (n, X) of each image, (n, Y, X, C)."""
    result = np.empty((len(x), rows.shape[1], columns.shape[1], x.shape[3]), x.dtype)
    for image, at_rows, at_columns, out in zip(x, rows, columns, result, strict=True):
        # The places are inside the image; only with another mode than "raise" NumPy writes to `out` itself.
        image.take(at_rows, axis=0).take(at_columns, axis=1, out=out, mode="clip")
    return result


def boxes(
    draws: Array, extent: tuple[int, int], area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Array, Array, Array, Array]:
    """Random boxes inside images of `extent` (H, W): their tops, lefts, heights and widths, each (n,), in pixels.

    draws  (n, DRAWS), uniform in [0, 1)
    area   part of the image that a box covers, uniform between these
    ratio  width / height, its logarithm uniform between those of these

    A box that does not fit is drawn again, ten times at most; then it is the largest one of an allowed ratio, in the
    middle. Source: Szegedy et al., "Going deeper with convolutions", 2015, §6; torchvision's RandomResizedCrop.
    """
    height, width = extent
    first, second, down, right = np.moveaxis(draws.reshape(-1, TRIES, 4).astype(np.float64), 2, 0)
    areas = height * width * (area[0] + (area[1] - area[0]) * first)
    ratios = np.exp(np.log(ratio[0]) + np.log(ratio[1] / ratio[0]) * second)
    tall, wide = np.sqrt(areas / ratios), np.sqrt(areas * ratios)
    fits = (tall <= height) & (wide <= width)
    chosen = np.arange(len(draws)), fits.argmax(axis=1)
    largest = np.clip(width / height, *ratio)
    fitting = fits.any(axis=1)
    tall = np.where(fitting, tall[chosen], min(height, width / largest))
    wide = np.where(fitting, wide[chosen], min(width, height * largest))
    top, left = np.where(fitting, [down[chosen], right[chosen]], 0.5) * [height - tall, width - wide]
    return top, left, tall, wide
