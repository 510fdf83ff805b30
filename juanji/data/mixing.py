"""Two images in one, with both labels in the same shares: MixUp and CutMix.

Sources: Zhang, Cissé, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", 2018 (arXiv 1710.09412); Yun,
Han, Oh, Chun, Choe and Yoo, "CutMix: regularization strategy to train strong classifiers with localizable features",
2019 (arXiv 1905.04899).
"""

from __future__ import annotations

import functools

import numpy as np

from juanji.graph import Array

DRAWS = 4  # for each image
STEPS = 1 << 12  # of the table of a distribution


def beta(draws: Array, alpha: float) -> Array:
    """Numbers (n,) uniform in [0, 1) as numbers distributed by Beta(α, α): through the inverse of its distribution."""
    cumulative, places = half_of_beta(alpha)
    mirrored = draws > 0.5
    half = np.interp(np.where(mirrored, 1 - draws, draws), cumulative, places) ** (1 / min(alpha, 1))
    return np.where(mirrored, 1 - half, half)


@functools.cache
def half_of_beta(alpha: float) -> tuple[Array, Array]:
    """The distribution of Beta(α, α) up to ½, where it is ½, and the places tᵐ at which it is known, m = min(α, 1).

    In t = xᵐ the density, x^(α − m)·(1 − x)^(α − 1) but for a constant, has no pole, so that a sum of trapezia will do.
    For α of 1 and more it is taken to be 1 at its largest, at ½, and cannot vanish everywhere.
    """
    power = min(alpha, 1)
    places = np.linspace(0, 0.5**power, STEPS + 1)
    x = places ** (1 / power)
    density = (1 - x if alpha < 1 else 4 * x * (1 - x)) ** (alpha - 1)
    cumulative = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return cumulative / (2 * cumulative[-1]), places


def mix(x: Array, draws: Array, mixup: float, cutmix: float) -> Array:
    """Mix each image of x (n + 1, H, W, C) with the next one, in place; the last one is only a partner.

    draws           (n, DRAWS), uniform in [0, 1)
    mixup, cutmix   α of Beta(α, α) for each way, 0 for not at all; where there are both, each image takes one of them

    Returns the share (n,) of itself that each image keeps: of its brightness, or of its pixels.
    """
    which, share, down, right = draws.astype(np.float64).T
    blended = which < 0.5 if mixup and cutmix else np.full(len(draws), bool(mixup))
    kept = np.where(blended, beta(share, mixup or 1), beta(share, cutmix or 1))
    # From the first to the last: the next image is still itself.
    for i in range(len(draws)):
        if blended[i]:
            x[i] *= np.float32(kept[i])
            x[i] += np.float32(1 - kept[i]) * x[i + 1]
        else:
            kept[i] = paste(x[i], x[i + 1], kept[i], (down[i], right[i]))
    return kept


def paste(image: Array, other: Array, kept: float, middle: tuple[float, float]) -> float:
    """Put a box of `other` in the same place of `image`, both (H, W, C), and return the share of pixels that is kept.

    The box has sides of √(1 − kept) times the image's, its middle anywhere in it; what lies outside is cut off, so that
    more may be kept than was asked.
    """
    side = np.sqrt(1 - kept)
    extent = image.shape[:2]
    ends = [[round(n * (at - side / 2)), round(n * (at + side / 2))] for n, at in zip(extent, middle, strict=True)]
    (top, bottom), (left, right) = (np.clip(pair, 0, n) for pair, n in zip(ends, extent, strict=True))
    image[top:bottom, left:right] = other[top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (extent[0] * extent[1])
