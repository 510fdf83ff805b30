"""A close look at every image: all of them decoded, and what stands out kept in a few bytes for each."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from juanji.data.download import Progress, silent
from juanji.data.images import ORIENTATION, eight_bits, opened, upright, upright_size
from juanji.data.labelled import ImageArray, Labelled
from juanji.data.parallel import chunks
from juanji.errors import DataError
from juanji.graph import Array

LEAST = 64  # pixels that a photograph is decoded to at least: enough to see whether it is whole, and dark
DARK, FLAT = 12, 2.5  # of 255: the brightest of an image that is nearly black; the deviation of one of one colour
ANIMATED = ("GIF", "WEBP", "PNG", "TIFF")  # the second picture of a telephone's JPEG is no animation
TURNED, MOVING, BLACK, PLAIN = 1, 2, 4, 8


@dataclass(frozen=True)
class Look:
    """Height and width upright, Pillow's mode, what stands out, and a digest of the content."""

    height: int
    width: int
    mode: str
    flags: int
    digest: int


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was seen of labelled images.

    sizes    (N, 2), height and width; 0 where an image cannot be read
    modes    (N,), numbers of `names`
    flags    (N,), sums of `TURNED`, `MOVING`, `BLACK`, `PLAIN`
    digests  (N,), of the content; 0 where it cannot be read
    reasons  why an image cannot be read, by its place
    """

    data: Labelled
    sizes: Array
    modes: Array
    flags: Array
    digests: Array
    names: list[str]
    reasons: dict[int, str] = field(default_factory=dict)

    @property
    def readable(self) -> Array:
        """(N,), whether each image can be read."""
        readable: Array = self.sizes[:, 0] > 0
        return readable


def inspect(data: Labelled, progress: Progress = silent) -> Inspection:
    """Look at every image."""
    count = len(data.samples)
    seen = Inspection(
        data, np.zeros((count, 2), np.int32), np.zeros(count, np.uint8), np.zeros(count, np.uint8),
        np.zeros(count, np.uint64), [],
    )  # fmt: skip
    done = 0
    for looks in chunks(lambda places: [look(data, int(place)) for place in places], np.arange(count)):
        for i, found in enumerate(looks, done):
            record(seen, i, found)
        done += len(looks)
        progress("looking at images", done, count)
    return seen


def record(seen: Inspection, i: int, found: Look | str) -> None:
    if isinstance(found, str):
        seen.reasons[i] = found
        return
    if found.mode not in seen.names:
        seen.names.append(found.mode)
    seen.sizes[i] = found.height, found.width
    seen.modes[i] = seen.names.index(found.mode)
    seen.flags[i] = found.flags
    seen.digests[i] = found.digest


def look(data: Labelled, i: int) -> Look | str:
    """What is to be seen of image i; why it cannot be read."""
    try:
        content = data.samples.content(i)
        digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
        if not isinstance(data.samples, ImageArray):
            return look_at_file(content, data.samples.name(i), digest)
        height, width, mode = data.samples.header(i)
        grey = data.samples.x[i].mean(axis=-1, dtype=np.float32)
        return Look(height, width, mode, tones(grey * (255 if data.samples.dtype == np.float32 else 1)), digest)
    except DataError as error:
        return error.brief


def look_at_file(content: bytes, name: str, digest: int) -> Look:
    with opened(content, name) as (image, _):
        height, width = upright_size(image)
        turned = image.getexif().get(ORIENTATION, 1) != 1
        mode, moving = image.mode, is_animated(image)
        image.draft(None, (LEAST, LEAST))
        grey = np.asarray(eight_bits(upright(image), name, 1))
    flags = TURNED * turned | MOVING * moving | tones(grey)
    return Look(height, width, mode, flags, digest)


def is_animated(image: Any) -> bool:
    """Whether there are several pictures in a file; damage behind the first does not matter, which alone is read."""
    with contextlib.suppress(Exception):
        return image.format in ANIMATED and image.is_animated
    return False


def tones(grey: Array) -> int:
    """Whether an image (H, W) of values in 0…255 is nearly black, or of one colour."""
    return BLACK * bool(grey.max() <= DARK) | PLAIN * bool(grey.std() <= FLAT)
