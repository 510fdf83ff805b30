"""Classical filters: convolution with kernels chosen by hand instead of learnt (002 §4.1.1, 003 eq. 6–9)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from juanji.errors import ArgumentError, ShapeError, unknown_name
from juanji.graph import Array
from juanji.ops.conv import conv


def moving_average(size: int = 3) -> Array:
    """The kernel [1/K, …, 1/K] of a mean over K samples: keeps low frequencies (002 §4.1.1.1)."""
    if size < 1:
        raise ArgumentError("moving_average: bad size", received=str(size), rule="at least 1")
    return np.full(size, 1 / size)


def gaussian(sigma: float = 1.0) -> Array:
    """A Gaussian of standard deviation `sigma` pixels, cut off at 3 sigma, of sum 1 (002 §4.1.1.2)."""
    if not 0 < sigma < math.inf:
        raise ArgumentError("gaussian: bad sigma", received=str(sigma), rule="positive, in pixels")
    radius = math.ceil(3 * sigma)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    line /= line.sum()
    return np.outer(line, line)


STRIP = 1 << 24  # elements of windows that are written out at a time
SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8

# Kernels of images by name. Sobel's is a pair: differences across and down, whose length is taken.
KERNELS: dict[str, Array] = {
    "identity": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),  # 003 eq. 6
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),  # 003 eq. 7
    "blur": np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16,  # 003 eq. 8
    "gaussian": gaussian(),
    "mean": np.full((3, 3), 1 / 9),  # 002 §4.1.1.2
    "edges": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]]),  # 003 eq. 9
    "sobel": np.stack([SOBEL, SOBEL.T]),
}
SIGNAL_KERNELS: dict[str, Array] = {
    "moving_average": moving_average(),
    "second_difference": np.array([1, -2, 1]),  # 002 eq. 4.1.4
}


def apply(image: Any, kernel: str | Array) -> Array:
    """Filter an image (H, W, C) or (H, W), each channel by itself, or a signal (N,). The size stays.

    kernel  a name from `KERNELS` (from `SIGNAL_KERNELS` for a signal), or an array (K, L) or (K,); a stack (n, K, L)
            gives the length √(y₁² + … + yₙ²) of the n results, as for Sobel's gradient

    Beyond the edge the outermost pixels are repeated. Values may leave the range of the image. Kernels are flipped, as
    in convolution proper (002 eq. 4.1.5). Raises UnknownNameError for another name, ShapeError for other ranks.
    """
    x = np.asarray(image)
    if x.ndim not in (1, 2, 3) or not x.size:
        raise ShapeError(
            "filter: not an image", received=f"shape {x.shape}", rule="(H, W, C), (H, W), or a signal (N,)"
        )
    x = x if x.dtype.kind == "f" else x.astype(np.float32)
    axes = min(x.ndim, 2)
    known = SIGNAL_KERNELS if axes == 1 else KERNELS
    if isinstance(kernel, str) and kernel not in known:
        raise unknown_name("signal kernel" if axes == 1 else "kernel", kernel, known)
    taps = np.asarray(known[kernel] if isinstance(kernel, str) else kernel, x.dtype)
    if taps.ndim == axes:
        return convolved(x, taps)
    if taps.ndim == axes + 1:
        return np.sqrt(sum(convolved(x, each) ** 2 for each in taps))
    raise ShapeError(
        "filter: the kernel does not fit", received=f"{taps.ndim} axes", rule=f"{axes}, or a stack of such"
    )


def convolved(x: Array, taps: Array) -> Array:
    """x * taps over the leading axes: channels become images of a batch, so that each is filtered by itself."""
    axes = taps.ndim
    before = [(size // 2, (size - 1) // 2) for size in taps.shape]
    padded = np.pad(x, before + [(0, 0)] * (x.ndim - axes), mode="edge")
    planes = (np.moveaxis(padded, -1, 0) if x.ndim > axes else padded[None])[..., None]
    weights, overlap = np.flip(taps)[..., None, None], taps.shape[0] - 1
    # In strips of rows: the definition of convolution writes out every window, too much for a whole photograph.
    rows = max(1, STRIP // (math.prod(planes.shape) // planes.shape[1] * taps.size))
    strips = (planes[:, i : i + rows + overlap] for i in range(0, x.shape[0], rows))
    result = np.concatenate([np.asarray(conv(strip, weights)) for strip in strips], axis=1)[..., 0]
    return np.moveaxis(result, 0, -1) if x.ndim > axes else result[0]
