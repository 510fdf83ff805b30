"""Contractions as they are written: every product is multiplied and added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from juanji.kernels.contraction import BATCH, Contraction, Dim
from juanji.kernels.isa import ISA
from juanji.kernels.nest import build
from juanji.kernels.text import Int, const, index, kernel_text
from juanji.kernels.work import End, Stage, Work

LINE = 16  # words


def direct(contraction: Contraction, isa: ISA, batch: int, end: End) -> Work:
    """B packed in the order in which it is read, where that pays, and the products or partial results.

    A sum over images, or rows of a matrix, that are all in bfloat16 takes two at a time, put into words before.
    """
    if contraction.stored[:2] == ("bfloat", "bfloat") and not contraction.paired() and apart(contraction):
        return image_pairs(contraction, isa, batch, end)
    return products(contraction, isa, batch, end)


def apart(contraction: Contraction) -> bool:
    """Whether a sum runs over what lies one after the other in both operands."""
    if not contraction.reduce:
        return False
    images = contraction.reduce[0]
    return all(1 + sum(map(abs, spans(contraction, side))) <= getattr(images, side) for side in "ab")


def products(contraction: Contraction, isa: ISA, batch: int, end: End) -> Work:
    own = 4 if contraction.has_batch else 3
    kernel = build(contraction, isa, epilogue=end(own))
    stages, memory, parts = list[Stage](), dict[str, int](), kernel.parts(batch)
    if kernel.pack:
        memory["packed"] = kernel.pack.size(batch)
        stages.append(Stage("pack", kernel.pack.text, ("b", "packed"), ("packed",), kernel.pack.tasks(batch)))
    target = "c"
    if parts:
        target, memory["partial"] = "partial", kernel.chunks(batch) * kernel.partial
    slots: tuple[str | int, ...] = ("a", "packed" if kernel.pack else "b", target)
    slots += (batch,) * contraction.has_batch + (kernel.chunk_length(batch),) * contraction.sums_batch
    stages.append(Stage("direct", kernel.text, slots, (target,), kernel.tasks(batch), products=True))
    return Work(tuple(stages), memory, str(kernel.schedule), tuple(parts), kernel.part_strides)


def image_pairs(contraction: Contraction, isa: ISA, batch: int, end: End) -> Work:
    """A sum over images, in words of the same number of two that follow each other."""
    images, *pixels = contraction.reduce
    a, b = (extent(contraction, side) for side in "ab")
    total = batch if images.size == BATCH else images.size
    count = -(-total // 2)
    pairs = replace(
        contraction,
        reduce=(Dim(BATCH if images.size == BATCH else count, a, b), *pixels),
        a0=contraction.a0 - lowest(contraction, "a"),
        b0=contraction.b0 - lowest(contraction, "b"),
        stored=("", "", contraction.stored[2]),
        pair=True,
        windows=(),
    )
    work = products(pairs, isa, count if images.size == BATCH else batch, end)
    names = {"a": "data", "b": "gradients"}
    before = [
        Stage(
            "transform", pair_text(isa, lowest(contraction, side), getattr(images, side), size),
            (side, names[side], total), (names[side],), count,
        )
        for side, size in (("a", a), ("b", b))
    ]  # fmt: skip
    after = [
        replace(stage, slots=tuple(names.get(slot, slot) if isinstance(slot, str) else slot for slot in stage.slots))
        for stage in work.stages
    ]
    memory = {"data": count * a, "gradients": count * b, **work.memory}
    return replace(work, stages=(*before, *after), memory=memory, reason=f"{work.reason}, pairs of images in bfloat16")


def spans(contraction: Contraction, side: str) -> Sequence[int]:
    """How far each dimension of one image takes an operand."""
    dims = (*contraction.outer, *contraction.rows, contraction.lanes, *contraction.reduce[1:])
    return [(d.size - 1) * getattr(d, side) for d in dims]


def lowest(contraction: Contraction, side: str) -> int:
    """The first element of an operand that an image needs."""
    return int(getattr(contraction, f"{side}0")) + sum(min(0, span) for span in spans(contraction, side))


def extent(contraction: Contraction, side: str) -> int:
    """How many elements of an operand an image needs, in whole cache lines."""
    return -(-(1 + sum(map(abs, spans(contraction, side)))) // LINE) * LINE


def pair_text(isa: ISA, first: int, step: int, size: int) -> str:
    """The kernel that puts images, `step` apart, from their element `first` on into words; a task is a pair."""
    t, width = kernel_text(isa.fused), isa.lanes()
    x, words, batch = t.at(t.slot(0), first, "i16"), t.slot(1), t.slot(2, "i64")

    def task(pair: Int) -> None:
        image = t.mul(pair, 2)
        low, to = t.at(x, t.mul(image, step), "i16"), t.at(words, t.mul(pair, size), "i32")
        there = t.splat(t.compare("slt", index(t.add(image, 1)), batch), width)

        def some(i: Int) -> None:
            here, high = t.at(low, i, "i16"), t.at(t.at(low, step, "i16"), i, "i16")
            halves = t.load(here, "i16", width), t.load(high, "i16", width, there)
            lower, upper = (t.convert("zext", half, "i32") for half in halves)
            t.store(t.op("or", lower, t.op("shl", upper, const(16, "i32", width))), t.at(to, i, "i32"))

        t.loop(0, size, some, width)

    t.loop(t.argument("lo"), t.argument("hi"), task)
    return str(t)
