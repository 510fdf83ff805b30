"""How many images a step may have, by the memory that its plan needs."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from juanji.data.loader import FEWEST, number_of_batches
from juanji.engine.compiled import on_definitions
from juanji.engine.platform import CGROUPS, MEMBERSHIP, groups
from juanji.errors import ArgumentError
from juanji.tensor import Tensor

if TYPE_CHECKING:
    from juanji.train.trainer import Trainer

SHARE = 0.5  # of the free memory; the rest is for images, and for others
SMALLEST, LARGEST = 8, 512
STEPS = 16  # that an epoch has at least: fewer, larger ones learn less
MEMINFO = Path("/proc/meminfo")
FILES = {1: ("memory.limit_in_bytes", "memory.usage_in_bytes"), 2: ("memory.max", "memory.current")}  # of a group


def largest_batch(trainer: Trainer) -> tuple[int, str]:
    """The largest power of two whose plan fits half of the free memory and leaves 16 steps an epoch, and why.

    What a plan needs is known before anything runs, and grows in a straight line with the batch. Raises ArgumentError
    where not even 8 images fit, or on the definitions, which have no plans.
    """
    if on_definitions():
        raise ArgumentError(
            "training: the batch cannot be chosen",
            received="JUANJI_BACKEND=numpy, which has no plans",
            fix="--batch 64",
        )
    room = int(SHARE * free_memory())
    smallest = batch = max(SMALLEST, 1 << (trainer.recipe.accumulate - 1).bit_length())  # an image for each part
    small, more = (memory(trainer, smallest), memory(trainer, 2 * smallest))
    while batch < LARGEST and small + (more - small) * (2 * batch / smallest - 1) <= room:
        batch *= 2
    while (needed := memory(trainer, batch)) > room:  # where the line was not straight
        if batch == smallest:
            raise ArgumentError(
                "training: there is not enough memory",
                received=f"{needed / 1e6:,.0f} MB for a step of {batch} images, {room / 1e6:,.0f} MB of room",
                rule=f"at most {SHARE:.0%} of the free memory",
                fix="smaller images, a narrower network, or --batch 1 at your own risk",
            )
        batch //= 2
    images = len(trainer.dataset.train)
    if batch * STEPS > images:
        fewer = max(smallest, 1 << (max(images // STEPS, 1)).bit_length() - 1)
        return fewer, f"{images} images make {number_of_batches(images, fewer, FEWEST)} steps an epoch"
    why = "the most that is tried" if batch == LARGEST else "the most that fits"
    return batch, f"{why}: {needed / 1e6:,.0f} MB of {room / 1e6:,.0f} MB"


def memory(trainer: Trainer, batch: int) -> int:
    """Bytes that a step of so many images takes, or the largest of its parts."""
    trainer.begin_epoch()
    stepper, shown = trainer.stepper, trainer.preprocessing
    images = -(-batch // stepper.parts)
    x, y = np.zeros((images, *shown.size, shown.channels), np.float32), np.zeros(images, np.int64)
    if stepper.parts == 1:
        return stepper.whole.memory(Tensor(x), Tensor(y))
    return stepper.part.memory(*map(Tensor, (x, y, np.float64(1), np.float64(0))))


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its control groups where there are any."""
    return min(free_on_machine(), free_in_groups(CGROUPS, MEMBERSHIP))


def free_on_machine() -> int:
    if sys.platform == "win32":
        return free_on_windows()
    if MEMINFO.exists():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # macOS does not say more without tools


def free_on_windows() -> int:
    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64)
            for name in ("total", "free", "page", "page_free", "virtual", "virtual_free", "more")
        ]

    status = Status(length=ctypes.sizeof(Status))
    ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))  # type: ignore[attr-defined,unused-ignore]
    return int(status.free)


def free_in_groups(root: Path, membership: Path) -> int:
    """The least that is left under the limits of the control groups that this process is in."""
    found = groups(root, membership, "memory")
    return min((left_in(folder, *FILES[version]) for folder, version in found), default=sys.maxsize)


def left_in(group: Path, limit: str, used: str) -> int:
    try:
        most, now = ((group / name).read_text().strip() for name in (limit, used))
    except OSError:
        return sys.maxsize
    return sys.maxsize if most == "max" else max(int(most) - int(now), 0)
