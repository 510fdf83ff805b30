"""Checks and ways of showing arguments that layers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from juanji.errors import ArgumentError, ShapeError, describe
from juanji.ops.convspec import SPATIAL, letters, pairs
from juanji.tensor import Tensor


def counts(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a whole number of at least 1."""
    for argument, value in arguments.items():
        if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < 1:
            raise ArgumentError(
                f"{name}: bad {argument}",
                received=f"{argument}={value!r}",
                rule="a whole number of at least 1",
            )


def share(name: str, **arguments: Any) -> None:
    """Raise ArgumentError unless every argument is a number from 0 to 1."""
    for argument, value in arguments.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ArgumentError(f"{name}: bad {argument}", received=f"{argument}={value!r}", rule="from 0 to 1")


def one_of(name: str, argument: str, value: Any, choices: Sequence[str]) -> str:
    """`value`, or ArgumentError where it is none of `choices`."""
    if value not in choices:
        raise ArgumentError(
            f"{name}: unknown {argument}",
            received=f"{argument}={value!r}",
            rule="one of " + ", ".join(map(repr, choices)),
        )
    return str(value)


def dividing(name: str, groups: int, **channels: int) -> None:
    """Raise ArgumentError unless `groups` divides all of the channels."""
    counts(name, groups=groups, **channels)
    if any(count % groups for count in channels.values()):
        raise ArgumentError(
            f"{name}: the groups do not divide the channels",
            received=", ".join(f"{key}={value}" for key, value in {"groups": groups, **channels}.items()),
            rule="the channels are multiples of groups",
        )


def padding_of(name: str, padding: Any, rank: int) -> Any:
    """`padding` if it is of a form that a convolution over `rank` axes takes; ArgumentError otherwise."""
    unit = (1,) * rank
    pairs(name, padding, unit, unit, unit)
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
