"""Images of one form packed in a file, so that they are decoded once: the pixels as they are, then what they are.

The files lie in a folder beside the compiled code, `JUANJI_CACHE` or the system's place for caches. One is used only if
it is whole; it appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from juanji.data.dataset import Pixels
from juanji.data.download import Progress, silent
from juanji.data.form import Form
from juanji.data.labelled import Samples, several
from juanji.data.parallel import CHUNK, chunks
from juanji.errors import DataError
from juanji.graph import Array
from juanji.kernels import cache

MAGIC = b"juanji images 1\n"
END = struct.Struct("<Q32s16s")  # the length of the notes, the digest of pixels and notes, MAGIC
NAME = re.compile("[0-9a-f]{64}")
UNFINISHED = "unfinished-"
BLOCK = 1 << 24
AT_ONCE = 1 << 22  # bytes of images that a thread decodes in one go
LEFT = 24 * 3600  # seconds after which nobody writes to a file any more
SMALL_SHARE = 8  # an eighth of the memory is small
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Failures:
    """The images that could not be read: their places, and why."""

    reasons: dict[int, str] = field(default_factory=dict)

    def settle(self, name: str, unreadable: str) -> None:
        """Refuse them, or warn of how many are left out."""
        if unreadable == "refuse":
            self.refuse(name)
        elif self.reasons:
            text = f"{several(len(self.reasons), 'image')} that cannot be read, left out (juanji check {name})"
            warnings.warn(f"{name}: {text}", stacklevel=3)

    def refuse(self, name: str) -> None:
        """Raise DataError where there are any, naming the first ten."""
        if not self.reasons:
            return
        shown = [reason.splitlines()[0] for reason in list(self.reasons.values())[:10]]
        more = len(self.reasons) - len(shown)
        raise DataError(
            f"{name}: {len(self.reasons):,} of the images cannot be read",
            received="\n            ".join([*shown, *([f"and {more:,} more"] if more else [])]),
            rule="every image can be read",
            fix="`juanji check` lists them all; mend them, take them away, or train without them: --skip-unreadable",
        )


class Mapped:
    """Images in a file that is mapped into memory: the system keeps what there is room for."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self.shape: tuple[int, ...] = data.shape
        self.dtype = data.dtype

    def __getitem__(self, chosen: Any, /) -> Array:
        return np.array(self.data[chosen])


class Decoder:
    """Those `chosen` among image files, decoded by threads whenever they are asked for."""

    def __init__(self, samples: Samples, chosen: Array, form: Form) -> None:
        self.samples, self.chosen, self.form = samples, chosen, form
        self.shape: tuple[int, ...] = (len(chosen), *form.shape)
        self.dtype: np.dtype[Any] = samples.dtype

    def __getitem__(self, chosen: Any, /) -> Array:
        places = self.chosen[chosen]
        read = chunks(lambda part: [self.samples.read(int(i), self.form) for i in part], np.ravel(places), 4)
        images = [image for part in read for image in part]
        shape = (*np.shape(places), *self.form.shape)
        return np.stack(images).reshape(shape) if images else np.zeros(shape, self.dtype)


def pixels(
    samples: Samples, chosen: Array, form: Form, keep: bool = True, progress: Progress = silent
) -> tuple[Pixels, Failures]:
    """Those `chosen` among the images, in a form, without those that cannot be read; and which those are.

    keep  in a file, to be used again; else in memory, or decoded whenever they are asked for where they are too large

    What is small comes as an array, the rest as a mapped file. Where the disk has no room, as without `keep`, and a
    warning says so.
    """
    size = len(chosen) * math.prod(form.shape) * samples.dtype.itemsize
    if keep and (folder := place(size)):
        path = folder / key(samples, chosen, form)
        packed = opened(path)
        if packed is None:
            write(path, samples, chosen, form, progress)
            packed = opened(path)
        if packed is not None:
            return packed
    rows = decoded(samples, chosen, form, progress)
    if is_small(size):
        return gathered(rows, len(chosen), form, samples.dtype)
    failures = Failures({i: reason for _, bad in rows for i, reason in bad.items()})
    kept = np.delete(np.arange(len(chosen)), list(failures.reasons))
    return Decoder(samples, chosen[kept], form), failures


