"""From what a user names to labelled images: a built-in dataset, or a path of one of several kinds."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from juanji.data.archives import Archive, is_archive
from juanji.data.arrays import CIFAR, in_cifar, in_idx, in_npz, is_idx
from juanji.data.builtin import BUILT_IN
from juanji.data.dataset import Dataset
from juanji.data.download import Progress, silent
from juanji.data.images import is_image
from juanji.data.labelled import TEST, TRAIN, VAL, ImageArray, Labelled
from juanji.data.layout import in_folders
from juanji.data.public import PUBLIC, public
from juanji.data.source import Folder
from juanji.data.tables import ENDINGS as TABLES
from juanji.data.tables import in_table
from juanji.errors import DataError, unknown_name

# What is accepted: how a path of the kind is told, and what reads it. The first that fits does.
KINDS: tuple[tuple[str, Callable[[Path], bool], Callable[[Path], Labelled]], ...] = (
    ("a folder of IDX files", lambda path: any(is_idx(file.name) for file in path.glob("*-ubyte*")), in_idx),
    ("a folder of CIFAR-10's batches", lambda path: (path / CIFAR[0]).is_file(), in_cifar),
    ("a folder of class folders", Path.is_dir, lambda path: in_folders(str(path), Folder(path))),
    (".zip, .tar, .tar.gz, .tar.bz2, .tar.xz", is_archive, lambda path: in_folders(str(path), Archive(path))),
    (".csv, .tsv", lambda path: path.suffix.lower() in TABLES, in_table),
    (".npz", lambda path: path.suffix.lower() == ".npz", in_npz),
    ("an IDX file of images", lambda path: is_idx(path.name), in_idx),
)


def find(data: str | os.PathLike[str], data_dir: str | Path | None = None, progress: Progress = silent) -> Labelled:
    """The labelled images that a name or path stands for. None is decoded yet.

    data      a built-in dataset (digits, mnist, fashion-mnist, cifar10); or a folder, archive, table or file of arrays.
              One that is called like a built-in dataset is named by ./NAME, or by a `Path`.
    data_dir  where the files of public datasets lie, or are downloaded to; a folder of the cache by default

    Raises UnknownNameError with the nearest names where there is neither, DataError for what cannot be used.
    """
    name = os.fspath(data)
    if isinstance(data, str) and name in BUILT_IN:
        return in_memory(BUILT_IN[name]())
    if isinstance(data, str) and name in PUBLIC:
        return public(name, data_dir, progress)
    path = Path(name)
    if not path.exists():
        raise not_there(name)
    for _, fits, read in KINDS:
        if fits(path):
            return read(path)
    raise DataError(
        f"{name}: files of this kind are not read",
        received=path.suffix or "no ending",
        rule="; ".join(what for what, _, _ in KINDS),
        fix="name the folder that its class folder lies in; what is on an image says juanji predict RUN IMAGE"
        if is_image(name)
        else "images in a folder for each class, or a table of their paths and labels",
    )


def not_there(name: str) -> DataError | KeyError:
    if "/" in name or "\\" in name or Path(name).suffix:
        return DataError(f"{name}: there is no such file or folder", fix="check the path")
    error = unknown_name("dataset", name, [*BUILT_IN, *PUBLIC])
    error.rule += "; or the path of a folder or file"
    error.fix = f"{error.fix} A folder of that name is not here" if error.fix else "check the path"
    return error


def in_memory(dataset: Dataset) -> Labelled:
    """A dataset that is in memory as labelled images."""
    parts = {TRAIN: dataset.train, VAL: dataset.val, TEST: dataset.test}
    there = {part: images for part, images in parts.items() if images is not None}
    return Labelled(
        dataset.name,
        ImageArray(dataset.name, np.concatenate([np.asarray(images.x[:]) for images in there.values()])),
        np.concatenate([images.y for images in there.values()]),
        dataset.classes,
        np.concatenate([np.full(len(images), part, np.int8) for part, images in there.items()]),
    )
