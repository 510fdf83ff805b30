"""State of your own modules, from a value."""

from __future__ import annotations

from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.nn.init import constant_of


def Parameter(value: Any, dtype: Any = "float32") -> Cell:  # noqa: N802 (PyTorch's name)
    """What a module trains, beginning with `value`: `self.scale = nn.Parameter(np.ones(3))`.

    From then on `self.scale` is a tensor, and assigning writes it. For random beginnings give a `jj.Cell` one of the
    initialisers of `nn.init`. A plain tensor as an attribute is a constant.
    """
    return holding(value, dtype, "parameter")


def Buffer(value: Any, dtype: Any = "float32") -> Cell:  # noqa: N802
    """What a module keeps but does not train, such as running statistics; otherwise as `Parameter`.

    With `dtype=None` the value's own is kept.
    """
    return holding(value, dtype, "buffer")


def holding(value: Any, dtype: Any, kind: str) -> Cell:
    array = np.asarray(value, dtype)
    return Cell(array.shape, constant_of(array), kind=kind, dtype=array.dtype)
