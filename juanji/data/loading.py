"""Datasets ready for training: found, split, brought to one form."""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from juanji.checks import counts, fraction, one_of
from juanji.data import case
from juanji.data.builtin import BUILT_IN
from juanji.data.dataset import Dataset, Images, Naming
from juanji.data.download import Progress, silent
from juanji.data.form import RESIZE, Form
from juanji.data.images import has_other_format
from juanji.data.labelled import NAME_FIX, PARTS, TEST, TRAIN, VAL, ImageArray, Labelled, no_text, several
from juanji.data.origin import find, in_memory
from juanji.data.overview import common_size, own_channels
from juanji.data.packed import Failures, pixels
from juanji.data.split import SHARE, digests, groups, split
from juanji.errors import ArgumentError, DataError
from juanji.graph import Array

UNREADABLE = ("refuse", "skip")


def load(
    data: str | os.PathLike[str] | Labelled,
    size: int | None = None,
    *,
    channels: int | None = None,
    resize: str = "crop",
    room: float = 1.0,
    validation: float = 0.0,
    seed: int = 0,
    data_dir: str | Path | None = None,
    cache: bool = True,
    unreadable: str = "refuse",
    progress: Progress = silent,
) -> Dataset:
    """A dataset by its name or path, every image in one size.

    data        what `find` takes, or what it returned: a built-in dataset, a folder DATA/CLASS/* or
                DATA/{train,val,test}/CLASS/*, a .zip or .tar of either, a table of paths and labels (.csv), or arrays
                (.npz, IDX)
    size        height and width; by default the images' own, where they have one
    channels    1 or 3; by default 1 where all images are grey, else 3
    resize      how images come to that size: "crop", "stretch" or "pad", see `Form`
    room        training images are ⌈room·size⌉ high and wide, so that random cuts have something to cut from
    validation  share of the training images that becomes a part to be looked at during training, where the data has
                none; they come in the size of those for testing
    seed        mixes which images are held out, where the data does not say
    data_dir    where the files of public datasets lie, or are downloaded to
    cache       keep the decoded images in a file for the next time
    unreadable  what to do with images that cannot be read: "refuse" them, or "skip" them
    progress    is called with what is going on, how much is done and of how much

    Where the data has no part to test on, a fifth is held out by content and `seed`, each class in its share; where it
    has one for validation only, that is for testing. Warns of images that are not used, and of copies in several
    classes or parts. Raises DataError, naming the files, for what cannot be read or cannot be trained on; ArgumentError
    and UnknownNameError for bad choices.
    """
    one_of("load", "resize", resize, RESIZE)
    one_of("load", "unreadable", unreadable, UNREADABLE)
    check_numbers(size, channels, room, validation)
    if isinstance(data, str) and data in BUILT_IN:
        return built_in(data, size, channels, room, validation, seed)
    found = data if isinstance(data, Labelled) else find(data, data_dir, progress)
    warn_of_unused(found)
    content = functools.cache(lambda: digests(found.samples, cache, progress))
    found = with_parts(found, seed, content, validation)
    check_classes(found.name, found.classes, found.y[found.part == TRAIN])
    warn_of_names(found)
    warn_of_copies(found, content())
    form = Form(
        common_size(found.samples) if size is None else (size, size), channels or own_channels(found.samples), resize
    )
    parts, failures = {}, Failures()
    for part in (TRAIN, VAL, TEST):
        wanted = replace(form, size=roomy(form.size, room)) if part == TRAIN else form
        chosen = np.flatnonzero(found.part == part)
        parts[part] = images_of(found, chosen, wanted, cache, failures, progress)
    failures.settle(found.name, unreadable)
    check_classes(found.name, found.classes, parts[TRAIN].y)
    val = parts[VAL] if len(parts[VAL]) else None
    return Dataset(found.name, parts[TRAIN], parts[TEST], found.classes, val, resize)


