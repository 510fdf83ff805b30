"""The run folder: a trained network with everything that is needed to use it, to judge it and to make it again."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from juanji import models
from juanji.data import BUILT_IN, PUBLIC, Dataset, Preprocessing, load
from juanji.data.download import Progress, silent
from juanji.errors import DataError, JuanjiError, WeightsError
from juanji.graph import Array
from juanji.interop import load_weights, save_weights, write_atomically
from juanji.nn.module import Module
from juanji.train.checkpoint import steps_taken
from juanji.train.evaluation import predict
from juanji.train.history import Epoch
from juanji.train.lock import NAME as LOCK
from juanji.train.lock import held
from juanji.train.recipe import Recipe
from juanji.train.validation import SHARE
from juanji.train.views import averaged

WEIGHTS, CONFIG, HISTORY, METRICS = "model.safetensors", "config.json", "history.csv", "metrics.json"
CHECKPOINT, CURVE = "checkpoint.safetensors", "curve.png"
RANGE, RANGE_CURVE = "lr-range.csv", "lr-range.png"
RUNS, HINTED = "runs", 3  # where runs are made, and how many of them an error names
FIRST = (WEIGHTS, CHECKPOINT, RANGE, RANGE_CURVE)  # what is there before the configuration
LEFTOVERS = ".*.tmp"  # of `write_atomically`
LARGEST = 10_000_000  # bytes of a configuration; the names of a thousand classes take thirty thousand


@contextlib.contextmanager
def new_folder(name: str, out: str | Path | None = None) -> Iterator[Path]:
    """Make `out`, or the first free one of runs/NAME-1, runs/NAME-2, …, and hold it inside.

    Raises DataError where that cannot be done.
    """
    try:
        path = free_folder(Path(RUNS), name) if out is None else empty_folder(Path(out))
    except OSError as error:
        raise DataError(
            f"{out or RUNS}: the folder cannot be made",
            received=error.strerror or str(error),
            fix="name one, in a folder that may be written to: --out FOLDER",
        ) from None
    with held(path):
        yield empty_folder(path)  # still, now that nobody else can make it otherwise


def check_outside(out: str | Path | None, data: str) -> None:
    """Raise DataError where a run would lie among its images: its pictures would be taken for some of them."""
    path, images = Path(out or RUNS).resolve(), Path(data).resolve()
    if not built_in(data) and images.is_dir() and path.is_relative_to(images):
        raise DataError(
            f"{path}: the run would lie among its images",
            received=f"images in {images}",
            rule="a folder outside, so that the run's own pictures are not taken for images of a class",
            fix=f"--out {images.parent / 'run'}",
        )


def empty_folder(path: Path) -> Path:
    if path.exists() and (not path.is_dir() or any(each.name != LOCK for each in path.iterdir())):
        raise DataError(
            f"{path}: there is something already",
            rule="a run never overwrites another",
            fix="choose another folder, or move this one away",
        )
    path.mkdir(parents=True, exist_ok=True)
    return path


def begun(path: Path) -> bool:
    """Whether there is a run in a folder that can be resumed. What is left of one that ended before it is removed.

    Raises DataError where another process is in the folder.
    """
    if (path / CONFIG).exists():
        return True
    if not path.is_dir():
        return False
    killed = (path / LOCK).exists()
    with held(path):
        if (path / CONFIG).exists():
            return True
        for each in leftovers(path, killed):
            each.unlink()
    return False


def leftovers(path: Path, killed: bool) -> list[Path]:
    """What a run left in a folder that ended before it had begun; nothing where there is anything else.

    The configuration is written after the first checkpoint, before a step is taken. Where there is no checkpoint yet,
    the lock of a process that was `killed` tells whose the files are.
    """
    found = [each for each in path.iterdir() if each.name != LOCK]
    if any(each.name not in FIRST and not fnmatch(each.name, LEFTOVERS) for each in found):
        return []
    try:
        unbegun = steps_taken(path / CHECKPOINT) == 0 if (path / CHECKPOINT).exists() else killed
    except WeightsError:
        return []
    return found if unbegun else []


@contextlib.contextmanager
def resumed(path: Path) -> Iterator[None]:
    """Inside, a folder with a run is held. What writing left, when it was ended, is removed."""
    with held(path):
        for leftover in path.glob(LEFTOVERS):
            leftover.unlink()
        yield


def free_folder(parent: Path, name: str) -> Path:
    parent.mkdir(exist_ok=True)
    number = 1
    while True:
        with contextlib.suppress(FileExistsError):
            path = parent / f"{name}-{number}"
            path.mkdir()
            return path
        number += 1


@dataclass(frozen=True)
class Config:
    """All that was chosen: with the weights it rebuilds the network, without them it makes the run again.

    model    what `models.create` takes, `model.config`
    weights  where the network's first weights were read from, None for initial ones
    data_dir, unreadable  as `data.load` takes them
    """

    model: dict[str, Any]
    data: str
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe
    weights: str | None = None
    data_dir: str | None = None
    unreadable: str = "refuse"

    def to_dict(self) -> dict[str, Any]:
        from importlib import metadata

        return {
            "model": self.model,
            "data": self.data,
            "classes": list(self.classes),
            "preprocessing": asdict(self.preprocessing),
            "training": self.recipe.to_dict(),
            "weights": self.weights,
            "data_dir": self.data_dir,
            "unreadable": self.unreadable,
            "versions": {
                "juanji": metadata.version("juanji"),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        shown = values["preprocessing"]
        return cls(
            model=dict(values["model"]),
            data=values["data"],
            classes=tuple(values["classes"]),
            preprocessing=Preprocessing(
                (int(shown["size"][0]), int(shown["size"][1])),
                int(shown["channels"]),
                tuple(map(float, shown["mean"])),
                tuple(map(float, shown["std"])),
                shown.get("resize", "stretch"),
            ),
            recipe=Recipe.from_dict(values["training"]),
            weights=values.get("weights"),  # which the first runs did not write, nor what follows
            data_dir=values.get("data_dir"),
            unreadable=values.get("unreadable", "refuse"),
        )

    def load_data(self) -> Dataset:
        """The dataset, in the form that the network was trained with."""
        shown = self.preprocessing
        self.check_place()
        return load_images(
            self.data, self.recipe, shown.size[0], shown.channels, shown.resize, self.data_dir, self.unreadable
        )

    def check_place(self) -> None:
        """Raise DataError where the images have been moved away."""
        if not built_in(self.data) and not Path(self.data).exists():
            raise DataError(
                f"{self.data}: the images of this run do not lie there any more",
                received="no such file or folder",
                rule="the images that it was trained and tested on",
                fix="name their place: juanji evaluate RUN DATA --part test; "
                f'to resume, write it behind "data" in {CONFIG}',
            )

    def create(self) -> Module:
        """The network with its initial weights."""
        return models.create(**self.model)


def load_images(
    data: str,
    recipe: Recipe,
    size: int,
    channels: int | None = None,
    resize: str = "crop",
    data_dir: str | None = None,
    unreadable: str = "refuse",
    progress: Progress = silent,
) -> Dataset:
    """The dataset as a recipe wants it: with room for its random cuts, with a validation part where it needs one.

    What is held out does not depend on the recipe's seed, so runs that differ in it can be compared.
    """
    return load(
        data,
        size,
        channels=channels,
        resize=resize,
        room=recipe.augment.room,
        validation=SHARE if recipe.patience else 0.0,
        data_dir=data_dir,
        unreadable=unreadable,
        progress=progress,
    )


def built_in(data: str) -> bool:
    """Whether data are those that juanji knows by this name."""
    return data in BUILT_IN or data in PUBLIC


def place(data: str) -> str:
    """The data as they can be found from any folder: a name stays what it is, whatever lies here under it."""
    return data if built_in(data) or not Path(data).exists() else str(Path(data).resolve())


def save_run(path: Path, config: Config, model: Module, history: Sequence[Epoch], metrics: dict[str, Any]) -> None:
    """Write the files of a run, each whole or not at all."""
    save_weights(model, path / WEIGHTS, {"model": config.model["name"], "classes": list(config.classes)})
    write_json(path / CONFIG, config.to_dict())
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow([field.name for field in fields(Epoch)])
    table.writerows(asdict(row).values() for row in history)
    write_atomically(path / HISTORY, rows.getvalue().encode())
    write_json(path / METRICS, metrics)


def write_json(path: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode("utf-8", "backslashreplace"))  # JSON's escapes, for paths that are not UTF-8


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder that was read: its network in evaluation mode, and what was chosen to train it."""

    path: Path
    config: Config
    model: Module

    @property
    def classes(self) -> tuple[str, ...]:
        return self.config.classes

    @functools.cached_property
    def asked(self) -> Module:
        """The network as it is to be asked, with as many views of an image as its recipe says."""
        return averaged(self.model, self.config.recipe.tta)

    def viewed(self, tta: str | None) -> Run:
        """The same with other views of an image; as it is for None."""
        if tta is None:
            return self
        return replace(self, config=replace(self.config, recipe=replace(self.config.recipe, tta=tta)))

    def predict(self, x: Array) -> Array:
        """Probabilities (N, classes) of images x (N, H, W, C) in 0…1 of the run's size."""
        return predict(self.asked, self.config.preprocessing(x))


