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


def expect(name: str, x: Any, size: Size, channels: int) -> Tensor:
    """x as a tensor (N, H, W, C) of the size the network was made for. Raises ShapeError for any other."""
    x = Tensor.of(x)
    if x.shape[1:] != (*size, channels):
        raise ShapeError(
            f"{name}: images of another size than the network was made for",
            received=f"input {describe(x.shape, 'NHWC')}",
            rule=f"(N, H={size[0]}, W={size[1]}, C={channels})",
            fix="resize the images, or create the model with their input_size and in_channels",
        )
    return x
