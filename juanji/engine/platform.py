"""What differs between systems: how many threads there may be, large memory, AMX, fork."""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from platform import machine
from typing import Any

import numpy as np
from numpy.typing import NDArray

from juanji.errors import ArgumentError

VARIABLE = "JUANJI_THREADS"
HUGE_PAGE = 2 << 20
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def threads() -> int:
    """How many threads to compute with: `JUANJI_THREADS`, else the processors this process may keep busy."""
    text = os.environ.get(VARIABLE, "").strip()
    return parse(text) if text else max(1, int(min(processors(), quota(CGROUPS, MEMBERSHIP))))


def parse(text: str) -> int:
    """The value of `JUANJI_THREADS`."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentError(
            f"{VARIABLE} is not a number of threads",
            received=repr(text),
            rule="a whole number, at least 1",
            fix=f"unset {VARIABLE}, or {VARIABLE}=1",
        )
    return int(text)


def processors() -> int:
    """The processors this process may run on; all of them where the system has no affinity."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def quota(root: Path, membership: Path) -> float:
    """How many processors' time the control groups of this process allow; infinity without control groups."""
    limits = {1: limit_of_version_1, 2: limit_of_version_2}
    return min((limits[version](folder) for folder, version in groups(root, membership, "cpu")), default=math.inf)


def groups(root: Path, membership: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of the control groups that limit this process, each with its version, 1 or 2.

    A line of the membership is `number:controllers:path`, without controllers in version 2. A container may see its own
    group at the root although its membership names the host's path, and every group above limits too: so all levels
    that may exist are named.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        group = (root / controllers) / path.lstrip("/")
        yield from (
            (folder, 1 if controllers else 2)
            for folder in (group, *group.parents)
            if folder.is_relative_to(root / controllers)
        )


def limit_of_version_1(folder: Path) -> float:
    try:
        time, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except (OSError, ValueError):
        return float("inf")
    return time / period if time > 0 else float("inf")


def limit_of_version_2(folder: Path) -> float:
    try:
        time, period = (folder / "cpu.max").read_text().split()
        return float("inf") if time == "max" else int(time) / int(period)
    except (OSError, ValueError):
        return float("inf")


@dataclass(frozen=True)
class Memory:
    """Zeroed bytes on a huge page's boundary; they are given back when the last view of them is collected."""

    view: NDArray[np.uint8]

    @property
    def address(self) -> int:
        return self.view.ctypes.data

    @property
    def size(self) -> int:
        return self.view.size


def allocate(size: int) -> Memory:
    """`size` bytes. Where the system can, and where it pays, they lie in huge pages."""
    pages = mapping((-(-size // HUGE_PAGE) + 1) * HUGE_PAGE)
    whole = np.frombuffer(pages, np.uint8)
    start = -whole.ctypes.data % HUGE_PAGE
    if size >= HUGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        advise(pages, start)
    return Memory(whole[start : start + size])


def mapping(size: int) -> mmap.mmap:
    """Anonymous memory. On Unix Python's default would share it with forked children and keep it off huge pages."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def advise(pages: mmap.mmap, start: int) -> None:
    try:
        pages.madvise(mmap.MADV_HUGEPAGE, start, len(pages) - start)
    except OSError:
        return  # a kernel built without huge pages: ordinary ones do


# Linux, arch/x86/include/uapi/asm/prctl.h: a process asks for large registers before it first uses them.
ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA = 158, 0x1023, 18


@functools.cache
def without_matrices() -> str:
    """Why this process may not use AMX's registers; empty if it may. The system is asked once, for all threads."""
    if sys.platform != "linux" or machine() != "x86_64":
        return f"juanji does not know how to ask {sys.platform} on {machine()} for AMX"
    system = ctypes.CDLL(None, use_errno=True)
    if system.syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0:
        return ""
    return f"the system refuses AMX: {os.strerror(ctypes.get_errno())}"


def around_fork(lock: Any) -> None:
    """Have a process forked only while no other thread holds `lock`, which would hold it in the child for ever."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def after_fork(function: Callable[[], Any]) -> None:
    """Have `function` called in every forked child; systems without fork have nothing to call it for."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
