"""Contractions as calls, by the algorithm that is chosen, with what becomes of their results at their end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from juanji.engine import threads
from juanji.engine.calls import Call, keys_read
from juanji.engine.fuse import Unit
from juanji.engine.layout import Layout
from juanji.graph import PRIMITIVES, Node
from juanji.kernels import choice, recipes
from juanji.kernels.contraction import Contraction
from juanji.kernels.direct import direct
from juanji.kernels.elements import dense
from juanji.kernels.fused import Signature, Walk, Writer
from juanji.kernels.isa import ISA
from juanji.kernels.lowering import Index, Indices, Lowering, Place
from juanji.kernels.machine import Kernel
from juanji.kernels.products import Product
from juanji.kernels.text import Int, Text, Value
from juanji.kernels.tile import Place as At
from juanji.kernels.winograd import Winograd
from juanji.kernels.work import Work
from juanji.tensor import Tensor

Recipe = tuple[dict[str, Any], list[Kernel]]
KNOWN: dict[str, Recipe] = {}


@dataclass(frozen=True)
class Choice:
    """What algorithms are chosen from, "all" or "direct", for how many images per image, and in which precision.

    learns  whether the plan computes gradients by weights, or is part of one that does
    """

    algorithms: str = "all"
    scale: Fraction = Fraction(1)
    precision: str = "float32"
    learns: bool = field(default=False, repr=False)

    @property
    def pairs(self) -> bool:
        """Whether short algorithms multiply in bfloat16: in training, which is noisy anyway. Their error of 1 %, four
        times that of rounding what goes in and out, would be too much in answers."""
        return self.precision == "bfloat16" and self.learns

    def short(self, contraction: Contraction, isa: ISA, batch: int) -> Winograd | None:
        """The short algorithm that does a contraction, if one does."""
        if self.algorithms == "direct":
            return None
        way = choice.best(contraction, isa, round(batch * self.scale), self.pairs)
        return way and replace(way, batch=batch)


class Contractor:
    """What it takes to call contractions: the instruction set, and where tensors lie."""

    def __init__(self, isa: ISA, places: Mapping[int, Place], producers: Mapping[int, Node], choice: Choice) -> None:
        self.isa, self.places, self.producers, self.choice = isa, places, producers, choice

    def calls(self, unit: Unit) -> tuple[list[Call], dict[Any, int]]:
        """The calls for a unit's node, and the bytes of the buffers between them; from their recipe if there is one."""
        node: Node = unit.node  # type: ignore[assignment]
        (y,) = node.outputs
        places = self.places if unit.kept else {**self.places, id(y): Place(id(y), dense(y.shape))}
        product = node.record.lower["contraction"](node, places)
        operands = [self.places[id(x)].key for x in (product.a, product.b, *unit.outputs)]
        parts: tuple[Any, ...] = (
            node.name, product.contractions, product.grids, product.batch, self.choice, self.choice.pairs, unit.kept,
        )  # fmt: skip
        if unit.walk:
            end = Signature(Writer(unit.walk, self.isa, self.places, self.producers))
            operands, parts = [*operands, *end.keys], (*parts, *end.parts)
        buffers = dict.fromkeys(operands)
        parts = (*parts, [list(buffers).index(key) for key in operands])
        name = recipes.name(self.isa, "contraction", *parts)
        if name not in KNOWN:
            KNOWN[name] = recalled(name) or self.written(unit, product, buffers, name)
        recipe, kernels = KNOWN[name]
        memory = {(place, id(y), number): size for place, number, size in recipe["memory"]}
        keys = dict(enumerate((*buffers, *memory)))
        calls = [
            self.decoded(each, kernel, product, keys, node)
            for each, kernel in zip(recipe["calls"], kernels, strict=True)
        ]
        size, copies = np.dtype(y.dtype).itemsize, threads.pool().threads
        return calls, {key: count * size * (copies if key[0] == "scratch" else 1) for key, count in memory.items()}

    def written(self, unit: Unit, product: Product, buffers: Iterable[Any], name: str) -> Recipe:
        """What the calls are, with buffers by number, those between the calls after the others; kept as a recipe."""
        node: Node = unit.node  # type: ignore[assignment]
        found, memory = list[tuple[int, Call]](), dict[Any, int]()
        for number, contraction in enumerate(product.contractions):
            ends: list[End] = []

            def end(own: int, number: int = number, ends: list[End] = ends) -> End | None:
                ends.extend([End(self, unit, product, number, own)] if unit.walk else [])
                return ends[0] if ends else None

            short = self.choice.short(contraction, self.isa, product.batch)
            work = short.work(end) if short else direct(contraction, self.isa, product.batch, end)
            memory.update(((place, id(node.outputs[0]), number), size) for place, size in work.memory.items())
            found += [(number, call) for call in self.worked(unit, product, number, work, ends)]
        numbers = {key: i for i, key in enumerate((*buffers, *memory))}
        recipe = {
            "kernels": [call.kernel.name for _, call in found],
            "calls": [encoded(call, number, numbers) for number, call in found],
            "memory": [(place, number, size) for (place, _, number), size in memory.items()],
        }
        recipes.keep(name, recipe)
        return recipe, [call.kernel for _, call in found]

    def decoded(self, each: dict[str, Any], kernel: Kernel, product: Product, keys: Any, node: Node) -> Call:
        """A call of a recipe."""
        slots, writes = (recipes.decoded(each[name], keys) for name in ("slots", "writes"))
        reads, (extent, grain, step) = keys_read(slots, writes), each["work"]
        call = Call(kernel, slots, extent, grain, frozenset(reads), frozenset(writes), each["what"], node.path, step)
        call.prepares, call.node = each["prepares"], node
        if each["products"]:
            call.products, call.reason = each["products"], each["reason"]
            call.problem = product.contractions[each["contraction"]], product.batch
        return call

    def worked(self, unit: Unit, product: Product, number: int, work: Work, ends: Sequence[End]) -> Iterator[Call]:
        """The calls of one contraction."""
        node: Node = unit.node  # type: ignore[assignment]
        (y,) = node.outputs
        a, b, c = (self.places[id(x)].key for x in (product.a, product.b, unit.outputs[0]))
        names: dict[Any, Any] = {"a": a, "b": b, "c": c} | {name: (name, id(y), number) for name in work.memory}
        for stage in work.stages:
            slots = tuple(names.get(slot, ("count", slot)) for slot in stage.slots)
            writes, what = {names[name] for name in stage.writes}, node.name if stage.products else stage.what
            if ends and "c" in stage.writes:
                slots += tuple(ends[0].slots[len(slots) :])
                writes |= {self.places[id(x)].key for x in unit.outputs}
                what = "+".join([what, *(self.producers[id(x)].name for x in unit.outputs if x is not y)])
            kernel = Kernel.of(stage.text, self.isa)
            call = Call(kernel, slots, stage.tasks, 1, frozenset(), frozenset(writes), what)
            call.prepares = not stage.products and "c" not in stage.writes
            if stage.products:
                call.products = product.contractions[number].products(product.batch)
                call.reason = work.reason
            yield call
        if work.parts:
            yield self.sum(node, names["partial"], work.parts, work.strides)

    def sum(self, node: Node, partial: Any, counts: Sequence[tuple[int, int]], strides: tuple[int, ...]) -> Call:
        """Partial results added up: how many along each axis and how far apart; and the strides of each."""
        (y,) = node.outputs
        sizes, steps = zip(*counts, strict=True)
        axes = tuple(range(len(counts)))
        parts = Tensor.spec((*sizes, *y.shape), y.dtype)
        total = Node(PRIMITIVES["sum"], (parts,), {"axes": axes}, (y,), node.path)
        places = {**self.places, id(parts): Place(partial, (*steps, *(strides or Layout(y.shape, y.dtype).strides)))}
        writer = Writer(Walk(parts.shape, sums=[total], axes=axes), self.isa, places, {id(y): total})
        code = writer.code()
        return Call.of(code, [partial], [self.places[id(y)].key], "sum of parts", node.path)


