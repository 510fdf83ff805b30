"""A part of the training images to look at during training, where the data have none."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from juanji.data import Dataset, Images
from juanji.data.split import smallest, together
from juanji.errors import DataError
from juanji.graph import Array

SHARE = 0.1  # of each class
BLOCK = 256  # images that are read at a time


def with_validation(dataset: Dataset, seed: int = 0) -> Dataset:
    """The dataset, with a tenth of each class's training images as its validation part if it has none.

    Which ones depends on what they show and on the seed, not on their order, and equal images stay together. Raises
    DataError where every class has a single image.
    """
    if dataset.val is not None:
        return dataset
    held = held_out(dataset.train, seed)
    if not held.any():
        raise DataError(
            f"the dataset {dataset.name!r} has no images to validate on",
            received=f"{len(dataset.train)} training images in {len(dataset.classes)} classes",
            rule="two different images of a class, to train on one and look at the other",
            fix="more images, or patience=0",
        )
    return replace(dataset, train=dataset.train[~held], val=dataset.train[held])


def held_out(images: Images, seed: int) -> Array:
    """True for a tenth of each class, at least one image of a class that has two different ones."""
    keys, held = hashes(images, seed), np.zeros(len(images), bool)
    for label in np.unique(images.y):
        members = np.flatnonzero(images.y == label)
        if (keys[members] != keys[members[0]]).any():
            held[members[smallest(keys[members], SHARE)]] = True
    return together(held, images.y, keys)


def hashes(images: Images, seed: int) -> Array:
    """A number for each image, by its pixels."""
    found, salt = np.empty(len(images), np.uint64), seed.to_bytes(16, "little", signed=True)
    for start in range(0, len(images), BLOCK):
        for i, x in enumerate(images.x[np.arange(start, min(start + BLOCK, len(images)))], start):
            key = hashlib.blake2b(np.ascontiguousarray(x).tobytes(), digest_size=8, salt=salt)
            found[i] = int.from_bytes(key.digest(), "little")
    return found
