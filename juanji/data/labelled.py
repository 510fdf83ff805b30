"""Labelled images before they are read: where each comes from, its class and its part."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import numpy as np

from juanji.data.dataset import Naming
from juanji.data.form import Form
from juanji.data.images import opened, upright_size
from juanji.data.source import Source
from juanji.errors import DataError
from juanji.graph import Array

TRAIN, VAL, TEST = range(3)
PARTS = ("train", "val", "test")
# What folders, columns and arrays call the parts.
PART_NAMES = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL, "test": TEST,
    "testing": TEST,
}  # fmt: skip
NAME_FIX = "rename the folders: convmv -f ENCODING -t utf8 does, or mv"
GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B")  # Pillow's modes without colour


class Samples(Protocol):
    """Images that are read when they are asked for, from several threads at once."""

    @property
    def identity(self) -> str:
        """A digest that changes when the images do."""

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.float32]: ...

    def __len__(self) -> int: ...

    @property
    def name(self) -> Callable[[int], str]:
        """What people call image i, `name(i)`; it may be kept without the images."""

    def content(self, i: int) -> bytes:
        """The bytes of image i as they are kept, for telling duplicates."""

    def header(self, i: int) -> tuple[int, int, str]:
        """Height, width and Pillow's mode of image i, which is not decoded for it. Raises DataError."""

    def read(self, i: int, form: Form) -> Array:
        """Image i (H, W, C) in a form. Raises DataError, naming it, where it cannot be read."""


class ImageFiles:
    """Those `chosen` among the files of a source."""

    dtype = np.dtype(np.uint8)

    def __init__(self, source: Source, chosen: Array) -> None:
        self.source, self.chosen = source, chosen

    @property
    def identity(self) -> str:
        return hashlib.sha256(self.source.identity.encode() + self.chosen.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def name(self) -> Naming:
        return Naming(self.source.label, self.chosen)

    def content(self, i: int) -> bytes:
        return self.source.read(int(self.chosen[i]))

    def header(self, i: int) -> tuple[int, int, str]:
        try:
            return measured(self.source.head(int(self.chosen[i])), self.name(i))
        except DataError:
            return measured(self.content(i), self.name(i))

    def read(self, i: int, form: Form) -> Array:
        return form.read(self.content(i), self.name(i))


def measured(file: Path | bytes, name: str) -> tuple[int, int, str]:
    """Height and width upright, and Pillow's mode, of an image that is not decoded."""
    with opened(file, name) as (image, _):
        return *upright_size(image), image.mode


class ImageArray:
    """Images x (N, H, W, C) of bytes, or float32 in 0…1, in memory; `origin` is the file they are from."""

    def __init__(self, origin: str, x: Array) -> None:
        self.origin, self.x = origin, x

    @property
    def identity(self) -> str:
        digest = hashlib.sha256(repr((self.x.shape, self.x.dtype.str)).encode())
        digest.update(np.ascontiguousarray(self.x).data)
        return digest.hexdigest()

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.float32]:
        return self.x.dtype

    def __len__(self) -> int:
        return len(self.x)

    @property
    def name(self) -> Callable[[int], str]:
        return functools.partial("{}[{}]".format, self.origin)

    def content(self, i: int) -> bytes:
        return self.x[i].tobytes()

    def header(self, i: int) -> tuple[int, int, str]:
        _, height, width, channels = self.x.shape
        return height, width, {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")

    def read(self, i: int, form: Form) -> Array:
        x, channels = self.x[i], form.channels
        if x.shape[-1] == 3 and channels == 1:
            grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
            x = (np.round(grey) if x.dtype == np.uint8 else grey)[..., None].astype(x.dtype)
        if x.shape[-1] == 1 and channels == 3:
            x = np.repeat(x, 3, axis=-1)
        return form.of(x)

    def check_channels(self, channels: int) -> None:
        """Raise DataError where the images cannot be brought to so many channels."""
        own = self.x.shape[-1]
        if own != channels and {own, channels} != {1, 3}:
            raise DataError(
                f"{self.origin}: the images cannot be brought to this number of channels",
                received=f"{own} channels, {channels} wanted",
                rule="1 becomes 3, and 3 become 1",
            )


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images, their classes y (N,), int64, and the part of each, (N,): `TRAIN`, `VAL` or `TEST`.

    name     as it was given
    part     None where the data does not say: the parts have to be split
    empty    classes that have a folder and no image
    strays   images that lie in no class folder, and are not used
    foreign  files among them that are no images by their names, and are not used
    nested   folders inside class folders, with images that are of the class around them
    """

    name: str
    samples: Samples
    y: Array
    classes: tuple[str, ...]
    part: Array | None = None
    empty: tuple[str, ...] = ()
    strays: Sequence[str] = ()
    foreign: Sequence[str] = ()
    nested: tuple[str, ...] = ()


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names of classes in order: by number where all are numbers, else by letter."""
    found = set(names)
    numbers = all(name.isascii() and name.removeprefix("-").isdigit() for name in found)
    return tuple(sorted(found, key=(lambda name: (Decimal(name), name)) if numbers else None))  # of any length


def numbered(labels: Sequence[str]) -> tuple[tuple[str, ...], Array]:
    """The classes in order, and the number of each label's, int64."""
    classes = in_order(labels)
    number = {label: n for n, label in enumerate(classes)}
    return classes, np.array([number[label] for label in labels], np.int64)


def no_text(names: Iterable[str]) -> tuple[str, ...]:
    """The names that are no text: of folders whose bytes are no UTF-8, as systems of another encoding have written."""
    return tuple(name for name in names if name.encode("utf-8", "ignore").decode() != name)


def several(count: int, what: str, plural: str = "") -> str:
    """`1 image`, `2,000 images`."""
    return f"{count:,} {what if count == 1 else plural or what + 's'}"
