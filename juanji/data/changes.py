"""What images go through one by one: crops, mirror images, rotation, colours, RandAugment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji import random
from juanji.data import affine, colours, cropping, randaugment
from juanji.data.augment import Augment
from juanji.data.randaugment import Operation
from juanji.graph import Array


@dataclass(frozen=True)
class Draws:
    """Random numbers that belong to some images of an epoch: functions of the seed, the epoch and an image's index."""

    seed: int
    epoch: int
    images: Array

    def __call__(self, purpose: str, width: int) -> Array:
        """(n, width), uniform in [0, 1); each purpose has its own, so that one more change leaves the others alone."""
        state = random.state(self.seed, f"data/{purpose}", self.epoch)
        return random.uniform_rows(state, self.images, -(-width // 4) * 4)[:, :width]


def flips(augment: Augment, draws: Draws) -> tuple[Array, Array]:
    """Which images have left and right, and which have top and bottom exchanged: booleans (n,) each."""
    across, down = draws("flip", 2).T < 0.5
    if augment.flip == "alternating":
        # By a number that does not depend on the epoch (Jordan, "94 % on CIFAR-10 in 3.29 seconds", 2024, §3.6).
        first = Draws(draws.seed, 0, draws.images)("flip", 1)[:, 0] < 0.5
        across = first ^ bool(draws.epoch % 2)
    return across & (augment.flip != "none"), down & augment.vertical_flip


def placed(augment: Augment, draws: Draws, x: Array, size: tuple[int, int]) -> Array:
    """The crops and flips that move whole pixels; all but those of a random box."""
    nothing = augment.crop == "centre" and augment.flip == "none" and not augment.vertical_flip
    if augment.crop == "random" or (nothing and x.shape[1:3] == size):
        return x
    starts = [np.full(len(x), (extent - n) // 2) for extent, n in zip(x.shape[1:3], size, strict=True)]
    if augment.crop == "shift":
        for start, draw, n in zip(starts, draws("crop", 2).T, size, strict=True):
            most = round(augment.shift * n)
            start += (draw * (2 * most + 1)).astype(int) - most
    across, down = flips(augment, draws)
    rows = cropping.places(x.shape[1], size[0], starts[0], down)
    return cropping.cut(x, rows, cropping.places(x.shape[2], size[1], starts[1], across))


def as_bytes(x: Array) -> Array:
    """Images in 0…1, or bytes already, as bytes."""
    return x if x.dtype == np.uint8 else np.rint(x * 255).astype(np.uint8)


def painted(augment: Augment, draws: Draws, x: Array, size: tuple[int, int]) -> Array:
    """What Pillow does, image by image: x (n, H, W, C) as bytes, resampled once, then with other colours."""
    x = as_bytes(x)
    maps = movement(augment, draws, x.shape[1:3], size)
    count = augment.randaugment
    operations = draws("randaugment", 2 * count).reshape(len(x), count, 2)
    shades = draws("colour", colours.DRAWS)
    result = np.empty((len(x), *size, x.shape[3]), np.uint8)
    for i in range(len(x)):
        chosen = randaugment.chosen(operations[i], augment.magnitude)
        matrix = maps[i]
        for operation, amount in chosen:
            matrix = matrix if operation.matrix is None else matrix @ operation.matrix(amount, size)
        pictures = [affine.resample(picture, matrix, size) for picture in pictures_of(x[i])]
        if augment.changes_colours:
            pictures = [recoloured(pictures[0], augment, chosen, shades[i])]
        result[i] = np.dstack([np.asarray(picture) for picture in pictures])
    return result


def movement(augment: Augment, draws: Draws, stored: tuple[int, int], size: tuple[int, int]) -> Array:
    """The maps (n, 3, 3) of random box, flips and rotation, in that order; "shift" and "centre" are done already."""
    maps = np.broadcast_to(np.eye(3), (len(draws.images), 3, 3))
    if augment.crop == "random":
        boxes = cropping.boxes(draws("crop", cropping.DRAWS), stored, augment.scale, augment.ratio)
        maps = affine.box(*boxes, size) @ affine.mirror(*flips(augment, draws), size)
    if augment.rotation:
        signed = 2 * draws("rotation", 1)[:, 0].astype(np.float64) - 1
        maps = maps @ affine.rotation(augment.rotation * signed, size)
    return maps


def pictures_of(x: Array) -> list[Any]:
    """Bytes (H, W, C) as a Pillow image, grey or RGB, or as one for each channel."""
    from PIL import Image

    if x.shape[2] == 3:
        return [Image.fromarray(np.ascontiguousarray(x))]
    return [Image.fromarray(np.ascontiguousarray(x[..., channel])) for channel in range(x.shape[2])]


def recoloured(picture: Any, augment: Augment, chosen: list[tuple[Operation, float]], draws: Array) -> Any:
    """The picture with its colours jittered, then as those of the chosen operations do that change colours."""
    picture = colours.jittered(picture, augment.colours, draws)
    for operation, amount in chosen:
        picture = picture if operation.colour is None else operation.colour(picture, amount)
    return picture
