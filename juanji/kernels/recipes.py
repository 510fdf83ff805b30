"""What writing kernels has come to, kept beside their code: recipes, which tell how to call them without writing them.

It is found by all that it depends on: what is computed, for which machine, and the text of this program. A recipe is
used only if the code of its kernels is at hand.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from juanji.kernels import cache, machine
from juanji.kernels.isa import ISA

PLACES = ("kernels", "engine")  # whose text decides what is written


@functools.cache
def program() -> str:
    """A digest of the program's own text."""
    root = Path(__file__).parents[1]
    files = sorted(path for place in PLACES for path in (root / place).glob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()


def name(isa: ISA, *parts: Any) -> str:
    """The name of a recipe for what `repr` says of these parts."""
    return cache.key("recipe", program(), *machine.target(isa), str(isa), repr(parts))


def recall(name: str) -> Any:
    """A recipe, or None where there is none, or where the code of one of its "kernels" is missing."""
    data = cache.load(name)
    if data is None:
        return None
    recipe = json.loads(data)
    return recipe if machine.at_hand(recipe["kernels"]) else None


def keep(name: str, recipe: Mapping[str, Any]) -> None:
    cache.save(name, json.dumps(recipe).encode())


def encoded(slots: Iterable[Any], buffers: Mapping[Any, int]) -> list[Any]:
    """A kernel's arguments with buffers by number; words and numbers stay as they are."""
    return [slot if is_number(slot) or isinstance(slot, str) else buffers[slot] for slot in slots]


def decoded(slots: Iterable[Any], buffers: Mapping[int, Any]) -> tuple[Any, ...]:
    return tuple(
        buffers[slot] if isinstance(slot, int) else tuple(slot) if isinstance(slot, list) else slot for slot in slots
    )


def is_number(slot: Any) -> bool:
    """Whether an argument is a number, not a buffer."""
    return isinstance(slot, tuple) and slot[0] in ("number", "count")
