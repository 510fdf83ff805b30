"""A training run from beginning to end: data, network, training, and a folder that is usable after every epoch."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from juanji.data import Dataset, Preprocessing
from juanji.data.download import Progress, silent
from juanji.errors import DataError, JuanjiError
from juanji.interop import Loaded, load_weights
from juanji.nn.module import Module
from juanji.train import pictures
from juanji.train.beginning import begin
from juanji.train.budget import largest_batch
from juanji.train.callback import Callback
from juanji.train.choices import Choices
from juanji.train.defaults import IN_PROPORTION
from juanji.train.folder import (
    CHECKPOINT,
    CONFIG,
    CURVE,
    METRICS,
    RANGE,
    RANGE_CURVE,
    WEIGHTS,
    Config,
    check_outside,
    new_folder,
    read_config,
    resumed,
    save_run,
    write_json,
)
from juanji.train.history import Epoch
from juanji.train.lock import held
from juanji.train.range import RangeTest, range_test
from juanji.train.trainer import Saving, Trainer

SHARE = 0.05  # of a training's time, which drawing its curve may take
LOOK = 0.5  # seconds that it takes the first time


@dataclass(eq=False)
class Session(Callback):
    """A run that is going on: `Session.start(...)` or `Session.resume(...)`, then `session.train()`.

    It is a callback of its trainer, which saves the run after every epoch.
    """

    path: Path
    config: Config
    trainer: Trainer
    loaded: Loaded | None = None
    measured: tuple[str, ...] = ()  # what `auto` has found, as text
    interrupted: bool = False
    drawing: float = 0.0  # seconds that drawing has taken

    @classmethod
    def start(cls, choices: Choices, out: str | Path | None = None, progress: Progress = silent) -> Session:
        """Load the data, create the network, and save it in a new folder, once nothing can be wrong any more.

        out       the folder, new or empty; by default the first free one of runs/DATA-MODEL-1, runs/DATA-MODEL-2, …
        progress  is called with what is going on, how much is done and of how much

        `loaded` then names what did not fit of the weights to begin with, and `measured` tells what was found where
        the choices say `auto`. The run keeps the precision that the recipe's means on this machine.
        """
        choices = choices.settled()
        check_outside(out, choices.data)
        dataset = choices.load_data(progress)
        model = choices.create(dataset)
        preprocessing = Preprocessing.of(dataset.train, (choices.side, choices.side), choices.resize)
        if choices.weights is None:
            model.begin_with(lambda count: preprocessing(dataset.train.read(slice(0, count))))
        loaded = None if choices.weights is None else begin(model, choices.weights, dataset.classes)
        trainer = Trainer(model, dataset, choices.recipe, preprocessing=preprocessing)
        by_default = {default.name for default in choices.defaults}
        of_batch = "lr" in by_default and choices.recipe.optimizer in IN_PROPORTION
        trainer, measured, reasons = measure(trainer, choices.auto, in_proportion=of_batch)
        config = choices.config(model, dataset, preprocessing, trainer.recipe)
        with new_folder(f"{Path(choices.data).stem}-{choices.model}", out) as path:
            session = cls(path, config, trainer, loaded, reasons)
            if measured:
                measured.save(path / RANGE)
                pictures.range_test(measured.rates, measured.losses, path / RANGE_CURVE, measured.chosen)
            trainer.save(path / CHECKPOINT)
            session.save()
        return session

    @classmethod
    def resume(cls, path: str | Path) -> Session:
        """The run in a folder where its last checkpoint left it, to end in the bits it would have ended in.

        Raises DataError or WeightsError, naming the file, for a folder without a run or with a damaged one, where the
        images are not those it began with, and where another process is training in it.
        """
        path = Path(path)
        config = read_config(path / CONFIG)
        if not (path / CHECKPOINT).exists():
            raise DataError(
                f"{path}: this run cannot be resumed",
                received=f"no {CHECKPOINT} in it",
                fix=f"begin another one with its weights: juanji train DATA --init {path}",
            )
        trainer = Trainer(config.create(), config.load_data(), config.recipe, preprocessing=config.preprocessing)
        with resumed(path):
            trainer.load(path / CHECKPOINT)
            if trainer.progress.finished:
                load_weights(trainer.model, path / WEIGHTS)
        return cls(path, config, trainer)

    @property
    def model(self) -> Module:
        return self.trainer.model

    @property
    def dataset(self) -> Dataset:
        return self.trainer.dataset

    @property
    def history(self) -> tuple[Epoch, ...]:
        return self.trainer.progress.history

    @property
    def seconds(self) -> float:
        return self.trainer.progress.seconds

    def train(self, callbacks: Sequence[Callback] = (), *, every_steps: int = 0, every_seconds: float = 60.0) -> None:
        """Train to the end, or until Ctrl-C, which leaves what there is in the folder, to be used and resumed.

        every_steps, every_seconds  when to write the checkpoint, besides after every epoch; 0 for never

        The folder is written after every epoch, the learning curve where that takes little of the time, and at the end.
        KeyboardInterrupt is passed on. Raises DataError where another process is training in the folder.
        """
        self.trainer.callbacks, self.interrupted = (self, *callbacks), False
        self.trainer.saving = Saving(self.path / CHECKPOINT, every_steps, every_seconds)
        with held(self.path), self.noted():
            for _ in self.trainer.run():
                pass

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Whatever ends what is inside is passed on, once the folder says that it did."""
        try:
            yield
        except BaseException as error:
            self.interrupted = True
            with contextlib.suppress(JuanjiError):  # the error that is under way says more
                if isinstance(error, KeyboardInterrupt) and self.trainer.settled:
                    self.trainer.keep()
                write_json(self.path / METRICS, self.metrics())
                self.draw()
            raise
        else:
            self.draw()

    def on_epoch(self, trainer: Trainer, row: Epoch) -> None:
        self.save()
        # At first, too: what drawing takes of memory is taken before the others.
        if row.epoch == 1 or max(self.drawing, LOOK) < SHARE * self.seconds:
            self.draw()

    def draw(self) -> None:
        """The learning curve, anew."""
        start = time.perf_counter()
        if self.history:
            pictures.learning_curve(self.history, self.path / CURVE)
            gc.collect()  # figures refer to themselves, and would lie about for a long time
        self.drawing += time.perf_counter() - start

    def save(self) -> None:
        save_run(self.path, self.config, self.model, self.history, self.metrics())

    def metrics(self) -> dict[str, Any]:
        last, best = self.history[-1] if self.history else None, self.trainer.progress.best
        return {
            "test_accuracy": last and last.test_accuracy,
            "test_loss": last and last.test_loss,
            "val_accuracy": best.accuracy if best else last and last.val_accuracy,
            "val_loss": best.loss if best else last and last.val_loss,
            "train_accuracy": last and last.train_accuracy,
            "train_loss": last and last.train_loss,
            "train_seconds": self.seconds,
            "epochs": len(self.history),
            "best_epoch": best and best.epoch,
            "parameters": sum(tensor.size for tensor in self.model.parameters().values()),
            "seed": self.config.recipe.seed,
            "interrupted": self.interrupted,
        }


def measure(
    trainer: Trainer, auto: Collection[str], in_proportion: bool
) -> tuple[Trainer, RangeTest | None, tuple[str, ...]]:
    """A trainer with the batch and the learning rate that are found by trying, the range test, and what was found.

    `in_proportion` says whether the learning rate was chosen for the batch, and changes with it.
    """
    reasons, test = [], None
    if "batch" in auto:
        batch, why = largest_batch(trainer)
        reasons.append(f"batch {batch}: {why}")
        recipe = trainer.recipe
        lr = {"lr": recipe.rate * batch / recipe.batch} if in_proportion else {}
        trainer = again(trainer, batch=batch, **lr)
    if "lr" in auto:
        test = range_test(trainer)
        reasons.append(f"lr {test.chosen:g}: where the loss falls fast and safely; see {RANGE}")
        trainer = again(trainer, lr=test.chosen)
    return trainer, test, tuple(reasons)


def again(trainer: Trainer, **changes: Any) -> Trainer:
    """A trainer of the same network with another recipe."""
    recipe = replace(trainer.recipe, **changes)
    return Trainer(trainer.model, trainer.dataset, recipe, preprocessing=trainer.preprocessing)
