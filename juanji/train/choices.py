"""All choices of a run, from where they come: the command line, a configuration, or the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from juanji.errors import ArgumentError
from juanji.train.defaults import Default, Facts, choose
from juanji.train.folder import Config
from juanji.train.recipe import Recipe

RECIPE = tuple(each.name for each in fields(Recipe))
EVERY_MODEL = ("name", "classes", "in_channels", "input_size", "seed")


@dataclass(frozen=True)
class Choices:
    """What a run is made of.

    size     height and width of the images
    options  of the model, as `models.create` takes them
    weights  what to begin with; see `beginning.begin`
    resize, data_dir, unreadable  as `data.load` takes them
    auto     which of "lr" and "batch" are measured before the run begins
    defaults what was chosen from the data, with reasons
    """

    data: str
    model: str
    size: int
    recipe: Recipe = field(default_factory=Recipe)
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    resize: str = "crop"
    data_dir: str | None = None
    unreadable: str = "refuse"
    auto: frozenset[str] = frozenset()
    defaults: tuple[Default, ...] = ()

    @classmethod
    def of(cls, data: str, facts: Facts, given: Mapping[str, Any], auto: frozenset[str] = frozenset()) -> Choices:
        """What is `given`, by the names of `Recipe`'s fields and of those here; for the rest what suits the data."""
        defaults = choose(facts, given)
        known = {default.name: default.value for default in defaults} | dict(given)
        return cls(data, known["model"], known["size"], auto=auto, defaults=tuple(defaults)).changed(known)

    @classmethod
    def of_config(cls, config: Config) -> Choices:
        """Those of a run that was made."""
        options = {key: value for key, value in config.model.items() if key not in EVERY_MODEL}
        shown = config.preprocessing
        return cls(
            config.data, config.model["name"], shown.size[0], config.recipe, options, config.weights,
            shown.resize, config.data_dir, config.unreadable,
        )  # fmt: skip

    def changed(self, given: Mapping[str, Any]) -> Choices:
        """The same with others in the place of some."""
        recipe = replace(self.recipe, **{name: value for name, value in given.items() if name in RECIPE})
        return replace(self, recipe=recipe, **{name: value for name, value in given.items() if name not in RECIPE})

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise ArgumentError where a run that goes on is asked to be another."""
        changed = self.changed(given)
        for name in given:
            mine, theirs = (getattr(each.recipe if name in RECIPE else each, name) for each in (self, changed))
            if mine != theirs:
                raise ArgumentError(
                    "train: a run is resumed with the choices it began with",
                    received=f"{name} {theirs!r}, where the run has {mine!r}",
                    fix="leave the option out, or begin another run with --init",
                )
