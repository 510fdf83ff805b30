"""The one representation: primitives, composites, and the graphs made of them.

A graph's variables are tensors themselves, compared by identity: with values where a function was recorded while it
ran, without where it was only traced. A primitive is one record, and its kind *is* its derivative rule: tangents are
pushed forward and cotangents pulled back by the same few lines for all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from juanji import recording, tree
from juanji.errors import ArgumentError, ShapeError
from juanji.table import aligned

if TYPE_CHECKING:
    from juanji.cell import Cell
    from juanji.tensor import Tensor

Rule = Callable[..., Any]
Array = np.ndarray[Any, np.dtype[Any]]
Geometry = tuple[tuple[int, ...], np.dtype[Any]]
Examples = Callable[["np.random.Generator"], Iterable[tuple[Sequence[Any], dict[str, Any]]]]
Tangents = dict[int, "Tensor"]


class Kind:
    """How an output depends on its inputs: one rule an argument, None where there is no derivative."""

    def __init__(self, *rules: Rule | None) -> None:
        self.rules = rules

    def rule(self, arg: int) -> Rule | None:
        return self.rules[arg] if arg < len(self.rules) else None

    def push(self, node: Node, tangents: Sequence[Tensor | None]) -> Tensor | None:
        """The output's tangent from those of the inputs; None is zero."""
        raise NotImplementedError

    def pull(self, node: Node, arg: int, cotangent: Tensor) -> Tensor:
        """Input `arg`'s share of the output's cotangent."""
        return self.rule(arg)(cotangent, *node.inputs, **node.attrs)  # type: ignore[misc]


class Linear(Kind):
    """Jointly linear in the arguments that have a rule: the transpose, `(cotangent, *inputs, **attrs)`."""

    def push(self, node: Node, tangents: Sequence[Tensor | None]) -> Tensor | None:
        moved = [
            x if self.rule(arg) is None else x.zeros_like() if tangent is None else tangent
            for arg, (x, tangent) in enumerate(zip(node.inputs, tangents, strict=True))
        ]
        return node.apply(*moved)


class LinearInAll(Linear):
    """Jointly linear in any number of arguments, one rule for all: `(cotangent, arg, *inputs, **attrs)`."""

    def rule(self, arg: int) -> Rule:
        (transpose,) = self.rules
        return lambda cotangent, *inputs, **attrs: transpose(cotangent, arg, *inputs, **attrs)  # type: ignore[misc]


class Multilinear(Kind):
    """Linear in each argument that has a rule while the others stand still. Rules as in `Linear`."""

    def push(self, node: Node, tangents: Sequence[Tensor | None]) -> Tensor | None:
        terms = (
            node.apply(*node.inputs[:arg], tangent, *node.inputs[arg + 1 :])
            for arg, tangent in enumerate(tangents)
            if tangent is not None and self.rule(arg)
        )
        return total(terms)


class Pointwise(Kind):
    """Elementwise on inputs of one shape; a rule is a partial derivative `(y, *inputs, **attrs)`, tensor or number."""

    def push(self, node: Node, tangents: Sequence[Tensor | None]) -> Tensor | None:
        return total(self.pull(node, arg, t) for arg, t in enumerate(tangents) if t is not None and self.rule(arg))

    def pull(self, node: Node, arg: int, cotangent: Tensor) -> Tensor:
        """A diagonal Jacobian is its own transpose, so both directions multiply by the partial derivative."""
        partial = self.rule(arg)(node.outputs[0], *node.inputs, **node.attrs)  # type: ignore[misc]
        if isinstance(partial, int) and abs(partial) == 1:
            return cotangent if partial == 1 else -cotangent
        return cotangent * partial


class NotDifferentiable(Kind):
    """No derivative: comparisons, indices, random numbers."""

    def push(self, node: Node, tangents: Sequence[Tensor | None]) -> Tensor | None:
        return None


def total(terms: Iterable[Tensor]) -> Tensor | None:
    result = None
    for term in terms:
        result = term if result is None else result + term
    return result


