"""A plan: memory, a table of kernel calls, and who waits for whom. Everything is decided before it first runs."""

from __future__ import annotations

import bisect
import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from juanji import tree
from juanji.engine import layout, platform, state, threads
from juanji.engine.calls import FLAG, Call, parts
from juanji.engine.planner import Draft, levelled
from juanji.engine.remake import remake
from juanji.graph import Array
from juanji.kernels import machine
from juanji.kernels.isa import ISA
from juanji.table import aligned
from juanji.tensor import Tensor

LINE = 64
HALF = np.dtype(np.uint16)  # which holds a bfloat16


class Arrangement:
    """The calls of a plan in their order, and where its buffers lie: what it needs is known, and nothing taken yet."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.calls = draft.calls
        levelled(self.calls)
        self.prepared = preparations(draft)
        remake(draft, self.lasting())
        self.offsets, self.peak = arranged(self.calls, draft.sizes, self.lasting())

    def lasting(self) -> set[Any]:
        """Buffers that nothing else may use: outputs, constants, and what is computed ahead of all steps."""
        program = self.draft.program
        outputs = {place.key for x in program.outputs if (place := self.draft.places.get(id(x)))}
        ahead = {key for call in self.prepared for key in call.writes}
        return {*self.draft.constants, *outputs, *ahead}

    def memory(self) -> int:
        """Bytes that the plan needs at its peak, cells included."""
        return self.peak + sum(math.prod(cell.shape) * cell.dtype.itemsize for cell in self.draft.homes.values())


class Plan(Arrangement):
    """A traced function as machine code, for one set of shapes.

    `bind(arrays)` says which arrays to read, `run()` does the work, `results()` copies what came out. `memory()` tells
    what it needs before it has run, `str(plan)` every call with its reason.
    """

    def __init__(self, draft: Draft, isa: ISA) -> None:
        super().__init__(draft)
        self.isa = isa
        self.arena = platform.allocate(max(self.peak, 1))
        self.base = self.arena.address
        self.flag = state.aligned((1,), np.dtype(np.uint8))
        self.homes = {key: state.home(cell) for key, cell in draft.homes.items()}
        self.commits = [(cell, state.home(cell)) for cell in draft.commits]
        self.fill_constants()
        self.given = {id(x): number for number, x in enumerate(draft.program.inputs)}
        self.entrances: list[tuple[Array, int, int]] = []
        self.arguments: list[Array] = []
        self.words: list[Array] = []  # what the tables' addresses of arguments point at
        self.first = self.tabulate([call for call in self.calls if call in self.prepared])
        self.table = self.tabulate([call for call in self.calls if call not in self.prepared])
        self.versions: list[int] | None = None
        self.outputs = [(x, None if x.has_value else self.view(x)) for x in draft.program.outputs]

    # Memory

    def address(self, slot: Any) -> int:
        """What stands in a slot of a call's arguments."""
        if isinstance(slot, tuple) and slot[0] == "number":
            _, dtype, value = slot
            return int.from_bytes(np.asarray(value, dtype).tobytes().ljust(8, b"\0"), sys.byteorder, signed=True)
        if isinstance(slot, tuple) and slot[0] == "count":
            return int(slot[1])
        if slot == FLAG:
            return self.flag.ctypes.data
        if slot in self.homes:
            return self.homes[slot].address
        if slot in self.given:
            return 0  # `bind` puts it in
        start = self.base + self.offsets[slot]
        known = self.draft.layouts.get(slot)
        return start + (known.origin * known.itemsize if known else 0)

    def view(self, x: Tensor) -> Array:
        """A tensor's memory as an array; a copy of it where that is rounded."""
        place = self.draft.places[id(x)]
        if place.key in self.homes:
            base, start = self.homes[place.key].array.reshape(-1).view(np.uint8), 0
        else:
            known = self.draft.layouts.get(place.key)
            origin = known.origin * known.itemsize if known else 0
            base, start = self.arena.view, self.offsets[place.key] + origin
        if place.rounded:
            return layout.widened(layout.strided(base, start + place.offset * 2, x.shape, place.strides, HALF))
        return layout.strided(base, start + place.offset * x.dtype.itemsize, x.shape, place.strides, x.dtype)

    def fill_constants(self) -> None:
        for x in self.draft.constants.values():
            np.copyto(self.view(x), x.array)

    # The table

    def tabulate(self, calls: list[Call]) -> threads.Table:
        calls = sorted(calls, key=lambda call: call.level)
        codes = machine.addresses([call.kernel for call in calls], self.isa, platform.threads())
        words = [self.address(slot) for call in calls for slot in call.slots]
        arguments = np.array(words or [0], np.int64)
        entries: list[tuple[int, ...]] = []
        phases: list[list[int]] = []
        slot = 0
        for place, (call, code) in enumerate(zip(calls, codes, strict=True)):
            if place == 0 or call.level != calls[place - 1].level:
                phases.append([len(entries), len(entries)])
            at = arguments.ctypes.data + 8 * slot
            entries += [(code, at, start, end) for start, end in parts(call)]
            slot += len(call.slots)
            phases[-1][1] = len(entries)
        kept = [phase for phase in phases if phase[1] > phase[0]]
        flat = [slot for call in calls for slot in call.slots]
        self.entrances += [(arguments, i, self.given[slot]) for i, slot in enumerate(flat) if slot in self.given]
        self.words.append(arguments)
        return threads.Table(entries, kept)

    # Running

    def bind(self, arrays: Sequence[Any]) -> None:
        """Have the steps to come read these arrays, in the order of the trace, where they lie."""
        self.arguments = [np.ascontiguousarray(array) for array in arrays]
        places = [array.__array_interface__["data"][0] for array in self.arguments]
        for table, slot, number in self.entrances:
            table[slot] = places[number]

    def run(self) -> bool:
        """One step. Cells that changed outside are brought in first; False if a value was not finite, and then nothing
        was written to any cell."""
        cells, pool = self.draft.homes, threads.pool()
        for key, home in self.homes.items():
            if home.version != cells[key].version:
                state.bring(cells[key], home)
        versions = [home.version for home in self.homes.values()] if len(self.first.phases) else None
        if versions is not None and versions != self.versions:
            pool.run(self.first)
            self.versions = versions
        self.flag[0] = 1
        try:
            pool.run(self.table)
        finally:  # Ctrl-C is raised when the step is done, and the cells have to know of it
            if self.flag[0]:
                for cell, home in self.commits:
                    state.written(cell, home)
        return bool(self.flag[0])

    def results(self) -> Any:
        """What the function returned, copied out."""
        structure = self.draft.program.structure
        if isinstance(structure, Tensor):
            return copied_out(*self.outputs[0])
        leaves = (x for x in tree.leaves(structure) if isinstance(x, Tensor))
        found = {id(x): copied_out(*output) for x, output in zip(leaves, self.outputs, strict=True)}
        return tree.map(lambda leaf: found.get(id(leaf), leaf), structure)

    # Explanations

    def __str__(self) -> str:
        rows = [("level", "layer", "what", "tasks", "why")]
        for call in sorted(self.calls, key=lambda call: call.level):
            rows.append((str(call.level), call.path, call.what, str(len(parts(call))), call.reason))
        return "\n".join([*aligned(rows), f"memory {self.memory() / 1e6:.1f} MB"])


