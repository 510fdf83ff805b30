"""What folders mean: DATA/CLASS/image, or DATA/PART/CLASS/image."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from juanji.data.images import is_image
from juanji.data.labelled import PART_NAMES, TRAIN, ImageFiles, Labelled, numbered
from juanji.data.source import Files, Names, Source, top_folder
from juanji.errors import DataError

RUN = {"config.json", "model.safetensors"}  # what every folder that `juanji train` made has
TABLES = (".csv", ".tsv")


def in_folders(name: str, source: Source) -> Labelled:
    """The images of a source, whose folders are classes, or parts (train, val, test) that hold classes.

    One folder that holds everything is seen through. Raises DataError where the folders mean neither.
    """
    top = top_folder((file for file in source.files.names if is_image(file)), PART_NAMES)
    levels = 2 if are_parts(name, source.files.names, top) else 1
    found = Found(source.files, len(top), levels)
    for i, file in enumerate(source.files.names):
        found.add(i, file)
    if not found.chosen:
        raise nothing_labelled(name, found)
    classes, number = numbered(list(found.classes))
    part = np.array(found.parts, np.int8) if levels == 2 else None
    return Labelled(
        name,
        ImageFiles(source, np.array(found.chosen, np.int64)),
        number[np.array(found.labels, np.int64)],
        classes,
        part,
        empty=tuple(sorted(class_folders(source.folders, top, levels) - set(classes))),
        strays=selected(source.files.names, found.strays),
        foreign=selected(source.files.names, found.foreign),
        nested=tuple(found.nested),
    )


@dataclass
class Found:
    """The images met so far: their places in the table of files, parts, and classes numbered as they were met."""

    files: Files
    skip: int
    levels: int
    classes: dict[str, int] = field(default_factory=dict)
    chosen: array[int] = field(default_factory=lambda: array("q"))
    labels: array[int] = field(default_factory=lambda: array("i"))
    parts: array[int] = field(default_factory=lambda: array("b"))
    strays: array[int] = field(default_factory=lambda: array("q"))
    foreign: array[int] = field(default_factory=lambda: array("q"))
    nested: dict[str, None] = field(default_factory=dict)

    def add(self, i: int, file: str) -> None:
        if not is_image(file):
            self.foreign.append(i)
            return
        first, *rest = file[self.skip :].split("/", self.levels)
        if len(rest) < self.levels:
            self.strays.append(i)
            return
        label = rest[0] if self.levels == 2 else first
        if "/" in rest[-1]:
            self.nested[file.removesuffix(rest[-1][rest[-1].index("/") :])] = None
        self.chosen.append(i)
        self.labels.append(self.classes.setdefault(label, len(self.classes)))
        self.parts.append(PART_NAMES[first.lower()] if self.levels == 2 else TRAIN)


def selected(names: Names, places: array[int]) -> Names:
    return Names.of(names[i] for i in places)


def are_parts(name: str, files: Names, top: str) -> bool:
    """Whether the folders are parts that hold classes: one is called train, or all are called like parts."""
    direct, deeper = depths(files, len(top))
    parts = [folder for folder in deeper if folder.lower() in PART_NAMES and not direct[folder]]
    others = sorted({*direct, *deeper} - {*parts})
    train = [folder for folder in parts if PART_NAMES[folder.lower()] == TRAIN]
    if others and train:
        raise DataError(
            f"{name}: a folder beside {train[0]} holds images of no part, or of no class",
            received=others[0],
            rule="DATA/{train,val,test}/CLASS/image",
            fix=f"take {others[0]} away, or bring it to that form",
        )
    return bool(parts) and not others


def depths(files: Names, skip: int) -> tuple[Counter[str], Counter[str]]:
    """By folder: the images that lie directly in it, and those that lie in folders of it."""
    direct: Counter[str] = Counter()
    deeper: Counter[str] = Counter()
    for file in files:
        folder, _, rest = file[skip:].partition("/")
        if rest and is_image(file):
            (deeper if "/" in rest else direct)[folder] += 1
    return direct, deeper


def class_folders(folders: tuple[str, ...], top: str, levels: int) -> set[str]:
    """The names of all class folders, whether there are images in them or not."""
    found = [folder[len(top) :].split("/") for folder in folders if folder.startswith(top)]
    return {
        parts[-1]
        for parts in found
        if len(parts) == levels and parts[-1] and (levels == 1 or parts[0].lower() in PART_NAMES)
    }


def nothing_labelled(name: str, found: Found) -> DataError:
    fix = "a folder for each class, with its images"
    files = selected(found.files.names, found.foreign)
    if {*files} >= RUN:
        fix = "this is the folder of a run: name the folder of its images"
    elif table := next((file for file in files if file.endswith(TABLES)), ""):
        fix = f"if {table} says the labels, name it instead"
    foreign = f"{len(found.strays):,} images in no folder, {len(found.foreign):,} files that are no images"
    return DataError(
        f"{name}: there are no labelled images",
        received=foreign if found.strays or found.foreign else "no files",
        rule="DATA/CLASS/image, or DATA/{train,val,test}/CLASS/image; PNG, JPEG, BMP, GIF, TIFF or WebP",
        fix=fix,
    )