def load_run(path: str | Path) -> Run:
    """Read a run folder. Raises DataError or WeightsError, naming the file, for one that is missing or damaged."""
    path = Path(path)
    config = read_config(path / CONFIG)
    try:
        model = config.create()
    except (JuanjiError, TypeError, ValueError, OverflowError) as error:
        raise damaged(path / CONFIG, f"the model cannot be built: {error}") from None
    if not (path / WEIGHTS).exists():
        raise DataError(
            f"{path}: this run is not whole",
            received=f"no {WEIGHTS} in it",
            rule="the folder as `juanji train` left it",
            fix="copy all of it again, or train again",
        )
    load_weights(model, path / WEIGHTS)
    return Run(path, config, model.eval())


def read_json(path: Path) -> Any:
    """What a file of a run holds. Raises DataError for one that is too large, and what reading JSON raises."""
    if (size := path.stat().st_size) > LARGEST:
        raise damaged(path, f"{size:,} bytes")
    return json.loads(path.read_text("utf-8"))


def read_config(path: Path) -> Config:
    """The configuration in a file, or in a run folder. Raises DataError, naming the file, for anything else."""
    path = path / CONFIG if path.is_dir() else path
    try:
        return Config.from_dict(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        raise no_run(path) from None
    except DataError:
        raise
    except (OSError, JuanjiError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None


def no_run(path: Path) -> DataError:
    """The error for a configuration that is not there."""
    begins = (path.parent / CHECKPOINT).exists()  # a training that could not begin, or was ended at once
    again = f"begin it again: juanji train DATA --out {path.parent} --resume"
    return DataError(
        f"{path.parent}: this is not a run folder",
        received=f"no {path.name} in it" if path.parent.is_dir() else "no such folder",
        rule=f"a folder that `juanji train` made, with {CONFIG} and {WEIGHTS} in it",
        fix=again if begins else f"name one of yours: {runs_here()}",
    )


def runs_here() -> str:
    """The last runs beneath the folder that one is in, as a hint."""
    found = sorted(Path(RUNS).glob(f"*/{CONFIG}"), key=lambda file: file.stat().st_mtime)
    return ", ".join(str(file.parent) for file in found[-HINTED:]) or f"there is none in {Path(RUNS).resolve()}"


def damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}: the file is damaged, not of a run, or of a newer juanji",
        received=reason,
        fix="restore it from a copy, train again, or read it with the version that wrote it",
    )
