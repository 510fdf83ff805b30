"""One step of training: forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from juanji.autodiff import value_and_grad
from juanji.cell import Cell, Stateful
from juanji.engine.compiled import Compiled, on_definitions
from juanji.errors import NonFiniteError
from juanji.graph import Array
from juanji.nn.auxiliary import main_logits, with_auxiliary
from juanji.nn.module import Module
from juanji.ops import equal
from juanji.optim import ExponentialMovingAverage, Optimizer, clip_grad_norm
from juanji.optim.optimizer import Slot
from juanji.tensor import Tensor
from juanji.train.diagnosis import advice, diagnose, is_finite
from juanji.train.threads import one_thread

Loss = Callable[[Tensor, Tensor], Tensor]
Grads = dict[str, Tensor]
Found = tuple[Tensor, Tensor]


class Stepper:
    """A network, its optimiser and its loss, one step at a time, each of which is one run of a compiled plan.

    loss       of (logits, labels) to a scalar, the mean over the labels; those of auxiliary heads are added to it,
               `nn.with_auxiliary`
    batch      images of a step; the last of an epoch may have fewer
    precision  of `juanji.compile`
    average    a mean of the weights to take along
    clip_norm  longest gradient; 0 for any
    parts      so many smaller batches make a step
    mass       of labels (n,) to what the loss's mean over them is divided by; needed to add up parts
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Loss,
        batch: int | None = None,
        precision: str = "float32",
        *,
        average: ExponentialMovingAverage | None = None,
        clip_norm: float = 0.0,
        parts: int = 1,
        mass: Callable[[Array], float] = len,
    ) -> None:
        self.model, self.loss, self.average, self.clip_norm, self.mass = model, loss, average, clip_norm, mass
        self.optimizer: Any = optimizer  # whose learning rate is a cell, read as a tensor and written as a number
        self.parts, self.batch, self.precision = parts, batch and -(-batch // parts), precision
        self.gathered = Slot(model.cells("parameter")) if parts > 1 else None
        self.freeze(())

    def freeze(self, paths: Sequence[str]) -> None:
        """Leave these parameters as they are from the next step on."""
        self.frozen = frozenset(paths)
        options: dict[str, Any] = {"batch": self.batch, "precision": self.precision}
        self.whole, self.part = Compiled(self.update, **options), Compiled(self.gather, **options)
        self.last = Compiled(self.finish, **options)

    def step(self, x: Array, y: Array, place: str = "") -> tuple[float, int]:
        """Forward, loss, backward, update. Returns the loss and how many answers were right, before the update.

        x (N, H, W, C), y (N,), or (N, classes) shares. Where the loss, a gradient or an updated parameter is not
        finite, nothing changes and NonFiniteError says in which layer that began; `place` is put in its text.
        """
        try:
            return self.in_parts(x, y) if self.parts > 1 else self.taken(self.whole, self.update, x, y)
        except NonFiniteError:
            raise self.explained(Tensor(x), Tensor(y), place) from None

    def taken(self, compiled: Compiled, function: Callable[..., Found], *args: Any) -> tuple[float, int]:
        """A function of (images, labels, …) to (loss, right), on a plan or on the definitions."""
        # A plan reads arrays where they lie; a tensor is a copy.
        plain = on_definitions()
        loss, right = self.defined(function, *map(Tensor, args)) if plain else compiled(*map(np.asarray, args))
        return float(loss), int(right)

    # What a plan does

    def update(self, images: Tensor, labels: Tensor) -> Found:
        """One step, without a look at the values: the loss, and how many answers are right."""
        loss, right, grads = self.differentiate(images, labels)
        self.descend(grads)
        return loss, right

    def differentiate(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Grads]:
        """Loss, right answers, and the gradient by every parameter."""
        (loss, logits), grads = value_and_grad(self.objective(labels), has_aux=True)(self.model, images)
        true = labels.argmax(axis=-1) if labels.is_floating else labels.astype("int64")
        return loss, equal(logits.argmax(axis=-1), true).astype("int64").sum(), grads

    def objective(self, labels: Tensor) -> Callable[[Module, Tensor], tuple[Tensor, Tensor]]:
        def objective(model: Module, images: Tensor) -> tuple[Tensor, Tensor]:
            outputs = model(images)
            return with_auxiliary(self.loss)(outputs, labels), main_logits(outputs)

        return objective

    def descend(self, grads: Grads) -> None:
        """Along the gradients: clipped, to the optimiser, and what comes out into the mean of the weights."""
        if self.clip_norm:
            moving = {path: g for path, g in grads.items() if path not in self.frozen}
            grads = {**grads, **clip_grad_norm(moving, self.clip_norm)}
        self.optimizer.update(self.model, grads, self.frozen)
        if self.average:
            self.average.update(self.model)

    # A step in parts

    def in_parts(self, x: Array, y: Array) -> tuple[float, int]:
        """The step as several smaller batches, whose gradients are added up in the proportion of what they count."""
        before = {cell: cell.read() for cell in self.model.cells().values() if cell.kind != "parameter"}
        all_mass, loss, right = self.mass(y), 0.0, 0
        try:
            for number, chosen in enumerate(np.array_split(np.arange(len(y)), self.parts_of(len(y)))):
                share = np.float64(self.mass(y[chosen]) / all_mass)
                kept = np.float64(number > 0)  # the first part replaces what was gathered before
                part = self.taken(self.part, self.gather, x[chosen], y[chosen], share, kept)
                loss, right = loss + float(share) * part[0], right + part[1]
            self.taken(self.last, self.finish)
        except BaseException:
            restore(before)
            raise
        return loss, right

    def parts_of(self, images: int) -> int:
        """How many parts so many images make: no more than they fill, and so none of a single image without need."""
        return -(-images // self.batch) if self.batch else min(self.parts, images)

    def gather(self, images: Tensor, labels: Tensor, share: Tensor, kept: Tensor) -> Found:
        loss, right, grads = self.differentiate(images, labels)
        for path, cell in self.gathered.cells().items() if self.gathered else ():
            cell.write(cell.read() * kept.astype(cell.dtype) + grads[path] * share.astype(cell.dtype))
        return loss, right

    def finish(self) -> Found:
        """The step along what was gathered."""
        self.descend({path: cell.read() for path, cell in self.gathered.cells().items()} if self.gathered else {})
        return self.optimizer.lr, self.optimizer.updates

    # Values that are not finite

    def defined(self, function: Callable[..., Found], *args: Tensor) -> Found:
        """A function on the definitions. Raises NonFiniteError, with all as it was, where a compiled one would."""
        before = snapshot(*self.owners())
        with one_thread():
            result = function(*args)
        # A gradient that is not finite leaves no parameter finite, so it need not be looked at.
        if not all(map(is_finite, (*result, *self.model.state_dict().values()))):
            restore(before)
            raise NonFiniteError("training: the loss, or what was to be written, is not finite")
        return result

    def owners(self) -> list[Stateful]:
        """Everything that a step changes."""
        return [owner for owner in (self.model, self.optimizer, self.average, self.gathered) if owner is not None]

    def explained(self, images: Tensor, labels: Tensor, place: str) -> NonFiniteError:
        """The error for a step that was not taken: it is taken on the definitions, looked at, and undone."""
        before, objective = snapshot(*self.owners()), self.objective(labels)
        try:
            with one_thread():
                _, grads = value_and_grad(objective, has_aux=True)(self.model, images)
                self.descend(grads)
                updated = self.model.state_dict()
                restore(before)
                at, found = diagnose(self.model, objective, images, grads, updated)
        finally:
            restore(before)
        return NonFiniteError(
            f"training: {found}",
            at=at,
            received=place,
            rule="the network and the optimiser are still those before this step",
            fix=advice(images, float(self.optimizer.lr)),
        )


def snapshot(*owners: Stateful) -> dict[Cell, Tensor]:
    """All state of models and optimisers. Tensors never change, so nothing is copied."""
    return {cell: cell.read() for owner in owners for cell in owner.cells().values()}


def restore(values: dict[Cell, Tensor]) -> None:
    for cell, value in values.items():
        cell.write(value)
