"""Which images a command is to look at: files, folders, archives, and standard input."""

from __future__ import annotations

import functools
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

from juanji.data.images import FORMATS
from juanji.errors import DataError

LARGEST = 1 << 28  # bytes of an image file that is read into memory
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
UTF8 = 0x800  # a zip's sign that a name is in UTF-8 (APPNOTE 4.4.4, bit 11)
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
        elif listed:
            yield from inputs(filter(None, (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)), False)
        else:
            yield member("standard input", sys.stdin.buffer, 0)


def opened(path: Path) -> Inputs:
    if path.is_dir():
        return folder(path)
    if path.name.lower().endswith(ARCHIVES):
        return archive(path)
    return iter([Input(str(path), path)])


@functools.cache
def endings() -> frozenset[str]:
    """How the names of image files end."""
    from PIL import Image

    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in FORMATS)


def is_image(name: str) -> bool:
    """Whether a file of this name is an image, and not what a system keeps beside images, `._photo.jpg`."""
    base = name.rpartition("/")[2]
    return Path(base).suffix.lower() in endings() and not base.startswith(".")


def folder(path: Path) -> Inputs:
    """The images in a folder and in those below it, by name."""
    empty = True
    for found in below(path, ()):
        empty = False
        yield found
    if empty:
        yield nothing(path, "folder")


def below(path: Path, above: tuple[Path, ...]) -> Inputs:
    try:
        place, names = path.resolve(), sorted(os.listdir(path))
    except (OSError, RuntimeError) as error:
        yield DataError(f"{path}: the folder cannot be read", received=getattr(error, "strerror", None) or str(error))
        return
    if place in above:
        yield DataError(f"{path}: this link leads back to a folder around it", fix="remove the link")
        return
    for name in names:
        inner = path / name
        if inner.is_dir():
            yield from below(inner, (*above, place))
        elif is_image(name):
            yield Input(str(inner), inner)


def archive(path: Path) -> Inputs:
    """The images in an archive, in its order. Nothing is unpacked to the disk."""
    empty = True
    try:
        for found in (zipped if path.suffix.lower() == ".zip" else tarred)(path):
            empty = False
            yield found
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
        for info in opened.infolist():
            if not info.is_dir() and is_image(info.filename):
                with opened.open(info) as file:
                    yield member(f"{path}/{written(info)}", file, info.file_size)


def written(info: zipfile.ZipInfo) -> str:
    """The name in a zip as whoever made it wrote it: programs that write UTF-8 do not always say so, and what does not
    is taken for DOS's code page 437."""
    if info.flag_bits & UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def tarred(path: Path) -> Inputs:
    with tarfile.open(path) as opened:
        while info := opened.next():
            opened.members.clear()  # type: ignore[attr-defined]  # they would hold every member's header
            if info.isfile() and is_image(info.name) and (file := opened.extractfile(info)):
                yield member(f"{path}/{info.name}", file, info.size)


def member(name: str, file: IO[bytes], size: int) -> Input | DataError:
    """An image whose bytes are in an open file. No more is read than an image may have, whatever `size` is stated."""
    content = b"" if size > LARGEST else file.read(LARGEST + 1)
    if size > LARGEST or len(content) > LARGEST:
        return DataError(
            f"{name}: the file is too large to be an image",
            received=f"{max(size, len(content)):,} bytes",
            rule=f"at most {LARGEST:,}",
        )
    return Input(name, content)


def nothing(path: Path, kind: str) -> DataError:
    return DataError(
        f"{path}: there is no image in this {kind}",
        rule="files whose names end in " + ", ".join(sorted(endings())),
        fix=f"name another {kind}",
    )