def recalled(name: str) -> Recipe | None:
    recipe = recipes.recall(name)
    return recipe and (recipe, [Kernel(each) for each in recipe["kernels"]])


def encoded(call: Call, number: int, numbers: Mapping[Any, int]) -> dict[str, Any]:
    """A call of contraction `number`, as a recipe has it."""
    return {
        "slots": recipes.encoded(call.slots, numbers),
        "writes": [numbers[key] for key in call.writes],
        "work": (call.extent, call.grain, call.step),
        "what": call.what,
        "products": call.products,
        "prepares": call.prepares,
        "reason": call.reason,
        "contraction": number,
    }


class End:
    """What becomes of a contraction's results: the elements of a walk, computed while the sums are in registers."""

    def __init__(self, contractor: Contractor, unit: Unit, product: Product, number: int, own: int) -> None:
        self.contractor, self.unit = contractor, unit
        self.grid, self.contraction = product.grids[number], product.contractions[number]
        self.slots: list[Any] = [None] * own  # arguments that the kernel has itself
        self.lowering: Lowering | None = None

    def __call__(self, t: Text, place: At, sums: Value, mask: Value | None) -> None:
        if self.lowering is None:
            owner = self.contractor
            self.lowering = Lowering(owner.isa, owner.places, owner.producers, self.slots, t)
            self.lowering.making = {id(x) for x in self.unit.walk.outputs}  # type: ignore[union-attr]
            self.slots = self.lowering.slots
        code, (y,) = self.lowering, self.unit.node.outputs  # type: ignore[union-attr]
        code.lanes, code.mask, code.active = sums.lanes, mask, sums.lanes
        with code.scope():
            at = self.index(code, place, y)
            code.scopes[-1][id(y), at, mask] = sums
            if self.unit.kept:
                code.store(y, at, sums)
            values = [(x, code.value(x, at)) for x in self.unit.walk.stores]  # type: ignore[union-attr]
            for x, value in values:
                code.store(x, at, value)

    def index(self, code: Lowering, place: At, y: Tensor) -> Indices:
        """The index in the output of the first of a vector's lanes."""
        count = len(self.grid)
        rows = [
            code.times(known(code, i), step).shifted(first)
            for i, (first, step) in zip(place.rows[:count], self.grid, strict=True)
        ]
        outer = [known(code, i) for i in place.outer]
        lane = replace(known(code, place.lane), lane=1)
        if self.unit.node.name == "matmul":  # type: ignore[union-attr]
            return (*outer, *rows, lane)
        # A convolution's outer dimensions are the images and, unless each channel is one, the groups.
        groups = self.contraction.outer[1:]
        lane = code.plus(lane, outer[1].scaled(groups[0].c)) if groups else lane
        return (outer[0], *rows, lane)


def known(code: Lowering, i: Int) -> Index:
    return Index(i) if isinstance(i, int) else code.place_of(i)
