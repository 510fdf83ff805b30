"""Names that differ by upper and lower case only: some systems take them for one, and people mean one by them."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from juanji.data.split import groups

CLASSES = "classes whose names differ by upper and lower case only"


def folded(name: str) -> int:
    """A digest of a name without regard to case, and to how accents are written."""
    plain = unicodedata.normalize("NFC", name.casefold()).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little")


def alike(names: Sequence[str]) -> tuple[str, ...]:
    """The names that differ by case only, "Cat = cat"."""
    same = groups(np.array([folded(name) for name in names], np.uint64))
    return tuple(" = ".join(names[i] for i in places) for places in same)
