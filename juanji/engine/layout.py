"""Where tensors lie in memory: row by row, with a border of zeros where a convolution wants one, or as views."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from juanji.graph import Array, Node
from juanji.kernels.elements import dense
from juanji.kernels.lowering import Place
from juanji.kernels.text import KINDS
from juanji.tensor import Tensor

Border = tuple[tuple[int, int], ...]
LINE = 64  # bytes of a cache line
MEETING = 2048  # bytes: what lies a multiple of them apart meets in two places of the first cache


@dataclass(frozen=True)
class Layout:
    """The memory of one stored tensor.

    border   how many zeros lie before and after it along each axis, if a convolution reads it
    rounded  whether its floats are rounded to bfloat16

    Pixels that a convolution reads do not begin a multiple of 2 KB apart: those of a tile would meet in one or two
    places of the first cache, which holds eight. So there is a gap of one cache line between them (measured: 1.2 to
    1.5 times as fast with 512 and 1024 channels).
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    border: Border = ()
    rounded: bool = False

    @property
    def itemsize(self) -> int:
        return 2 if self.rounded else self.dtype.itemsize

    @property
    def kind(self) -> str:
        """The kind of what lies there, as its zeros are written."""
        return "i16" if self.rounded else KINDS[self.dtype.name]

    @property
    def extents(self) -> tuple[int, ...]:
        if not self.border:
            return self.shape
        *sizes, channels = (low + n + high for n, (low, high) in zip(self.shape, self.border, strict=True))
        return (*sizes, channels + gap(self.shape, self.itemsize))

    @property
    def strides(self) -> tuple[int, ...]:
        return dense(self.extents)

    @property
    def origin(self) -> int:
        """How many elements lie before element 0, 0, …"""
        return sum(low * step for (low, _), step in zip(self.border, self.strides, strict=False))

    @property
    def nbytes(self) -> int:
        return math.prod(self.extents) * self.itemsize

    def view(self, memory: Array, start: int) -> Array:
        """The tensor in `memory`, bytes, where its buffer begins at byte `start`."""
        first = start + self.origin * self.dtype.itemsize
        return strided(memory, first, self.shape, self.strides, self.dtype)


def gap(shape: Sequence[int], itemsize: int) -> int:
    """How many elements lie between the channels of neighbouring pixels."""
    return LINE // itemsize if shape[-1] * itemsize % MEETING == 0 else 0


def strided(memory: Array, first: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array whose element 0, 0, … is at byte `first` of `memory`, with strides in elements."""
    base: Array = np.frombuffer(memory, dtype, 1 if math.prod(shape) else 0, first)
    steps = tuple(step * dtype.itemsize for step in strides)
    return as_strided(base, shape, steps)


def widened(x: Array) -> Array:
    """Numbers in bfloat16, given as their bits, in float32, of which those are the upper half."""
    return (x.astype(np.uint32) << 16).view(np.float32)


def moved(node: Node, place: Place) -> Place | None:
    """Where the output of a movement lies, if it is a view of an input that lies at `place`."""
    (x,), strides = node.inputs, place.strides
    if node.name == "transpose":
        return replace(place, strides=tuple(strides[a] for a in node.attrs["axes"]))
    if node.name == "slice":
        start = sum(first * step for (first, _, _), step in zip(node.attrs["index"], strides, strict=True))
        steps = tuple(by * step for (_, _, by), step in zip(node.attrs["index"], strides, strict=True))
        return replace(place, strides=steps, offset=place.offset + start)
    if node.name == "flip":
        axes = node.attrs["axes"]
        start = sum((x.shape[a] - 1) * strides[a] for a in axes)
        steps = tuple(-step if a in axes else step for a, step in enumerate(strides))
        return replace(place, strides=steps, offset=place.offset + start)
    if node.name == "broadcast_to":
        extra = len(node.outputs[0].shape) - x.ndim
        steps = tuple(0 if n == 1 else step for n, step in zip(x.shape, strides, strict=True))
        return replace(place, strides=(0,) * extra + steps)
    if node.name == "reshape" and strides == dense(x.shape):
        return replace(place, strides=dense(node.outputs[0].shape))
    return None


def places(nodes: Iterable[Node], stored: Mapping[int, Place]) -> dict[int, Place]:
    """The places of everything stored and of all views of it."""
    known = dict(stored)
    for node in nodes:
        if len(node.inputs) == 1 and id(node.outputs[0]) not in known:
            (x,) = node.inputs
            if id(x) in known and (place := moved(node, known[id(x)])) is not None:
                known[id(node.outputs[0])] = place
    return known


def add_border(borders: dict[int, Border], x: Tensor, need: Iterable[tuple[int, int]] | None = None) -> None:
    """Widen the border of images x (N, *X, C) to what one more convolution needs, which reads it."""
    need = [(0, 0)] * (x.ndim - 2) if need is None else need
    wanted = ((0, 0), *need, (0, 0))
    had = borders.get(id(x), ((0, 0),) * x.ndim)
    wide = tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(had, wanted, strict=True))
    if any(map(any, wide)) or gap(x.shape, x.dtype.itemsize):
        borders[id(x)] = wide
