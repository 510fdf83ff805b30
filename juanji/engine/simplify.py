"""Graphs made smaller without changing what they compute.

Composites are inlined, except those that have a lowering of their own and whose inner tensors nobody else wants. Then
one pass forwards gives every tensor a simpler equal where there is one, and one backwards drops what is not used.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from juanji import tree
from juanji.graph import PRIMITIVES, Array, Graph, Node
from juanji.tensor import Tensor

Rule = Callable[["Simplifier", Node], "Tensor | Node | None"]
RULES: dict[str, list[Rule]] = {}
LARGE = 1 << 16  # elements that are not read twice without need
FEW = 64  # samples
PLACES = 16  # within a stride, each with a convolution of its own


@dataclass
class Program:
    """A graph as the engine sees it: nodes in order, and what goes in and out, cells included."""

    nodes: list[Node]
    inputs: list[Tensor]
    cells: dict[Any, Tensor]
    outputs: list[Tensor]
    writes: dict[Any, Tensor]
    structure: Any
    producers: dict[int, Node] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Tensor]:
        return [*self.outputs, *self.writes.values()]


def is_tensor(x: Any) -> bool:
    return isinstance(x, Tensor)


def simplify(graph: Graph) -> Program:
    """The graph's nodes, simplified. Tensors of the graph that have a simpler equal are replaced everywhere."""
    outputs = [x for x in tree.leaves(graph.outputs) if is_tensor(x)]
    nodes = list(opened(graph.nodes, {id(x) for x in (*outputs, *graph.writes.values())}))
    simplifier = Simplifier()
    simplifier.uses.update(id(x) for node in nodes for x in node.inputs)
    simplifier.uses.update(id(x) for x in (*outputs, *graph.writes.values()))
    simplifier.trained.update(id(x) for cell, x in graph.cells.items() if cell in graph.writes)
    for node in nodes:
        simplifier.add(node)
    new = simplifier.of
    writes = {cell: new(x) for cell, x in graph.writes.items()}
    outputs = [new(x) for x in outputs]
    kept = narrowed(used(simplifier.nodes, [*outputs, *writes.values()]), {id(x) for x in (*outputs, *writes.values())})
    return Program(
        kept,
        list(graph.inputs),
        graph.cells,
        outputs,
        writes,
        graph.outputs,
        {id(x): node for node in kept for x in node.outputs},
    )


def opened(nodes: Sequence[Node], wanted: set[int]) -> Iterator[Node]:
    """Nodes with composites replaced by their bodies, unless they are lowered whole."""
    uses = Counter(id(x) for node in every(nodes) for x in node.inputs)
    yield from open_all(nodes, uses, wanted)


def every(nodes: Iterable[Node]) -> Iterator[Node]:
    for node in nodes:
        if node.body:
            yield from every(node.body)
        else:
            yield node


def open_all(nodes: Iterable[Node], uses: Counter[int], wanted: set[int]) -> Iterator[Node]:
    for node in nodes:
        if not node.body:
            yield node
        elif node.record.lower and closed(node, uses, wanted):
            yield Node(node.record, node.inputs, node.attrs, node.outputs, node.path)
        else:
            yield from open_all(node.body, uses, wanted)


def closed(node: Node, uses: Counter[int], wanted: set[int]) -> bool:
    """Whether nothing outside a composite wants the tensors inside it."""
    inside = list(every(node.body))
    own = Counter(id(x) for inner in inside for x in inner.inputs)
    results = {id(x) for x in node.outputs}
    return all(
        id(x) in results or (uses[id(x)] == own[id(x)] and id(x) not in wanted)
        for inner in inside
        for x in inner.outputs
    )


def used(nodes: Sequence[Node], wanted: Sequence[Tensor]) -> list[Node]:
    needed = {id(x) for x in wanted}
    kept = []
    for node in reversed(nodes):
        if any(id(x) in needed for x in node.outputs):
            kept.append(node)
            needed.update(id(x) for x in node.inputs if x is not None)
    return kept[::-1]


