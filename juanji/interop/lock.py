"""One process at a time: files that are locked. The system itself lets go of a lock when its process ends, however it
does, so a file that was left behind keeps nobody out."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

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
def locked(path: Path, taken: Callable[[IO[bytes]], None], refused: Callable[[OSError], Exception]) -> Iterator[None]:
    """Inside, nobody else has locked the file of this name, which says who has. It is made for that, and removed.

    taken    is called with the file as often as somebody else has locked it, to raise an error or to wait
    refused  gives the error to be raised where no file can be made

    Warns where the file system has no locks.
    """
    file = acquired(path, taken, refused)
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


def acquired(path: Path, taken: Callable[[IO[bytes]], None], refused: Callable[[OSError], Exception]) -> IO[bytes]:
    """The file, locked, and still the one of this name."""
    while True:
        try:
            file = path.open("a+b")
        except OSError as error:
            raise refused(error) from None
        try:
            lock(file)
        except OSError as error:
            if error.errno in TAKEN:
                with file:
                    taken(file)
                continue
            warnings.warn(f"{path.parent}: another process is not kept out: {error.strerror}", stacklevel=4)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # whoever had it has removed it meanwhile


def owner(file: IO[bytes]) -> str:
    """The number of the process that has locked a file."""
    file.seek(0)
    return file.read(20).decode(errors="replace")