@dataclass(frozen=True, eq=False)
class Primitive:
    """An operator that is made of nothing smaller. Called on tensors, it checks, computes and records.

    `geometry(*tensors, **attrs)` gives shape and dtype, or raises, before anything runs; `define(*arrays, **attrs)`
    is the readable meaning; `examples(rng)` yields `(arrays, attrs)` away from kinks; the engine fills in `lower`.
    """

    name: str
    geometry: Callable[..., Geometry]
    define: Callable[..., Array]
    kind: Kind
    examples: Examples
    lower: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *inputs: Tensor, **attrs: Any) -> Tensor:
        shape, dtype = self.geometry(*inputs, **attrs)
        array = None
        if all(tensor.has_value for tensor in inputs):
            with np.errstate(all="ignore"):
                array = self.define(*(tensor.array for tensor in inputs), **attrs)
        output = type(inputs[0]).result(array, shape, dtype)
        recording.record(Node(self, inputs, attrs, (output,), recording.path()))
        return output


@dataclass(eq=False)
class Composite:
    """A named function of primitives: differentiated by inlining, drawn and exported by its name.

    Tensors go in by position (None where one is left out), everything else by keyword. Where the derivative of the
    whole is shorter than that of the parts, `pull` is it: `(outputs, cotangent, *inputs, **attrs)` gives a cotangent
    for each input (None for zero) from that of the first output, if nothing else inside has one.
    """

    name: str
    function: Callable[..., Any]
    examples: Examples
    lower: dict[str, Any] = field(default_factory=dict)
    pull: Rule | None = None

    def __call__(self, *inputs: Tensor | None, **attrs: Any) -> Any:
        if not recording.active():
            return self.function(*inputs, **attrs)
        with folded(self, inputs, attrs) as outputs:
            result = self.function(*inputs, **attrs)
            outputs.extend(tree.leaves(result))
        return result


PRIMITIVES: dict[str, Primitive] = {}
COMPOSITES: dict[str, Composite] = {}
Record = TypeVar("Record", Primitive, Composite)


def register(record: Record) -> Record:
    """Put a record in its registry; its name must be new."""
    if record.name in PRIMITIVES or record.name in COMPOSITES:
        raise ArgumentError(f"the operator {record.name!r} is already registered", fix="choose another name")
    registry: dict[str, Any] = PRIMITIVES if isinstance(record, Primitive) else COMPOSITES
    registry[record.name] = record
    return record


def primitive(
    name: str, geometry: Callable[..., Geometry], define: Callable[..., Array], kind: Kind, examples: Examples
) -> Primitive:
    """Register a primitive. See `Primitive` for the parts of its record."""
    return register(Primitive(name, geometry, define, kind, examples))


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One application of a record. A composite's node holds what it is made of in `body`."""

    record: Any
    inputs: tuple[Any, ...]
    attrs: Mapping[str, Any]
    outputs: tuple[Tensor, ...]
    path: str
    body: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        return str(self.record.name)

    def apply(self, *inputs: Tensor) -> Tensor:
        """The same operator on other inputs."""
        result: Tensor = self.record(*inputs, **self.attrs)
        return result

    def at(self, values: Tangents) -> Node:
        """This node evaluated on the values that tensors have in `values`, which gains the result's."""
        inputs = tuple(values.get(id(x), x) for x in self.inputs)
        output = values[id(self.outputs[0])] = self.apply(*inputs)
        return Node(self.record, inputs, self.attrs, (output,), self.path)


def folded(
    record: Composite, inputs: tuple[Any, ...], attrs: Mapping[str, Any]
) -> AbstractContextManager[list[Tensor]]:
    """What is recorded inside becomes the body of one node; the caller adds its outputs to the list."""
    place = recording.path()
    return recording.grouped(lambda outputs, body: Node(record, inputs, attrs, outputs, place, body))


def flatten(nodes: Iterable[Node]) -> Iterator[Node]:
    """Inline every composite. Its body speaks of the same tensors, so nothing needs renaming."""
    for node in nodes:
        if node.body:
            yield from flatten(node.body)
        else:
            yield node


def replay(nodes: Iterable[Node], values: Tangents) -> None:
    """Evaluate nodes on the values of tensors in `values`, which gains the results; paths and composites stay."""
    for node in nodes:
        with recording.at(node.path):
            if not node.body:
                node.at(values)
                continue
            with folded(node.record, tuple(values.get(id(x), x) for x in node.inputs), node.attrs) as outputs:
                replay(node.body, values)
                outputs.extend(values.get(id(x), x) for x in node.outputs)


