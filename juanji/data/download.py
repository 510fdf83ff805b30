"""Fetching files whose content is known: going on where a connection was cut, from one mirror or the next."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO

from juanji.errors import DataError
from juanji.interop.lock import locked

BLOCK = 1 << 18
TRIES = 3  # of each mirror, each going on where the one before was cut
TIMEOUT = 30.0  # seconds without a byte
WAIT = 0.2  # seconds between two looks whether another process is done
PASSING = (408, 416, 429)  # timeout, no such range, too many requests: asked again, these may be well
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, of: int) -> None:
    """The progress that nobody watches. `what` is going on, and this much of it is done."""


@dataclass(frozen=True)
class File:
    """A file by its name, its size in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


class WrongFileError(Exception):
    """A mirror has another file, or none: it need not be asked again."""


def fetch(file: File, mirrors: Sequence[str], folder: Path, progress: Progress = silent) -> Path:
    """The file in a folder, downloaded from the first mirror (URL = mirror + name) that gives it whole.

    What was loaded before a connection was cut stays, in NAME.part, and is gone on with, by another mirror too. The
    file is there only once its SHA-256 is right. One process at a time loads it; another waits, and takes what that
    one has loaded. Raises DataError with what was wrong with each mirror.
    """
    whole = folder / file.name
    part = unfinished(whole)

    def wait(_: IO[bytes]) -> None:
        with contextlib.suppress(FileNotFoundError):
            progress(f"waiting for another process that loads {file.name}", part.stat().st_size, file.size)
        time.sleep(WAIT)

    with locked(part.with_name(f".{part.name}.lock"), wait, functools.partial(unwritable, part)):
        if not whole.exists():
            download(file, mirrors, whole, progress)
    return whole


def download(file: File, mirrors: Sequence[str], whole: Path, progress: Progress) -> None:
    part, left, reasons = unfinished(whole), [*mirrors], dict[str, str]()
    for _ in range(TRIES):
        for mirror in [*left]:
            try:
                go_on(mirror + file.name, file, part, progress)
                os.replace(part, whole)
                return
            except WrongFileError as error:
                left.remove(mirror)
                reasons[mirror] = str(error)
            except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                reasons[mirror] = str(error) or type(error).__name__
            except OSError as error:
                raise unwritable(part, error) from None
    raise DataError(
        f"{file.name}: the file cannot be downloaded",
        received="\n            ".join(f"{mirror}: {reason}" for mirror, reason in reasons.items()),
        rule=f"{file.size:,} bytes with SHA-256 {file.sha256}",
        fix=f"try again later, or put the file into {whole.parent}",
    )


def unwritable(part: Path, error: OSError) -> DataError:
    return DataError(
        f"{part}: the file cannot be written",
        received=error.strerror or str(error),
        fix="name a folder that may be written to, on a disk with room: --data-dir FOLDER",
    )


def unfinished(path: Path) -> Path:
    """Where what is there of a file lies until it is whole."""
    return path.with_name(f"{path.name}.part")


def go_on(url: str, file: File, part: Path, progress: Progress) -> None:
    """Load what is missing of `part`, and check it."""
    have = part.stat().st_size if part.exists() else 0
    if have < file.size:
        load(url, file, part, have, progress)
    with part.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != file.sha256:
        part.unlink()
        if have:
            raise ConnectionError("what was loaded before is damaged, or of another file")
        raise WrongFileError(f"another file: SHA-256 {digest}")


def load(url: str, file: File, part: Path, have: int, progress: Progress) -> None:
    headers = {"User-Agent": "juanji", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as answer:
            # A server that knows no ranges sends the file from its beginning.
            fresh = answer.status != 206
            with part.open("wb" if fresh else "ab") as out:
                copy(answer, out, file, 0 if fresh else have, progress)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            part.unlink(missing_ok=True)
        if error.code < 500 and error.code not in PASSING:
            raise WrongFileError(f"HTTP {error.code} {error.reason}") from None
        raise


def copy(answer: IO[bytes], out: IO[bytes], file: File, done: int, progress: Progress) -> None:
    while block := answer.read(BLOCK):
        done += len(block)
        if done > file.size:
            break
        out.write(block)
        progress(f"downloading {file.name}", done, file.size)
    if done < file.size:
        raise ConnectionError(f"the connection was cut after {done:,} of {file.size:,} bytes")