def decoded(samples: Samples, chosen: Array, form: Form, progress: Progress) -> Iterator[tuple[Array, dict[int, str]]]:
    """The images in order, a few at a time, (n, H, W, C), and by their places why others could not be read."""

    def read(places: Array) -> tuple[Array, dict[int, str]]:
        images, failures = [], {}
        for place in places:
            try:
                images.append(samples.read(int(chosen[place]), form))
            except DataError as error:
                failures[int(place)] = error.brief
        return np.array(images, samples.dtype).reshape(-1, *form.shape), failures

    done, size = 0, math.prod(form.shape) * samples.dtype.itemsize
    for images, failures in chunks(read, np.arange(len(chosen)), max(1, min(CHUNK, AT_ONCE // size))):
        done += len(images) + len(failures)
        yield images, failures
        progress("reading images", done, len(chosen))


def gathered(
    rows: Iterator[tuple[Array, dict[int, str]]], count: int, form: Form, dtype: np.dtype[Any]
) -> tuple[Array, Failures]:
    """Up to `count` images in memory."""
    images, failures, done = np.empty((count, *form.shape), dtype), Failures(), 0
    for some, bad in rows:
        images[done : done + len(some)] = some
        failures.reasons.update(bad)
        done += len(some)
    return images[:done], failures


def place(size: int) -> Path | None:
    """The folder for packed images, if there is room on its disk; else None, with a warning."""
    folder = cache.safe_folder()
    if folder is None:
        return None
    folder = folder / "images"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        sweep(folder)
        free = shutil.disk_usage(folder).free
        if free > size + size // 10:
            return folder
        warnings.warn(
            f"the images are not kept in {folder}: they take {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free "
            "(juanji cache --clear, or another JUANJI_CACHE)",
            stacklevel=2,
        )
    return None


def sweep(folder: Path) -> None:
    """Remove what processes that were ended long ago have left."""
    for path in folder.glob(f"{UNFINISHED}*"):
        if time.time() - path.stat().st_mtime > LEFT:
            path.unlink()


def key(samples: Samples, chosen: Array, form: Form) -> str:
    """What a packed file depends on: the images, the form, and who decodes them."""
    import PIL

    which = hashlib.sha256(chosen.tobytes()).hexdigest()
    return cache.key(samples.identity, which, form.identity, PIL.__version__, MAGIC.decode())


def write(path: Path, samples: Samples, chosen: Array, form: Form, progress: Progress) -> None:
    """Decode images into a packed file; a disk that is full after all only means that there is none."""
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file, decoded(samples, chosen, form, progress), form, samples.dtype)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def fill(file: IO[bytes], rows: Iterator[tuple[Array, dict[int, str]]], form: Form, dtype: np.dtype[Any]) -> None:
    digest, count, failures = hashlib.sha256(), 0, {}
    for images, bad in rows:
        content = images.tobytes()
        digest.update(content)
        file.write(content)
        count += len(images)
        failures.update(bad)
    notes = json.dumps({"shape": [count, *form.shape], "dtype": dtype.str, "failures": list(failures.items())}).encode()
    digest.update(notes)
    file.write(notes + END.pack(len(notes), digest.digest(), MAGIC))
    file.flush()
    os.fsync(file.fileno())


def opened(path: Path) -> tuple[Pixels, Failures] | None:
    """The images of a packed file, and the failures when it was made; None where there is none that is whole."""
    try:
        with path.open("rb") as file:
            found = checked(file)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if found is None:
        return None
    shape, dtype, failures = found
    if is_small(math.prod(shape) * dtype.itemsize):
        return np.fromfile(path, dtype, math.prod(shape)).reshape(shape), failures
    return Mapped(np.memmap(path, dtype, "r", shape=shape)), failures


def checked(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], Failures] | None:
    """What a packed file says of itself, if all of it is as it was written."""
    size = file.seek(0, 2)
    if size < END.size:
        return None
    file.seek(size - END.size)
    length, digest, magic = END.unpack(file.read(END.size))
    if magic != MAGIC or length > size - END.size:
        return None
    file.seek(0)
    found, left = hashlib.sha256(), size - END.size
    while left and (block := file.read(min(left, BLOCK))):
        left -= len(block)
        found.update(block)
    if found.digest() != digest:
        return None
    file.seek(size - END.size - length)
    notes = json.loads(file.read(length))
    return tuple(notes["shape"]), np.dtype(notes["dtype"]), Failures({int(i): why for i, why in notes["failures"]})


def is_small(size: int) -> bool:
    """Whether so many bytes take little of the machine's memory."""
    return size * SMALL_SHARE <= memory()


def memory() -> int:
    """The bytes of memory this process may use; 8 GiB where the system does not say."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        found = [8 << 30]
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(limit).read_text()))
    return min(found)


def entries() -> list[Path]:
    """The packed files that there are."""
    folder = cache.folder() / "images"
    return [path for path in folder.iterdir() if NAME.fullmatch(path.name)] if folder.is_dir() else []


def clear() -> tuple[int, int]:
    """Remove every packed file, and what was left of unfinished ones. Returns how many there were and their bytes."""
    found = entries()
    sizes: Sequence[int] = [path.stat().st_size for path in found]
    for path in [*found, *(cache.folder() / "images").glob(f"{UNFINISHED}*")]:
        path.unlink(missing_ok=True)
    return len(sizes), sum(sizes)