def pushforward(nodes: Iterable[Node], tangents: Tangents) -> None:
    """Forward mode (002 §3): walk the nodes in order, adding each result's tangent to `tangents`."""
    for node in flatten(nodes):
        known = [tangents.get(id(x)) for x in node.inputs]
        if any(tangent is not None for tangent in known) and node.outputs[0].is_floating:
            with recording.at(node.path):
                tangent = node.record.kind.push(node, known)
            if tangent is not None:
                tangents[id(node.outputs[0])] = tangent


def pullback(
    nodes: Sequence[Node],
    cotangents: Tangents,
    wanted: Callable[[Any], bool],
    rules: Mapping[str, Rule] | None = None,
    keep: bool = False,
) -> None:
    """Reverse mode (002 §3): walk the nodes backwards, adding the inputs' shares to `cotangents`.

    `wanted` says which tensors depend on a variable. What has been passed on is dropped from `cotangents`, to save
    memory, unless `keep`. `rules` replaces the rule of the records it names by
    `(cotangent, *inputs, **attrs)`, which returns a cotangent for each input (None for zero), or a single one for the
    first.
    """
    for node in reversed(nodes):
        rule = rule_of(node, cotangents, rules or {})
        if node.body and rule is None:
            pullback(node.body, cotangents, wanted, rules, keep)
            continue
        place = id(node.outputs[0])
        cotangent = cotangents.get(place) if keep else cotangents.pop(place, None)
        if cotangent is not None:
            with recording.at(node.path):
                for tensor, share in shares(node, cotangent, wanted, rule):
                    seen = cotangents.get(id(tensor))
                    cotangents[id(tensor)] = share if seen is None else seen + share


def rule_of(node: Node, cotangents: Tangents, rules: Mapping[str, Rule]) -> Rule | None:
    """What pulls back through a node as a whole: the rule given for it, or a composite's own where that applies.

    A composite's own rule is passed over where rules are given, because they may speak of what is inside, and where
    anything inside has a cotangent of its own: derivatives of derivatives use the parts.
    """
    if node.name in rules:
        return rules[node.name]
    if rules or not node.body or node.record.pull is None:
        return None
    inside = (id(x) for part in flatten(node.body) for x in part.outputs if x is not node.outputs[0])
    return None if any(key in cotangents for key in inside) else functools.partial(node.record.pull, node.outputs)


def shares(
    node: Node, cotangent: Tensor, wanted: Callable[[Any], bool], rule: Rule | None
) -> Iterator[tuple[Tensor, Tensor]]:
    if rule is not None:
        given = rule(cotangent, *node.inputs, **node.attrs)
        given = given if isinstance(given, tuple) else (given,)
        if len(given) > len(node.inputs):
            raise ArgumentError(
                f"{node.name}: its rule gives more cotangents than there are inputs",
                received=f"{len(given)} for {len(node.inputs)}",
                rule="one for each input, None for zero",
                fix="return a tuple with the cotangents of the inputs alone",
            )
        pairs = zip(node.inputs, given, strict=False)
        yield from ((tensor, tensor.like(share)) for tensor, share in pairs if share is not None)
        return
    for arg, tensor in enumerate(node.inputs):
        if wanted(tensor) and tensor.is_floating and node.record.kind.rule(arg):
            yield tensor, node.record.kind.pull(node, arg, cotangent)


