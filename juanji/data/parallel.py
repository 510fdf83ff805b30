"""Many small pieces of work by threads. Pillow, zlib and hashes let other threads run while they compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from juanji.engine.platform import threads
from juanji.graph import Array

T = TypeVar("T")
CHUNK = 32
AHEAD = 4  # chunks for each thread that are ready or being worked on: memory stays bounded


def chunks(function: Callable[[Array], T], items: Array, size: int = CHUNK) -> Iterator[T]:
    """`function` of each `size` of the items, in their order, whichever thread was first."""
    count = threads()
    parts = (items[start : start + size] for start in range(0, len(items), size))
    if count == 1 or len(items) <= size:
        yield from map(function, parts)
        return
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for part in parts:
                waiting.append(pool.submit(function, part))
                if len(waiting) >= AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Whoever listens may have stopped: what has not begun need not be done.
            for future in waiting:
                future.cancel()
