"""The door of a plan: what a compiled function was called with, and whether the numbers in it may come in.

Definitions look at some values before they run: an index has to point inside, a label has to be a class. Machine code
looks at none, so such values are looked at here, each time, where they come with the arguments. An index that a plan
computes, from data that are not whole numbers or from cells, is not looked at: where it points outside, the elements
it names are undefined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from juanji.errors import ArgumentError, JuanjiError
from juanji.graph import Array, Graph, Node, flatten, is_array
from juanji.ops.loss import check_labels
from juanji.tensor import Tensor

Check = Callable[[Node, Tensor], object]


def signature(argument: Any, arrays: list[Any]) -> Any:
    """What a plan depends on in an argument, as a key: containers, shapes, dtypes, and the values of all else.

    Tensors and arrays are put at the end of `arrays`.
    """
    if is_array(argument):
        arrays.append(argument)
        return argument.shape, argument.dtype
    if isinstance(argument, dict):
        return dict, tuple([(key, signature(value, arrays)) for key, value in argument.items()])
    if isinstance(argument, list | tuple):
        return type(argument), *[signature(value, arrays) for value in argument]
    if isinstance(argument, slice):  # which Python hashes only since 3.12
        return slice, argument.start, argument.stop, argument.step
    if isinstance(argument, float | complex):  # 0.0 is not −0.0, and NaN is NaN
        return type(argument), repr(argument)
    if not argument.__hash__:
        raise ArgumentError(
            "compile: an argument cannot be told from others of its kind",
            received=f"a {type(argument).__name__}, which has no hash",
            rule="there is a plan for each value of the arguments that are not tensors or arrays",
            fix="use it inside the function without passing it in, or give it a __hash__",
        )
    return type(argument), argument


def check_index(node: Node, index: Tensor) -> None:
    node.record.geometry(node.inputs[0], index, **node.attrs)


def check_target(node: Node, target: Tensor) -> None:
    if not target.is_floating:
        check_labels(node.name, target, node.inputs[0].shape[-1], node.attrs["ignore_index"])


# By the name of the record whose second input is looked at.
CHECKS: dict[str, Check] = {
    "take": check_index,
    "window_scatter": check_index,
    "cross_entropy": check_target,
    "nll_loss": check_target,
}
# What may lie between an argument and the place where it is looked at: little work on whole numbers.
MOVES = {"identity", "stop_gradient", "cast", "reshape", "transpose", "broadcast_to", "slice", "flip"}
STEPS = MOVES | {"add", "mul", "less"}  # the last to count from the end, and along several axes


def arriving(graph: Graph) -> list[Node]:
    """The nodes that take few steps from whole numbers among the arguments, and from constants, to others."""
    known = {id(x) for x in graph.inputs if not x.is_floating}
    found = []
    for node in flatten(graph.nodes):
        here = [id(x) in known for x in node.inputs]
        given = all(arrives or x.has_value for arrives, x in zip(here, node.inputs, strict=True))
        if node.name in STEPS and any(here) and given and not node.outputs[0].is_floating:
            known.add(id(node.outputs[0]))
            found.append(node)
    return found


def looking(nodes: Iterable[Node], known: set[int]) -> Iterator[Node]:
    """The nodes that look at numbers which are known at the door."""
    for node in nodes:
        if node.name in CHECKS and id(node.inputs[1]) in known:
            yield node
        else:
            yield from looking(node.body, known)


def leading(steps: Sequence[Node], needed: set[int]) -> list[Node]:
    """Those of the steps that lead to what is needed, which gains their inputs."""
    kept = []
    for node in reversed(steps):
        if id(node.outputs[0]) in needed:
            kept.append(node)
            needed.update(map(id, node.inputs))
    return kept[::-1]


class Door:
    """The checks of a traced function's arguments.

    `checks` are the nodes that look at values, `steps` those that lead from the arguments to them, such as a cast.
    """

    def __init__(self, graph: Graph) -> None:
        steps = arriving(graph)
        known = {id(x) for x in (*graph.inputs, *(node.outputs[0] for node in steps))}
        self.checks = list(looking(graph.nodes, known))
        self.needed = {id(node.inputs[1]) for node in self.checks}
        self.steps = leading(steps, self.needed)
        self.inputs = graph.inputs
        self.labels = {scope.path: scope.owner.label for scope in graph.scopes}

    def check(self, arrays: Sequence[Array]) -> None:
        """Raise what the definitions raise for these arguments."""
        if not self.checks:
            return
        pairs = zip(self.inputs, arrays, strict=True)
        values = {id(x): Tensor.result(array.view(), x.shape, x.dtype) for x, array in pairs if id(x) in self.needed}
        for node in self.steps:
            node.at(values)
        for node in self.checks:
            self.look(node, values[id(node.inputs[1])])

    def look(self, node: Node, numbers: Tensor) -> None:
        try:
            CHECKS[node.name](node, numbers)
        except JuanjiError as error:
            error.at = f"{node.path} ({self.labels[node.path]})" if node.path else ""
            raise
