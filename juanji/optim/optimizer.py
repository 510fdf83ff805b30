"""What every optimiser shares: state in cells, one check of the gradients, one walk over the parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from juanji.cell import Cell, Stateful
from juanji.errors import ArgumentError
from juanji.nn import init
from juanji.tensor import Tensor

Slots = dict[str, Tensor]


class Optimizer(Stateful):
    """Base of the optimisers. A subclass names its `slots` and defines `step`, the formula for one parameter.

    The learning rate (`lr`, which can be assigned), the number of updates done (`updates`) and the slots are cells, so
    an optimiser can be traced, compiled, saved and restored like a module.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, model: Stateful, lr: float, *, weight_decay: float = 0.0) -> None:
        name = type(self).__name__
        positive(name, lr=lr)
        nonnegative(name, weight_decay=weight_decay)
        self.weight_decay = weight_decay
        self.lr: Any = Cell((), init.constant_of(lr), kind="slot", dtype="float64")
        self.updates: Any = Cell((), init.zeros, kind="slot", dtype="int64")
        self.shapes = {path: cell.shape for path, cell in model.cells("parameter").items()}
        if not self.shapes:
            raise ArgumentError(f"{name}: nothing to train", received=f"{type(model).__name__} without parameters")
        for path, cell in model.cells("parameter").items():
            for slot in self.slots:
                setattr(self, f"{slot}.{path}", Cell(cell.shape, init.zeros, kind="slot", dtype=cell.dtype))

    def update(self, model: Stateful, grads: Mapping[str, Tensor]) -> None:
        """One step: write new values to the model's parameters and to the slots.

        grads  `{name: Tensor}` over the model's parameters, as `value_and_grad` gives them

        Raises ArgumentError that lists every missing, unknown and misshapen name; nothing is changed then.
        """
        cells = model.cells("parameter")
        self._check({path: cell.shape for path, cell in cells.items()}, "the model's parameters")
        self._check({path: tuple(g.shape) for path, g in grads.items()}, "the gradients")
        self.updates = self.updates + 1
        for path, cell in cells.items():
            slots = {slot: getattr(self, f"{slot}.{path}") for slot in self.slots}
            value, slots = self.step(cell.read(), grads[path], slots)
            cell.write(value)
            for slot, tensor in slots.items():
                setattr(self, f"{slot}.{path}", tensor)

    def step(self, p: Tensor, g: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        """The parameter after one step along its gradient g, and its slots."""
        raise NotImplementedError(f"{type(self).__name__} has no step")

    def decayed(self, p: Tensor, g: Tensor) -> Tensor:
        """The gradient of the loss with the penalty ½·λ·‖p‖² added."""
        return g + p * self.weight_decay if self.weight_decay else g

    def rate(self, p: Tensor) -> Tensor:
        """The learning rate in the parameter's dtype."""
        rate: Tensor = self.lr.astype(p.dtype)
        return rate

    def _check(self, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
        complaints = [f"missing {path}" for path in self.shapes if path not in shapes]
        complaints += [f"unknown {path}" for path in shapes if path not in self.shapes]
        complaints += [
            f"misshapen {path} {shape}, expected {self.shapes[path]}"
            for path, shape in shapes.items()
            if self.shapes.get(path, shape) != shape
        ]
        if complaints:
            raise ArgumentError(
                f"{type(self).__name__}.update: {what} are not those the optimiser was made for",
                received="; ".join(complaints),
                rule="the same names with the same shapes",
                fix=f"opt = {type(self).__name__}(model, …) for this model, grads from value_and_grad over it",
            )

    def __repr__(self) -> str:
        options = {key: value for key, value in vars(self).items() if key not in ("shapes", "slots") and key[0] != "_"}
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        return f"{type(self).__name__}(lr={float(self._cells['lr'].stored()):g}, {shown})"


def positive(name: str, **options: float) -> None:
    """Raise ArgumentError unless every option is a finite number above 0."""
    for option, value in options.items():
        if not (math.isfinite(value) and value > 0):
            raise ArgumentError(f"{name}: bad {option}", received=f"{option}={value!r}", rule="above 0")


def nonnegative(name: str, **options: float) -> None:
    """Raise ArgumentError unless every option is a finite number, 0 or more."""
    for option, value in options.items():
        if not (math.isfinite(value) and value >= 0):
            raise ArgumentError(f"{name}: bad {option}", received=f"{option}={value!r}", rule="0 or more")


def fraction(name: str, **options: float) -> None:
    """Raise ArgumentError unless every option lies in [0, 1)."""
    for option, value in options.items():
        if not 0 <= value < 1:
            raise ArgumentError(f"{name}: bad {option}", received=f"{option}={value!r}", rule="in [0, 1)")


def bias_correction(beta: float, updates: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """1 − β^t, by which a running mean that began at 0 falls short after t updates."""
    correction: Tensor = (1 - beta ** updates.astype("float64")).astype(dtype)
    return correction
