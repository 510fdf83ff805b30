"""A training run from beginning to end: data, network, training, and a folder that is usable after every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from juanji import data, models
from juanji.data import Dataset, Preprocessing
from juanji.engine.compiled import precision_here
from juanji.interop import Loaded, load_torch_weights
from juanji.models.registry import entry
from juanji.nn.module import Module
from juanji.train.folder import Config, new_folder, save_run
from juanji.train.loop import Epoch, Step, check_classes, fit, restore, snapshot
from juanji.train.recipe import Recipe


@dataclass(eq=False)
class Session:
    """A run that is going on: `Session.start(...)`, then `session.train()`."""

    path: Path
    config: Config
    dataset: Dataset
    model: Module
    history: tuple[Epoch, ...] = ()
    seconds: float = 0.0
    interrupted: bool = False
    loaded: Loaded | None = None

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
    ) -> Session:
        """Load the data, create the network, and save it in a new folder, once nothing can be wrong any more.

        size     height and width of the images, the model's own by default
        options  of the model, as `models.create` takes them: {"stem": "small", "width": 0.5}
        weights  a file, or hf:REPOSITORY, of weights to begin with, as `load_torch_weights` takes it; a classifier that
                 does not fit, because it is for other classes, begins anew, and kernels for images of other channels
                 are adapted: `loaded` names both

        The run keeps the precision that the recipe's means on this machine.
        """
        recipe = replace(recipe, precision=precision_here(recipe.precision))
        dataset = data.load(data_name, entry(model_name)["input_size"] if size is None else size)
        height, width, channels = dataset.shape
        model = models.create(
            model_name,
            classes=len(dataset.classes),
            in_channels=channels,
            input_size=(height, width),
            seed=recipe.seed,
            **(options or {}),
        )
        loaded = None if weights is None else load_torch_weights(model, weights, head=None, adapt_channels=True)
        preprocessing = Preprocessing.of(dataset.train)
        check_classes(model, dataset, preprocessing)
        config = Config(model.config, dataset.name, dataset.classes, preprocessing, recipe, weights)
        session = cls(new_folder(f"{data_name}-{model_name}", out), config, dataset, model, loaded=loaded)
        session.save()
        return session

    def train(
        self,
        on_step: Callable[[Step], None] = lambda step: None,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    ) -> None:
        """Train to the end, or until Ctrl-C, which leaves the state after the last whole epoch in the folder.

        The folder is written after every epoch. KeyboardInterrupt is passed on.
        """
        begin = time.perf_counter()
        # What belongs together changes in one assignment, so that no interrupt can come between.
        whole = snapshot(self.model), self.history, self.seconds
        preprocessing = self.config.preprocessing
        try:
            for epoch in fit(
                self.model, self.dataset, self.config.recipe, preprocessing=preprocessing, on_step=on_step
            ):
                whole = snapshot(self.model), (*self.history, epoch), time.perf_counter() - begin
                _, self.history, self.seconds = whole
                self.save()
                on_epoch(epoch)
        except BaseException:
            state, self.history, self.seconds = whole
            restore(state)
            self.interrupted = True
            self.save()
            raise

    def save(self) -> None:
        save_run(self.path, self.config, self.model, self.history, self.metrics())

    def metrics(self) -> dict[str, Any]:
        last = self.history[-1] if self.history else None
        return {
            "test_accuracy": last and last.test_accuracy,
            "test_loss": last and last.test_loss,
            "train_accuracy": last and last.train_accuracy,
            "train_loss": last and last.train_loss,
            "train_seconds": self.seconds,
            "epochs": len(self.history),
            "parameters": sum(tensor.size for tensor in self.model.parameters().values()),
            "seed": self.config.recipe.seed,
            "interrupted": self.interrupted,
        }
