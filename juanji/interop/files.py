"""Writing files so that none is ever half there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from juanji.errors import DataError


def made(folder: Path, fix: str) -> Path:
    """The folder, made with those around it where need be. Raises DataError, with what to do, where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be made", received=error.strerror or str(error), fix=fix
        ) from None
    return folder


def write_atomically(file: str | Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file whole or not at all: under another name first, then put in its place.

    When it returns, the file is on the disk under its name, so that not even a loss of power takes it back.

    file     its path
    content  the bytes, or parts of them in order

    Raises DataError, naming the file, where that cannot be done.
    """
    path = Path(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as opened:
            opened.writelines([content] if isinstance(content, bytes) else content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
        settle(path.parent)
    except OSError as error:
        raise DataError(
            f"{path}: the file cannot be written",
            received=error.strerror or str(error),
            fix="name a folder that exists and may be written to, on a disk with room",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def settle(folder: Path) -> None:
    """Have the names in a folder on the disk. Windows has no such call, and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
