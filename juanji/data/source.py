"""Where files come from: a folder, or an archive that is read in place. Each is a sorted table of files to be read."""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from juanji.errors import DataError
from juanji.graph import Array

LARGEST = 1 << 28  # bytes of one file; a photograph of 100 million pixels has a tenth of it
# What file managers leave behind, whatever its case. Names that begin with a dot are passed over too.
PASSED_OVER = re.compile(
    r"(?:^|/)(?:\.|(?:__macosx|thumbs\.db|ehthumbs\.db|desktop\.ini|@eadir)(?:/|$))", re.IGNORECASE
)
DEEPEST = 100
FOLDERS_TO_DEPTH = 3  # a top folder, a part, a class
Row = tuple[str, int, int]  # a name, a size, a stamp


class Names(Sequence[str]):
    """Names one after the other in one buffer: a million take no more than their letters and 8 bytes each."""

    def __init__(self, text: bytes, ends: Array) -> None:
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        text, ends = bytearray(), array("q")
        for name in names:
            text += name.encode("utf-8", "surrogateescape")
            ends.append(len(text))
        return cls(bytes(text), np.array(ends, np.int64))

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self.ends.data:
            yield self.text[start:end].decode("utf-8", "surrogateescape")
            start = end

    @overload
    def __getitem__(self, i: int) -> str: ...
    @overload
    def __getitem__(self, i: slice) -> list[str]: ...
    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        return self.text[self.ends[i - 1] if i else 0 : self.ends[i]].decode("utf-8", "surrogateescape")


@dataclass(frozen=True, eq=False)
class Files:
    """Names in sorted order, with "/" between their parts; sizes in bytes; and a stamp of each, which changes with its
    content: its time, or its checksum."""

    names: Names
    sizes: Array
    stamps: Array

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Files:
        sizes, stamps = array("q"), array("q")

        def named() -> Iterator[str]:
            for name, size, stamp in rows:
                sizes.append(size)
                stamps.append(stamp)
                yield name

        names = Names.of(named())
        return cls(names, np.array(sizes, np.int64), np.array(stamps, np.int64))

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Labels:
    """What people call files: their names, with where they lie. It holds no file open, as a source may."""

    path: Path
    names: Names

    def __call__(self, i: int) -> str:
        return os.path.join(self.path, self.names[i])


class Source(ABC):
    """Files of one origin. `read` may be called from several threads at once.

    path     the folder or archive, as errors name it
    files    all that lie in it and are not passed over: hidden files, and what file managers leave behind
    folders  the names of folders, three deep, those without files among them
    """

    path: Path
    files: Files
    folders: tuple[str, ...]

    @abstractmethod
    def read(self, i: int) -> bytes:
        """The content of file i. Raises DataError, naming it, where it cannot be had whole, or is too large."""

    def head(self, i: int) -> Path | bytes:
        """Where what a decoder reads first of file i lies, or the first bytes: mostly enough for an image's size."""
        return self.path / self.files.names[i]

    @property
    def label(self) -> Labels:
        """The name of file i for people, `label(i)`."""
        return Labels(self.path, self.files.names)

    @property
    def identity(self) -> str:
        """A digest that changes when a file is added, renamed or changed, and stays when all of them are moved."""
        digest = hashlib.sha256(self.files.names.text)
        for column in (self.files.names.ends, self.files.sizes, self.files.stamps):
            digest.update(column.tobytes())
        return digest.hexdigest()


