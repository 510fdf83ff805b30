"""Contractions as calls: copies of B in the tile's order, the products, and the sum of partial results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from juanji.engine.calls import Call, keys_read
from juanji.engine.fuse import Unit
from juanji.engine.layout import Layout
from juanji.graph import PRIMITIVES, Node
from juanji.kernels.contraction import BATCH
from juanji.kernels.fused import Walk, Writer
from juanji.kernels.isa import ISA
from juanji.kernels.lowering import Place
from juanji.kernels.nest import ContractionKernel, build
from juanji.kernels.products import Product
from juanji.tensor import Tensor


class Contractor:
    """What it takes to call contractions: the instruction set, and where tensors lie."""

    def __init__(self, isa: ISA, places: Mapping[int, Place], producers: Mapping[int, Node]) -> None:
        self.isa, self.places, self.producers = isa, places, producers
        self.sizes: dict[Any, int] = {}

    def calls(self, unit: Unit) -> tuple[list[Call], dict[Any, int]]:
        """The calls for a unit's node, and the bytes of the buffers between them."""
        node: Node = unit.node  # type: ignore[assignment]
        product = node.record.lower["contraction"](node, self.places)
        found = [
            call for number, face in enumerate(product.contractions) for call in self.face(node, product, face, number)
        ]
        return found, self.sizes

    def face(self, node: Node, product: Product, contraction: Any, number: int) -> Iterator[Call]:
        kernel = build(contraction, self.isa)
        (y,) = node.outputs
        a, b, c = (self.places[id(x)].key for x in (product.a, product.b, y))
        size = np.dtype(y.dtype).itemsize
        if kernel.pack:
            packed = ("packed", id(y), number)
            self.sizes[packed] = kernel.pack.size(product.batch) * size
            yield self.call(node, kernel.pack.text, (b, packed), kernel.pack.tasks(product.batch), 1, "pack")
            b = packed
        chunks = kernel.chunks(product.batch)
        target = c
        if chunks > 1:
            target = ("partial", id(y), number)
            self.sizes[target] = chunks * kernel.partial * size
        slots: tuple[Any, ...] = (a, b, target)
        if has_batch(kernel):
            slots += (("count", product.batch),)
        if kernel.contraction.sums_batch:
            slots += (("count", kernel.chunk_length(product.batch)),)
        call = self.call(node, kernel.text, slots, kernel.tasks(product.batch), 2, node.name)
        call.products = products(kernel, product.batch)
        call.reason = str(kernel.schedule)
        yield call
        if chunks > 1:
            yield self.sum(node, target, chunks)

    def call(self, node: Node, text: str, slots: tuple[Any, ...], tasks: int, output: int, what: str) -> Call:
        written = frozenset([slots[output]])
        reads = frozenset(keys_read(slots, written))
        return Call(text, slots, tasks, 1, reads, written, what, node.path)

    def sum(self, node: Node, partial: Any, chunks: int) -> Call:
        """Partial results added up."""
        (y,) = node.outputs
        parts = Tensor.spec((chunks, *y.shape), y.dtype)
        total = Node(PRIMITIVES["sum"], (parts,), {"axes": (0,)}, (y,), node.path)
        places = {**self.places, id(parts): Place(partial, Layout(parts.shape, parts.dtype).strides)}
        writer = Writer(Walk(parts.shape, sums=[total], axes=(0,)), self.isa, places, {id(y): total})
        code = writer.code()
        return Call.of(code, [partial], [self.places[id(y)].key], "sum of parts", node.path)


def has_batch(kernel: ContractionKernel) -> bool:
    contraction = kernel.contraction
    return any(d.size == BATCH for d in (*contraction.outer, *contraction.rows, *contraction.reduce))


def products(kernel: ContractionKernel, batch: int) -> int:
    """How many multiplications with additions there are."""
    contraction = kernel.contraction
    dims = (*contraction.outer, *contraction.rows, contraction.lanes, *contraction.reduce)
    return math.prod(batch if d.size == BATCH else d.size for d in dims)
