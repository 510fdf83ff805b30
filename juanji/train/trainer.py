"""The training loop, the algorithm of 003: initialise; for each epoch and batch go forward, take the loss, go backward,
update; stop when the change falls under ε."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.data import Dataset, Images, Preprocessing, batches
from juanji.data.loader import FEWEST, number_of_batches
from juanji.engine.compiled import precision_here
from juanji.errors import DataError, DTypeError, ShapeError, WeightsError
from juanji.graph import Array
from juanji.nn.module import Module
from juanji.optim import ExponentialMovingAverage, StoppingRule
from juanji.tensor import Tensor, trace
from juanji.train import freezing, limit
from juanji.train.callback import Callback
from juanji.train.checkpoint import load_checkpoint, save_checkpoint
from juanji.train.evaluation import evaluate_images, slices
from juanji.train.history import Best, Epoch, Progress, Step
from juanji.train.interrupts import uninterrupted
from juanji.train.recalibration import Recalibration
from juanji.train.recipe import Recipe
from juanji.train.stepper import Stepper, restore, snapshot
from juanji.train.validation import with_validation
from juanji.train.views import averaged

NOTHING = (None, None)
LOOKED = 1000  # images that tell whether all are still the same
RECALIBRATED = 2048  # images for the statistics of averaged weights, and at most an eighth of all


@dataclass(frozen=True)
class Saving:
    """Where a checkpoint is kept, and how often it is written besides after every epoch.

    steps, seconds  whichever comes first; 0 for never
    """

    path: Path
    steps: int = 0
    seconds: float = 60.0


class Trainer:
    """Trains a network on a dataset as a recipe says: `for row in trainer.run()` goes through the epochs.

    preprocessing  of the images; standardised by the training part's mean and deviation by default
    callbacks      are told what happens
    saving         where and how often to write checkpoints; never by default

    Each method is one step of the work and may be overridden: `objective` (the loss), `batches`, with `count` where
    there are more or fewer, `take_step`, `evaluate`. Raises ShapeError for a model with other outputs than the dataset
    has classes, DTypeError for one that is not of float32, ArgumentError for bfloat16 where it cannot be had, or for
    parts to freeze that the model does not have.
    """

    def __init__(
        self,
        model: Module,
        dataset: Dataset,
        recipe: Recipe | None = None,
        *,
        preprocessing: Preprocessing | None = None,
        callbacks: Sequence[Callback] = (),
        saving: Saving | None = None,
    ) -> None:
        self.recipe = recipe = recipe or Recipe()
        self.model, self.callbacks, self.saving = model, tuple(callbacks), saving
        self.dataset = with_validation(dataset, recipe.seed) if recipe.patience else dataset
        self.preprocessing = preprocessing or Preprocessing.of(self.dataset.train)
        self.asked = averaged(model, recipe.tta)
        check_classes(self.asked, dataset, self.preprocessing)
        self.precision = precision_here(recipe.precision)
        self.frozen = freezing.chosen(model, recipe.freeze)
        self.optimizer = recipe.make_optimizer(model)
        self.average = ExponentialMovingAverage(model, recipe.ema) if recipe.ema else None
        self.recalibrate = Recalibration(model, self.precision)
        self.loss = recipe.make_loss(np.bincount(self.dataset.train.y, minlength=len(dataset.classes)).tolist())
        self.stepper = self.make_stepper()
        self.rule = StoppingRule(recipe.stop_epsilon) if recipe.stop_epsilon else None
        self.progress, self.best = Progress(), dict[str, Tensor]()
        self.since = self.saved = time.perf_counter()
        self.settled = True  # progress and cells say the same

    # What may be overridden

    def objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar: the mean over labels (n,), or over shares of the classes (n, classes).

        It is traced like the network (`juanji.compile`). What changes during the training it reads from an attribute of
        the model: a number, for which there is a plan each, or a `Buffer`.
        """
        return self.loss(logits, labels)

    def make_stepper(self) -> Stepper:
        recipe = self.recipe
        return Stepper(
            self.model,
            self.optimizer,
            self.objective,
            recipe.batch,
            self.precision,
            average=self.average,
            clip_norm=recipe.clip_norm,
            parts=recipe.accumulate,
            mass=self.loss.mass,
        )

    def batches(self, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """The batches of the epoch that is going on, from the one with the number `start`, counted from 0: images
        (n, H, W, C), changed and standardised, and labels (n,)."""
        recipe, epoch = self.recipe, self.progress.epoch
        return batches(
            self.dataset.train,
            recipe.batch,
            seed=recipe.seed,
            epoch=epoch,
            change=recipe.augment,
            start=start,
            fewest=FEWEST,
            preprocessing=self.preprocessing,
            classes=len(self.dataset.classes),
        )

    def evaluate(self, images: Images) -> tuple[float, float]:
        """Loss and accuracy on a part of the dataset."""
        result = evaluate_images(self.asked, images, self.preprocessing)
        return result.loss, result.accuracy

    # The loop

    @property
    def count(self) -> int:
        """Steps of an epoch."""
        return number_of_batches(len(self.dataset.train), self.recipe.batch, FEWEST)

    def run(self) -> Iterator[Epoch]:
        """Train from where `progress` stands to the end: an iterator over the epochs, trained as it is walked."""
        self.since = self.saved = time.perf_counter()
        self.tell("on_start")
        if not self.progress.total:
            self.progress.total = limit.steps(self)
            self.keep()  # what was decided by the clock, before a step is taken by it
        while not self.progress.finished:
            self.begin_epoch()
            for x, y in self.batches(self.progress.batch):
                if self.progress.done >= self.progress.total:
                    break
                with uninterrupted():
                    step = self.take_step(x, y)
                    self.tell("on_step", step)
                    self.keep_if_due()
            if not self.progress.batch and self.progress.done < self.progress.total:
                raise no_batches()
            yield self.finish_epoch()
            self.since = time.perf_counter()  # what the caller does with a row is not training
        self.tell("on_end")

    def begin_epoch(self) -> None:
        """Training mode, but for what is frozen in this epoch."""
        self.model.train()
        paths = freezing.freeze(self.model, self.frozen_now)
        if set(paths) != self.stepper.frozen:
            self.stepper.freeze(paths)

    @property
    def frozen_now(self) -> freezing.Stage:
        """The modules that are frozen in this epoch."""
        return freezing.frozen_in(self.frozen, self.recipe.unfreeze_at, self.progress.epoch)

    def take_step(self, x: Array, y: Array) -> Step:
        """One update, on a batch as `batches` gives it, written down in `progress`."""
        progress, waited, n = self.progress, self.lap(), len(y)
        self.optimizer.lr = lr = self.recipe.make_schedule(progress.total)(progress.done)
        place = f"step {progress.done + 1} (epoch {progress.epoch}, batch {progress.batch + 1} of {self.count})"
        self.settled = False
        loss, right = self.stepper.step(x, y, place)
        progress.batch, progress.done, progress.images = progress.batch + 1, progress.done + 1, progress.images + n
        progress.loss, progress.right = progress.loss + loss * n, progress.right + right
        seconds, self.settled = self.lap(), True
        return Step(
            progress.epoch, progress.batch, self.count, n, loss, right / n, lr, waited, seconds, progress.total
        )  # fmt: skip

    def finish_epoch(self) -> Epoch:
        """Look at what has been learnt, decide whether to go on, tell, and write a checkpoint."""
        with self.deployed() as raw:
            progress = self.progress
            due = progress.epoch % self.recipe.eval_every == 0 or progress.done >= progress.total
            row = self.judged(look=due)
            with uninterrupted():
                self.conclude(row, raw)
                row, final = self.progress.history[-1], snapshot(self.model)
                self.tell("on_epoch", row)
        with uninterrupted():
            self.keep()
        if self.progress.finished:
            restore(final)
        else:
            self.lap()
        return row

    @contextmanager
    def deployed(self) -> Iterator[dict[Cell, Tensor]]:
        """Inside, the model holds weights as they are to be used; those that training goes on with are given."""
        raw = snapshot(self.model)
        try:
            if self.average:
                self.average.copy_to(self.model)
                some = max(1, min(RECALIBRATED, len(self.dataset.train) // 8) // self.recipe.batch)
                self.recalibrate(x for x, _ in itertools.islice(self.batches(), some))
            yield raw
        finally:
            restore(raw)

    def judged(self, look: bool = True) -> Epoch:
        """The row of this epoch, with figures of the part that is looked at."""
        progress, images, data = self.progress, max(self.progress.images, 1), self.dataset
        looked = self.looked(data.test if data.val is None else data.val) if look else NOTHING
        val, test = (NOTHING, looked) if data.val is None else (looked, NOTHING)
        train = progress.loss / images, progress.right / images
        return Epoch(progress.epoch, *train, *val, *test, float(self.optimizer.lr), 0.0)

    def looked(self, images: Images) -> tuple[float | None, float | None]:
        return self.evaluate(images) if len(images) else NOTHING

    def conclude(self, row: Epoch, raw: dict[Cell, Tensor]) -> None:
        """Write an epoch down: whether it was the best, whether it is the last, and what comes next."""
        self.settled = False
        self.lap()
        self.progress.total = limit.revised(self)
        ends = self.ends(raw)
        if ends and row.val_accuracy is row.test_accuracy is None:
            row = self.judged()
        best = self.chosen(row)
        finished = ends or self.waited(row, best)
        if finished and self.dataset.val is not None:
            loss, accuracy = self.looked(self.dataset.test)
            row = replace(row, test_loss=loss, test_accuracy=accuracy)
        self.lap()
        row = replace(row, seconds=self.progress.epoch_seconds)
        self.progress = replace(
            self.progress.next_epoch(), history=(*self.progress.history, row), best=best, finished=finished
        )
        self.settled = True

    def chosen(self, row: Epoch) -> Best | None:
        """With `patience`, the best epoch so far; the model is given its weights."""
        if not self.recipe.patience:
            return None
        if row.val_accuracy is not None and row.val_loss is not None:
            best = Best(row.epoch, row.val_accuracy, row.val_loss)
            if best.beats(self.progress.best):
                self.best = self.model.state_dict()
                return best
        if self.best:
            self.model.load_state_dict(self.best)
        return self.progress.best

    def ends(self, raw: dict[Cell, Tensor]) -> bool:
        # 003's rule, on the parameters: between epochs they move by the sum of all gradients times the learning rate.
        still = self.rule is not None and self.rule({path: raw[cell] for path, cell in self.trained().items()})
        return still or self.progress.done >= self.progress.total

    def waited(self, row: Epoch, best: Best | None) -> bool:
        """Whether another look has brought no progress for as long as patience goes."""
        if row.val_accuracy is None or best is None:
            return False
        return row.epoch - best.epoch >= self.recipe.patience

    def trained(self) -> dict[str, Cell]:
        return self.model.cells("parameter")

    # Checkpoints

    def save(self, path: str | Path) -> None:
        """Write a checkpoint: weights, optimiser, averages, place in the data, history. See `save_checkpoint`."""
        state = {
            "recipe": self.recipe.to_dict(),
            "data": fingerprint(self.dataset),
            "pixels": self.pixels,
            "progress": self.progress.to_dict(),
        }
        last = {} if self.rule is None or self.rule.last is None else dict(self.rule.last)
        save_checkpoint(path, self.state(), {"best": self.best, "last": last}, state)

    def load(self, path: str | Path) -> None:
        """Go on where a checkpoint was written, to the same bits as if nothing had come between.

        Raises WeightsError, naming the file, for one that is damaged or of another training, and DataError where the
        images have changed; nothing is changed then.
        """
        groups = {"best": self.model.cells("parameter", "buffer"), "last": self.trained()}
        cells = self.state()
        found = load_checkpoint(path, cells, groups)
        progress = self.readable(path, found.state)
        for name, cell in cells.items():
            cell.write(Tensor(found.cells[name]))
        self.progress, self.best = progress, found.groups.get("best", {})
        if self.rule is not None:
            self.rule.last = found.groups.get("last")

    def state(self) -> dict[str, Cell]:
        """Every cell of the training by path."""
        owners = {"model": self.model, "optimizer": self.optimizer, "average": self.average}
        return {
            f"{name}/{path}": cell
            for name, owner in owners.items()
            if owner is not None
            for path, cell in owner.cells().items()
        }

    @functools.cached_property
    def pixels(self) -> str:
        return pixels(self.dataset)

    def readable(self, path: str | Path, state: dict[str, Any]) -> Progress:
        recipe = {**Recipe().to_dict(), **state["recipe"]}  # of an older version, which had fewer choices
        if recipe != json.loads(json.dumps(self.recipe.to_dict())):
            raise WeightsError(
                "the checkpoint is not one of this training",
                at=str(path),
                received=differences(recipe, self.recipe.to_dict()),
                rule="a run is resumed with the choices that it began with",
                fix="resume it with those, or begin another one with its weights",
            )
        # Older checkpoints say nothing of pixels.
        if state["data"] != fingerprint(self.dataset) or state.get("pixels", self.pixels) != self.pixels:
            raise DataError(
                f"{path}: the images have changed since the run began",
                received=f"{len(self.dataset.train)} images to train on, {self.dataset.shape}",
                rule="the same images in the same order, to the pixel",
                fix="restore them, or begin another run",
            )
        return Progress.from_dict(state["progress"])

    def keep(self) -> None:
        """Write the checkpoint, where one is wanted."""
        if self.saving:
            self.save(self.saving.path)
            self.saved = time.perf_counter()
            self.tell("on_checkpoint", self.saving.path)

    def keep_if_due(self) -> None:
        if saving := self.saving:
            passed = time.perf_counter() - self.saved
            if (saving.steps and self.progress.done % saving.steps == 0) or (0 < saving.seconds <= passed):
                self.progress.total = limit.revised(self)  # which has to be kept before a step is taken by it
                self.keep()
                self.lap()

    # Small things

    def tell(self, moment: str, *what: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self, *what)

    def lap(self) -> float:
        """Seconds since the last call, which are counted as used."""
        now = time.perf_counter()
        passed, self.since = now - self.since, now
        self.progress.seconds += passed
        self.progress.epoch_seconds += passed
        return passed


def fit(
    model: Module,
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    callbacks: Sequence[Callback] = (),
) -> Iterator[Epoch]:
    """Train `model` on `dataset` as `recipe` says: an iterator over the epochs, trained as it is walked::

        for row in fit(model, jj.data.digits()):
            print(row.epoch, row.test_accuracy)

    The same recipe and the same initial weights give the same bits. Validation and test figures are always those in
    float32. Arguments and errors are those of `Trainer`; NonFiniteError comes where the loss or a gradient is NaN or
    infinite.
    """
    return Trainer(model, dataset, recipe, preprocessing=preprocessing, callbacks=callbacks).run()


def fingerprint(dataset: Dataset) -> str:
    """Of what a run trains on: classes, sizes and labels in their order."""
    found = hashlib.blake2b(repr((dataset.classes, dataset.train.x.shape)).encode(), digest_size=16)
    for part in parts(dataset):
        found.update(np.ascontiguousarray(part.y).tobytes() + b"|")
    return found.hexdigest()


def pixels(dataset: Dataset) -> str:
    """Of the images of all parts, or of a thousand of each where they are not in memory."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts(dataset):
        count = len(part) if isinstance(part.x, np.ndarray) else min(len(part), LOOKED)
        looked = np.linspace(0, len(part) - 1, count, dtype=int)
        for some in slices((count, *part.x.shape[1:])):
            found.update(np.ascontiguousarray(part.x[looked[some]]).tobytes())
    return found.hexdigest()


def parts(dataset: Dataset) -> list[Images]:
    """The parts that have images."""
    return [part for part in (dataset.train, dataset.val, dataset.test) if part]


def differences(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    ours = json.loads(json.dumps(ours))
    return "; ".join(f"{key} {theirs.get(key)!r}, here {ours[key]!r}" for key in ours if theirs.get(key) != ours[key])


def no_batches() -> DataError:
    return DataError(
        "training: there are no batches in this epoch",
        received="none from `batches`",
        rule="`count` of them, the steps of an epoch",
        fix="an iterator that begins anew in every epoch",
    )


def check_classes(model: Module, dataset: Dataset, preprocessing: Preprocessing) -> None:
    """Raise ShapeError unless the model takes the dataset's images and gives one number for each class, DTypeError for
    one that does not compute in float32."""
    if other := [path for path, cell in model.cells("parameter").items() if cell.dtype != np.float32]:
        raise DTypeError(
            "training: the model's parameters are not float32, as the images are",
            received=f"{other[0]} {model.cells()[other[0]].dtype}",
            rule="float32; precision= says in what it is multiplied",
            fix='model.astype("float32")',
        )
    with model.evaluating():
        output = trace(model, Tensor.spec((1, *preprocessing.size, preprocessing.channels))).outputs
    if not isinstance(output, Tensor):
        raise ShapeError(
            "training: the model's output is not a tensor",
            received=f"a {type(output).__name__}",
            rule="logits (N, classes) in evaluation mode; in training mode they, or `nn.AuxiliaryOutputs`",
            fix="return the logits alone",
        )
    if output.shape != (1, len(dataset.classes)):
        raise ShapeError(
            "training: the model's output does not fit the dataset",
            received=f"output {output.shape} for one image",
            rule=f"(1, {len(dataset.classes)}): a number for each of the {len(dataset.classes)} classes",
            fix=f"create the model with classes={len(dataset.classes)}"
            if len(output.shape) == 2
            else "a network that gives one answer an image: juanji models --task classification",
        )