class Part(NamedTuple):
    """The images of a part, "train", "val", "test" or "all", of data of this name, and the names of its classes."""

    name: str
    part: str
    images: Images
    classes: tuple[str, ...]


def load_part(
    data: str,
    form: Form,
    part: str | None = None,
    *,
    validation: float = 0.0,
    seed: int = 0,
    data_dir: str | Path | None = None,
    unreadable: str = "refuse",
    progress: Progress = silent,
) -> Part:
    """A part of a dataset in a form, to judge a network by: there need be no images to train on, nor several classes.

    part  "train", "val", "test" or "all"; by default "test" where the data has parts, and all images where it has none

    The rest is as in `load`, which divides the data alike. Raises DataError for a part without images.
    """
    if data in BUILT_IN:
        found = in_memory(built_in(data, form.size[0], form.channels, 1.0, validation, seed))
    else:
        found = find(data, data_dir, progress)
        warn_of_unused(found)
    part = part or ("all" if found.part is None else "test")
    if part != "all" and data not in BUILT_IN:
        samples = found.samples
        found = with_parts(found, seed, lambda: digests(samples, True, progress), validation)
    chosen = np.arange(len(found.y)) if part == "all" else np.flatnonzero(found.part == PARTS.index(part))
    check_part(found, part, chosen)
    failures = Failures()
    images = images_of(found, chosen, form, True, failures, progress)
    failures.settle(found.name, unreadable)
    return Part(found.name, part, images, found.classes)


def check_part(found: Labelled, part: str, chosen: Array) -> None:
    """Raise DataError for a part without images."""
    if len(chosen):
        return
    counts = {name: np.count_nonzero(found.part == number) for number, name in enumerate(PARTS)}
    raise DataError(
        f"{found.name}: there are no images in the part {part!r}",
        received=", ".join(f"{count:,} in {name}" for name, count in counts.items() if count),
        fix="--part " + " or ".join([*(name for name, count in counts.items() if count), "all"]),
    )


def check_numbers(size: int | None, channels: int | None, room: float, validation: float) -> None:
    fraction("load", validation=validation)
    if size is not None:
        counts("load", size=size)
    if channels not in (None, 1, 3):
        raise ArgumentError("load: bad channels", received=str(channels), rule="1, 3 or None")
    if not 1 <= room <= 4:
        raise ArgumentError("load: bad room", received=str(room), rule="from 1 to 4")


def roomy(size: tuple[int, int], room: float) -> tuple[int, int]:
    return math.ceil(round(room * size[0], 6)), math.ceil(round(room * size[1], 6))


def built_in(name: str, size: int | None, channels: int | None, room: float, validation: float, seed: int) -> Dataset:
    """A dataset that comes with juanji, which is drawn in any size."""
    make = BUILT_IN[name]
    dataset = make() if size is None else make(size=size)
    train = dataset.train if room == 1 else make(size=roomy(dataset.shape[:2], room)[0]).train
    if validation and dataset.val is None:
        content = digests(ImageArray(name, np.asarray(make().train.x)), keep=False)  # whatever the size
        held = split(dataset.train.y, content, seed, validation)
        dataset, train = replace(dataset, val=dataset.train[held]), train[~held]
    dataset = replace(dataset, train=train)
    if channels in (None, dataset.shape[2]):
        return dataset
    val = None if dataset.val is None else in_colour(dataset.val)
    return replace(dataset, train=in_colour(train), test=in_colour(dataset.test), val=val)


def in_colour(images: Images) -> Images:
    return Images(np.repeat(np.asarray(images.x[:]), 3, axis=-1), images.y)