def narrowed(nodes: list[Node], wanted: set[int]) -> list[Node]:
    """Places of largest elements that only pooling and its gradient look at, in 32 bits instead of 64."""
    others = {
        id(x)
        for node in nodes
        for i, x in enumerate(node.inputs)
        if (node.name, i) not in (("window_gather", 1), ("window_scatter", 1))
    }
    narrow: dict[int, Tensor] = {}
    result = []
    for node in nodes:
        (x,) = node.outputs[:1]
        if node.name == "window_argmax" and id(x) not in others | wanted:
            narrow[id(x)] = Tensor.spec(x.shape, "int32")
            node = Node(node.record, node.inputs, node.attrs, (narrow[id(x)],), node.path)
        elif any(id(y) in narrow for y in node.inputs):
            inputs = tuple(narrow.get(id(y), y) for y in node.inputs)
            node = Node(node.record, inputs, node.attrs, node.outputs, node.path)
        result.append(node)
    return result


class Simplifier:
    """Nodes so far, each simplified when it came, and what replaces which tensor.

    uses     how often the graph uses a tensor
    trained  values of cells that get others
    """

    def __init__(self) -> None:
        self.uses = Counter[int]()
        self.trained = set[int]()
        self.nodes: list[Node] = []
        self.producers: dict[int, Node] = {}
        self.replaced: dict[int, Tensor] = {}
        self.seen: dict[Any, tuple[Tensor, ...]] = {}
        self.alive: list[Any] = []

    def of(self, x: Any) -> Any:
        return self.replaced.get(id(x), x)

    def producer(self, x: Tensor, *names: str) -> Node | None:
        node = self.producers.get(id(x))
        return node if node is not None and node.name in names else None

    def flat_mean(self, stretched: Tensor, x: Tensor) -> Tensor | None:
        """The mean of x in each channel, (C,), if it is what `stretched` repeats."""
        repeated = self.producer(stretched, "broadcast_to")
        if repeated is None or repeated.inputs[0].size != x.shape[-1]:
            return None
        mean = repeated.inputs[0]
        while shaped := self.producer(mean, "reshape"):
            (mean,) = shaped.inputs
        scaled = self.producer(mean, "mul")
        if scaled is None:
            return None
        factor, total = number(scaled.inputs[1]), scaled.inputs[0]
        while added := self.producer(total, "sum", "reshape"):
            (total,) = added.inputs
        count = x.size // x.shape[-1]
        if total is not x or factor is None or abs(factor * count - 1) > 1e-6:
            return None
        return self.step("reshape", mean, shape=x.shape[-1:])

    def add(self, node: Node) -> None:
        self.alive.append(node)
        inputs = tuple(self.of(x) for x in node.inputs)
        if any(a is not b for a, b in zip(inputs, node.inputs, strict=True)):
            node = Node(node.record, inputs, node.attrs, node.outputs, node.path)
        result = self.rewritten(node)
        if isinstance(result, Tensor):
            (old,) = node.outputs
            self.replaced[id(old)] = result
            self.uses[id(result)] += self.uses[id(old)] - any(x is result for x in inputs)
            return
        key = (result.name, tuple(map(id, result.inputs)), frozen(result.attrs))
        same = self.seen.setdefault(key, result.outputs)
        if same is not result.outputs:
            for x, y in zip(result.outputs, same, strict=True):
                self.replaced[id(x)] = y
                self.uses[id(y)] += self.uses[id(x)]
            return
        self.nodes.append(result)
        self.producers.update((id(x), result) for x in result.outputs)

    def rewritten(self, node: Node) -> Tensor | Node:
        """The node after every rule that applies, or the tensor that it is equal to."""
        changed = True
        while changed:
            changed = False
            for rule in RULES.get(node.name, ()):
                result = rule(self, node)
                if isinstance(result, Tensor):
                    return result
                if result is not None:
                    node, changed = result, True
                    break
        return node

    def step(self, name: str, *inputs: Tensor, path: str = "", **attrs: Any) -> Tensor:
        """A new node ahead of the one that is being simplified; its result."""
        record = PRIMITIVES[name]
        shape, dtype = record.geometry(*inputs, **attrs)
        output = Tensor.spec(shape, dtype)
        self.add(Node(record, inputs, attrs, (output,), path))
        return self.of(output)


