"""Tensors in a file: shape and kind of number are known, and checked, before numbers are read."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np

from juanji.graph import Array

# By the names of safetensors: how NumPy reads them. Of bfloat16, which it does not know, the bits.
DTYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
    "BOOL": "?",
}
MOST_AXES, MOST_NUMBERS = 32, 2**63


@dataclass(eq=False)
class Storage:
    """Numbers that lie side by side in a file, for one tensor or several.

    start  the first byte
    crc    the CRC-32 of the bytes, 0 where there is none
    order  of the bytes of a number: "<", the lowest first, or ">"
    """

    dtype: str
    count: int
    start: int = 0
    crc: int = 0
    order: Literal["<", ">"] = "<"

    @property
    def size(self) -> int:
        """In bytes."""
        return self.count * np.dtype(DTYPES[self.dtype]).itemsize

    def read(self, file: BinaryIO) -> Array:
        """The numbers (count,). Raises ValueError where the file ends before, or the bytes were changed."""
        file.seek(self.start)
        content = file.read(self.size)
        if len(content) != self.size:
            raise ValueError(f"{self.size} bytes at {self.start} reach beyond the end of the file")
        if self.crc and zlib.crc32(content) != self.crc:
            raise ValueError(f"the {self.size} bytes at {self.start} have another CRC-32 than when they were written")
        return np.frombuffer(content, np.dtype(DTYPES[self.dtype]).newbyteorder(self.order))


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in a file: the numbers of a storage from `offset` on, `strides` apart along each axis.

    Raises ValueError for one that does not lie within its storage.
    """

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) > MOST_AXES or len(self.shape) != len(self.strides):
            raise ValueError(f"a tensor of {len(self.shape)} axes with {len(self.strides)} strides")
        if not all(map(is_size, numbers)):
            raise ValueError("sizes, strides and offset of a tensor are whole numbers of 0 to 2⁶³ − 1")
        last = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        if all(self.shape) and self.offset + last >= self.storage.count:
            raise ValueError(f"a tensor {self.shape} reaches beyond its {self.storage.count} numbers")

    @property
    def dtype(self) -> str:
        return self.storage.dtype

    @property
    def kind(self) -> str | None:
        """As of NumPy's dtypes; None for numbers that cannot be read."""
        return "f" if self.dtype == "BF16" else np.dtype(DTYPES[self.dtype]).kind if self.dtype in DTYPES else None

    def of(self, numbers: Array) -> Array:
        """The tensor, given its storage's numbers; bfloat16 as float32, everything else as it is."""
        if not all(self.shape):
            return np.zeros(self.shape, "f4")
        steps = [stride * numbers.itemsize for stride in self.strides]
        array = np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False)
        return widened(array) if self.dtype == "BF16" else array


def is_size(value: Any) -> bool:
    """Whether a value can count or number what is in memory. Arithmetic on much larger numbers takes for ever."""
    return type(value) is int and 0 <= value < MOST_NUMBERS


def widened(bits: Array) -> Array:
    """bfloat16 as float32: its bits are the upper half."""
    return (bits.astype("u4") << 16).view("f4")


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of an array whose last axis changes fastest."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
