"""Which images a network is judged on: a part of a dataset, with the run's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from juanji.data import Dataset, Images
from juanji.data.dataset import Pixels
from juanji.errors import DataError, unknown_name
from juanji.graph import Array
from juanji.train import Run

PARTS = ("test", "val", "train", "all")


def load_part(run: Run, data: str | None, part: str) -> Images:
    """A part of the run's own data, or of other `data`, in the run's size, with labels that count the run's classes.

    Raises UnknownNameError for another part, DataError for a part without images, or other classes than the run's.
    """
    if part not in PARTS:
        raise unknown_name("part", part, PARTS)
    config = run.config if data is None else replace(run.config, data=data)
    dataset = config.load_data()
    images = chosen(dataset, part)
    return Images(images.x, order(dataset, run.classes)[images.y])


def chosen(dataset: Dataset, part: str) -> Images:
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    known = {name: images for name, images in parts.items() if images is not None and len(images)}
    if part == "all":
        return Images(Joined([images.x for images in known.values()]), np.concatenate([x.y for x in known.values()]))
    if part not in known:
        raise DataError(
            f"{dataset.name}: there are no images in the part {part!r}",
            received=", ".join(f"{len(images)} in {name}" for name, images in known.items()),
            fix="--part " + " or ".join([*known, "all"]),
        )
    return known[part]


def order(dataset: Dataset, classes: Sequence[str]) -> Array:
    """The number that each class of the dataset has in the run; they are matched by their names."""
    if set(dataset.classes) != set(classes):
        more, fewer = (
            ", ".join(sorted(set(a) - set(b))) for a, b in ((dataset.classes, classes), (classes, dataset.classes))
        )
        raise DataError(
            f"{dataset.name}: these are not the classes that the network was trained on",
            received=", ".join(dataset.classes),
            rule="the run's: " + ", ".join(classes),
            fix="rename them; " + "; ".join(filter(None, [more and f"unknown: {more}", fewer and f"missing: {fewer}"])),
        )
    return np.array([classes.index(name) for name in dataset.classes])


@dataclass(frozen=True)
class Joined:
    """Images of several parts, one part after the other, which are read when they are asked for."""

    parts: Sequence[Pixels]

    @property
    def shape(self) -> tuple[int, ...]:
        return sum(part.shape[0] for part in self.parts), *self.parts[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.parts[0].dtype

    def __getitem__(self, chosen: Any, /) -> Array:
        indices = np.arange(self.shape[0])[chosen]
        read = np.empty((len(indices), *self.shape[1:]), self.dtype)
        start = 0
        for part in self.parts:
            here = (indices >= start) & (indices < start + part.shape[0])
            if here.any():
                read[here] = part[indices[here] - start]
            start += part.shape[0]
        return read
