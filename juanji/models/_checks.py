"""Checks that the models share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from juanji.errors import ShapeError, describe
from juanji.nn import Conv2d, Module
from juanji.nn.pool import PoolNd
from juanji.ops.convspec import plan
from juanji.tensor import Tensor

Size = tuple[int, int]


def size_after(modules: Sequence[Module]) -> Callable[[int], int]:
    """What convolutions and poolings, in that order and among other modules, leave of so many pixels; 0 for none.

    Of modules that run side by side one is enough. Both axes are taken to be alike.
    """
    steps = [module for module in modules if isinstance(module, Conv2d | PoolNd)]

    def left(size: int) -> int:
        for step in steps:
            size = size_after_one(step, size)
            if size < 1:
                return 0
        return size

    return left


def size_after_one(step: Any, size: int) -> int:
    windows = (size, size), step.kernel_size, step.stride, step.padding, getattr(step, "dilation", 1)
    try:
        return plan(step.class_name, *windows, ceil=getattr(step, "ceil_mode", False)).output[0]
    except ShapeError:
        return 0


def check_minimum(
    name: str, size: Size, left: Callable[[int], int], fix: str = "the model 'perceptron'"
) -> tuple[int, int]:
    """What is left of images of that size, by `left` along each axis. Raises ShapeError, with the minimum, for none.

    fix  what else to do about it than to take larger images
    """
    if min(left(n) for n in size) < 1:
        least = next(n for n in itertools.count(1) if left(n) >= 1)
        raise ShapeError(
            f"{name}: the images are too small",
            received=f"input_size {size}",
            rule=f"at least {least}×{least}, so that a pixel is left after the last pooling",
            fix=f"input_size={least} or more, or {fix}",
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
