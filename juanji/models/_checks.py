"""Checks that the models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from juanji.errors import ShapeError, describe
from juanji.tensor import Tensor

Size = tuple[int, int]


def check_minimum(name: str, size: Size, left: Callable[[int], int]) -> tuple[int, int]:
    """What is left of images of that size, by `left` along each axis. Raises ShapeError, with the minimum, for none."""
    if min(left(n) for n in size) < 1:
        least = next(n for n in range(1, 10_000) if left(n) >= 1)
        raise ShapeError(
            f"{name}: the images are too small",
            received=f"input_size {size}",
            rule=f"at least {least}×{least}, so that a pixel is left after the last pooling",
            fix=f"input_size={least} or more, or the model 'perceptron'",
        )
    return left(size[0]), left(size[1])


def layout_hint(shape: tuple[int, ...], size: Size, channels: int) -> str:
    """How to get (N, H, W, C) from images of `shape` that only lack axes or have them in another order; else ""."""
    batch = shape[:1]
    hints = {
        (*batch, channels, *size): "images are channels last, (N, H, W, C): x.transpose(0, 2, 3, 1)",
        (channels, *size): "images are channels last, (N, H, W, C): x.transpose(1, 2, 0)[None]",
        (*size, channels): "add an axis for the batch first: x[None]",
        size: "add an axis for the batch first and one for the channels last: x[None, ..., None]",
    }
    if channels == 1:
        hints[*batch, *size] = "add an axis for the channels last: x[..., None], or (H, W, 1) as an input shape"
    return hints.get(shape, "")


def expect(name: str, x: Any, size: Size, channels: int) -> Tensor:
    """x as a tensor (N, H, W, C) of the size the network was made for. Raises ShapeError for any other."""
    x = Tensor.of(x)
    if x.shape[1:] != (*size, channels):
        raise ShapeError(
            f"{name}: images of another size than the network was made for",
            received=f"input {describe(x.shape, 'NHWC')}",
            rule=f"(N, H={size[0]}, W={size[1]}, C={channels})",
            fix=layout_hint(x.shape, size, channels)
            or "resize the images, or create the model with their input_size and in_channels",
        )
    return x
