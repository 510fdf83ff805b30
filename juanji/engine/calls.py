"""What a plan calls: kernels with their arguments, and what they read and write."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from juanji.engine.layout import Layout
from juanji.graph import Node
from juanji.kernels.contraction import Contraction
from juanji.kernels.fused import Code
from juanji.kernels.isa import ISA
from juanji.kernels.machine import Kernel
from juanji.kernels.recipes import is_number
from juanji.kernels.text import Int, Text, Value, const, kernel_text

FLAG = "finite"


@dataclass(eq=False)
class Call:
    """One kernel with its arguments.

    slots   buffers by key, and numbers as ("number", dtype, value)
    extent, grain, step  how its work may be divided, as in `Code`
    reads, writes  keys of buffers
    path    the layer it works for; `what` says what it does
    products  multiplications with additions
    reason  why it is done in this way
    commits whether it writes a cell, after which its old value is gone
    prepares whether it only writes an operand in another order or form
    repeatable whether it computes one buffer element by element, so that it could do so twice
    problem the contraction that it is, and the batch
    node    what it belongs to, of a contraction
    """

    kernel: Kernel
    slots: tuple[Any, ...]
    extent: int
    grain: int
    reads: frozenset[Any]
    writes: frozenset[Any]
    what: str
    path: str = ""
    step: int = 1
    products: int = 0
    reason: str = ""
    level: int = 0
    commits: bool = False
    prepares: bool = False
    repeatable: bool = False
    problem: tuple[Contraction, int] | None = None
    node: Node | None = None

    @classmethod
    def of(cls, code: Code, reads: Any, writes: Any, what: str, path: str) -> Call:
        return cls(
            code.kernel, code.slots, code.extent, code.grain, frozenset(reads), frozenset(writes), what, path, code.step
        )


MOST = 64


def parts(call: Call) -> list[tuple[int, int]]:
    """The ranges of a call's work, by its size alone: threads take them as they come."""
    if not call.extent:
        return []
    count = max(1, min(MOST, call.extent // max(call.grain, 1)))
    each = -(-call.extent // count)
    each = -(-each // call.step) * call.step
    return [(start, min(start + each, call.extent)) for start in range(0, call.extent, each)]


@functools.cache
def border_text(layout: Layout, isa: ISA) -> Code:
    """A kernel that zeroes the border of images; a task is one index of the first axis."""
    t, kind = kernel_text(isa.fused), layout.kind
    pointer = t.slot(0)
    extents, strides = layout.extents, layout.strides

    def frame(axis: int, base: Int) -> None:
        """Everything around the inside of the axes from `axis` on."""
        if axis == len(extents) or all(pair == (0, 0) for pair in layout.border[axis:]):
            return
        low, high = layout.border[axis]
        last = low + layout.shape[axis]
        zeros(t, pointer, base, low * strides[axis], kind, isa)
        zeros(t, pointer, t.add(base, last * strides[axis]), high * strides[axis], kind, isa)
        t.loop(low, last, lambda i: frame(axis + 1, t.add(base, t.mul(i, strides[axis]))))

    # Addresses are those of element 0, 0, …, which lies behind the border.
    t.loop(t.argument("lo"), t.argument("hi"), lambda i: frame(1, t.add(t.mul(i, strides[0]), -layout.origin)))
    return Code(Kernel.of(str(t), isa), (), layout.shape[0], max(1, 4096 // max(math.prod(extents[1:]), 1)))


def zeros(t: Text, pointer: Value, start: Int, count: int, kind: str, isa: ISA) -> None:
    """`count` zeros from element `start`."""
    width = isa.lanes(kind)
    full = count // width * width
    t.loop(0, full, lambda i: t.store(const(0, kind, width), t.at(pointer, t.add(start, i), kind)), width)
    if full < count:
        t.store(const(0, kind, width), t.at(pointer, t.add(start, full), kind), t.first(count - full, width))


def keys_read(slots: Iterable[Any], writes: Iterable[Any]) -> set[Any]:
    """The buffers among a kernel's arguments that it does not write."""
    return {key for key in slots if not is_number(key)} - set(writes)
