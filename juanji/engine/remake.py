"""What lies about for long is computed twice, where that is cheap.

An activation that was read on the way forwards and is wanted again much later, on the way back, need not keep its
memory in between: if all that it is computed from is still there then, it is computed again. In a ResNet these are the
ReLUs within blocks, which follow from what the convolution before them gave.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from juanji.engine.calls import Call
from juanji.engine.planner import Draft

LARGE = 1 << 20  # bytes that are worth it
SMALL = 1 << 16  # bytes that may lie about for longer
LONG = 8  # levels between two readers


class Lives:
    """Who reads and who writes each buffer."""

    def __init__(self, calls: list[Call]) -> None:
        self.readers: dict[Any, list[Call]] = defaultdict(list)
        self.writers: dict[Any, list[Call]] = defaultdict(list)
        for call in calls:
            for key in call.reads:
                self.readers[key].append(call)
            for key in call.writes:
                self.writers[key].append(call)

    def late(self, key: Any) -> list[Call]:
        """The readers after the longest pause in which nobody reads a buffer, if that is long."""
        order = sorted(self.readers[key], key=lambda call: call.level)
        pauses = [(b.level - a.level, i) for i, (a, b) in enumerate(itertools.pairwise(order), 1)]
        pause, start = max(pauses, default=(0, 0))
        return order[start:] if pause > LONG else []

    def last(self, key: Any) -> int:
        return max((call.level for call in (*self.readers[key], *self.writers[key])), default=-1)


def remake(draft: Draft, lasting: set[Any]) -> None:
    """Add the calls that compute again what is wanted late, and have their results read instead. Calls have levels."""
    lives, remade, needed = Lives(draft.calls), set[Any](), set[Any]()
    for call in [call for call in draft.calls if call.repeatable]:
        (key,) = call.writes
        late = [] if key in lasting | needed or draft.sizes.get(key, 0) < LARGE else lives.late(key)
        if not late or call.reads & remade:
            continue
        if all(there(draft, lives, x, late[0].level, lasting) for x in call.reads):
            remade.add(key)
            needed |= call.reads
            draft.calls += again(draft, lives, call, key, late)


def there(draft: Draft, lives: Lives, key: Any, level: int, lasting: set[Any]) -> bool:
    """Whether a buffer can be read right before a level: a cell until it is written, others for as long as they are
    read anyway, and longer if they are small."""
    if key in draft.homes:
        return all(call.level >= level for call in lives.writers[key])
    return key in lasting or draft.sizes.get(key, 0) < SMALL or lives.last(key) >= level


def again(draft: Draft, lives: Lives, call: Call, key: Any, late: list[Call]) -> Iterator[Call]:
    """The call once more, and whatever else writes to the buffer, into another one that the late readers read."""
    new = ("again", key)
    draft.sizes[new] = draft.sizes[key]
    draft.layouts[new] = draft.layouts[key]

    def moved(call: Call, **changes: Any) -> Call:
        slots = tuple(new if slot == key else slot for slot in call.slots)
        return replace(call, slots=slots, **changes)

    for writer in lives.writers[key]:
        yield moved(writer, writes=frozenset([new]), level=late[0].level - 1)
    for reader in late:
        reader.slots = moved(reader).slots
        reader.reads = reader.reads - {key} | {new}
