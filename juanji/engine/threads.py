"""Threads that walk a plan together in machine code.

A plan is a table of calls, cut into phases. The entries of a phase are independent of each other; a phase begins when
all entries of the one before are done. Nobody waits for a *thread*: whoever is running takes entries until there are
none, and whoever finishes the last one opens the next phase. So a thread that the system has put aside holds up
nothing unless it is in the middle of an entry, and the calling thread gets through a plan without any help.

Threads that find no work spin for a moment and then sleep on a lock of Python's (its C functions need no interpreter
and exist on every system). A worker never comes back from machine code until the pool ends.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from juanji.engine import platform, walker
from juanji.errors import ArgumentError

LINE = 64  # bytes of a cache line; every counter has its own


def build(source: str) -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(source)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine(opt=2))
    engine.finalize_object()
    return engine


def lines(count: int) -> NDArray[np.int64]:
    """`count` zeroed cache lines; the first word of each is used."""
    words = np.zeros((count + 1) * (LINE // 8), np.int64)
    start = -words.ctypes.data % LINE // 8
    return words[start : start + count * (LINE // 8)]


class Table:
    """A plan's calls: `entries` of (kernel, arguments, from, to), cut into `phases` of (first entry, end).

    A kernel is called as `kernel(arguments, from, to)`. What the addresses in it point at has to stay alive for as
    long as the table is run.
    """

    def __init__(self, entries: Any, phases: Any) -> None:
        self.entries = np.array(entries, np.int64, order="C").reshape(-1, 4)
        self.phases = np.array(phases, np.int64, order="C").reshape(-1, 2)
        self.counters = lines(len(self.phases))
        first, end = self.phases.T
        if not np.all((first >= 0) & (first < end) & (end <= len(self.entries))):
            raise ArgumentError(
                "Table: a phase is not a part of the entries",
                received=f"{len(self.entries)} entries, phases {self.phases.tolist()[:8]}",
                rule="0 <= first < end <= number of entries",
                fix="leave out phases without entries",
            )
        self.addresses = self.entries.ctypes.data, self.phases.ctypes.data, self.counters.ctypes.data

    def part(self, first: int, last: int | None) -> tuple[int, int, int, int]:
        """What `run` takes for the phases from `first` up to but without `last`."""
        end = len(self.phases) if last is None else last
        if not 0 <= first <= end <= len(self.phases):
            raise ArgumentError(
                "Table: there are no such phases",
                received=f"first={first}, last={last} of {len(self.phases)} phases",
                rule="0 <= first <= last <= number of phases",
            )
        entries, phases, counters = self.addresses
        return entries, phases + 16 * first, counters + LINE * first, end - first


class Pool:
    """`threads` threads that run tables: the calling one, and workers that sleep between runs.

    Every table may be run from any Python thread; one runs at a time. A run is never cut short: Ctrl-C is raised
    after it. A forked child has no workers, and its calling thread does the work of all.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        locks = [taken_lock() for _ in range(threads)]
        self._engine = engine = build(walker.text(llvm.get_default_triple().split("-")[0], locks, *lock_functions()))
        self._run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(engine.get_function_address("run"))
        worker = ctypes.CFUNCTYPE(None, ctypes.c_int64)(engine.get_function_address("worker"))
        workers = [
            threading.Thread(target=worker, args=(i,), name=f"juanji-{i}", daemon=True) for i in range(1, threads)
        ]
        for thread in workers:
            thread.start()
        # Also called at exit, where a daemon thread may still be in a run: then both hold the engine's machine code.
        self.close = weakref.finalize(self, close, engine, self._lock, workers, locks, os.getpid())

    def run(self, table: Table, first: int = 0, last: int | None = None) -> None:
        """Run the phases of `table` from `first` up to but without `last`, by default all."""
        part = table.part(first, last)
        if not part[-1]:
            return
        with self._lock:
            self._run(*part)


def lock_functions() -> tuple[int, int]:
    """The addresses of the functions that acquire and release a lock of Python's."""
    functions = ctypes.pythonapi.PyThread_acquire_lock, ctypes.pythonapi.PyThread_release_lock
    acquire, release = (ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions)
    return acquire, release


def taken_lock() -> int:
    allocate = ctypes.pythonapi.PyThread_allocate_lock
    allocate.restype = ctypes.c_void_p
    lock = int(allocate())
    ctypes.pythonapi.PyThread_acquire_lock(ctypes.c_void_p(lock), 1)
    return lock


def close(
    engine: llvm.ExecutionEngine, lock: threading.Lock, workers: list[threading.Thread], locks: list[int], process: int
) -> None:
    """End the workers. A forked child has none to end, and the lock may be held there for ever."""
    if os.getpid() != process:
        return
    with lock:
        ctypes.CFUNCTYPE(None)(engine.get_function_address("stop"))()
        for thread in workers:
            thread.join()
        for place in locks:
            ctypes.pythonapi.PyThread_free_lock(ctypes.c_void_p(place))


@functools.cache
def pool() -> Pool:
    """The pool that all plans run on; it is made when it is first asked for, and once more in a forked child."""
    return Pool(platform.threads())


platform.after_fork(pool.cache_clear)
