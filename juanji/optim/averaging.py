"""Averages of weights over the steps of a training."""

from __future__ import annotations

from typing import Any

from juanji.cell import Cell, Stateful
from juanji.checks import fraction
from juanji.errors import ArgumentError
from juanji.nn import init
from juanji.ops.math import minimum
from juanji.tensor import Tensor


class ExponentialMovingAverage(Stateful):
    """A running mean of what a network learns, which is better than the last step's weights and costs no training:

        p̄ ← d·p̄ + (1 − d)·p,   d = min(decay, (1 + t)/(10 + t)) after t updates

    so that the beginning is forgotten. Buffers of floating numbers, such as running statistics, are averaged too;
    others are taken over. Source: Polyak and Juditsky, SIAM J. Control Optim. 1992; the rise of d is TensorFlow's.

    The averages are cells that begin as what the network holds: `update` can be traced and compiled with the step, and
    they are saved and restored like an optimiser. Raises ArgumentError for a decay outside [0, 1).
    """

    def __init__(self, model: Stateful, decay: float = 0.999) -> None:
        fraction("ExponentialMovingAverage", decay=decay)
        self.decay = decay
        self.updates: Any = Cell((), init.zeros, kind="slot", dtype="int64")
        self.values = Average()
        for path, cell in model.cells("parameter", "buffer").items():
            self.values.add(path, cell)

    def update(self, model: Stateful) -> None:
        """Take what the network holds now into the averages. Raises ArgumentError for another network."""
        cells = self._cells_of(model)
        self.updates = self.updates + 1
        done = self.updates.astype("float64")
        decay = minimum((done + 1) / (done + 10), self.decay)
        for path, cell in cells.items():
            self.values.move(path, cell.read(), decay)

    def copy_to(self, model: Stateful) -> None:
        """Put the averages into the network."""
        for path, cell in self._cells_of(model).items():
            cell.write(self.values.read(path))

    def _cells_of(self, model: Stateful) -> dict[str, Cell]:
        cells = model.cells("parameter", "buffer")
        shapes = {path: cell.shape for path, cell in self.values.cells().items()}
        if shapes != {path: cell.shape for path, cell in cells.items()}:
            raise ArgumentError(
                "ExponentialMovingAverage: this is not the network that is averaged",
                received=f"{len(cells)} parameters and buffers",
                rule=f"the same {len(shapes)}, with the same shapes",
                fix="ExponentialMovingAverage(model, …) for this model",
            )
        return cells


class Average(Stateful):
    """For each cell of a network one of its path, shape and dtype."""

    def add(self, path: str, cell: Cell) -> None:
        self._cells[path] = Cell(cell.shape, init.zeros, kind="slot", dtype=cell.dtype)
        self._cells[path].write(cell.read())

    def read(self, path: str) -> Tensor:
        return self._cells[path].read()

    def move(self, path: str, value: Tensor, decay: Tensor) -> None:
        if value.is_floating:
            share = decay.astype(value.dtype)
            value = self.read(path) * share + value * (1 - share)
        self._cells[path].write(value)