def with_parts(found: Labelled, seed: int, content: Callable[[], Array], validation: float = 0.0) -> Labelled:
    """The data with a part to train on and one to test on, split by the digests that `content` gives where it has only
    one; one for validation at wish."""
    part = np.full(len(found.y), TRAIN, np.int8) if found.part is None else found.part.copy()
    if not (part == TEST).any():
        part[part == VAL] = TEST
    for wanted, share in ((TEST, SHARE), (VAL, validation)):
        if share and not (part == wanted).any():
            ours = np.flatnonzero(part == TRAIN)
            part[ours[split(found.y[ours], content()[ours], seed, share)]] = wanted
    return replace(found, part=part)


def warn_of_unused(found: Labelled) -> None:
    """Warn of images that a user may think are used."""
    other = sum(map(has_other_format, found.foreign))
    unused = [
        f"{several(len(found.strays), 'image')} in no class folder" if found.strays else "",
        f"{several(other, 'image')} of formats that are not read" if other else "",
        f"{several(len(found.empty), 'class', 'classes')} without an image: {', '.join(found.empty[:10])}"
        if found.empty
        else "",
    ]
    if any(unused):
        text = "; ".join(filter(None, unused))
        warnings.warn(f"{found.name}: not used: {text} (juanji check {found.name})", stacklevel=3)


def warn_of_names(found: Labelled) -> None:
    """Warn of classes that a user may think are one."""
    if names := case.alike(found.classes):
        text = ", ".join(names[:10])
        warnings.warn(f"{found.name}: {case.CLASSES}: {text} (juanji check {found.name})", stacklevel=3)


def warn_of_copies(found: Labelled, content: Array) -> None:
    """Warn of images by which training or testing goes wrong: the same in several classes, or else in several parts."""
    kinds = Counter[str]()
    for places in groups(content):
        if len({*found.y[places]}) > 1:
            kinds["classes"] += 1
        elif len({*np.asarray(found.part)[places]}) > 1:
            kinds["parts"] += 1
    wrong = [
        f"copies of {several(kinds['classes'], 'image')} in several classes" if kinds["classes"] else "",
        f"copies of {several(kinds['parts'], 'image')} in several parts, which test nothing" if kinds["parts"] else "",
    ]
    if any(wrong):
        text = "; ".join(filter(None, wrong))
        warnings.warn(f"{found.name}: {text} (juanji check {found.name})", stacklevel=3)


def check_classes(name: str, classes: tuple[str, ...], y: Array) -> None:
    """Raise DataError for one class only, one whose name is no text, or one without an image to train on."""
    if len(classes) < 2:
        raise DataError(
            f"{name}: there is only one class",
            received=", ".join(classes),
            rule="two or more",
            fix="name the folder that the class folders lie in, not one of them or one around it",
        )
    if names := no_text(classes):
        raise DataError(
            f"{name}: there are classes whose names are no text",
            received=", ".join(map(ascii, names[:10])),
            rule="UTF-8",
            fix=NAME_FIX,
        )
    missing = np.flatnonzero(np.bincount(y, minlength=len(classes)) == 0)
    if len(missing):
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise DataError(
            f"{name}: there are classes without an image to train on",
            received=", ".join(classes[i] for i in missing[:10]) + more,
            rule="at least one for each class",
            fix=f"juanji check {name}",
        )


def images_of(found: Labelled, chosen: Array, form: Form, keep: bool, failures: Failures, progress: Progress) -> Images:
    """Those `chosen` among the images in a form; those that cannot be read are left out, and added to the failures."""
    samples = found.samples
    if isinstance(samples, ImageArray):
        samples.check_channels(form.channels)
        if samples.x.shape[1:] == form.shape:
            return Images(samples.x[chosen], found.y[chosen], Naming(samples.name, chosen))
    if not len(chosen):
        return Images(np.zeros((0, *form.shape), samples.dtype), found.y[chosen])
    x, bad = pixels(samples, chosen, form, keep, progress)
    failures.reasons.update({int(chosen[place]): reason for place, reason in bad.reasons.items()})
    read = np.delete(chosen, list(bad.reasons))
    return Images(x, found.y[read], Naming(samples.name, read))
