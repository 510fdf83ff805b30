"""How images of the training part become what a network sees: read, changed, mixed, standardised."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from juanji import random
from juanji.data import erasing, mixing
from juanji.data.augment import PRESETS, STILL, Augment
from juanji.data.changes import Draws, painted, placed
from juanji.data.dataset import Images, check_labels
from juanji.data.preprocessing import Preprocessing
from juanji.errors import ArgumentError, ShapeError
from juanji.graph import Array

Change = Callable[[Array, Array], Array]
Batch = tuple[Array, Array]
COLOURED = (1, 3)  # channels of images that have colours: grey, and red, green, blue


@dataclass(frozen=True, eq=False)
class Preparation:
    """The batches of one epoch, any of them at any time: a pure function, for as many threads as there are.

    order          the indices of the images, (N,), as the epoch goes through them
    change         an `Augment`, or a function of (x, draws); see `batches`
    preprocessing  what images are standardised by, and the size they get
    classes        how many there are, for labels that are mixed
    """

    images: Images
    order: Array
    seed: int
    epoch: int
    change: Augment | Change | None = None
    preprocessing: Preprocessing | None = None
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.augment.mixes and self.classes is None:
            raise ArgumentError(
                "batches: labels are mixed, for which the number of classes must be known",
                received=f"{self.augment}, classes=None",
                rule="classes=, a whole number",
                fix="classes=len(dataset.classes)",
            )
        if self.augment.mixes and self.classes is not None:
            check_labels("batches: there are labels without a class", self.images.y, self.classes)
        check_images(self.images.x.shape[1:], self.augment, self.size, self.preprocessing)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(H, W) of what comes out."""
        _, height, width, _ = self.images.x.shape
        return (height, width) if self.preprocessing is None else self.preprocessing.size

    @functools.cached_property
    def augment(self) -> Augment:
        return self.change if isinstance(self.change, Augment) else PRESETS["none"]

    @functools.cached_property
    def move(self) -> Change | None:
        """What is done to images in 0…1, by eight numbers for each."""
        if isinstance(self.change, Augment):
            return None if self.change.jitter == STILL else self.change.jitter
        return self.change

    def __call__(self, batch: slice) -> Batch:
        """The images at these places of the order: x (n, H, W, C), float32; y (n,), or (n, classes) where mixed."""
        chosen = self.order[batch]
        x, y = self.mixed(chosen, batch.start) if self.augment.mixes else (self.changed(chosen), self.images.y[chosen])
        if self.preprocessing is not None:
            standardise(x, self.preprocessing)
        return x, y

    def mixed(self, chosen: Array, start: int) -> Batch:
        """Each image mixed with the next one of the epoch, whatever the batch; after the last comes the first."""
        following = np.append(chosen, self.order[(start + len(chosen)) % len(self.order)])
        x = self.changed(following)
        kept = mixing.mix(x, self.draws(chosen)("mixing", mixing.DRAWS), self.augment.mixup, self.augment.cutmix)
        one_hot = (self.images.y[following][:, None] == np.arange(self.classes or 0)).astype(np.float32)
        own = kept.astype(np.float32)[:, None]
        return x[:-1], own * one_hot[:-1] + (1 - own) * one_hot[1:]

    def of(self, image: int) -> Array:
        """What the image of this index becomes in this epoch, (H, W, C)."""
        place = int(np.flatnonzero(self.order == image)[0])
        return self(slice(place, place + 1))[0][0]

    def draws(self, chosen: Array) -> Draws:
        return Draws(self.seed, self.epoch, chosen)

    def changed(self, chosen: Array) -> Array:
        """Those images changed, each by itself: float32 in 0…1, an array of their own."""
        draws = self.draws(chosen)
        x = placed(self.augment, draws, self.images.x[chosen], self.size)
        if self.augment.paints:
            x = painted(self.augment, draws, x, self.size)
        x = as_floats(x)
        if self.move is not None:
            # A copy, because what a function returns may belong to someone else.
            x = np.array(self.move(x, draws("change", 8)), np.float32, order="C")
        if self.augment.erasing:
            erasing.erase(x, self.augment.erasing, draws("erasing", erasing.DRAWS), self.noise)
        return x

    @functools.cached_property
    def noise(self) -> Array:
        """What erased boxes are filled with in this epoch."""
        height, width = self.size
        state = random.state(self.seed, "data/noise", self.epoch)
        return random.uniform(state, (2 * height, 2 * width, self.images.x.shape[3]))


def check_images(
    shape: tuple[int, ...], augment: Augment, size: tuple[int, int], preprocessing: Preprocessing | None
) -> None:
    """Raise ShapeError for images (H, W, C) that the changes cannot be made to."""
    height, width, channels = shape
    if preprocessing is not None and preprocessing.channels != channels:
        raise ShapeError(
            "batches: the preprocessing is that of other images",
            received=f"{channels} channels, a preprocessing of {preprocessing.channels}",
            rule="as many channels as the images have",
            fix="Preprocessing.of(images)",
        )
    if augment.changes_colours and channels not in COLOURED:
        raise ShapeError(
            "batches: only grey and RGB images can have their colours changed",
            received=f"{channels} channels, {augment}",
            rule="1 channel or 3",
            fix="an augmentation that moves pixels only, such as light",
        )
    if augment.crop != "random" and (height < size[0] or width < size[1]):
        raise ShapeError(
            "batches: the images are smaller than what is cut from them",
            received=f"images of {height}×{width} pixels, crop={augment.crop}",
            rule=f"at least {size[0]}×{size[1]}, the network's size",
            fix="load the data at the network's size, or crop=random, which stretches",
        )


def standardise(x: Array, preprocessing: Preprocessing) -> None:
    """x (n, H, W, C), in place, to the same bits as `preprocessing(x)`; by whole rows, as NumPy is quick along them."""
    rows = x.reshape(-1, x.shape[2] * x.shape[3])
    rows -= np.tile(np.asarray(preprocessing.mean, np.float32), x.shape[2])
    rows /= np.tile(np.asarray(preprocessing.std, np.float32), x.shape[2])


def as_floats(x: Array) -> Array:
    """Bytes, or float32, in 0…1: an array of its own."""
    floats = x.astype(np.float32, order="C")
    if x.dtype == np.uint8:
        floats *= np.float32(1 / 255)
    return floats