def copied_out(x: Tensor, view: Array | None) -> Tensor:
    """A result by itself; a constant is one already."""
    return x if view is None else Tensor.result(view.copy(), x.shape, x.dtype)


def preparations(draft: Draft) -> set[Call]:
    """The calls whose results are the same at every step: they read constants and cells that nobody writes."""
    written = {key for call in draft.calls if call.commits for key in call.writes}
    steady = {key for key in draft.homes if key not in written} | set(draft.constants)
    writers: dict[Any, list[Call]] = defaultdict(list)
    for call in draft.calls:
        for key in call.writes:
            writers[key].append(call)
    found: set[Call] = set()
    for call in sorted(draft.calls, key=lambda call: call.level):
        if not call.reads or not call.reads <= steady or call.commits or FLAG in call.writes:
            continue
        found.add(call)
        for key in call.writes:
            # Borders, which read nothing, are zeroed along with what they surround.
            if all(other in found or not other.reads for other in writers[key]):
                steady.add(key)
                found.update(writers[key])
    return found


def arranged(calls: Iterable[Call], sizes: dict[Any, int], lasting: set[Any]) -> tuple[dict[Any, int], int]:
    """Where each buffer begins, and how many bytes all take together. Buffers that never live at once share memory.

    Large ones are placed first, each as low as it can.
    """
    first: dict[Any, int] = {}
    last: dict[Any, int] = {}
    for call in sorted(calls, key=lambda call: call.level):
        for key in (*call.reads, *call.writes):
            first.setdefault(key, call.level)
            last[key] = call.level
    end = max(last.values(), default=0) + 1
    for key in sizes:
        if key in lasting or key not in first:
            first[key], last[key] = 0, end
    offsets: dict[Any, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # where buffers begin and end, in bytes and in levels
    peak = 0
    for key in sorted(sizes, key=lambda key: -sizes[key]):
        size = -(-(sizes[key] + LINE) // LINE) * LINE
        start, born, dead = LINE, first[key], last[key]
        for low, high, since, until in placed:
            if until < born or dead < since:
                continue
            if low - start >= size:
                break
            if high > start:
                start = high
        offsets[key] = start
        bisect.insort(placed, (start, start + size, born, dead))
        peak = max(peak, start + size)
    return offsets, peak
