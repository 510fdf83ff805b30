"""Labelled images in two parts: one to learn from, one to be tested on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from juanji.errors import DataError
from juanji.graph import Array


class Pixels(Protocol):
    """Images (N, H, W, C) that need not be in memory: an array, a mapped file, or a decoder of image files.

    `pixels[indices]` reads those images, (n, H, W, C), of the same dtype.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, chosen: Any, /) -> Array: ...


@dataclass(frozen=True)
class Selected:
    """Some of the images, which are read when they are asked for."""

    pixels: Pixels
    chosen: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.chosen), *self.pixels.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.pixels.dtype

    def __getitem__(self, chosen: Any, /) -> Array:
        return self.pixels[self.chosen[chosen]]


@dataclass(frozen=True, eq=False)
class Naming:
    """What some of the images are called, each name made when it is asked for: a million take no memory."""

    names: Callable[[int], str]
    chosen: Array

    def __call__(self, i: int) -> str:
        return self.names(int(self.chosen[i]))


@dataclass(frozen=True, eq=False)
class Images:
    """Images x (N, H, W, C), bytes or float32 in 0…1, and their labels y (N,), int64.

    names  of a number below N: what people call that image; None where nothing but the number is known

    x may be anything that reads them when they are asked for, `Pixels`; `read` gives them in 0…1. Raises DataError for
    anything else.
    """

    x: Pixels
    y: Array
    names: Callable[[int], str] | None = None

    def __post_init__(self) -> None:
        pixels, labels = (getattr(array, "dtype", None) for array in (self.x, self.y))  # a list has none
        if pixels not in (np.uint8, np.float32) or labels != np.int64 or len(self.x.shape) != 4:
            raise DataError(
                "these arrays are not labelled images",
                received=f"x {described(self.x)}, y {described(self.y)}",
                rule="x (N, H, W, C) of float32 or uint8, y (N,) of int64",
                fix="np.asarray(x, np.float32), in 0…1, or np.uint8; x[..., None] for grey; np.asarray(y, np.int64)",
            )
        if self.y.shape != self.x.shape[:1]:
            raise DataError(
                "there must be one label for each image",
                received=f"{self.x.shape[0]} images, labels of shape {self.y.shape}",
                rule="x (N, H, W, C), y (N,)",
            )
        if not isinstance(self.x, np.ndarray) or self.x.dtype == np.uint8:
            return
        if self.x.size and not (self.x.min() >= 0 and self.x.max() <= 1):
            raise DataError(
                "these arrays are not labelled images",
                received=f"values from {self.x.min():g} to {self.x.max():g}",
                rule="from 0, black, to 1, white",
                fix="divide bytes by 255",
            )

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, chosen: Any) -> Images:
        """Some of the images, by a slice, a mask or an array of indices. None is read from a file yet."""
        places = np.arange(len(self))[chosen]
        x = self.x[chosen] if type(self.x) is np.ndarray else Selected(self.x, places)
        return Images(x, self.y[chosen], self.names and Naming(self.names, places))

    def read(self, chosen: Any = slice(None)) -> Array:
        """Some of the images, all by default, as float32 (n, H, W, C) in 0…1."""
        x = self.x[chosen]
        return x if x.dtype == np.float32 else x.astype(np.float32) * np.float32(1 / 255)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A name, a part to train on, a part that is held out for testing, and the names of the classes.

    val     a part that is looked at during training, for choices such as when to stop; often there is none
    resize  how the images came to their size, see `Form`: a network's `Preprocessing` does the same to others

    Raises DataError where there is nothing to train on, or a label without a class.
    """

    name: str
    train: Images
    test: Images
    classes: tuple[str, ...]
    val: Images | None = None
    resize: str = "stretch"

    def __post_init__(self) -> None:
        if not len(self.train):
            raise DataError(f"the dataset {self.name!r} is empty", received="no training image", rule="at least one")
        for part in filter(None, (self.train, self.val, self.test)):
            check_labels(f"the dataset {self.name!r} has labels without a class", part.y, len(self.classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of the images for testing, as a network takes them; those for training may be larger."""
        _, height, width, channels = self.test.x.shape
        return height, width, channels


def described(array: Any) -> str:
    return f"{array.dtype}{list(array.shape)}" if hasattr(array, "dtype") else type(array).__name__


def check_labels(what: str, y: Array, classes: int) -> None:
    """Raise DataError, headed `what`, for labels that are none of so many classes."""
    wrong = y[(y < 0) | (y >= classes)]
    if wrong.size:
        raise DataError(
            what,
            received=f"label {wrong[0]}",
            rule=f"0 to {classes - 1}, one for each of {classes} classes",
            fix="count classes from 0, and name all of them",
        )


def stratified(y: Array) -> Array:
    """True for every third label of each class, in the order of the file: a test part with each class in its share."""
    held = np.zeros(len(y), bool)
    for label in np.unique(y):
        held[np.flatnonzero(y == label)[2::3]] = True
    return held
