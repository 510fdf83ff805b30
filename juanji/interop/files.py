"""Writing files so that none is ever half there."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
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

    When it returns, the file is on the disk under its name, so that not even a loss of power takes it back. A link
    stays, and what it leads to is written; a file that was there keeps its permissions. What is no file, such as a pipe
    or /dev/null, is written as it is. Any number of threads and processes may write the same file.

    file     its path
    content  the bytes, or parts of them in order

    Raises DataError, naming the file, where that cannot be done.
    """
    parts = [content] if isinstance(content, bytes) else content
    try:
        mode = mode_of(file)
        if mode is None or stat.S_ISREG(mode):
            replace(Path(os.path.realpath(file)), mode, parts)
        else:
            with open(file, "wb") as opened:
                opened.writelines(parts)
    except OSError as error:
        raise DataError(
            f"{file}: the file cannot be written",
            received=error.strerror or str(error),
            fix="name a folder that exists and may be written to, on a disk with room",
        ) from None


def mode_of(file: str | Path) -> int | None:
    """What kind of file is there, and its permissions; None where there is none."""
    try:
        return os.stat(file).st_mode
    except FileNotFoundError:
        return None


def replace(path: Path, mode: int | None, parts: Iterable[bytes]) -> None:
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as opened:
            if mode is not None:
                os.chmod(temporary, stat.S_IMODE(mode))
            opened.writelines(parts)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(path)
        settle(path.parent)
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
