"""All choices of a run, from where they come: the command line, a configuration, or the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from juanji import models
from juanji.data import Dataset, Preprocessing
from juanji.data.download import Progress, silent
from juanji.engine.compiled import precision_here
from juanji.errors import ArgumentError
from juanji.models.registry import entry
from juanji.nn.module import Module
from juanji.train.beginning import classes_of
from juanji.train.defaults import Default, Facts, choose
from juanji.train.folder import CONFIG, WEIGHTS, Config, load_images, place, read_config
from juanji.train.recipe import Recipe

RECIPE = tuple(each.name for each in fields(Recipe))
PLACES = ("data", "data_dir", "weights")  # which may be paths
EVERY_MODEL = ("name", "classes", "in_channels", "input_size", "seed")


@dataclass(frozen=True)
class Choices:
    """What a run is made of.

    size     height and width of the images; the network's own by default
    options  of the model, as `models.create` takes them
    weights  a run folder, a file, or hf:REPOSITORY, of weights to begin with: `beginning.begin`
    resize, data_dir, unreadable  as `data.load` takes them
    auto     which of "lr" and "batch" are measured before the run begins
    defaults what was chosen from the data, with reasons
    """

    data: str
    model: str
    recipe: Recipe = field(default_factory=Recipe)
    size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    resize: str = "crop"
    data_dir: str | None = None
    unreadable: str = "refuse"
    auto: frozenset[str] = frozenset()
    defaults: tuple[Default, ...] = ()

    @classmethod
    def of(cls, data: str, facts: Facts, given: Mapping[str, Any], auto: frozenset[str] = frozenset()) -> Choices:
        """What is `given`, by the names of `Recipe`'s fields and of those here; for the rest what suits the data.

        Raises DataError where the weights are to be those of a run whose configuration cannot be read.
        """
        taken = inherited(given)
        defaults = [*taken, *choose(facts, dict(given) | {default.name: default.value for default in taken})]
        known = {default.name: default.value for default in defaults} | dict(given)
        return cls(data, known["model"], auto=auto, defaults=tuple(defaults)).changed(known)

    @classmethod
    def of_config(cls, config: Config) -> Choices:
        """Those of a run that was made."""
        options = {key: value for key, value in config.model.items() if key not in EVERY_MODEL}
        shown = config.preprocessing
        return cls(
            config.data, config.model["name"], config.recipe, shown.size[0], options, config.weights,
            shown.resize, config.data_dir, config.unreadable,
        )  # fmt: skip

    def changed(self, given: Mapping[str, Any]) -> Choices:
        """The same with others in the place of some."""
        recipe = replace(self.recipe, **{name: value for name, value in given.items() if name in RECIPE})
        return replace(self, recipe=recipe, **{name: value for name, value in given.items() if name not in RECIPE})

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise ArgumentError where a run that goes on is asked to be another."""
        changed = self.changed(placed(given))
        for name in given:
            mine, theirs = (getattr(each.recipe if name in RECIPE else each, name) for each in (self, changed))
            if mine != theirs:
                raise ArgumentError(
                    "train: a run is resumed with the choices it began with",
                    received=f"{name} {theirs!r}, where the run has {mine!r}",
                    fix="leave the option out, or begin another run with --init",
                )

    # What they make

    @property
    def side(self) -> int:
        """Height and width of the images."""
        own: int = entry(self.model)["input_size"]
        return own if self.size is None else self.size

    def settled(self) -> Choices:
        """The same with the precision that the recipe's means on this machine."""
        return self.changed({"precision": precision_here(self.recipe.precision)})

    def load_data(self, progress: Progress = silent) -> Dataset:
        return load_images(
            self.data, self.recipe, self.side, resize=self.resize, data_dir=self.data_dir, unreadable=self.unreadable,
            progress=progress,
        )  # fmt: skip

    def create(self, dataset: Dataset) -> Module:
        """The network for a dataset, with its initial weights."""
        return models.create(
            self.model,
            classes=len(dataset.classes),
            in_channels=dataset.shape[2],
            input_size=(self.side, self.side),
            seed=self.recipe.seed,
            **self.options,
        )

    def config(self, model: Module, dataset: Dataset, preprocessing: Preprocessing, recipe: Recipe) -> Config:
        """What is written down of a run with these choices, and of what was made of them."""
        paths = placed({name: value for name in PLACES if (value := getattr(self, name)) is not None})
        return Config(
            model.config, classes=dataset.classes, preprocessing=preprocessing, recipe=recipe,
            unreadable=self.unreadable, **paths,
        )  # fmt: skip


def inherited(given: Mapping[str, Any]) -> list[Default]:
    """What a run that begins with the weights of another takes over from it, unless it is to be another network."""
    if not given.get("weights"):
        return []
    path = Path(given["weights"])
    path = path.parent if path.name == WEIGHTS else path
    if not (path / CONFIG).is_file() or classes_of(str(path / WEIGHTS)) is None:
        return []  # no run, but maybe somebody else's repository
    theirs = Choices.of_config(read_config(path))
    if given.get("model", theirs.model) != theirs.model:
        return []
    same = {name: getattr(theirs, name) for name in ("size", "model", "options", "resize")}
    return [Default(name, value, f"that of {path}") for name, value in same.items() if name not in given]


def placed(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given with its paths as a configuration has them, so that they can be found from any folder."""
    return {name: place(value) if name in PLACES else value for name, value in given.items()}
