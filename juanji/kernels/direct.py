"""Contractions as they are written: every product is multiplied and added up."""

from __future__ import annotations

import functools
from dataclasses import replace

from juanji.kernels.contraction import BATCH, Contraction
from juanji.kernels.isa import ISA
from juanji.kernels.nest import build, ways
from juanji.kernels.pairs import LINE, Words, apart
from juanji.kernels.schedule import IMAGES
from juanji.kernels.work import End, Stage, Work

PAIRS = "pairs of images in bfloat16"


def direct(contraction: Contraction, isa: ISA, batch: int, end: End) -> Work:
    """B packed in the order in which it is read, where that pays, and the products or partial results.

    A sum over images, or rows of a matrix, that are all in bfloat16 takes two at a time, put into words before.
    """
    return (image_pairs if by_images(contraction) else products)(contraction, isa, batch, end)


@functools.cache
def prices(contraction: Contraction, isa: ISA, images: int) -> dict[str, float]:
    """The cycles that one thread needs for so many images, for every way by its name."""
    if by_images(contraction):
        count = (images if contraction.sums_batch else contraction.reduce[0].size) / 2
        times = count if contraction.sums_batch else 1
        return {
            f"{way}, {PAIRS}": way.cycles * times + words.cycles * count
            for words in Words.options(contraction, isa)
            for _, way in ways(words.contraction, isa, keep_rows=False)
        }
    together = 4 * IMAGES if any(d.size == BATCH for d in contraction.rows) else 1
    found = [way for keep in (True, False) for way in ways(contraction, isa, keep_rows=keep)]
    return {str(way): way.cycles * images / together for _, way in found}


def by_images(contraction: Contraction) -> bool:
    """Whether a sum over images is taken two at a time, put into words before."""
    return contraction.stored[:2] == ("bfloat", "bfloat") and not contraction.paired() and apart(contraction)


def price(words: Words, isa: ISA) -> float:
    """Cycles for a pair of images."""
    return ways(words.contraction, isa, keep_rows=False)[0][1].cycles + words.cycles


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
    images = contraction.reduce[0]
    total = batch if images.size == BATCH else images.size
    count = -(-total // 2)
    words = min(Words.options(contraction, isa), key=lambda words: price(words, isa))
    work = products(words.contraction, isa, count if images.size == BATCH else batch, end)
    names = {"a": "data", "b": "gradients"}
    before = [
        Stage("transform", words.text(isa, side), (side, name, total), (name,), count) for side, name in names.items()
    ]
    after = [
        replace(stage, slots=tuple(names.get(slot, slot) if isinstance(slot, str) else slot for slot in stage.slots))
        for stage in work.stages
    ]
    # A matrix takes whole vectors of the last lanes, too.
    memory = {**{name: count * words.size(side) + LINE for side, name in names.items()}, **work.memory}
    return replace(work, stages=(*before, *after), memory=memory, reason=f"{work.reason}, {PAIRS}")
