"""Contractions as they are written: every product is multiplied and added up."""

from __future__ import annotations

from juanji.kernels.contraction import Contraction
from juanji.kernels.isa import ISA
from juanji.kernels.nest import build
from juanji.kernels.work import End, Stage, Work


def direct(contraction: Contraction, isa: ISA, batch: int, end: End) -> Work:
    """B packed in the order in which it is read, where that pays, and the products or partial results."""
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