@dataclass(eq=False)
class Graph:
    """A traced function: its inputs, its nodes in the order of evaluation, its outputs, and the state it touched.

    `cells` maps each cell that was read to the tensor that stands for its value, `writes` each cell that was
    written to its new value; `reads` names the other attributes of stateful objects that were read, unless
    the function itself has set them. Calling the graph evaluates it on other tensors or arrays, inside or outside a
    transform, reading and writing the cells; arguments of other types were fixed when it was traced and are passed
    over.
    """

    inputs: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    outputs: Any
    cells: dict[Cell, Tensor] = field(default_factory=dict)
    writes: dict[Cell, Tensor] = field(default_factory=dict)
    scopes: tuple[recording.Scope, ...] = ()
    reads: tuple[tuple[Any, str], ...] = ()
    names: tuple[str, ...] = ()

    def flat(self) -> list[Node]:
        """The nodes with every composite replaced by what it is made of."""
        return list(flatten(self.nodes))

    def __call__(self, *args: Any) -> Any:
        values = self.bind(*args)
        replay(self.nodes, values)
        for cell, tensor in self.writes.items():
            recording.write(cell, values.get(id(tensor), tensor))
        return tree.map(lambda output: values.get(id(output), output), self.outputs)

    def bind(self, *args: Any) -> Tangents:
        """The values that arguments (tensors in any containers) and cells give to the graph's inputs, by identity."""
        given = [x for x in tree.leaves(args) if is_array(x)]
        received = [f"{tuple(x.shape)} {x.dtype}" for x in given]
        if received != [f"{x.shape} {x.dtype}" for x in self.inputs]:
            raise ShapeError(
                "a graph takes arguments of the shapes and dtypes it was traced with",
                received=", ".join(received) or "no arguments",
                rule=", ".join(f"{x.shape} {x.dtype}" for x in self.inputs),
                fix="trace the function again for these shapes; a number has to be a tensor, jj.Tensor(1.0), in both",
            )
        values = {id(x): recording.read(cell) for cell, x in self.cells.items()}
        return values | {id(x): type(x).of(value) for x, value in zip(self.inputs, given, strict=True)}

    def table(self, *args: Any, tangents: Sequence[Any] | None = None, cotangent: Any | None = None) -> str:
        """The evaluation trace of 002 §3: a row for each input and intermediate value h1, h2, …

        With `tangents`, one for each argument, a column of derivatives accumulated forwards (eq. 3.4); with
        `cotangent`, that of the output, a column of adjoints accumulated backwards (eq. 3.5).
        """
        # Each input becomes a tensor of its own, so that one that is given twice has two derivatives.
        values = {key: type(x).result(x.array, x.shape, x.dtype) for key, x in self.bind(*args).items()}
        nodes = [node.at(values) for node in flatten(self.nodes)]
        arguments = [values[id(x)] for x in self.inputs]
        derivatives: Tangents = {}
        if tangents is not None:
            derivatives = {id(x): x.like(t) for x, t in zip(arguments, tangents, strict=True)}
            pushforward(nodes, derivatives)
        elif cotangent is not None:
            (output,) = (values[id(x)] for x in tree.leaves(self.outputs))
            derivatives = {id(output): output.like(cotangent)}
            pullback(nodes, derivatives, lambda tensor: True, keep=True)
        heading = "tangent" if tangents is not None else "adjoint" if cotangent is not None else ""
        labels = {id(x): name for x, name in zip(arguments, self.names, strict=True)}
        rows = [(labels[id(x)], "input", brief(x), brief(derivatives.get(id(x)))) for x in arguments]
        for i, node in enumerate(nodes, 1):
            (output,) = node.outputs
            rows.append((f"h{i}", formula(node, labels), brief(output), brief(derivatives.get(id(output)))))
            labels[id(output)] = f"h{i}"
        return "\n".join(aligned([("", "operation", "value", heading), *rows]))

    def __str__(self) -> str:
        labels = {id(x): name for x, name in zip(self.inputs, self.names, strict=True)}
        labels |= {id(x): cell.path for cell, x in self.cells.items()}
        lines = [
            f"{name}: {x.dtype}{list(x.shape)}"
            for name, x in zip(labels.values(), [*self.inputs, *self.cells.values()], strict=True)
        ]
        for i, node in enumerate(flatten(self.nodes), 1):
            lines.append(f"h{i} = {formula(node, labels)}: {node.outputs[0].dtype}{list(node.outputs[0].shape)}")
            labels[id(node.outputs[0])] = f"h{i}"
        return "\n".join([*lines, "return " + ", ".join(name_of(x, labels) for x in tree.leaves(self.outputs))])


def is_array(value: Any) -> bool:
    """Whether a trace takes `value` for an input: tensors and NumPy's arrays, not its numbers."""
    return hasattr(value, "__array__") and not isinstance(value, np.generic)


def formula(node: Node, labels: Mapping[int, str]) -> str:
    """`conv(x, weight, spec=…)`, with every tensor by its name."""
    inputs = [name_of(tensor, labels) for tensor in node.inputs if tensor is not None]
    return f"{node.name}({', '.join([*inputs, *(f'{key}={value}' for key, value in node.attrs.items())])})"


def name_of(tensor: Tensor, labels: Mapping[int, str]) -> str:
    return labels.get(id(tensor)) or (brief(tensor) if tensor.has_value else "?")


def brief(tensor: Tensor | None) -> str:
    """A number as itself, anything larger by its shape and its mean."""
    if tensor is None:
        return ""
    array = np.asarray(tensor)
    if array.size == 1:
        return f"{array.item() + 0:g}"
    return f"{tensor.dtype}{list(array.shape)}" + (f" mean {array.mean():.4g}" if array.size else "")
