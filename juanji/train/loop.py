"""The training loop, the algorithm of 003: initialise; for each epoch and batch go forward, take the loss, go backward,
update; stop when the change falls under ε."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji.autodiff import value_and_grad
from juanji.cell import Cell, Stateful
from juanji.data import Dataset, Preprocessing, batches
from juanji.engine.compiled import Compiled, on_definitions, precision_here
from juanji.errors import NonFiniteError, ShapeError
from juanji.graph import Array
from juanji.nn.auxiliary import main_logits, with_auxiliary
from juanji.nn.module import Module
from juanji.ops import equal
from juanji.optim import Optimizer, StoppingRule
from juanji.tensor import Tensor, trace
from juanji.train.diagnosis import Objective, advice, diagnose, is_finite
from juanji.train.evaluation import evaluate
from juanji.train.recipe import Recipe
from juanji.train.threads import one_thread

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One update: the epoch and the step in it, both from 1, the steps of an epoch, and the batch's results."""

    epoch: int
    number: int
    of: int
    images: int
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Epoch:
    """A row of the history. Training figures are means over the epoch's batches, changes of the images and smoothing of
    the labels included; test figures are those after the epoch, without either; None where there are no test images."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    seconds: float


class Trainer:
    """A network, its optimiser and its loss, one step at a time.

    loss       of (logits, labels) to a scalar; those of auxiliary heads are added to it, `nn.with_auxiliary`
    batch      images of a step; the last of an epoch may have fewer
    precision  of `juanji.compile`
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        loss: Loss,
        batch: int | None = None,
        precision: str = "float32",
    ) -> None:
        self.model, self.loss = model, loss
        self.optimizer: Any = optimizer  # whose learning rate is a cell, read as a tensor and written as a number
        self.compiled = Compiled(self.update, batch=batch, precision=precision)

    def step(self, x: Array, y: Array, place: str = "") -> tuple[float, float]:
        """Forward, loss, backward, update. Returns the loss and the accuracy before the update.

        x (N, H, W, C), y (N,). Where the loss, a gradient or an updated parameter is not finite, nothing changes and
        NonFiniteError says in which layer that began; `place` is put in its text.
        """
        images, labels = Tensor(x), Tensor(y)
        take = self.defined if on_definitions() else self.compiled
        try:
            loss, right = take(images, labels)
        except NonFiniteError:
            raise self.explained(images, labels, place) from None
        return float(loss), int(right) / labels.size

    def update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step, without a look at the values: the loss, and how many answers are right."""
        (loss, logits), grads = value_and_grad(self.objective(labels), has_aux=True)(self.model, images)
        self.optimizer.update(self.model, grads)
        right = equal(logits.argmax(axis=-1), labels.astype("int64"))
        return loss, right.astype("int64").sum()

    def objective(self, labels: Tensor) -> Objective:
        def objective(model: Module, images: Tensor) -> tuple[Tensor, Tensor]:
            outputs = model(images)
            return with_auxiliary(self.loss)(outputs, labels), main_logits(outputs)

        return objective

    def defined(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step on the definitions. Raises NonFiniteError, with all as it was, where a compiled one would."""
        before = snapshot(self.model, self.optimizer)
        with one_thread():
            loss, right = self.update(images, labels)
        # A gradient that is not finite leaves no parameter finite, so it need not be looked at.
        if not all(map(is_finite, (loss, *self.model.state_dict().values()))):
            restore(before)
            raise NonFiniteError("training: the loss, or what was to be written, is not finite")
        return loss, right

    def explained(self, images: Tensor, labels: Tensor, place: str) -> NonFiniteError:
        """The error for a step that was not taken: it is taken on the definitions, looked at, and undone."""
        before, objective = snapshot(self.model, self.optimizer), self.objective(labels)
        try:
            with one_thread():
                _, grads = value_and_grad(objective, has_aux=True)(self.model, images)
                self.optimizer.update(self.model, grads)
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


def fit(
    model: Module,
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[Epoch]:
    """Train `model` on `dataset` as `recipe` says: an iterator over the epochs, trained as it is walked::

        for row in fit(model, jj.data.digits()):
            print(row.epoch, row.test_accuracy)

    on_step  called after each update

    The same recipe and the same initial weights give the same bits. Test figures are always those in float32. Raises
    ShapeError for a model with other outputs than the dataset has classes, NonFiniteError where the loss or a gradient
    is NaN or infinite, ArgumentError for bfloat16 where it cannot be had.
    """
    recipe, preprocessing = recipe or Recipe(), preprocessing or Preprocessing.of(dataset.train)
    check_classes(model, dataset, preprocessing)
    precision = precision_here(recipe.precision)
    trainer = Trainer(model, recipe.make_optimizer(model), recipe.make_loss(), recipe.batch, precision)
    return rows(trainer, dataset, recipe, preprocessing, on_step)


def rows(
    trainer: Trainer,
    dataset: Dataset,
    recipe: Recipe,
    preprocessing: Preprocessing,
    on_step: Callable[[Step], None],
) -> Iterator[Epoch]:
    stop = StoppingRule(recipe.stop_epsilon) if recipe.stop_epsilon else None
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        steps = []
        for step in train_epoch(trainer, dataset, recipe, preprocessing, epoch):
            steps.append(step)
            on_step(step)
        loss, accuracy = np.average([(s.loss, s.accuracy) for s in steps], 0, [s.images for s in steps]).tolist()
        tested = test(trainer.model, dataset, preprocessing)
        yield Epoch(epoch, loss, accuracy, *tested, float(trainer.optimizer.lr), time.perf_counter() - start)
        # 003's rule, on the parameters: between epochs they move by the sum of all gradients times the learning rate.
        if stop and stop(trainer.model.parameters()):
            return


def train_epoch(
    trainer: Trainer, dataset: Dataset, recipe: Recipe, preprocessing: Preprocessing, epoch: int
) -> Iterator[Step]:
    count = -(-len(dataset.train) // recipe.batch)
    schedule = recipe.make_schedule(recipe.epochs * count)
    trainer.model.train()
    order = batches(dataset.train, recipe.batch, seed=recipe.seed, epoch=epoch, change=recipe.jitter)
    for number, (x, y) in enumerate(order, 1):
        done = (epoch - 1) * count + number - 1
        trainer.optimizer.lr = schedule(done)
        place = f"step {done + 1} (epoch {epoch}, batch {number} of {count})"
        yield Step(epoch, number, count, len(y), *trainer.step(preprocessing(x), y, place))


def test(model: Module, dataset: Dataset, preprocessing: Preprocessing) -> tuple[float | None, float | None]:
    """Loss and accuracy on the test images, None where there are none."""
    if not len(dataset.test):
        return None, None
    result = evaluate(model, preprocessing(dataset.test.read()), dataset.test.y)
    return result.loss, result.accuracy


def check_classes(model: Module, dataset: Dataset, preprocessing: Preprocessing) -> None:
    """Raise ShapeError unless the model takes the dataset's images and gives one number for each class."""
    with model.evaluating():
        output = trace(model, Tensor.spec((1, *preprocessing.size, preprocessing.channels))).outputs
    if output.shape != (1, len(dataset.classes)):
        raise ShapeError(
            "training: the model's output does not fit the dataset",
            received=f"output {output.shape} for one image",
            rule=f"(1, {len(dataset.classes)}): a number for each of the {len(dataset.classes)} classes",
            fix=f"create the model with classes={len(dataset.classes)}"
            if len(output.shape) == 2
            else "a network that gives one answer an image: juanji models --task classification",
        )
