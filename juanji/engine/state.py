"""The memory in which plans read and write cells.

A cell that a plan touches gets a home there, which all plans share. While a plan runs step after step the values stay
at home; whoever reads the cell gets a copy, and what is written to it from outside is copied in before the next step.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.graph import Array
from juanji.tensor import Tensor

LINE = 64


def aligned(shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
    """A zeroed array that begins with a cache line, and has as much behind it."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + 2 * LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(dtype).reshape(shape)


class Home:
    """A cell's memory. `version` is that of the cell when both held the same."""

    def __init__(self, cell: Cell) -> None:
        self.array = aligned(cell.shape, cell.dtype)
        self.address = self.array.ctypes.data
        self.version = -1

    def fetch(self) -> Tensor:
        """A copy of what lies here, as a tensor."""
        return Tensor(self.array)


HOMES: weakref.WeakKeyDictionary[Cell, Home] = weakref.WeakKeyDictionary()


def home(cell: Cell) -> Home:
    if cell not in HOMES:
        HOMES[cell] = Home(cell)
    return HOMES[cell]


def bring(cell: Cell, to: Home) -> bool:
    """Move the cell's value home if it is not there; whether that was needed."""
    if to.version == cell.version:
        return False
    np.copyto(to.array, cell.stored().array)
    cell.move(to.fetch)
    to.version = cell.version
    return True


def written(cell: Cell, at: Home) -> None:
    """Tell the cell that a plan has changed what lies at its home."""
    cell.lend(at.fetch)
    at.version = cell.version