def frozen(value: Any) -> Any:
    """Attributes as something that can be a key."""
    if isinstance(value, dict) or hasattr(value, "items"):
        return tuple((key, frozen(x)) for key, x in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(frozen, value))
    return value.tobytes() if isinstance(value, np.ndarray) else value


def rule(*names: str) -> Callable[[Rule], Rule]:
    def wrap(function: Rule) -> Rule:
        for name in names:
            RULES.setdefault(name, []).append(function)
        return function

    return wrap


def again(node: Node, *inputs: Tensor, name: str = "", **attrs: Any) -> Node:
    """The node with other inputs or attributes and the same output."""
    record = PRIMITIVES[name] if name else node.record
    return Node(record, inputs, attrs or node.attrs, node.outputs, node.path)


def number(x: Tensor) -> float | None:
    """The value that all elements have, where that is known."""
    if not x.has_value or not x.size:
        return None
    first = x.array[(0,) * x.ndim]
    same = not any(stride for stride, n in zip(x.array.strides, x.shape, strict=True) if n > 1)
    return first.item() if same or alike(x.array, first).all() else None


def alike(x: Array, y: Array) -> Array:
    """Where numbers are the same, zeros with their signs."""
    return (x == y) & (np.signbit(x) == np.signbit(y)) if x.dtype.kind == "f" else x == y


@rule("identity", "stop_gradient")
def passed_on(s: Simplifier, node: Node) -> Tensor:
    return node.inputs[0]


@rule("reshape", "broadcast_to", "cast", "transpose", "slice", "sum")
def nothing_to_do(s: Simplifier, node: Node) -> Tensor | None:
    (x,) = node.inputs
    if node.name == "transpose" and node.attrs["axes"] != tuple(range(x.ndim)):
        return None
    y = node.outputs[0]
    if (x.shape, x.dtype) != (y.shape, y.dtype) or (
        node.name == "sum" and any(x.shape[a] != 1 for a in node.attrs["axes"])
    ):
        return None
    return x


@rule("reshape", "transpose", "broadcast_to")
def constant_moved(s: Simplifier, node: Node) -> Tensor | None:
    (x,) = node.inputs
    value = number(x)
    return None if value is None else node.outputs[0].full_like(value)


@rule("reshape")
def reshape_twice(s: Simplifier, node: Node) -> Node | None:
    before = s.producer(node.inputs[0], "reshape")
    return again(node, *before.inputs) if before else None


@rule("transpose")
def transpose_twice(s: Simplifier, node: Node) -> Node | None:
    before = s.producer(node.inputs[0], "transpose")
    if before is None:
        return None
    axes = tuple(before.attrs["axes"][a] for a in node.attrs["axes"])
    return again(node, *before.inputs, axes=axes)


@rule("transpose")
def transpose_of_product(s: Simplifier, node: Node) -> Node | None:
    """(Xᵀ·G)ᵀ = Gᵀ·X: a weight gradient lies in memory as its weights do."""
    product = s.producer(node.inputs[0], "matmul")
    if product is None or s.uses[id(node.inputs[0])] > 1 or not swaps(node):
        return None
    left, right = product.inputs
    turned = s.producer(left, "transpose")
    single = 1 in left.shape[-2:] and id(left) not in s.trained  # then its transpose is a reshape
    if not single and (turned is None or not swaps(turned)):
        return None
    return Node(product.record, (swapped(s, right), swapped(s, left)), {}, node.outputs, product.path)


