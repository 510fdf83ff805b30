"""Which tensors are stored, and which operators share a kernel.

A *unit* is one kernel: a contraction, an operator with a kernel of its own, or a walk over elements that stores some
tensors and adds up others. Everything else is computed where it is read. Walks over the same elements are made one
where nothing lies between them, so that what they share is read once.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from juanji.engine.simplify import Program, number
from juanji.graph import Node
from juanji.kernels.elements import pointwise
from juanji.kernels.fused import Walk
from juanji.kernels.windows import searches
from juanji.tensor import Tensor

VIEWS = ("reshape", "transpose", "slice", "flip", "broadcast_to")
ANCHORS = (
    "sum", "max", "argmax", "window_argmax", "window_gather", "window_sum", "window_spread", "window_scatter", "fold",
    "unfold", "uniform", "take", "moments",
)  # fmt: skip
SEARCHED = {"window_argmax", "window_gather", "window_sum", "window_spread", "window_scatter", "fold", "take", "unfold"}
COSTS = {"div": 4, "sqrt": 4, "power": 4} | dict.fromkeys(
    ("exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "sigmoid", "softplus", "erf", "pow"), 12
)
ENDED = ("conv", "conv_input_grad", "matmul")
SMALL = 4096
NEAR = 4 << 20  # bytes that come from a cache


@dataclass(eq=False)
class Unit:
    """One kernel. `walk` says what it computes, or `node` does. A contraction may have both: then the walk is what
    becomes of its results, and they themselves are stored only if they are `kept`."""

    number: int
    walk: Walk | None = None
    node: Node | None = None
    kept: bool = True
    reads: dict[int, Tensor] = field(default_factory=dict)
    before: int = 0

    @property
    def outputs(self) -> list[Tensor]:
        own = list(self.node.outputs) if self.node and self.kept else []
        return [*own, *(self.walk.outputs if self.walk else [])]

    @property
    def path(self) -> str:
        return self.node.path if self.node else ""


def how(node: Node, producers: Mapping[int, Node]) -> str:
    """Which kind of lowering a node takes: "contraction", "kernel" or "element"."""
    lower = node.record.lower
    if "contraction" in lower:
        return "contraction"
    return "element" if "element" in lower and lower.get("known", always)(node, producers) else "kernel"


def always(node: Node, producers: Mapping[int, Node]) -> bool:
    return True


class Fuser:
    """The units of a program."""

    def __init__(self, program: Program, bordered: set[int]) -> None:
        self.program, self.bordered = program, bordered
        self.producers = program.producers
        self.kinds = {id(node): how(node, program.producers) for node in program.nodes}
        self.consumers = Counter(id(x) for node in program.nodes for x in {id(x): x for x in node.inputs}.values())
        self.given = {id(x) for x in (*program.inputs, *program.cells.values())}
        self.numbers: dict[int, bool] = {}
        self.stored: set[int] = set()
        self.find_stored()
        self.units: list[Unit] = []
        self.owner: dict[int, Unit] = {}
        self.readers: defaultdict[int, set[int]] = defaultdict(set)  # of what is read, the numbers of units

    # What is stored

    def is_stored(self, x: Tensor) -> bool:
        """Whether a tensor lies in memory by itself: what was given, what is kept, constants that are no numbers."""
        return id(x) in self.stored or id(x) in self.given or id(x) not in self.producers

    def root(self, x: Tensor) -> Tensor:
        """The stored tensor that x is a view of; x itself where it is none."""
        while not self.is_stored(x) and self.producers[id(x)].name in VIEWS:
            (x,) = self.producers[id(x)].inputs
        return x

    def find_stored(self) -> None:
        for x in self.program.wanted:
            self.require(x)
        for node in reversed(self.program.nodes):
            kind = self.kinds[id(node)]
            if kind != "element":
                self.stored.update(id(x) for x in node.outputs)
                for x in node.inputs:
                    self.require(x, ("reshape",) if node.name.startswith("conv") else VIEWS)
            elif node.name in ANCHORS and node.name != "take":
                self.stored.update(id(x) for x in node.outputs)
            if kind == "element" and node.name in SEARCHED:
                for x in node.inputs:
                    self.require(x)
        for node in self.program.nodes:
            self.keep_what_is_dear(node)

    def require(self, x: Tensor, views: Sequence[str] = VIEWS) -> None:
        """Have x in memory: stored, or as one of these views of something that is."""
        while id(x) in self.producers and id(x) not in self.stored and id(x) not in self.given:
            node = self.producers[id(x)]
            if node.name in views and id(x) not in self.bordered and self.viewable(node):
                (x,) = node.inputs
                continue
            self.stored.add(id(x))
            return

    def viewable(self, node: Node) -> bool:
        """Whether a view is possible: not of an array with a border in another shape, nor twice through reshapes."""
        if node.name != "reshape":
            return True
        (x,) = node.inputs
        return id(x) not in self.bordered and (id(x) not in self.producers or self.producers[id(x)].name not in VIEWS)

    def keep_what_is_dear(self, node: Node) -> None:
        """Store what several want and what costs more to compute again than to keep."""
        if self.kinds[id(node)] != "element" or id(node.outputs[0]) in self.stored:
            return
        if node.name == "broadcast_to":
            (x,) = node.inputs
            y = node.outputs[0]
            if not self.is_stored(self.root(x)) and self.cost(x) > 2 and y.size >= max(SMALL, 16 * x.size):
                self.stored.add(id(x))
            return
        x = node.outputs[0]
        if node.name not in VIEWS and self.consumers[id(x)] > 1:
            big = sum(leaf.size * 2 >= x.size for leaf in self.leaves(x))
            if (big > 1 and x.size >= SMALL) or self.cost(x) >= 12:
                self.stored.add(id(x))

    def inline(self, x: Tensor) -> Iterator[Node]:
        """The nodes that computing x where it is read goes through."""
        seen, todo = set(), [x]
        while todo:
            x = todo.pop()
            if id(x) in seen or self.is_stored(x):
                continue
            seen.add(id(x))
            node = self.producers[id(x)]
            yield node
            todo.extend(node.inputs)

    def cost(self, x: Tensor) -> int:
        return sum(0 if node.name in VIEWS else COSTS.get(node.name, 1) for node in self.inline(x))

    def leaves(self, x: Tensor) -> list[Tensor]:
        """The stored tensors that computing x reads; constants that are plain numbers stand in the kernel instead."""
        inputs = [x] if self.is_stored(x) else [y for node in self.inline(x) for y in node.inputs]
        return list({id(y): y for y in inputs if self.is_stored(y) and not self.is_number(y)}.values())

    def is_number(self, x: Tensor) -> bool:
        """Whether x is a constant whose elements are all the same."""
        if id(x) not in self.numbers:
            self.numbers[id(x)] = number(x) is not None
        return self.numbers[id(x)]

    def sources(self, node: Node) -> list[Tensor]:
        """The stored tensors that a node's elements are computed from."""
        found = {id(y): y for x in node.inputs for y in self.leaves(x)}
        if self.kinds[id(node)] != "element":  # which reads numbers from memory too
            found.update((id(x), x) for x in node.inputs if self.is_number(x))
        return list(found.values())

    # Units

    def fuse(self) -> list[Unit]:
        for node in self.program.nodes:
            if not any(id(x) in self.stored for x in node.outputs):
                continue
            unit = self.unit(node)
            unit.reads = {id(x): x for x in self.sources(node)}
            unit.before = functools.reduce(int.__or__, (self.bits(x) for x in unit.reads.values()), 0)
            self.place(unit)
        self.drop_unread()
        return self.units

    def unit(self, node: Node) -> Unit:
        number = len(self.units)
        if self.kinds[id(node)] != "element":
            return Unit(number, node=node)
        if node.name == "sum":
            return Unit(number, Walk(node.inputs[0].shape, sums=[node], axes=tuple(node.attrs["axes"])))
        return Unit(number, Walk(node.outputs[0].shape, stores=list(node.outputs)))

    def bits(self, x: Tensor) -> int:
        """The units that have to come before x is there, its own included."""
        unit = self.owner.get(id(x))
        return unit.before | 1 << unit.number if unit else 0

    def place(self, unit: Unit) -> None:
        """Merge a unit into one that is there, or put it at the end."""
        target = next((other for other in self.partners(unit) if self.fits(unit, other)), None)
        if target is None:
            self.units.append(unit)
            target = unit
        else:
            self.merge(unit, target)
        self.owner.update((id(x), target) for x in unit.outputs)
        for key in unit.reads:
            self.readers[key].add(target.number)

    def partners(self, unit: Unit) -> Iterator[Unit]:
        """Those that make what the unit reads, then those that read what it reads."""
        if unit.walk is None:
            return
        makers = {u.number: u for x in unit.reads.values() if (u := self.owner.get(id(x)))}
        yield from sorted(makers.values(), key=lambda u: -u.number)
        sharing = set[int]().union(*(self.readers[key] for key in unit.reads)) - makers.keys()
        yield from (other for n in sorted(sharing, reverse=True) if (other := self.units[n]).reads.keys() & unit.reads)

    def fits(self, unit: Unit, other: Unit) -> bool:
        """Whether a walk can be part of another: over the same elements, and with nothing between them."""
        if unit.walk is None or not (self.finishes(unit, other) if other.node else self.same_walk(unit, other)):
            return False
        bit = 1 << other.number
        between = (self.bits(x) for x in unit.reads.values() if self.owner.get(id(x)) is not other)
        if any(bits & bit for bits in between):
            return False
        return all(self.same_place(unit, x) for x in other.outputs if id(x) in unit.reads)

    def same_walk(self, unit: Unit, other: Unit) -> bool:
        """Whether two walks are over the same elements, with the same sums or few enough to share one."""
        a, b = unit.walk, other.walk
        if a is None or b is None or a.shape != b.shape or (a.axes and b.axes and a.axes != b.axes):
            return False
        return a.axes == b.axes or shared_well(a.shape, a.axes or b.axes)

    def finishes(self, unit: Unit, other: Unit) -> bool:
        """Whether a walk can be the end of a contraction: it wants each result once it is there."""
        node = other.node
        if node is None or node.name not in ENDED or unit.walk is None or unit.walk.axes:
            return False
        (y,) = node.outputs
        if y.shape != unit.walk.shape or id(y) not in unit.reads:
            return False
        # Products wait for what their end reads from far away; a walk over memory would have read it in passing.
        others = sum(x.size * x.dtype.itemsize for x in unit.reads.values() if x is not y)
        return others <= NEAR

    def same_place(self, unit: Unit, x: Tensor) -> bool:
        """Whether a walk reads x only where it stands itself."""
        if x.shape != unit.walk.shape:  # type: ignore[union-attr]
            return False
        todo = [self.producers[id(y)] for y in unit.walk.outputs]  # type: ignore[union-attr]
        while todo:
            node = todo.pop()
            here = self.read_here(node)
            elsewhere = [y for y in node.inputs if not any(y is other for other in here)]
            if any(x is leaf for y in elsewhere for leaf in self.leaves(y)):
                return False
            todo += [self.producers[id(y)] for y in here if y is not x and not self.is_stored(y)]
        return True

    def read_here(self, node: Node) -> tuple[Tensor, ...]:
        """The inputs of which a node's element needs the element at the same place only."""
        if node.name == "sum" or node.record.lower["element"] is pointwise:
            return node.inputs
        if node.name == "window_gather" and searches(node, self.producers):
            return node.inputs[1:]
        return ()

    def merge(self, unit: Unit, target: Unit) -> None:
        target.walk = target.walk or Walk(unit.walk.shape)  # type: ignore[union-attr]
        walk, into = unit.walk, target.walk
        into.stores += walk.stores  # type: ignore[union-attr]
        into.sums += walk.sums  # type: ignore[union-attr]
        into.axes = into.axes or walk.axes  # type: ignore[union-attr]
        own = {id(x) for x in target.outputs}
        target.reads.update((key, x) for key, x in unit.reads.items() if key not in own)
        bit = 1 << target.number
        target.before |= unit.before & ~bit
        for other in self.units:
            if other.before & bit:
                other.before |= target.before

    def drop_unread(self) -> None:
        """What only its own kernel reads need not be stored."""
        wanted = {id(self.root(x)) for x in self.program.wanted}
        read = Counter(key for unit in self.units for key in unit.reads)
        for unit in self.units:
            if unit.node and unit.walk:
                (y,) = unit.node.outputs
                unit.kept = id(y) in wanted or read[id(y)] > 0
                if not unit.kept:
                    self.stored.discard(id(y))
            if unit.walk and len(unit.outputs) > 1:
                kept = [x for x in unit.walk.stores if id(x) in wanted or read[id(x)]]
                self.stored.difference_update(id(x) for x in unit.walk.stores)
                self.stored.update(map(id, kept))
                unit.walk.stores = kept


def shared_well(shape: Sequence[int], axes: Sequence[int]) -> bool:
    """Whether a sum over `axes` leaves enough tasks for a walk that could do without it."""
    kept = tasks = 1
    for a, n in enumerate(shape):
        kept *= 1 if a in axes else n
        tasks *= n
    return tasks <= 1 << 14 or (kept >= 64 and 0 not in axes)
