"""What is wrong with labelled images, or may be: what `juanji check` tells before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from juanji.data import case
from juanji.data.download import Progress, silent
from juanji.data.images import has_other_format
from juanji.data.inspection import BLACK, MOVING, PLAIN, TURNED, Inspection, inspect
from juanji.data.labelled import NAME_FIX, TEST, TRAIN, Labelled, no_text, several
from juanji.data.origin import find
from juanji.data.overview import counts, pair
from juanji.data.split import groups, held_out
from juanji.graph import Array

FEW = 10  # images of a class to train on; fewer are not given the weight of a class: it would be guessed everywhere
UNBALANCED = 3  # times as many in the largest class as in the smallest


@dataclass(frozen=True)
class Finding:
    """Something about the data.

    kind   a name for programs
    level  "wrong": training would be wrong; "warning": it may be; "note": good to know
    what   a sentence
    names  the images, files or classes it is about, all of them
    fix    what can be done
    """

    kind: str
    level: str
    what: str
    names: tuple[str, ...] = ()
    fix: str = ""


@dataclass(frozen=True)
class Report:
    """What was found in a dataset.

    counts    of each class, in each part: "train", "val", "test"; "all" where the data has no parts
    smallest  the least height and width of an image, then the medians, and the greatest; None where none can be read
    modes     how many images have each of Pillow's modes
    """

    name: str
    classes: tuple[str, ...]
    images: int
    counts: dict[str, tuple[int, ...]]
    smallest: tuple[int, int] | None
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    modes: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> bool:
        """Whether training would be wrong."""
        return any(finding.level == "wrong" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"wrong": self.wrong, **asdict(self)}


def check(
    data: str | os.PathLike[str] | Labelled, data_dir: str | Path | None = None, progress: Progress = silent
) -> Report:
    """Decode every image of the data that `find` takes, or that it returned, and tell what is wrong with it.

    Training would be wrong where images cannot be read, where there is one class only or one without an image to train
    on, where the same image is in two classes or in two parts, where classes differ by upper and lower case only, and
    where the name of one is not UTF-8.
    """
    found = data if isinstance(data, Labelled) else find(data, data_dir, progress)
    seen = inspect(found, progress)
    sizes = seen.sizes[seen.readable]
    low, middle, high = (pair(of(sizes, axis=0)) if len(sizes) else None for of in (np.min, np.median, np.max))
    used = np.bincount(seen.modes[seen.readable], minlength=len(seen.names))
    return Report(
        found.name,
        found.classes,
        len(found.y),
        counts(found),
        low,
        middle,
        high,
        {seen.names[i]: int(used[i]) for i in np.argsort(-used, kind="stable")},
        tuple(finding for checked in CHECKS for finding in checked(seen)),
    )


def named(seen: Inspection, places: Iterable[int]) -> tuple[str, ...]:
    return tuple(seen.data.samples.name(int(place)) for place in places)


def unreadable(seen: Inspection) -> Iterator[Finding]:
    if seen.reasons:
        what = f"{several(len(seen.reasons), 'image')} cannot be read"
        fix = "mend them or take them away, or train without them: --skip-unreadable"
        yield Finding("unreadable", "wrong", what, tuple(seen.reasons.values()), fix)


def classes(seen: Inspection) -> Iterator[Finding]:
    data = seen.data
    if len(data.classes) < 2:
        yield Finding("one class", "wrong", "there is only one class", data.classes, "a folder for each class")
    if names := no_text(data.classes):
        what = f"{several(len(names), 'class', 'classes')} whose names are no UTF-8"
        yield Finding("names not UTF-8", "wrong", what, names, NAME_FIX)
    to_train = trained(seen)
    missing = tuple(data.classes[i] for i in np.flatnonzero(to_train == 0))
    if missing:
        yield Finding(
            "no training images", "wrong", f"{several(len(missing), 'class', 'classes')} without an image to train on",
            missing,
        )  # fmt: skip
    if data.empty:
        what = f"{several(len(data.empty), 'folder')} of a class without an image: not among the classes"
        yield Finding("empty classes", "warning", what, data.empty)
    few = [f"{data.classes[i]}: {to_train[i]}" for i in np.flatnonzero((to_train > 0) & (to_train < FEW))]
    if few:
        what = f"{several(len(few), 'class', 'classes')} with fewer than {FEW} images to train on"
        yield Finding("tiny classes", "warning", what, tuple(few), "find more of them")
    if len(to_train) and to_train.min() and to_train.max() >= UNBALANCED * to_train.min():
        most, least = data.classes[int(to_train.argmax())], data.classes[int(to_train.argmin())]
        what = f"unbalanced: {to_train.max():,} images of {most}, {to_train.min():,} of {least}"
        fewest = int(to_train.min())
        kept = fewest - held_out(fewest) if data.part is None else fewest
        weighed = "; `juanji train` weighs them by itself" if kept >= FEW else ""
        fix = f"look at the accuracy of each class{weighed}"
        yield Finding("unbalanced", "warning", what, fix=fix)


def trained(seen: Inspection) -> Array:
    """How many images of each class there are to train on, or to be split, and can be read."""
    y, part = seen.data.y, seen.data.part
    return np.bincount(y[seen.readable & (True if part is None else part == TRAIN)], minlength=len(seen.data.classes))


def copies(seen: Inspection) -> Iterator[Finding]:
    """Each group of copies is told once, by the worst of what it means."""
    data = seen.data
    found: dict[str, list[str]] = {"classes": [], "parts": [], "copies": []}
    for places in groups(seen.digests):
        parts = set() if data.part is None else {*data.part[places]}
        kind = "classes" if len({*data.y[places]}) > 1 else "parts" if len(parts) > 1 else "copies"
        found[kind].append(" = ".join(named(seen, places)))
    for kind, level, what, fix in (
        ("classes", "wrong", "the same image in several classes", "keep the one whose class is right"),
        ("parts", "wrong", "the same image in several parts, so that testing is no test", "keep one"),
        ("copies", "warning", "the same image several times", "keep one of each"),
    ):
        if found[kind]:
            name = {"copies": "duplicates"}.get(kind, f"duplicates across {kind}")
            yield Finding(name, level, f"{what}: {several(len(found[kind]), 'image')}", tuple(found[kind]), fix)


def cases(seen: Inspection) -> Iterator[Finding]:
    data = seen.data
    if found := case.alike(data.classes):
        yield Finding("classes alike", "wrong", case.CLASSES, found, "give them one name")
    count = len(data.samples)
    keys = np.fromiter((case.folded(data.samples.name(i)) for i in range(count)), np.uint64, count)
    files = tuple(" = ".join(named(seen, places)) for places in groups(keys))
    if files:
        what = "names that differ by upper and lower case only, which are one on other systems"
        yield Finding("names alike", "warning", f"{what}: {several(len(files), 'name')}", files, "rename them")


def strangers(seen: Inspection) -> Iterator[Finding]:
    data = seen.data
    if data.strays:
        what = f"{several(len(data.strays), 'image')} in no class folder: not used"
        yield Finding("strays", "warning", what, tuple(data.strays), "put each into the folder of its class")
    images = tuple(filter(has_other_format, data.foreign))
    if images:
        what = f"{several(len(images), 'image')} of formats that are not read: not used"
        yield Finding("other formats", "warning", what, images, "convert them to JPEG or PNG")
    if len(data.foreign) > len(images):
        others = tuple(name for name in data.foreign if not has_other_format(name))
        what = f"{several(len(others), 'file')} with no ending of an image: not used"
        yield Finding("other files", "note", what, others)


def nested(seen: Inspection) -> Iterator[Finding]:
    """Folders in class folders, which may have been meant as classes."""
    if names := seen.data.nested:
        what = f"{several(len(names), 'folder')} inside class folders: their images are of the class around them"
        yield Finding("nested", "warning", what, names, "if they are the classes, name the folder that they lie in")


def looks(seen: Inspection) -> Iterator[Finding]:
    for flag, kind, level, what in (
        (BLACK, "nearly black", "warning", "nearly black"),
        (PLAIN, "one colour", "warning", "of one colour"),
        (MOVING, "animated", "note", "of several pictures, of which the first is used"),
        (TURNED, "turned", "note", "turned upright as EXIF says"),
    ):
        chosen = (seen.flags & flag) > 0
        if flag == PLAIN:
            chosen &= (seen.flags & BLACK) == 0
        if chosen.any():
            yield Finding(
                kind, level, f"{several(int(chosen.sum()), 'image')} {what}", named(seen, np.flatnonzero(chosen))
            )


def pixels(seen: Inspection) -> Iterator[Finding]:
    for starts, kind, what in (
        (("I;16",), "16 bits", "with 16 bits a pixel, of which 8 are used"),
        (("RGBA", "RGBa", "LA", "La", "PA"), "transparent", "with transparency, laid on white"),
        (("P",), "palette", "with a palette, looked up"),
    ):
        chosen = np.isin(seen.modes, [i for i, mode in enumerate(seen.names) if mode in starts or mode[:4] in starts])
        chosen &= seen.readable
        if chosen.any():
            yield Finding(
                kind, "note", f"{several(int(chosen.sum()), 'image')} {what}", named(seen, np.flatnonzero(chosen))
            )


def no_parts(seen: Inspection) -> Iterator[Finding]:
    part = seen.data.part
    if part is None or not (part != TRAIN).any():
        yield Finding("no parts", "note", "no part to test on: a fifth of each class will be held out, by content")
    elif not (part == TEST).any():
        yield Finding("no test part", "note", "no part to test on: val is taken for it, and nothing is chosen by it")


CHECKS = (unreadable, classes, copies, cases, strangers, nested, looks, pixels, no_parts)
