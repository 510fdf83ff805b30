"""One kernel for many operators: a walk over the elements of a shape that stores some tensors and adds up others.

The axes of the walk are merged where everything that is read or written allows it. The first one is divided among
tasks, the last one is that of the lanes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from juanji.graph import Node
from juanji.kernels import recipes
from juanji.kernels.elements import zero
from juanji.kernels.isa import ISA
from juanji.kernels.lowering import ZERO, Index, Indices, Lowering, Place
from juanji.kernels.machine import Kernel
from juanji.kernels.text import KINDS, Text, Value, const
from juanji.tensor import Tensor

TOGETHER = 4
GRAIN = 8192
LINE = 64


@dataclass
class Walk:
    """What a kernel does: over `shape`, store tensors of that shape, and sums over `axes` of it."""

    shape: tuple[int, ...]
    stores: list[Tensor] = field(default_factory=list)
    sums: list[Node] = field(default_factory=list)
    axes: tuple[int, ...] = ()

    @property
    def outputs(self) -> list[Tensor]:
        return [*self.stores, *(node.outputs[0] for node in self.sums)]


@dataclass(frozen=True)
class Code:
    """A kernel, what its arguments are, and how its work may be divided.

    extent  tasks are ranges of 0 … extent
    grain   how many make one entry of the plan: enough to be worth a thread's while
    step    the size of every range but the last is a multiple of it
    """

    kernel: Kernel
    slots: tuple[Any, ...]
    extent: int
    grain: int
    step: int = 1


WRITTEN: dict[Any, tuple[Code, list[Any]]] = {}


class Signature:
    """What a walk does, apart from which buffers it does it with: `parts`, and those in the order they are met."""

    def __init__(self, writer: Writer) -> None:
        self.writer, self.making = writer, {id(x) for x in writer.walk.outputs}
        self.keys: dict[Any, None] = {}
        self.seen: dict[int, int] = {}
        outputs = writer.walk.outputs
        self.parts = (*(self.of(x) for x in outputs), *(self.place(writer.places[id(x)]) for x in outputs))

    def place(self, place: Place) -> Any:
        self.keys.setdefault(place.key)
        return list(self.keys).index(place.key), place.strides, place.offset, place.rounded

    def of(self, x: Tensor) -> Any:
        """How x is computed, down to what is loaded."""
        if id(x) in self.seen:
            return self.seen[id(x)]
        self.seen[id(x)] = len(self.seen)
        if id(x) in self.writer.places and id(x) not in self.making:
            return (x.shape, x.dtype.str, *self.place(self.writer.places[id(x)]))
        if x.has_value:
            return (x.shape, x.dtype.str, repr(x.array[(0,) * x.ndim].item()))  # in which 0.0 is not −0.0
        node = self.writer.producers[id(x)]
        lower = node.record.lower
        known = str(lower["known"](node, self.writer.producers)) if "known" in lower else ""
        attrs = tuple((name, exact(value)) for name, value in node.attrs.items())
        return (node.name, known, attrs, x.shape, x.dtype.str, *map(self.of, node.inputs))


def exact(value: Any) -> str:
    """An attribute as text that leaves nothing out."""
    return f"{value.dtype}{value.tolist()}" if isinstance(value, np.ndarray) else str(value)


@dataclass(frozen=True)
class Axis:
    """Neighbouring axes walked as one."""

    size: int
    members: tuple[int, ...]
    summed: bool


class Writer:
    """The walk's text, written once to learn what it touches and once more with merged axes.

    tries  whether nothing is stored: the kernel only zeroes a flag, a buffer of one byte, if anything that would be is
           infinite or NaN
    flag   the key of the flag; a kernel that stores does nothing where it is zero. None for one that always stores
    """

    def __init__(
        self,
        walk: Walk,
        isa: ISA,
        places: Mapping[int, Place],
        producers: Mapping[int, Node],
        flag: Any = None,
        tries: bool = False,
    ) -> None:
        self.walk, self.isa, self.places, self.producers = walk, isa, places, producers
        self.flag, self.tries = flag, tries
        self.trials: dict[str, Value] = {}

    def lowering(self) -> Lowering:
        lowering = Lowering(self.isa, self.places, self.producers)
        lowering.making = {id(x) for x in self.walk.outputs}
        kinds = {KINDS[x.dtype.name] for x in self.walk.stores if x.is_floating and self.tries}
        # Before all loops: what a loop that is not entered would have set up is missing after it.
        zeros = (const(0, kind, self.isa.lanes()) for kind in sorted(kinds))
        self.trials = {each.kind: lowering.text.variable(each) for each in zeros}
        return lowering

    def axes(self) -> list[Axis]:
        """The axes of the walk: those of size 1 dropped, neighbours merged where no address can tell."""
        walk = self.walk
        single = [Axis(n, (a,), a in walk.axes) for a, n in enumerate(walk.shape) if n != 1]
        if not single:
            return []
        lowering = self.lowering()
        at = [ZERO] * len(walk.shape)
        for axis in single:
            at[axis.members[0]] = lowering.counter(Value(f"%axis{axis.members[0]}", "i64"), 0, axis.size - 1)
        self.visit(lowering, tuple(at))
        for node in walk.sums:
            lowering.address(node.outputs[0], self.kept(tuple(at)))
        merged = single[:1]
        for axis in single[1:]:
            if mergeable(lowering, merged[-1], axis):
                merged[-1] = Axis(merged[-1].size * axis.size, (*merged[-1].members, *axis.members), axis.summed)
            else:
                merged.append(axis)
        return merged

    def visit(self, lowering: Lowering, at: Indices) -> list[Value]:
        """Store what is stored at an index, and give the terms of the sums."""
        values = [(x, lowering.value(x, at)) for x in self.walk.stores]
        for x, value in values:
            if not self.tries:
                lowering.store(x, at, value)
            elif value.is_float:
                self.tried(lowering, value)
        terms = [lowering.value(node.inputs[0], at) for node in self.walk.sums]
        return terms

    def kept(self, at: Indices) -> Indices:
        return tuple(i for a, i in enumerate(at) if a not in self.walk.axes)

    def tried(self, lowering: Lowering, x: Value) -> None:
        """Remember whether x is finite: x·0 is 0 for finite x, NaN for all others, and stays so in a sum."""
        t, width = lowering.text, self.isa.lanes()
        x = x if x.lanes == width else t.splat(x, width)
        x = x if lowering.mask is None else t.select(lowering.mask, x, const(0, x.kind, width))
        total = self.trials[x.kind]
        t.set(total, t.fma(x, const(0, x.kind, width), t.get(total)))

    def code(self) -> Code:
        """The kernel. Walks that do the same with other buffers share one, which is written once."""
        signature = Signature(self)
        key = (self.isa, self.walk.shape, self.walk.axes, self.flag, self.tries, *signature.parts)
        if key not in WRITTEN:
            WRITTEN[key] = self.recalled(key, signature), list(signature.keys)
        code, keys = WRITTEN[key]
        now = dict(zip(keys, signature.keys, strict=True))
        return replace(code, slots=tuple(now.get(slot, slot) for slot in code.slots))

    def recalled(self, key: Any, signature: Signature) -> Code:
        """The kernel from its recipe; written, and kept as one, where there is none."""
        name, keys = recipes.name(self.isa, "walk", *key), list(signature.keys)
        if recipe := recipes.recall(name):
            (kernel,) = recipe["kernels"]
            return Code(Kernel(kernel), recipes.decoded(recipe["slots"], dict(enumerate(keys))), *recipe["work"])
        code = self.written()
        slots = recipes.encoded(code.slots, {key: i for i, key in enumerate(keys)})
        work = code.extent, code.grain, code.step
        recipes.keep(name, {"kernels": [code.kernel.name], "slots": slots, "work": work})
        return code

    def written(self) -> Code:
        axes = self.axes()
        lowering = self.lowering()
        if self.flag is not None and not self.tries:
            self.return_unless_set(lowering)
        extent, grain, step = (Summing if self.walk.axes else Mapped)(self, lowering, axes).write()
        if self.tries:
            self.report(lowering)
        return Code(Kernel.of(str(lowering.text), self.isa), tuple(lowering.slots), extent, grain, step)

    def return_unless_set(self, lowering: Lowering) -> None:
        t = lowering.text
        done, go_on = t.fresh("done"), t.fresh("go")
        number = t.load(lowering.slot(self.flag), "i8")
        t.branch(t.compare("ne", number, Value("0", "i8")), go_on, done)
        t.label(done)
        t.line("ret void")
        t.label(go_on)

    def report(self, lowering: Lowering) -> None:
        """Zero the flag if anything tried was not finite."""
        for total in self.trials.values():
            lower_flag(lowering.text, lowering.text.get(total), lowering.slot(self.flag))


def lower_flag(t: Text, total: Value, flag: Value) -> None:
    """Zero the flag if any lane is NaN."""
    bad = t.compare("uno", total, total)
    word = Value("0", f"i{total.lanes}")
    bits = t.value(f"bitcast {bad} to {word.kind}", word.kind)
    t.when(t.compare("ne", bits, word), lambda: t.line(f"store atomic i8 0, {flag} monotonic, align 1"))


def mergeable(lowering: Lowering, a: Axis, b: Axis) -> bool:
    """Whether every address moves with axis a as with b's whole size, so that b's counter can speak for both."""
    outer, inner = (f"%axis{axis.members[-1]}" for axis in (a, b))
    if a.summed != b.summed or outer in lowering.opaque or inner in lowering.opaque:
        return False
    size = b.size
    return all(
        dict(access.terms).get(outer, 0) == dict(access.terms).get(inner, 0) * size for access in lowering.accesses
    )


def placed(ndim: int, axes: Sequence[Axis], counters: Sequence[Index]) -> Indices:
    """The index into the walk's shape: the last member of a merged axis has its counter, the others none."""
    at = [ZERO] * ndim
    for axis, counter in zip(axes, counters, strict=True):
        at[axis.members[-1]] = counter
    return tuple(at)


