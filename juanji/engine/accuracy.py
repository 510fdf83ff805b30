"""How exact convolutions by short algorithms are: each on its own operands, in a step as it is, against float64."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from juanji.engine import threads
from juanji.engine.calls import Call, parts
from juanji.engine.compiled import MUCH, Compiled
from juanji.engine.contract import Choice
from juanji.engine.plan import Plan
from juanji.engine.profile import unchanged
from juanji.graph import Array, Node


@dataclass
class Measured:
    """A convolution by a short algorithm, and its operands of a few images."""

    call: Call
    node: Node
    choice: Choice
    operands: dict[int, Array] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return self.node.inputs[1 if self.node.name == "conv_input_grad" else 0].shape[0]

    @property
    def images(self) -> int:
        """As many as take the kernels of the whole batch."""
        return -(-self.batch // MUCH)

    def error(self) -> float:
        """The largest error, relative to the largest value."""
        operands = [self.operands[i] for i in range(len(self.node.inputs))]
        alone = lambda *operands: self.node.record(*operands, **self.node.attrs)  # noqa: E731
        compiled = Compiled(alone, batch=self.batch, precision=self.choice.precision)
        compiled.learns = self.choice.learns
        found = compiled(*operands)
        exact = self.node.record.define(*(x.astype(np.float64) for x in operands), **self.node.attrs)
        return float(np.abs(found.array - exact).max() / max(np.abs(exact).max(), np.finfo(np.float64).tiny))


def errors(plan: Plan) -> dict[Call, float]:
    """The error of each call that a short algorithm does. The plan takes a step, after which no cell has changed."""
    steps = [call for call in plan.calls if call not in plan.prepared and parts(call)]
    stages = defaultdict[int, list[Call]](list)
    for call in plan.calls:
        if call.node is not None:
            stages[id(call.node)].append(call)
    wanted = defaultdict[int, list[tuple[Measured, int]]](list)
    measured = []
    for call in plan.calls:
        if call.node is not None and call.problem and call.reason.startswith("Winograd"):
            measured.append(Measured(call, call.node, plan.draft.choice))
            for operand, level in enumerate(first_read(plan, call.node, stages[id(call.node)])):
                wanted[level].append((measured[-1], operand))
    with unchanged(plan):
        plan.flag[0] = 1
        for phase, level in enumerate(sorted({call.level for call in steps})):
            for each, operand in wanted[level]:
                keep(plan, each, operand)
            threads.pool().run(plan.table, phase, phase + 1)
    return {each.call: each.error() for each in measured}


def first_read(plan: Plan, node: Node, calls: list[Call]) -> Iterator[int]:
    """The level before which each operand of a node is there and not yet gone."""
    last = max(call.level for call in calls)
    for x in node.inputs:
        key = plan.draft.places[id(x)].key
        yield min((call.level for call in calls if key in call.reads and call not in plan.prepared), default=last)


def keep(plan: Plan, each: Measured, operand: int) -> None:
    """Copy an operand, or what it has of a few images."""
    x = each.node.inputs[operand]
    array = plan.view(x) if id(x) not in plan.given else plan.arguments[plan.given[id(x)]]
    whole = each.node.name != "conv_weight_grad" and operand == (0 if each.node.name == "conv_input_grad" else 1)
    each.operands[operand] = (array if whole else array[: each.images]).copy()