@rule("conv_input_grad")
def gradient_by_patches(s: Simplifier, node: Node) -> Node | None:
    """With a large stride: what every output says of its patch, by one product, and patches added up where they lie.

    The other way, a convolution for each place within a stride, is a kernel of its own for each: 1024 in FCN-32s.
    """
    (w, g), spec = node.inputs, node.attrs["spec"]
    if spec.groups != 1 or math.prod(spec.stride) <= PLACES or not g.size:
        return None
    *_, c, m = w.shape
    matrix = swapped(s, s.step("reshape", w, shape=(w.size // m, m), path=node.path))
    product = s.step("matmul", s.step("reshape", g, shape=(g.size // m, m), path=node.path), matrix, path=node.path)
    patches = s.step("reshape", product, shape=(*g.shape[:-1], *spec.kernel, c), path=node.path)
    *axes, channels = range(patches.ndim)
    axes.insert(g.ndim - 1, channels)
    return again(node, s.step("transpose", patches, axes=tuple(axes), path=node.path), name="fold", spec=spec)


@rule("matmul", "conv", "conv_input_grad", "conv_weight_grad")
def product_of_nothing(s: Simplifier, node: Node) -> Tensor | None:
    """An empty sum, as over a batch without samples, is zero."""
    (y,) = node.outputs
    return y.zeros_like() if 0 in (y.size, *(x.size for x in node.inputs)) else None


@rule("matmul")
def product_of_few(s: Simplifier, node: Node) -> Tensor | None:
    """X·Wᵀ = (W·Xᵀ)ᵀ: few samples are put into the order of the vectors sooner than weights that change every step."""
    x, turned = node.inputs
    before = s.producer(turned, "transpose")
    if x.ndim != 2 or x.shape[0] > FEW or before is None or not swaps(before):
        return None
    (w,) = before.inputs
    if id(w) not in s.trained or w.size < LARGE:
        return None
    return swapped(s, s.step("matmul", w, swapped(s, x), path=node.path))


def swaps(node: Node) -> bool:
    """Whether a transpose swaps the last two axes."""
    *others, m, n = node.attrs["axes"]
    return (*others, n, m) == tuple(range(len(others) + 2))


def swapped(s: Simplifier, x: Tensor) -> Tensor:
    axes = (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)
    return s.step("transpose", x, axes=axes)


@rule("transpose")
def transpose_of_nothing(s: Simplifier, node: Node) -> Node | None:
    """Where only axes of size 1 change places, the elements stay in order."""
    (x,) = node.inputs
    order = [a for a in node.attrs["axes"] if x.shape[a] != 1]
    return again(node, x, name="reshape", shape=node.outputs[0].shape) if order == sorted(order) else None


@rule("broadcast_to")
def broadcast_twice(s: Simplifier, node: Node) -> Node | None:
    before = s.producer(node.inputs[0], "broadcast_to")
    return again(node, *before.inputs) if before else None


@rule("broadcast_to")
def broadcast_by_ones(s: Simplifier, node: Node) -> Node | None:
    """Stretching by axes of size 1 alone is a reshape."""
    (x,) = node.inputs
    y = node.outputs[0]
    return again(node, x, name="reshape", shape=y.shape) if x.size == y.size else None


@rule("broadcast_to")
def broadcast_of_reshape(s: Simplifier, node: Node) -> Node | None:
    """(C,) reshaped to (1, 1, C) is stretched as it is."""
    before = s.producer(node.inputs[0], "reshape")
    if before is None:
        return None
    (x,) = before.inputs
    padded = (1,) * (node.inputs[0].ndim - x.ndim) + x.shape
    return again(node, x) if padded == node.inputs[0].shape else None


@rule("sum")
def spread_in_one_pass(s: Simplifier, node: Node) -> Tensor | None:
    """Σ(x − μ)² without having to know μ first: Σ(x − p)² − n·(μ − p)² with the mean p of the first image.

    Then it is added up along with Σx, and a large x is read once. p is as near to μ as images are alike, which keeps
    the difference from losing digits (Chan, Golub, LeVeque 1983, the shifted two-pass formula).
    """
    squares, axes = s.producer(node.inputs[0], "mul"), tuple(node.attrs["axes"])
    if squares is None or squares.inputs[0] is not squares.inputs[1] or axes[0] != 0 or len(axes) < 2:
        return None
    centred = s.producer(squares.inputs[0], "sub")
    if centred is None or centred.inputs[0].size < LARGE or axes != tuple(range(len(centred.inputs[0].shape) - 1)):
        return None
    x, mean = centred.inputs[0], s.flat_mean(centred.inputs[1], centred.inputs[0])
    if mean is None:
        return None
    step = functools.partial(s.step, path=node.path)
    pixels = math.prod(x.shape[1:-1])
    first = step("slice", x, index=((0, 1, 1), *((0, n, 1) for n in x.shape[1:])))
    pivot = step("mul", step("sum", first, axes=axes), mean.full_like(1 / pixels))
    apart = step("sub", x, step("broadcast_to", pivot, shape=x.shape))
    about = step("sum", step("mul", apart, apart), axes=axes)
    shift = step("sub", mean, pivot)
    lost = step("mul", step("mul", shift, shift), mean.full_like(pixels * x.shape[0]))
    return step("maximum", step("sub", about, lost), mean.zeros_like())


@rule("sum")
def sum_of_ones(s: Simplifier, node: Node) -> Node | None:
    """Axes of size 1 are dropped, not added up."""
    (x,) = node.inputs
    axes = node.attrs["axes"]
    kept = tuple(a for a in axes if x.shape[a] != 1)
    if kept == tuple(axes):
        return None
    if not kept:
        return again(node, x, name="reshape", shape=node.outputs[0].shape)
    shape = tuple(n for a, n in enumerate(x.shape) if a not in axes or a in kept)
    flat = s.step("reshape", x, shape=shape, path=node.path)
    left = [a for a in range(x.ndim) if a not in axes or a in kept]
    return again(node, flat, axes=tuple(left.index(a) for a in kept))


@rule("sum")
def sum_by_steps(s: Simplifier, node: Node) -> Node | None:
    """A large sum over the first axes is taken over the later ones first, so that many tasks can share it."""
    (x,) = node.inputs
    axes = node.attrs["axes"]
    if len(axes) < 2 or x.size < 1 << 14 or axes[0] != 0 or x.shape[0] < 2:
        return None
    part = s.step("sum", x, axes=tuple(axes[1:]), path=node.path)
    return again(node, part, axes=(0,))


@rule("mul", "div")
def times_one(s: Simplifier, node: Node) -> Tensor | None:
    x, y = node.inputs
    if number(y) == 1:
        return x
    return y if node.name == "mul" and number(x) == 1 else None


@rule("add", "sub")
def plus_zero(s: Simplifier, node: Node) -> Tensor | None:
    """x − 0 is x; x + 0 is, but for the sign of a zero, which no derivative sees."""
    x, y = node.inputs
    if number(y) == 0:
        return x
    return y if node.name == "add" and number(x) == 0 else None


@rule("add")
def plus_negative(s: Simplifier, node: Node) -> Node | None:
    x, y = node.inputs
    for one, other in ((x, y), (y, x)):
        if before := s.producer(other, "neg"):
            return again(node, one, *before.inputs, name="sub")
    return None


@rule("neg")
def negative_twice(s: Simplifier, node: Node) -> Tensor | None:
    before = s.producer(node.inputs[0], "neg")
    return before.inputs[0] if before else None


@rule("mul")
def masked(s: Simplifier, node: Node) -> Node | None:
    """A factor that is 1 where a condition holds and 0 elsewhere chooses.

    A gradient that is infinite or NaN gives 0 where it is not chosen, instead of NaN.
    """
    for one, other in (node.inputs, node.inputs[::-1]):
        before = s.producer(other, "cast")
        if before and before.inputs[0].dtype == bool:
            return again(node, before.inputs[0], one, one.zeros_like(), name="where")
    return None


@rule("greater")
def relu_mask(s: Simplifier, node: Node) -> Node | None:
    """relu(x) > 0 says the same as x > 0, and is there anyway: x need not be kept."""
    x, bound = node.inputs
    if number(bound) != 0:
        return None
    after = s.seen.get(("relu", (id(x),), ()))
    return again(node, after[0], bound) if after and after[0] is not x else None
