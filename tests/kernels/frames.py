"""Memory as kernels get it: images within borders and canaries, in numbers of any kind, and calls on it."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any

import numpy as np
from processor import emulated

from juanji.engine.precision import instructions, missing
from juanji.kernels import machine
from juanji.kernels.isa import ISAS
from juanji.kernels.machine import Kernel

HERE = [isa for isa in ISAS.values() if not isa.missing()]
HALVES_HERE = [isa for isa in HERE if not missing(isa)]  # that compute in bfloat16
AMX = [replace(isa, matrices=True) for isa in HALVES_HERE]  # emulated where the machine has none
NATIVE = any(instructions("bfloat16", isa).matrices for isa in HALVES_HERE)
CANARY = -7776.0  # in bfloat16 too
DTYPES: dict[str, Any] = {"float": np.float32, "double": np.float64, "bfloat": np.uint16}


def bits(x: Any) -> Any:
    """Numbers in bfloat16, the nearest, of two the even one: the upper half of float32."""
    found = np.asarray(x, np.float32).view(np.uint32)
    rounded = ((found + 0x7FFF + (found >> 16 & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def stored(x: Any, kind: str) -> Any:
    """Numbers as they lie in memory."""
    return bits(x) if kind == "bfloat" else np.asarray(x, DTYPES[kind])


def values(x: Any) -> Any:
    """What lies in memory as float64."""
    return ((x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x).astype(np.float64)


def framed(x: Any, border: list[tuple[int, int]], kind: str, outside: float) -> tuple[Any, Any]:
    """x in a buffer with a border of zeros and with `outside` all around; the buffer, and x within it."""
    around = [(1, 1), *border, (0, 0)]
    inner = np.pad(x, [(0, 0), *border, (0, 0)])
    buffer = np.full((x.shape[0] + 2, *inner.shape[1:]), stored(outside, kind))
    buffer[1:-1] = stored(inner, kind)
    return buffer, buffer[tuple(slice(low, low + n) for (low, _), n in zip(around, x.shape, strict=True))]


def untouched(buffer: Any) -> int:
    """How many canaries are left."""
    return int((values(buffer) == CANARY).sum())


def strides(view: Any) -> tuple[int, ...]:
    """Of images, in elements, without that of the channels."""
    return tuple(s // view.itemsize for s in view.strides[:-1])


def call(text: str, isa: Any, slots: list[int], tasks: int) -> None:
    """A kernel, its tasks in two parts, the second one first, by two threads."""
    if "tdpbf16ps" in text and not NATIVE:
        emulated(text, isa, slots, tasks)
        return
    (address,) = machine.addresses([Kernel.of(text, isa)], isa)
    table = np.array(slots, np.int64)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)(address)
    for who, (lo, hi) in enumerate([(tasks // 2, tasks), (0, tasks // 2)]):
        function(table.ctypes.data, lo, hi, who)


def run(stages: Any, memory: Any, isa: Any, **operands: Any) -> dict[str, Any]:
    """All stages, in memory that is NaN wherever nothing was written, some of it for each thread; that memory."""
    sizes = {name: size * (2 if name == "scratch" else 1) for name, size in memory.items()}
    frames = {
        name: np.append(np.full(size, np.nan, np.float32), [np.float32(CANARY)] * 64) for name, size in sizes.items()
    }
    found = {name: frame[: sizes[name]] for name, frame in frames.items()} | operands
    for stage in stages:
        slots = [found[slot].ctypes.data if isinstance(slot, str) else slot for slot in stage.slots]
        call(stage.text, isa, slots, stage.tasks)
    assert all(untouched(frame[sizes[name] :]) == 64 for name, frame in frames.items())
    return found


def added(c: Any, parts: Any, found: Any, steps: Any) -> None:
    """Partial results, so many and so far apart along each axis, into c."""
    sizes, apart = zip(*found, strict=True)
    dense = [math.prod(c.shape[i + 1 :]) for i in range(c.ndim)]
    inside = [parts.itemsize * step for step in (*apart, *(steps or dense))]
    total = np.lib.stride_tricks.as_strided(parts, (*sizes, *c.shape), inside).sum(tuple(range(len(found))))
    c[...] = bits(total) if c.dtype == np.uint16 else total
