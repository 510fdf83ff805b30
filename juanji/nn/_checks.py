"""What layers share: checks of the images they are called with, and how they show their arguments."""

from __future__ import annotations

from typing import Any

from juanji.errors import ShapeError, describe
from juanji.ops.convspec import SPATIAL, letters, padding_pairs
from juanji.tensor import Tensor


def padding_of(name: str, padding: Any, rank: int) -> Any:
    """`padding` if it is of a form that a convolution over `rank` axes takes; ArgumentError otherwise."""
    unit = (1,) * rank
    padding_pairs(name, padding, unit, unit, unit)
    return padding


def images(name: str, x: Any, rank: int) -> Tensor:
    """x as a tensor with `rank` spatial axes between batch and channels; ShapeError otherwise."""
    x = Tensor.of(x)
    if x.ndim != rank + 2:
        raise ShapeError(
            f"{name}: wrong rank",
            received=f"input of shape {x.shape}",
            rule=f"{rank + 2} axes, ({', '.join(letters(rank))})",
            fix="add an axis of size 1 for the batch or the channels" if x.ndim == rank + 1 else "",
        )
    return x


def with_channels(name: str, x: Tensor, channels: int) -> Tensor:
    """x if it has that many channels, on its last axis; ShapeError otherwise."""
    if x.shape[-1:] != (channels,):
        axes = letters(x.ndim - 2) if x.ndim - 2 in SPATIAL else ""
        raise ShapeError(
            f"{name}: the channels do not match",
            received=f"input {describe(x.shape, axes)}",
            rule=f"the last axis holds {channels} channels",
            fix="images are channels last: (N, H, W, C)" if channels in x.shape[1:-1] else "",
        )
    return x


def compact(sizes: Any) -> Any:
    """(5, 5) as 5, everything else as it is."""
    return sizes[0] if isinstance(sizes, tuple) and sizes and len(set(sizes)) == 1 else sizes


def shown(*arguments: Any, **options: tuple[Any, Any]) -> str:
    """`3, 16, 5, stride=2` from arguments and from options given as (value, default)."""
    named = [f"{key}={compact(value)!r}" for key, (value, default) in options.items() if compact(value) != default]
    return ", ".join([*(f"{compact(value)!r}" for value in arguments), *named])
