"""Where the time of a plan goes: every call measured in its place in a whole step."""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.engine import state, threads
from juanji.engine.calls import FLAG, Call, parts
from juanji.engine.plan import Plan
from juanji.kernels import machine
from juanji.kernels.isa import ISA
from juanji.kernels.machine import Kernel
from juanji.kernels.matrices import LANES, REGISTERS, ROWS, WORDS
from juanji.kernels.matrixtile import Shapes, instruction
from juanji.kernels.text import SIZES, Int, Text, Value, const, kernel_text
from juanji.kernels.tile import pair_product

LOOPS = 50_000  # of the loop that finds the peak, in one task: some tenths of a millisecond
PRODUCTS = [(sums, 4 + sums // 2, 6 + sums % 2) for sums in range(4)]  # of matrices, two by two
TASKS = 16  # of it for each thread
TRIES = 25  # the fastest counts
STAGES = ("forward", "backward", "update")
KINDS = {
    "conv": "convolution",
    "conv_input_grad": "input gradient",
    "conv_weight_grad": "weight gradient",
    "matmul": "matrix product",
    "pack": "packing",
    "transform weights": "transform",
    "transform": "transform",
    "transform back": "transform",
    "border": "border",
    "sum of parts": "sum of parts",
}
REDUCTIONS = {"sum", "max", "argmax", "moments"}


@dataclass(frozen=True)
class Row:
    """What one layer does of one kind in one stage.

    seconds   of a step; calls that run beside each other share their time
    products  multiplications with additions
    nbytes    of the buffers that are read and written, each once
    """

    stage: str
    layer: str
    kind: str
    calls: int
    seconds: float
    products: int
    nbytes: int

    @property
    def gflops(self) -> float:
        return 2e-9 * self.products / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Profile:
    """A plan's rows, layers in the order of the model. `step` is the time of a whole step, `peak` in GFLOP/s."""

    rows: tuple[Row, ...]
    step: float
    peak: float
    threads: int
    isa: str

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)


def profile(plan: Plan, repeat: int = 10) -> Profile:
    """Measure a plan whose arguments are bound: medians over `repeat` steps. No cell is changed. What is computed ahead
    of all steps is left out.

    Forward is what the outputs are computed from, update what writes cells and the checks before it, and backward
    everything else: so the function has to return its loss and not its gradients.
    """
    with unchanged(plan):
        step, seconds = measured(plan, repeat)
    return Profile(
        tuple(rows(plan, seconds)),
        step,
        peak(plan.isa, plan.draft.choice.precision),
        threads.pool().threads,
        str(plan.isa),
    )


@contextlib.contextmanager
def unchanged(plan: Plan) -> Iterator[None]:
    """Steps in here begin with the cells' values, and leave them as they were."""
    for key, home in plan.homes.items():
        state.bring(plan.draft.homes[key], home)
    kept = {key: home.array.copy() for key, home in plan.homes.items()}
    threads.pool().run(plan.first)
    try:
        yield
    finally:
        for key, home in plan.homes.items():
            np.copyto(home.array, kept[key])


# Measuring


def measured(plan: Plan, repeat: int) -> tuple[float, dict[Call, float]]:
    """The seconds of a whole step, and of each call.

    Each round takes one step as it is, one phase by phase, and one call by call, so that every call finds memory and
    caches as they are in a step. The time of a phase is what counts; its calls share it in proportion to their own.
    """
    calls, alone = call_by_call(plan)
    runs: list[tuple[threads.Table, bool]] = [(plan.table, True), (plan.table, False), (alone, False)]
    rounds = [[timed(plan, table, whole) for table, whole in runs] for _ in range(repeat + 1)]
    nothing = launch(plan.isa)
    # The first round warms up.
    (step,), phases, single = (medians(each, nothing) for each in zip(*rounds[1:], strict=True))
    places = np.searchsorted(plan.table.phases[:, 1], alone.phases[:, 0], "right")
    totals = np.bincount(places, single)
    shares = [phases[place] * own / totals[place] for place, own in zip(places, single, strict=True)]
    return step, dict(zip(calls, map(float, shares), strict=True))


def medians(rounds: Iterable[Sequence[float]], nothing: float) -> list[float]:
    """The median time of each phase without its launch, which takes `nothing` by itself; never quite 0."""
    return [max(statistics.median(times) - nothing, 1e-9) for times in zip(*rounds, strict=True)]


def call_by_call(plan: Plan) -> tuple[list[Call], threads.Table]:
    """The plan's table with a phase for each call, and the calls of these phases."""
    steps = sorted(plan.calls, key=lambda call: call.level)
    calls = [call for call in steps if call not in plan.prepared and parts(call)]
    ends = np.cumsum([len(parts(call)) for call in calls])
    return calls, threads.Table(plan.table.entries, np.stack([np.append(0, ends[:-1]), ends], axis=1))


def timed(plan: Plan, table: threads.Table, whole: bool = False) -> list[float]:
    """One step by a table of the plan: the seconds of each phase, or of the whole."""
    pool, count = threads.pool(), len(table.phases)
    plan.flag[0] = 1
    times = []
    for first, last in [(0, count)] if whole else [(i, i + 1) for i in range(count)]:
        start = time.perf_counter()
        pool.run(table, first, last)
        times.append(time.perf_counter() - start)
    return times


def launch(isa: ISA) -> float:
    """The seconds it takes to run a phase that does nothing."""
    (code,) = machine.addresses([Kernel.of(str(kernel_text(isa.fused)), isa)], isa)
    table = threads.Table([(code, 0, 0, 0)], [(0, 1)])
    return statistics.median(seconds(table) for _ in range(101))


def seconds(table: threads.Table) -> float:
    start = time.perf_counter()
    threads.pool().run(table)
    return time.perf_counter() - start


# The peak


@functools.cache
def peak(isa: ISA, precision: str = "float32") -> float:
    """How many GFLOP/s the pool's threads do in registers alone, in float32 or of pairs in bfloat16."""
    count, size = threads.pool().threads * TASKS, isa.lanes() * SIZES["float"]
    scratch = state.aligned((count, size), np.dtype(np.uint8))
    arguments = np.array([scratch.ctypes.data], np.int64)
    (code,) = machine.addresses([Kernel.of(peak_text(isa, precision), isa)], isa)
    table = threads.Table([(code, arguments.ctypes.data, i, i + 1) for i in range(count)], [(0, count)])
    fastest = min(seconds(table) for _ in range(TRIES))
    return 2e-9 * LOOPS * products(isa, precision) * count / fastest


def products(isa: ISA, precision: str) -> int:
    """How many products one round of the loop that measures the peak has."""
    if precision == "bfloat16" and isa.matrices:
        return len(PRODUCTS) * ROWS * LANES * 2 * WORDS
    return sums(isa) * isa.lanes() * (2 if precision == "bfloat16" else 1)


def sums(isa: ISA) -> int:
    """As many sums side by side as hide the time one addition takes; all in registers."""
    return min(isa.registers - 4, 20)


def peak_text(isa: ISA, precision: str) -> str:
    """A kernel that multiplies and adds in registers; task i stores one vector at place i of argument 0."""
    t, lanes = kernel_text(isa.fused), isa.lanes()
    if precision == "bfloat16" and isa.matrices:
        matrix_peak(t)
        return str(t)
    pointer = t.at(t.slot(0), t.mul(t.argument("lo"), lanes), "float")
    x = t.load(pointer, "float", lanes)
    words = t.load(pointer, "i32", lanes)
    # Each begins with another number, or LLVM would see that they are all the same.
    totals = [t.variable(const(i, "float", lanes)) for i in range(sums(isa))]

    def product(total: Value) -> Value:
        return pair_product(t, words, words, total) if precision == "bfloat16" else t.fma(x, x, total)

    def add(_: Int) -> None:
        for total in totals:
            t.set(total, product(t.get(total)))

    t.loop(0, LOOPS, add)
    t.store(functools.reduce(functools.partial(t.op, "fadd"), map(t.get, totals)), pointer)
    return str(t)


def matrix_peak(t: Text) -> None:
    """Products of matrices, of nothing but zeros."""
    shapes = Shapes(t)
    shapes.need(dict.fromkeys(range(REGISTERS), (ROWS, WORDS)))
    for register in range(REGISTERS):
        instruction(t, "tilezero", register)

    def add(_: Int) -> None:
        for each in PRODUCTS:
            instruction(t, "tdpbf16ps", *each)

    t.loop(0, LOOPS, add)
    shapes.release()


# What a call is for


def rows(plan: Plan, seconds: dict[Call, float]) -> list[Row]:
    """Calls of one stage, layer and kind together; layers in the order in which they are first called."""
    stages, groups = stages_of(plan), defaultdict[tuple[str, str, str], list[Call]](list)
    for call in seconds:
        groups[stages[call], layer(plan, call), kind(call)].append(call)
    order = {path: place for place, path in enumerate(dict.fromkeys(path for _, path, _ in groups))}
    found = [
        Row(
            *key, len(calls), sum(seconds[call] for call in calls), sum(call.products for call in calls),
            traffic(plan, *calls),
        )
        for key, calls in groups.items()
    ]  # fmt: skip
    return sorted(found, key=lambda row: (STAGES.index(row.stage), order[row.layer]))


def stages_of(plan: Plan) -> dict[Call, str]:
    """The stage of each call."""
    writers: dict[object, list[Call]] = defaultdict(list)
    for call in plan.calls:
        if not call.commits:
            for key in call.writes:
                writers[key].append(call)
    stages: dict[Call, str] = {}
    todo = [
        call
        for x in plan.draft.program.outputs
        if (place := plan.draft.places.get(id(x)))
        for call in writers[place.key]
    ]
    while todo:
        call = todo.pop()
        if call not in stages:
            stages[call] = "forward"
            todo += [writer for key in call.reads for writer in writers[key]]
    return {call: stages.get(call) or ("update" if updates(call) else "backward") for call in plan.calls}


def updates(call: Call) -> bool:
    """Whether a call writes cells, or checks that they may be written."""
    return call.commits or FLAG in call.writes


def layer(plan: Plan, call: Call) -> str:
    """The path of the layer a call works for: what writes and checks cells for their owner, and what has no path of
    its own for those that make what it touches."""
    if updates(call):
        keys = call.writes if call.commits else call.reads
        owners = {owner(plan.draft.homes[key]) for key in keys if key in plan.draft.homes}
        if any(owners):
            return min(owners - {""})
    if call.path or call.what not in ("finite", "border"):
        return call.path
    touched = call.reads | call.writes - {FLAG}
    return next((other.path for other in plan.calls if other.path and touched & other.writes), "")


def owner(cell: Cell) -> str:
    """The path of the layer that a cell belongs to, or that an optimiser remembers something of in it."""
    path = cell.path.partition(".")[2] if cell.kind == "slot" else cell.path
    return path.rpartition(".")[0]


def kind(call: Call) -> str:
    names = call.what.split("+")
    if updates(call):
        return "update" if call.commits else "check"
    if names[0] in KINDS:
        return KINDS[names[0]]
    if names[0].startswith("window_"):
        return "pooling"
    return "reduction" if REDUCTIONS.intersection(names) else "pointwise"


def traffic(plan: Plan, *calls: Call) -> int:
    """The bytes that calls have to read and write together, each buffer once."""
    whole = [call for call in calls if call.what != "border"]
    read = {key for call in whole for key in call.reads}
    written = {key for call in whole for key in call.writes}
    frames = {key for call in calls if call.what == "border" for key in call.writes}
    return sum(size(plan, key) for keys in (read, written) for key in keys) + sum(border(plan, key) for key in frames)


def size(plan: Plan, key: Any) -> int:
    """The bytes of a buffer; the flag has one."""
    return plan.homes[key].array.nbytes if key in plan.homes else plan.draft.sizes.get(key, 1)


def border(plan: Plan, key: int) -> int:
    known = plan.draft.layouts[key]
    return known.nbytes - math.prod(known.shape) * known.itemsize
