"""A training run from beginning to end: data, network, training, and a folder that is usable after every epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from juanji import models
from juanji.data import Dataset, Preprocessing
from juanji.data.download import Progress, silent
from juanji.engine.compiled import precision_here
from juanji.errors import DataError, JuanjiError
from juanji.interop import Loaded, load_weights
from juanji.models.registry import entry
from juanji.nn.module import Module
from juanji.train import pictures
from juanji.train.beginning import begin
from juanji.train.budget import largest_batch
from juanji.train.callback import Callback
from juanji.train.folder import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    RANGE,
    RANGE_CURVE,
    WEIGHTS,
    Config,
    begun,
    load_images,
    new_folder,
    place,
    read_config,
    save_run,
    write_json,
)
from juanji.train.history import Epoch
from juanji.train.range import RangeTest, range_test
from juanji.train.recipe import Recipe
from juanji.train.trainer import Saving, Trainer


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

    @classmethod
    def start(
        cls,
        data_name: str,
        model_name: str,
        recipe: Recipe,
        out: str | Path | None = None,
        size: int | None = None,
        options: Mapping[str, Any] | None = None,
        weights: str | None = None,
        auto: Collection[str] = (),
        *,
        resize: str = "crop",
        data_dir: str | None = None,
        unreadable: str = "refuse",
        progress: Progress = silent,
    ) -> Session:
        """Load the data, create the network, and save it in a new folder, once nothing can be wrong any more.

        size     height and width of the images, the model's own by default
        options  of the model, as `models.create` takes them: {"stem": "small", "width": 0.5}
        weights  a run folder, a file, or hf:REPOSITORY, of weights to begin with; a classifier for other classes begins
                 anew, and kernels for images of other channels are adapted: `loaded` names both. See `beginning.begin`
        auto     "lr" for that of a range test, "batch" for the largest that fits, in the place of the recipe's
        resize, data_dir, unreadable, progress  as `data.load` takes them

        The run keeps the precision that the recipe's means on this machine.
        """
        recipe = replace(recipe, precision=precision_here(recipe.precision))
        size = entry(model_name)["input_size"] if size is None else size
        dataset = load_images(
            data_name, recipe, size, resize=resize, data_dir=data_dir, unreadable=unreadable, progress=progress
        )
        _, _, channels = dataset.shape
        model = models.create(
            model_name,
            classes=len(dataset.classes),
            in_channels=channels,
            input_size=(size, size),
            seed=recipe.seed,
            **(options or {}),
        )
        preprocessing = Preprocessing.of(dataset.train, (size, size), resize)
        if weights is None:
            model.begin_with(lambda count: preprocessing(dataset.train.read(slice(0, count))))
        loaded = None if weights is None else begin(model, weights, dataset.classes)
        trainer, measured, reasons = measure(Trainer(model, dataset, recipe, preprocessing=preprocessing), auto)
        config = Config(
            model.config,
            place(data_name),
            dataset.classes,
            preprocessing,
            trainer.recipe,
            weights,
            data_dir and place(data_dir),
            unreadable,
        )
        session = cls(new_folder(f"{Path(data_name).stem}-{model_name}", out), config, trainer, loaded, reasons)
        if measured:
            measured.save(session.path / RANGE)
            pictures.range_test(measured.rates, measured.losses, session.path / RANGE_CURVE, measured.chosen)
        trainer.save(session.path / CHECKPOINT)
        session.save()
        return session

    @classmethod
    def resume(cls, path: str | Path) -> Session:
        """The run in a folder where its last checkpoint left it, to end in the bits it would have ended in.

        Raises DataError or WeightsError, naming the file, for a folder without a run or with a damaged one, and where
        the images are not those it began with.
        """
        path = Path(path)
        config = read_config(path / CONFIG)
        begun(path)
        if not (path / CHECKPOINT).exists():
            raise DataError(
                f"{path}: this run cannot be resumed",
                received=f"no {CHECKPOINT} in it",
                fix=f"begin another one with its weights: juanji train DATA --init {path}",
            )
        trainer = Trainer(config.create(), config.load_data(), config.recipe, preprocessing=config.preprocessing)
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

        The folder is written after every epoch. KeyboardInterrupt is passed on.
        """
        self.trainer.callbacks = (self, *callbacks)
        self.trainer.saving = Saving(self.path / CHECKPOINT, every_steps, every_seconds)
        with self.noted():
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
            raise

    def on_epoch(self, trainer: Trainer, row: Epoch) -> None:
        self.save()

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


def measure(trainer: Trainer, auto: Collection[str]) -> tuple[Trainer, RangeTest | None, tuple[str, ...]]:
    """A trainer with the batch and the learning rate that are found by trying, the range test, and what was found."""
    reasons, test = [], None
    if "batch" in auto:
        batch, why = largest_batch(trainer)
        reasons.append(f"batch {batch}: {why}")
        trainer = again(trainer, batch=batch)
    if "lr" in auto:
        test = range_test(trainer)
        reasons.append(f"lr {test.chosen:g}: where the loss falls fast and safely; see {RANGE}")
        trainer = again(trainer, lr=test.chosen)
    return trainer, test, tuple(reasons)


def again(trainer: Trainer, **changes: Any) -> Trainer:
    """A trainer of the same network with another recipe."""
    recipe = replace(trainer.recipe, **changes)
    return Trainer(trainer.model, trainer.dataset, recipe, preprocessing=trainer.preprocessing)
