"""Which images a command is to look at: files, folders, archives, and standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from juanji.data.archives import Archive, by_folder, is_archive
from juanji.data.images import ENDINGS, has_other_format, is_image
from juanji.data.source import LARGEST, passed_over, too_large, walk
from juanji.errors import DataError


@dataclass(frozen=True)
class Input:
    """An image that is still to be read: what it is called, and where it is, or its bytes."""

    name: str
    source: Path | bytes


Inputs = Iterator[Input | DataError]


def inputs(paths: Iterable[str], listed: bool) -> Inputs:
    """The images in files, in folders and what lies below them, in archives (.zip, .tar, compressed or not), in order.

    `-` is one image from standard input, or paths from there, one a line, if they are `listed`. What cannot be read is
    given as the error that tells it, in its place, and does not cost the rest.
    """
    for path in paths:
        if path != "-":
            yield from opened(Path(path))
        elif sys.stdin is None:
            yield DataError(
                "standard input: it is closed",
                received="no open file",
                rule="one image file, or with --list paths",
                fix="name image files, folders or archives",
            )
        elif listed:
            yield from inputs(listing(sys.stdin.buffer), False)
        else:
            yield piped(sys.stdin.buffer)


def listing(file: IO[bytes]) -> Iterator[str]:
    """Paths, one a line, or with a NUL after each, as find -print0 has them."""
    for line in file:
        yield from filter(None, (os.fsdecode(path).rstrip("\r\n") for path in line.split(b"\0")))


def piped(file: IO[bytes]) -> Input | DataError:
    """What comes from standard input, unless that is nothing, too large, or paths instead of an image."""
    content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        return too_large("standard input", len(content))
    if content.strip() and not is_path(content.strip().partition(b"\n")[0]):
        return Input("standard input", content)
    return DataError(
        "standard input: this is no image",
        received="the path of a file" if content.strip() else "nothing",
        rule="one image file",
        fix="--list takes - for paths, one a line",
    )


def is_path(line: bytes) -> bool:
    try:
        return Path(os.fsdecode(line).strip()).exists()
    except (OSError, ValueError):
        return False


def opened(path: Path) -> Inputs:
    if path.is_dir():
        return folder(path)
    if is_archive(path):
        return archive(path)
    return iter([Input(str(path), path)])


def wanted(name: str) -> bool:
    """Whether a file in a folder or an archive is an image by its name, be it of a format that is not read."""
    return (is_image(name) or has_other_format(name)) and not passed_over(name)


def folder(path: Path) -> Inputs:
    """The images in a folder and in those below it, by name."""
    empty = True
    for found in walk(path, []):
        if isinstance(found, DataError):
            yield found
        elif wanted(found[0]):
            file = path / found[0]
            yield Input(str(file), file)
        else:
            continue
        empty = False
    if empty:
        yield nothing(path, "folder")


def archive(path: Path) -> Inputs:
    """The images in an archive, by name, as training reads them."""
    broken: dict[str, DataError] = {}
    try:
        found = Archive(path, broken)
    except DataError as error:
        yield error
        return
    places = {name: i for i, name in enumerate(found.files.names) if wanted(name)}
    chosen = sorted((*places, *filter(wanted, broken)), key=by_folder)
    for name in chosen:
        try:
            yield broken[name] if name in broken else Input(f"{path}/{name}", found.read(places[name]))
        except DataError as error:
            yield error
    if not chosen:
        yield nothing(path, "archive")


def nothing(path: Path, kind: str) -> DataError:
    return DataError(
        f"{path}: there is no image in this {kind}",
        rule="files whose names end in " + ", ".join(ENDINGS),
        fix=f"name another {kind}",
    )
