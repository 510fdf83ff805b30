"""Which images a command is to look at: files, folders, archives, and standard input."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO

from juanji.data.archives import is_archive, plain, written
from juanji.data.images import ENDINGS, has_other_format, is_image
from juanji.data.source import LARGEST, passed_over, too_large, walk
from juanji.errors import DataError

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, LZMAError, EOFError, OSError, RuntimeError, ValueError)


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
            yield piped(member("standard input", sys.stdin.buffer, 0))


def listing(file: IO[bytes]) -> Iterator[str]:
    """Paths, one a line, or with a NUL after each, as find -print0 has them."""
    for line in file:
        yield from filter(None, (os.fsdecode(path).rstrip("\r\n") for path in line.split(b"\0")))


def piped(found: Input | DataError) -> Input | DataError:
    """What came from standard input, unless that is nothing, or paths instead of an image."""
    if isinstance(found, DataError) or isinstance(found.source, Path):
        return found
    content = found.source.strip()
    if content and not is_path(content.partition(b"\n")[0]):
        return found
    return DataError(
        "standard input: this is no image",
        received="the path of a file" if content else "nothing",
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
    """The images in an archive, in its order. Nothing is unpacked to the disk."""
    empty = True
    try:
        for found in (zipped if path.suffix.lower() == ".zip" else tarred)(path):
            empty = False
            yield found
    except DataError as error:
        yield error
    except FileNotFoundError:
        yield DataError(f"{path}: there is no such file", fix="check the path")
    except DAMAGED as error:
        yield DataError(
            f"{path}: the archive cannot be read",
            received=str(error) or type(error).__name__,
            fix="download or make it again, without a password",
        )
    else:
        if empty:
            yield nothing(path, "archive")


def zipped(path: Path) -> Inputs:
    with zipfile.ZipFile(path) as opened:
        found = opened.infolist()
        for info, given in zip(found, written(found), strict=True):
            name = plain(path, given)
            if not info.is_dir() and wanted(name):
                with opened.open(info) as file:
                    yield member(f"{path}/{name}", file, info.file_size)


def tarred(path: Path) -> Inputs:
    with tarfile.open(path) as opened:
        while info := opened.next():
            opened.members.clear()  # type: ignore[attr-defined]  # they would hold every member's header
            name = plain(path, info.name)
            if info.isfile() and wanted(name) and (file := opened.extractfile(info)):
                yield member(f"{path}/{name}", file, info.size)


def member(name: str, file: IO[bytes], size: int) -> Input | DataError:
    """An image whose bytes are in an open file. No more is read than an image may have, whatever `size` is stated."""
    content = b"" if size > LARGEST else file.read(LARGEST + 1)
    if size > LARGEST or len(content) > LARGEST:
        return too_large(name, max(size, len(content)))
    return Input(name, content)


def nothing(path: Path, kind: str) -> DataError:
    return DataError(
        f"{path}: there is no image in this {kind}",
        rule="files whose names end in " + ", ".join(ENDINGS),
        fix=f"name another {kind}",
    )
