"""One process at a time writes into a run folder. The system itself lets go of a lock when its process ends, however it
does, so a file that was left behind keeps nobody out."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from juanji.errors import DataError

NAME = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
FAR = 1 << 20  # the byte that Windows locks, beyond those that are read

if sys.platform == "win32":
    import msvcrt

    def lock(file: IO[bytes]) -> None:
        file.seek(FAR)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Inside, nobody else holds the folder. It warns where the file system has no locks.

    Raises DataError where somebody does, or where nothing may be written into the folder.
    """
    path = folder / NAME
    file = acquired(folder, path)
    try:
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()).encode())
        file.flush()
        yield
    finally:
        if os.name == "posix":
            path.unlink(missing_ok=True)  # while it is held: later it might be that of somebody else
        file.close()
        if os.name == "nt":
            with contextlib.suppress(OSError):  # an open file cannot be removed, by us or under somebody else
                path.unlink()


def acquired(folder: Path, path: Path) -> IO[bytes]:
    """The lock file, locked, and still the one of this name."""
    while True:
        try:
            file = path.open("a+b")
        except OSError as error:
            raise DataError(
                f"{folder}: nothing may be written into this run folder",
                received=error.strerror or str(error),
                fix="make it writable, or copy it to where it is",
            ) from None
        try:
            lock(file)
        except OSError as error:
            if error.errno in TAKEN:
                raise in_use(folder, file) from None
            warnings.warn(f"{folder}: another process is not kept out: {error.strerror}", stacklevel=4)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # whoever had it has removed it meanwhile


def in_use(folder: Path, file: IO[bytes]) -> DataError:
    with file:
        file.seek(0)
        owner = file.read(20).decode(errors="replace")
    return DataError(
        f"{folder}: another process is training in this run folder",
        received=f"process {owner}",
        rule="one process at a time",
        fix="wait until it ends, or end it; or name another folder: --out FOLDER",
    )
