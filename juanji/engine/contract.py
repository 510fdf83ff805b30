"""Contractions as calls: copies of B in the tile's order, the products, and the sum of partial results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from juanji.engine import threads
from juanji.engine.calls import Call, keys_read
from juanji.engine.fuse import Unit
from juanji.engine.layout import Layout
from juanji.graph import PRIMITIVES, Node
from juanji.kernels import choice
from juanji.kernels.contraction import Contraction
from juanji.kernels.elements import dense
from juanji.kernels.fused import Walk, Writer
from juanji.kernels.isa import ISA
from juanji.kernels.lowering import Index, Indices, Lowering, Place
from juanji.kernels.nest import build
from juanji.kernels.products import Product
from juanji.kernels.text import Int, Text, Value
from juanji.kernels.tile import Place as At
from juanji.kernels.winograd import Winograd
from juanji.tensor import Tensor


@dataclass(frozen=True)
class Choice:
    """What algorithms are chosen from, "all" or "direct", and for how many images per image."""

    algorithms: str = "all"
    scale: Fraction = Fraction(1)

    def short(self, contraction: Contraction, isa: ISA, batch: int) -> Winograd | None:
        """The short algorithm that does a contraction, if one does."""
        if self.algorithms == "direct":
            return None
        way = choice.best(contraction, isa, round(batch * self.scale))
        return way and replace(way, batch=batch)


class Contractor:
    """What it takes to call contractions: the instruction set, and where tensors lie."""

    def __init__(self, isa: ISA, places: Mapping[int, Place], producers: Mapping[int, Node], choice: Choice) -> None:
        self.isa, self.places, self.producers, self.choice = isa, places, producers, choice
        self.sizes: dict[Any, int] = {}

    def calls(self, unit: Unit) -> tuple[list[Call], dict[Any, int]]:
        """The calls for a unit's node, and the bytes of the buffers between them."""
        node: Node = unit.node  # type: ignore[assignment]
        (y,) = node.outputs
        places = self.places if unit.kept else {**self.places, id(y): Place(id(y), dense(y.shape))}
        product = node.record.lower["contraction"](node, places)
        found = [call for number in range(len(product.contractions)) for call in self.face(unit, product, number)]
        return found, self.sizes

    def face(self, unit: Unit, product: Product, number: int) -> Iterator[Call]:
        node: Node = unit.node  # type: ignore[assignment]
        (y,) = node.outputs
        contraction = product.contractions[number]
        if short := self.choice.short(contraction, self.isa, product.batch):
            yield from self.short(unit, product, number, short)
            return
        end = End(self, unit, product, number, 4 if contraction.has_batch else 3) if unit.walk else None
        kernel = build(product.contractions[number], self.isa, epilogue=end)
        a, b = (self.places[id(x)].key for x in (product.a, product.b))
        c = self.places[id(unit.outputs[0])].key
        size = np.dtype(y.dtype).itemsize
        if kernel.pack:
            packed = ("packed", id(y), number)
            self.sizes[packed] = kernel.pack.size(product.batch) * size
            yield self.call(node, kernel.pack.text, (b, packed), kernel.pack.tasks(product.batch), 1, "pack")
            b = packed
        target, parts = c, kernel.parts(product.batch)
        if parts:
            target = ("partial", id(y), number)
            self.sizes[target] = kernel.chunks(product.batch) * kernel.partial * size
        slots: tuple[Any, ...] = (a, b, target)
        if kernel.contraction.has_batch:
            slots += (("count", product.batch),)
        if kernel.contraction.sums_batch:
            slots += (("count", kernel.chunk_length(product.batch)),)
        if end:
            slots = (*slots, *end.slots[len(slots) :])
        call = self.call(node, kernel.text, slots, kernel.tasks(product.batch), 2, node.name)
        if end:
            call.writes = frozenset(self.places[id(x)].key for x in unit.outputs)
            call.reads = frozenset(keys_read(slots, call.writes))
            call.what = "+".join([node.name, *(self.producers[id(x)].name for x in unit.outputs if x is not y)])
        call.products = kernel.contraction.products(product.batch)
        call.reason, call.problem = str(kernel.schedule), (product.contractions[number], product.batch)
        yield call
        if parts:
            yield self.sum(node, target, parts, kernel.part_strides)

    def short(self, unit: Unit, product: Product, number: int, way: Winograd) -> Iterator[Call]:
        """The stages of a short algorithm."""
        node: Node = unit.node  # type: ignore[assignment]
        (y,) = node.outputs
        a, b = (self.places[id(x)].key for x in (product.a, product.b))
        names: dict[str | int, Any] = {"a": a, "b": b, "c": self.places[id(unit.outputs[0])].key}
        for name, size in way.memory().items():
            names[name] = name, id(y), number
            copies = threads.pool().threads if name == "scratch" else 1
            self.sizes[names[name]] = size * np.dtype(y.dtype).itemsize * copies
        ends: list[End] = []

        def end(own: int) -> End | None:
            ends.extend([End(self, unit, product, number, own)] if unit.walk else [])
            return ends[0] if ends else None

        for stage in way.stages(end):
            slots = tuple(names.get(slot, ("count", slot)) for slot in stage.slots)
            writes = {names[name] for name in stage.writes}
            what = stage.what
            if "c" in stage.writes and ends:
                slots += tuple(ends[0].slots[len(slots) :])
                writes |= {self.places[id(x)].key for x in unit.outputs}
            if stage.products:
                what = node.name
            call = Call(stage.text, slots, stage.tasks, 1, frozenset(keys_read(slots, writes)), frozenset(writes), what)
            call.path = node.path
            if stage.products:
                call.products = product.contractions[number].products(product.batch)
                call.reason, call.problem = str(way), (product.contractions[number], product.batch)
            if "c" in stage.writes and ends:
                call.what = "+".join([what, *(self.producers[id(x)].name for x in unit.outputs if x is not y)])
            yield call

    def call(self, node: Node, text: str, slots: tuple[Any, ...], tasks: int, output: int, what: str) -> Call:
        written = frozenset([slots[output]])
        reads = frozenset(keys_read(slots, written))
        return Call(text, slots, tasks, 1, reads, written, what, node.path)

    def sum(self, node: Node, partial: Any, counts: list[tuple[int, int]], strides: tuple[int, ...]) -> Call:
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
