"""A cheap look at labelled images: how many of what, how large, in colour or grey. None is decoded for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from juanji.data.download import Progress, silent
from juanji.data.labelled import GREY, PARTS, ImageArray, Labelled, Samples
from juanji.data.origin import find
from juanji.data.parallel import chunks
from juanji.errors import DataError
from juanji.graph import Array

SAMPLE = 2000  # images whose headers are read
Header = tuple[int, int, str]


@dataclass(frozen=True)
class Survey:
    """What can be known of labelled images without decoding them.

    images    how many there are
    counts    of each class, in each part that the data has: "train", "val", "test"; "all" where it has no parts
    looked    how many images' headers were read: all of a small set, else some from all over it
    readable  how many of these could be
    size      the median height and width of those
    smallest  the least height and width
    largest   the greatest
    modes     how many have each of Pillow's modes: L grey, RGB, RGBA, P with a palette, I;16, …
    channels  1 where all images looked at are grey, else 3; of arrays their own
    """

    name: str
    classes: tuple[str, ...]
    images: int
    counts: dict[str, tuple[int, ...]]
    looked: int
    readable: int
    size: tuple[int, int]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    modes: dict[str, int]
    channels: int


def survey(
    data: str | os.PathLike[str] | Labelled, data_dir: str | Path | None = None, progress: Progress = silent
) -> Survey:
    """Look at the data that `find` takes, or that it returned. Raises DataError where no image can be read."""
    found = data if isinstance(data, Labelled) else find(data, data_dir, progress)
    places = sample(len(found.samples))
    seen = list(headers(found.samples, places))
    if not seen:
        raise DataError(
            f"{found.name}: none of the images can be read",
            received=f"{len(places)} looked at",
            fix=f"juanji check {found.name}",
        )
    sizes = np.array([header[:2] for header in seen])
    return Survey(
        name=found.name,
        classes=found.classes,
        images=len(found.y),
        counts=counts(found),
        looked=len(places),
        readable=len(seen),
        size=pair(np.median(sizes, axis=0)),
        smallest=pair(sizes.min(axis=0)),
        largest=pair(sizes.max(axis=0)),
        modes=dict(Counter(mode for _, _, mode in seen).most_common()),
        channels=channels_of(found.samples, (mode for _, _, mode in seen)),
    )


def pair(values: Array) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def counts(found: Labelled) -> dict[str, tuple[int, ...]]:
    """The images of each class, by part."""
    if found.part is None:
        return {"all": per_class(found, slice(None))}
    return {PARTS[part]: per_class(found, found.part == part) for part in np.unique(found.part)}


def per_class(found: Labelled, chosen: Array | slice) -> tuple[int, ...]:
    return tuple(np.bincount(found.y[chosen], minlength=len(found.classes)).tolist())


def sample(count: int) -> Array:
    """Places from all over a set, all of them in a small one."""
    return np.arange(count) if count <= SAMPLE else np.linspace(0, count - 1, SAMPLE).astype(np.int64)


def headers(samples: Samples, places: Array) -> Iterator[Header]:
    """Height, width and mode of those images that can be read."""

    def read(part: Array) -> list[Header]:
        found = []
        for place in part:
            try:
                found.append(samples.header(int(place)))
            except DataError:
                continue  # which whoever decodes it tells of
        return found

    return (header for part in chunks(read, places) for header in part)


def common_size(samples: Samples) -> tuple[int, int]:
    """The one height and width that the images have, as far as a look shows. Raises DataError where they differ."""
    sizes = {header[:2] for header in headers(samples, sample(len(samples)))}
    if len(sizes) != 1:
        heights, widths = zip(*sizes, strict=True) if sizes else ((), ())
        raise DataError(
            "the images have no common size, and none was named",
            received=f"{min(heights)} to {max(heights)} high, {min(widths)} to {max(widths)} wide" if sizes else "",
            rule="all images of a dataset have one size",
            fix="name one: size=64",
        )
    return sizes.pop()


def own_channels(samples: Samples) -> int:
    """1 where all images are grey, else 3; of arrays their own. The first image in colour ends the search."""
    for places in (sample(len(samples)), np.arange(len(samples))):
        found = channels_of(samples, (mode for _, _, mode in headers(samples, places)))
        if found != 1:
            break
    return found


def channels_of(samples: Samples, modes: Iterable[str]) -> int:
    if isinstance(samples, ImageArray):
        return int(samples.x.shape[-1])
    return 3 if any(mode not in GREY for mode in modes) else 1