class Mapped:
    """A walk without sums. `write` gives its extent, grain and step, as in `Code`."""

    def __init__(self, writer: Writer, lowering: Lowering, axes: list[Axis]) -> None:
        self.writer, self.lowering, self.axes = writer, lowering, axes

    def write(self) -> tuple[int, int, int]:
        lowering, axes, t = self.lowering, self.axes, self.lowering.text
        lo, hi = t.argument("lo"), t.argument("hi")
        ndim = len(self.writer.walk.shape)
        if len(axes) <= 1:
            if axes:
                lowering.lane_loop(lo, hi, axes[0].size, lambda i: self.at(placed(ndim, axes, [i])))
            else:
                self.at((ZERO,) * ndim)
            return axes[0].size if axes else 1, GRAIN, LINE
        outer = parallel(axes[:-1])

        def task(number: Index) -> None:
            counters = split(lowering, number, [axis.size for axis in axes[:outer]])
            self.inner(axes[outer:], [*counters])

        size = math.prod(axis.size for axis in axes[:outer])
        lowering.loop(lo, hi, size, task)
        each = math.prod(axis.size for axis in axes[outer:])
        return size, max(1, GRAIN // max(1, each)), 1

    def inner(self, rest: list[Axis], counters: list[Index]) -> None:
        (axis, *rest) = rest
        if rest:
            self.lowering.loop(0, axis.size, axis.size, lambda i: self.inner(rest, [*counters, i]))
            return
        ndim = len(self.writer.walk.shape)
        self.lowering.lane_loop(0, axis.size, axis.size, lambda i: self.at(placed(ndim, self.axes, [*counters, i])))

    def at(self, at: Indices) -> None:
        self.writer.visit(self.lowering, at)


def parallel(axes: Sequence[Axis]) -> int:
    """How many axes, from the first, are divided among tasks: enough of them for many threads."""
    count, tasks = 0, 1
    while count < len(axes) and tasks < 16:
        tasks *= axes[count].size
        count += 1
    return count


def split(lowering: Lowering, number: Index, sizes: Sequence[int]) -> list[Index]:
    """A task's number as an index into the axes that are divided."""
    indices: list[Index] = []
    for size in sizes[:0:-1]:
        number, inner = lowering.divmod(number, size)
        indices.append(inner)
    return [*([number] if sizes else []), *indices[::-1]]


class Summing:
    """A walk with sums: tasks over the axes that are kept, sums along the others held in registers.

    Sums over several axes are added up axis by axis, so that rounding errors grow with their sizes, not their product.
    """

    def __init__(self, writer: Writer, lowering: Lowering, axes: list[Axis]) -> None:
        self.writer, self.lowering, self.axes = writer, lowering, axes
        self.walk = writer.walk
        self.width = lowering.isa.lanes()
        self.by_rows = bool(axes) and axes[-1].summed
        self.lane_axis = None if self.by_rows or not axes else len(axes) - 1
        self.counters: dict[int, Index] = {}

    def write(self) -> tuple[int, int, int]:
        lowering, t = self.lowering, self.lowering.text
        kept = [i for i, axis in enumerate(self.axes) if not axis.summed and i != self.lane_axis]
        sizes = [self.axes[i].size for i in kept]
        blocks, step = self.lane_blocks()

        def task(number: Index) -> None:
            *places, block = split(lowering, number, [*sizes, blocks])
            self.counters.update(zip(kept, places, strict=True))
            if self.lane_axis is None:
                self.rows()
            else:
                self.columns(block, step)

        extent = math.prod(sizes) * blocks
        lowering.loop(t.argument("lo"), t.argument("hi"), extent, task)
        each = math.prod(axis.size for axis in self.axes) // max(extent, 1)
        return extent, max(1, GRAIN // max(each, 1)), 1

    def lane_blocks(self) -> tuple[int, int]:
        """Into how many blocks the lane axis is divided, and the vectors in each."""
        if self.lane_axis is None:
            return 1, 0
        vectors = -(-self.axes[self.lane_axis].size // self.width)
        together = min(TOGETHER, vectors)
        return -(-vectors // together), together

    def sums(self) -> list[int]:
        return [i for i, axis in enumerate(self.axes) if axis.summed]

    def rows(self) -> None:
        """Sums along the last axis too: its lanes are put together at the end."""
        totals = self.add(self.sums(), 1)
        for node, (total,) in zip(self.walk.sums, totals, strict=True):
            self.lowering.store(node.outputs[0], self.place(), self.lowering.text.reduce("add", total))

    def columns(self, block: Index, together: int) -> None:
        """Sums for as many vectors along the last axis as fit together; the last block may be smaller."""
        lowering, size, t = self.lowering, self.axes[self.lane_axis].size, self.lowering.text  # type: ignore[index]
        full, step = size // (self.width * together), self.width * together

        def whole() -> None:
            # Of the numbers of blocks, those of whole ones: where they end, index arithmetic asks what lies outside.
            number = block if full * step == size else lowering.place_of(lowering.integer(block), 0, full - 1)
            self.block(lowering.times(number, step), [None] * together)

        def last() -> None:
            rest = size - full * step
            vectors = -(-rest // self.width)
            masks = [
                None if rest - v * self.width >= self.width else t.first(rest - v * self.width, self.width)
                for v in range(vectors)
            ]
            self.block(Index(full * step), masks)

        if full * step == size:
            whole()
        elif not full:
            last()
        else:
            number = lowering.integer(block)
            t.when(t.compare("slt", number, Value(str(full), "i64")), whole)
            t.when(t.compare("eq", number, Value(str(full), "i64")), last)

    def block(self, start: Index, masks: list[Value | None]) -> None:
        lowering = self.lowering
        self.masks, self.start = masks, start
        with lowering.scope():
            lowering.lanes = self.width
            totals = self.add(self.sums(), len(masks))
            for node, vectors in zip(self.walk.sums, totals, strict=True):
                for v, total in enumerate(vectors):
                    self.enter(v)
                    lowering.store(node.outputs[0], self.place(), total)
            lowering.lanes, lowering.mask, lowering.active = 1, None, 1

    def enter(self, v: int) -> None:
        start, size = self.start.shifted(v * self.width), self.axes[self.lane_axis].size  # type: ignore[index]
        self.lowering.mask = self.masks[v]
        self.lowering.active = self.width if start.terms else min(self.width, size - start.const)
        self.counters[self.lane_axis] = Index(start.const, start.terms, 1)  # type: ignore[index]

    def place(self) -> Indices:
        at = [ZERO] * len(self.walk.shape)
        for number, counter in self.counters.items():
            at[self.axes[number].members[-1]] = counter
        return self.writer.kept(tuple(at))

    def add(self, rest: list[int], vectors: int) -> list[list[Value]]:
        """The sums over the axes in `rest`, for each node and vector."""
        lowering, t = self.lowering, self.lowering.text
        if not rest:
            return self.terms(vectors)
        lanes = self.width
        totals = [
            [t.variable(t.splat(zero(node.outputs[0]), lanes)) for _ in range(vectors)] for node in self.walk.sums
        ]

        def step(i: Index) -> None:
            self.counters[rest[0]] = i
            for row, terms in zip(totals, self.add(rest[1:], vectors), strict=True):
                for total, term in zip(row, terms, strict=True):
                    term = t.splat(term, lanes)
                    if self.by_rows and lowering.mask is not None:
                        term = t.select(lowering.mask, term, t.splat(Value(term_zero(term), term.kind), lanes))
                    t.set(total, t.combine("add", t.get(total), term))

        size = self.axes[rest[0]].size
        if self.by_rows and len(rest) == 1:
            lowering.lane_loop(0, size, size, step)
        else:
            lowering.loop(0, size, size, step)
        return [[t.get(total) for total in row] for row in totals]

    def terms(self, vectors: int) -> list[list[Value]]:
        """The terms at the present place, for each node and vector."""
        found = []
        for v in range(vectors):
            if self.lane_axis is not None:
                self.enter(v)
            at = placed(len(self.walk.shape), self.axes, [self.counters[i] for i in range(len(self.axes))])
            found.append(self.writer.visit(self.lowering, at))
        return [list(row) for row in zip(*found, strict=True)]


def term_zero(x: Value) -> str:
    return "0.0" if x.is_float else "0"
