"""What an implementation of a contraction asks a plan to do: calls in order, and memory between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from juanji.kernels.tile import Epilogue

# What becomes of the results, in a kernel that has so many arguments itself; None where they are only stored.
End = Callable[[int], Epilogue | None]


@dataclass(frozen=True)
class Stage:
    """A call.

    slots     its arguments: "a", "b" and "c", other names for memory between the stages, numbers
    writes    those that it writes
    products  whether the multiplications are in it
    """

    what: str
    text: str
    slots: tuple[str | int, ...]
    writes: tuple[str, ...]
    tasks: int
    products: bool = False


@dataclass(frozen=True)
class Work:
    """Everything that one contraction takes.

    memory   elements of the memory between the stages; of that called "scratch" each thread has so much
    reason   how it is done, in words
    parts    partial results in "partial" that are to be added up into "c": how many, and how far apart, along each axis
    strides  of rows and lanes in a partial result, where they are not dense
    """

    stages: tuple[Stage, ...]
    memory: Mapping[str, int]
    reason: str
    parts: tuple[tuple[int, int], ...] = field(default=())
    strides: tuple[int, ...] = ()
