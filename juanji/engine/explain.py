"""A plan as text: what each call does, what was chosen for it and what was not, and where the memory goes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap
from typing import Any

from juanji.engine.accuracy import errors
from juanji.engine.calls import Call, parts
from juanji.engine.compiled import Compiled
from juanji.engine.fuse import VIEWS
from juanji.engine.plan import Plan
from juanji.engine.profile import layer, stages_of, traffic
from juanji.kernels.choice import candidates, refusal
from juanji.kernels.contraction import Contraction
from juanji.kernels.direct import prices
from juanji.kernels.isa import ISA
from juanji.kernels.matrices import LANES, WORDS
from juanji.table import aligned

SHOWN = 2  # ways that were not chosen, and the best of each kind
MEMORY = {
    "cells": "parameters, statistics, the optimiser's state",
    "activations": "what one call hands to another",
    "packed": "copies in the order in which products read them",
    "tiles": "transformed, between the stages of a short algorithm",
    "partial sums": "of products that are added up afterwards",
    "constants": "with arguments and results, which keep their place",
    "arena": "what all these but cells take, since buffers share memory",
}

# By what buffers between calls are called.
KINDS = {
    "packed": "packed",
    "weights": "packed",
    "data": "tiles",
    "gradients": "tiles",
    "results": "tiles",
    "scratch": "tiles",
    "partial": "partial sums",
    "sums": "partial sums",
    "again": "activations",
}


def explain_plan(compiled: Compiled | Plan, *args: Any, accuracy: bool = False) -> str:
    """What a compiled function, or its plan, does for these arguments, call by call, and why in this way.

    For each call: its level (calls of one level run beside each other), stage ("ahead": only when cells have changed),
    layer, number of tasks and the bytes it reads and writes; the operators that it computes; for products the tile that
    was chosen, the cycles that the model of the cost expects if one thread does everything, the share of the machine's
    best that this would be, and the nearest ways that were not chosen. The memory comes last::

        print(jj.explain_plan(compiled, x, y))

    accuracy  whether to take a step, which changes no cell, and to tell the error of every convolution that is not done
              directly: on its own operands, the largest difference from float64, relative to the largest value
    """
    plan: Plan = compiled.plan(*args) if isinstance(compiled, Compiled) else compiled
    stages, found = stages_of(plan), errors(plan) if accuracy else {}
    lines = [f"{len(plan.calls)} calls for {plan.isa}"]
    for call in sorted(plan.calls, key=lambda call: call.level):
        size = f"{len(parts(call))} tasks, {traffic(plan, call) / 1e6:.2f} MB"
        stage = "ahead" if call in plan.prepared else stages[call]
        lines += [f"{call.level:>4} {stage:<9} {layer(plan, call) or '·'}  {call.what}  ({size})"]
        lines += [f"{'':15}{note}" for note in notes(plan, call)]
        lines += [f"{'':15}error {error:.1e} of the largest value" for error in [found.get(call)] if error is not None]
    return "\n".join([*lines, "", *memory_lines(plan)])


def notes(plan: Plan, call: Call) -> Iterator[str]:
    """What there is to say about a call."""
    computed = operators(plan, call)
    if len(computed) > 1 and call.what != "border":
        yield "computes " + ", ".join(f"{count} {name}" if count > 1 else name for name, count in computed.items())
    if call.problem:
        yield from choice(plan, call)
    elif call.reason:
        yield call.reason


def operators(plan: Plan, call: Call) -> Counter[str]:
    """The operators whose results a call computes, stored or not; views cost nothing and are left out."""
    program, stored = plan.draft.program, plan.draft.layouts
    written = [program.writes[cell] for key in call.writes if call.commits and (cell := plan.draft.homes.get(key))]
    made = [x for node in program.nodes for x in node.outputs if id(x) in call.writes]
    todo, seen, names = deque([*made, *written]), set[int](), Counter[str]()
    first = {id(x) for x in todo}
    while todo:
        x = todo.popleft()
        node = program.producers.get(id(x))
        if node is None or id(node) in seen or (id(x) in stored and id(x) not in first):
            continue
        seen.add(id(node))
        names[node.name] += node.name not in VIEWS
        todo += node.inputs
    return +names


# Choices


@dataclass(frozen=True)
class Option:
    """One way of computing a call: what it is, and the cycles of one thread."""

    name: str
    cycles: float


def options(contraction: Contraction, batch: int, isa: ISA, pair: bool) -> list[Option]:
    """All ways of computing a contraction, the best first."""
    direct = prices(contraction, isa, batch)
    short = {str(way): cycles for cycles, way in candidates(contraction, isa, batch, pair)}
    return sorted(starmap(Option, (direct | short).items()), key=lambda option: option.cycles)


def rate(plan: Plan, contraction: Contraction) -> int:
    """Products a cycle, as the model of the cost has them."""
    if plan.draft.choice.precision != "bfloat16":
        return 2 * plan.isa.lanes(contraction.kind)
    return WORDS * LANES * 2 if plan.isa.matrices else 4 * plan.isa.lanes(contraction.kind)


def choice(plan: Plan, call: Call) -> Iterator[str]:
    """What was chosen for a call, beside what the model of the cost thinks worse, or would not have."""
    contraction, batch = call.problem  # type: ignore[misc]
    found = options(contraction, batch, plan.isa, plan.draft.choice.pairs)
    chosen = next((option for option in found if option.name == call.reason), None)
    if chosen is None:
        yield call.reason
        return
    best = call.products / rate(plan, contraction) / max(chosen.cycles, 1)
    yield f"{call.reason}; {chosen.cycles:,.0f} cycles expected, {best:.0%} of the best that direct products can do"
    others = [option for option in found if option is not chosen]
    kinds = {option.name.split(",")[0].startswith("Winograd"): option for option in reversed(others)}
    nearest = list(dict.fromkeys([*others[:SHOWN], *kinds.values()]))
    shown = [f"{each.name} ({each.cycles / max(chosen.cycles, 1) - 1:+.1%})" for each in nearest]
    if shown:
        more = f"; {len(others) - len(shown)} more" if len(others) > len(shown) else ""
        yield f"not {'; '.join(shown)}{more}"
    if why := refusal(contraction):
        yield f"no short algorithm: {why}"


# Memory


def memory(plan: Plan) -> dict[str, int]:
    """Bytes by what they are for."""
    draft, sizes = plan.draft, Counter(dict.fromkeys(MEMORY, 0))
    lasting = plan.lasting()
    for key, size in draft.sizes.items():
        if isinstance(key, tuple):
            sizes[KINDS[key[0]]] += size
        else:
            sizes["constants" if key in lasting else "activations"] += size
    sizes["cells"] = sum(home.array.nbytes for home in plan.homes.values())
    sizes["arena"] = plan.peak
    return dict(sizes)


def memory_lines(plan: Plan) -> Iterator[str]:
    rows = [(name, f"{size / 1e6:.2f} MB", MEMORY[name]) for name, size in memory(plan).items()]
    yield from aligned([*rows, ("all", f"{plan.memory() / 1e6:.2f} MB", "cells and arena")], right=(1,))
