"""One process at a time writes into a run folder."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from juanji.errors import DataError
from juanji.interop.lock import locked, owner

NAME = ".lock"


def held(folder: Path) -> AbstractContextManager[None]:
    """Inside, nobody else holds the folder. It warns where the file system has no locks.

    Raises DataError where somebody does, or where nothing may be written into the folder.
    """

    def in_use(file: IO[bytes]) -> None:
        raise DataError(
            f"{folder}: another process is training in this run folder",
            received=f"process {owner(file)}",
            rule="one process at a time",
            fix="wait until it ends, or end it; or name another folder: --out FOLDER",
        ) from None

    def closed(error: OSError) -> DataError:
        return DataError(
            f"{folder}: nothing may be written into this run folder",
            received=error.strerror or str(error),
            fix="make it writable, or copy it to where it is",
        )

    return locked(folder / NAME, in_use, closed)
