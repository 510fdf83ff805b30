"""Machine code kept on disk, so that a second run need not write it again.

An entry is run only if it is whole: it carries the digest of what it holds, and lies in a folder that nobody but its
owner can write to. Anything else is built anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import warnings
from pathlib import Path

ENTRY = re.compile("[0-9a-f]{64}")
UNFINISHED = "unfinished-"
MAGIC = b"juanji\x01\n"


def folder() -> Path:
    """Where entries lie: `JUANJI_CACHE`, or the system's place for caches."""
    if place := os.environ.get("JUANJI_CACHE"):
        return Path(place)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "juanji" / "cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "juanji"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "juanji"


def safe_folder() -> Path | None:
    """The folder, made if need be; None, with a warning, where others could write to it."""
    try:
        place = folder()
        if not os.path.isdir(place):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = os.stat(place)
    except (OSError, RuntimeError):
        return None
    if os.name == "posix" and (state.st_uid != os.geteuid() or state.st_mode & 0o022):
        warnings.warn(
            f"the code cache {place} is not used: others can write to it (chmod 700, or another JUANJI_CACHE)",
            stacklevel=2,
        )
        return None
    return place


def key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def load(name: str) -> bytes | None:
    """The entry, or None where there is none that is whole."""
    place = safe_folder()
    if place is None:
        return None
    try:
        with open(os.path.join(place, name), "rb", buffering=0) as file:
            data = file.readall()
    except OSError:
        return None
    start = len(MAGIC) + 32
    digest, code = data[len(MAGIC) : start], data[start:]
    return code if data[: len(MAGIC)] == MAGIC and hashlib.sha256(code).digest() == digest else None


def save(name: str, code: bytes) -> None:
    """Keep an entry; it appears whole or not at all. A full or read-only disk only means that it is not kept."""
    place = safe_folder()
    if place is None:
        return
    with contextlib.suppress(OSError):
        handle, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=place)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + hashlib.sha256(code).digest() + code)
            os.replace(temporary, place / name)
        except OSError:
            os.unlink(temporary)
            raise


def entries() -> list[Path]:
    """The entries in the folder, whatever else may lie there."""
    place = folder()
    return [path for path in place.iterdir() if ENTRY.fullmatch(path.name)] if place.is_dir() else []


def clear() -> tuple[int, int]:
    """Remove every entry, and what was left of unfinished ones. Returns how many there were and their bytes."""
    found = entries()
    sizes = [path.stat().st_size for path in found]
    for path in [*found, *folder().glob(f"{UNFINISHED}*")]:
        path.unlink(missing_ok=True)
    return len(sizes), sum(sizes)