class Folder(Source):
    """The files beneath a folder. Links are followed where they stay inside.

    Raises DataError, naming it, for a link that leads out, nowhere or round in a circle, and for a folder that may not
    be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        folders: list[str] = []
        self.files = Files.of(unrefused(walk(self.path, folders)))
        self.folders = tuple(folders)

    def read(self, i: int) -> bytes:
        return read_file(self.path / self.files.names[i])


class Listed(Source):
    """Files that a list names, relative to a folder or by absolute paths, in the list's order.

    One that is not there is told of when it is read.
    """

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        self.path = path
        self.files = Files.of(self.stated(name) for name in names)
        self.folders = ()

    def stated(self, name: str) -> tuple[str, int, int]:
        try:
            state = (self.path / name).stat()
        except (OSError, ValueError):
            return name, 0, 0
        return name, state.st_size, state.st_mtime_ns

    def read(self, i: int) -> bytes:
        return read_file(self.path / self.files.names[i])


def no_file(path: Path, error: Exception) -> DataError:
    reason = error.strerror if isinstance(error, OSError) else None
    return DataError(f"{path}: the file cannot be read", received=reason or str(error), fix="check the path")


def read_file(path: Path) -> bytes:
    """The content of a file. Raises DataError, naming it, where that cannot be had, or is larger than any image."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > LARGEST:
                raise too_large(str(path), size)
            return file.read(size)
    except (OSError, ValueError) as error:
        raise no_file(path, error) from None


def too_large(name: str, size: int) -> DataError:
    return DataError(
        f"{name}: the file is too large to be an image",
        received=f"{size:,} bytes",
        rule=f"at most {LARGEST:,}",
        fix="take it out of the data",
    )


def passed_over(name: str) -> bool:
    """Whether a file, or a folder it lies in, is hidden or left behind by a file manager."""
    return PASSED_OVER.search(name) is not None


def walk(root: Path, folders: list[str]) -> Iterator[Row | DataError]:
    """Name, size and time of every file beneath `root`, sorted, and why what is refused is, in its place.

    The names of folders are added to `folders`.
    """
    real = os.path.realpath(root)

    def visit(folder: str, name: str, above: tuple[str, ...]) -> Iterator[Row | DataError]:
        try:
            found = entries(folder)
        except DataError as error:
            yield error
            return
        for entry in found:
            inner = f"{name}/{entry.name}" if name else entry.name
            try:
                below = target(entry, real, above) if entry.is_symlink() else os.path.join(above[-1], entry.name)
            except DataError as error:
                yield error
                continue
            if entry.is_file():
                state = entry.stat()
                yield inner, state.st_size, state.st_mtime_ns
            elif entry.is_dir() and len(above) > DEEPEST:
                yield refused(entry.path, f"a folder more than {DEEPEST} folders deep")
            elif entry.is_dir():
                if inner.count("/") < FOLDERS_TO_DEPTH:
                    folders.append(inner)
                yield from visit(entry.path, inner, (*above, below))

    return visit(os.fspath(root), "", (real,))


def unrefused(found: Iterable[Row | DataError]) -> Iterator[Row]:
    """The files, if nothing is refused. Raises DataError for what is."""
    for row in found:
        if isinstance(row, DataError):
            raise row
        yield row


def entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not passed_over(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise no_file(Path(folder), error) from None


def target(link: os.DirEntry[str], root: str, above: tuple[str, ...]) -> str:
    """Where a link leads: inside `root`, and to no folder `above` itself."""
    try:
        real = os.path.realpath(link.path, strict=True)
    except FileNotFoundError:
        raise refused(link.path, "a link to something that is not there") from None
    except OSError:
        raise refused(link.path, "a link that leads round in a circle") from None
    if real != root and not real.startswith(os.path.join(root, "")):
        raise refused(link.path, f"a link out of the data, to {real}")
    if real in above:
        raise refused(link.path, "a link that leads round in a circle")
    return real


def refused(name: str, what: str) -> DataError:
    return DataError(
        f"{name}: this is refused",
        received=what,
        rule="files that lie in the data, each under one name",
        fix="put a copy of the files in its place, or take it away",
    )


def top_folder(names: Iterable[str], parts: Iterable[Any] = ()) -> str:
    """The one folder that all files lie in, as "name/", if there is one that holds folders again; else "".

    parts  names of folders that mean something by themselves
    """
    top = None
    for name in names:
        first, _, rest = name.partition("/")
        if "/" not in rest or first.lower() in parts or top not in (None, first):
            return ""
        top = first
    return f"{top}/" if top else ""
