"""What every optimiser shares: state in cells, one check of the gradients, one walk over the parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping
from typing import Any

from juanji.cell import Cell, Stateful
from juanji.checks import nonnegative, positive, same_names
from juanji.errors import ArgumentError
from juanji.nn import init
from juanji.tensor import DType, Tensor

Slots = dict[str, Tensor]
Factors = dict[str, Any]


class Slot(Stateful):
    """What an optimiser remembers of one kind, such as a running mean: for each parameter a cell of its path."""

    def __init__(self, parameters: Mapping[str, Cell]) -> None:
        for path, cell in parameters.items():
            self._cells[path] = Cell(cell.shape, init.zeros, kind="slot", dtype=cell.dtype)

    def __getitem__(self, path: str) -> Cell:
        return self._cells[path]


class Optimizer(Stateful):
    """Base of the optimisers. A subclass names its `slots` and defines `step`, the formula for one parameter.

    The learning rate (`lr`, which can be assigned), the number of updates done (`updates`) and the slots are cells, so
    an optimiser can be traced, compiled, saved and restored like a module. `multipliers`, {path: factor}, which is
    empty at first, gives single parameters a learning rate of their own, that many times `lr`; see `multiplied`.
    """

    slots: tuple[str, ...] = ()
    multipliers: Mapping[str, float] = {}  # replaced, never changed

    def __init__(self, model: Stateful, lr: float, *, weight_decay: float = 0.0) -> None:
        name = self.class_name
        positive(name, lr=lr)
        nonnegative(name, weight_decay=weight_decay)
        if not isinstance(model, Stateful):
            raise ArgumentError(
                f"{name}: an optimiser takes the model",
                received=f"a {type(model).__name__}",
                rule="it finds the parameters in the model, and updates them there",
                fix=f"{name}(model, …)",
            )
        parameters = model.cells("parameter")
        if not parameters:
            raise ArgumentError(f"{name}: nothing to train", received=f"{type(model).__name__} without parameters")
        self.weight_decay = weight_decay
        self.lr: Any = Cell((), init.constant_of(lr), kind="slot", dtype="float64")
        self.updates: Any = Cell((), init.zeros, kind="slot", dtype="int64")
        self.shapes = {path: cell.shape for path, cell in parameters.items()}
        for slot in self.slots:
            setattr(self, slot, Slot(parameters))

    def update(self, model: Stateful, grads: Mapping[str, Tensor], frozen: Collection[str] = ()) -> None:
        """One step: write new values to the model's parameters and to the slots.

        grads   `{name: Tensor}` over the model's parameters, as `value_and_grad` gives them
        frozen  paths of parameters that stay as they are, weight decay or not, as do their slots

        Raises ArgumentError that lists every missing, unknown and misshapen name; nothing is changed then.
        """
        if isinstance(frozen, str) or not self.shapes.keys() >= set(frozen):
            raise ArgumentError(
                f"{self.class_name}.update: what is frozen are no parameters",
                received=repr(frozen)[:200],
                rule=f"paths of parameters, such as {', '.join([*self.shapes][:3])}",
                fix="{path for path in model.parameters() if path.startswith(…)}",
            )
        cells = model.cells("parameter")
        self._check({path: cell.shape for path, cell in cells.items()}, "the model's parameters")
        self._check({path: tuple(g.shape) for path, g in grads.items()}, "the gradients")
        self.updates = self.updates + 1
        cells = {path: cell for path, cell in cells.items() if path not in frozen}
        kinds = {path: (cell.dtype, self.multipliers.get(path, 1.0)) for path, cell in cells.items()}
        factors = {kind: self.factors(*kind) for kind in dict.fromkeys(kinds.values())}
        for path, cell in cells.items():
            slots = {slot: getattr(self, slot)[path] for slot in self.slots}
            remembered = {slot: place.read() for slot, place in slots.items()}
            value, remembered = self.step(cell.read(), grads[path], remembered, factors[kinds[path]])
            cell.write(value)
            for slot, place in slots.items():
                place.write(remembered[slot])

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "lr" and not isinstance(value, Cell | Tensor):
            nonnegative(self.class_name, lr=value)
        super().__setattr__(name, value)

    def factors(self, dtype: DType, multiplier: float = 1.0) -> Factors:
        """The numbers in the formula that are the same for all parameters of a dtype with a multiplier: the learning
        rate, in that dtype, and λ, by which what learns faster is pulled no more than the others."""
        rate = self.lr if multiplier == 1 else self.lr * multiplier
        return {"rate": rate.astype(dtype), "decay": self.weight_decay / max(multiplier, 1.0)}

    def step(self, p: Tensor, g: Tensor, slots: Slots, factors: Factors) -> tuple[Tensor, Slots]:
        """The parameter after one step along its gradient g, and its slots."""
        raise NotImplementedError(f"{self.class_name} has no step")

    def decayed(self, p: Tensor, g: Tensor, factors: Factors) -> Tensor:
        """The gradient of the loss with the penalty ½·λ·‖p‖² added."""
        return g + p * factors["decay"] if factors["decay"] else g

    def _check(self, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
        same_names(
            ArgumentError,
            f"{self.class_name}.update: {what} are not those the optimiser was made for",
            self.shapes,
            shapes,
            fix=f"opt = {self.class_name}(model, …) for this model, grads from value_and_grad over it",
        )

    def __repr__(self) -> str:
        options = {key: value for key, value in vars(self).items() if key not in ("shapes", "slots") and key[0] != "_"}
        options.pop("multipliers", None)  # which may be hundreds
        shown = ", ".join(f"{key}={value}" for key, value in options.items())
        return f"{self.class_name}(lr={float(self._cells['lr'].stored()):g}, {shown})"


def multiplied(optimizer: Optimizer, patterns: Mapping[str, float]) -> Optimizer:
    """The optimiser, with learning rates that many times as high for the parameters whose paths match a pattern.

    Weight decay pulls none of them more than the others, by lr·λ: else what learns fast would be held at zero.

    patterns  {pattern: factor}, with * and ? as in file names: {"*.bn?.bias": 64.0}; the last that matches counts

    Raises ArgumentError for a pattern that no parameter matches, or a factor that is not above 0.
    """
    found: dict[str, float] = {}
    for pattern, factor in patterns.items():
        positive("learning-rate multiplier", **{pattern: factor})
        paths = fnmatch.filter(optimizer.shapes, pattern)
        if not paths:
            raise ArgumentError(
                "learning-rate multiplier: no parameter matches",
                received=repr(pattern),
                rule=f"* and ? as in file names, of paths such as {', '.join([*optimizer.shapes][:3])}",
            )
        found |= dict.fromkeys(paths, float(factor))
    optimizer.multipliers = found
    return optimizer
