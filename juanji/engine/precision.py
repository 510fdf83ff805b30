"""Which tensors a plan keeps in bfloat16: images and features on their way, and their gradients.

Only memory is rounded. Everything is computed in float32 from what lies there, sums above all; parameters, what the
optimiser remembers, statistics, the loss and gradients by parameters stay float32 throughout.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from juanji.engine import platform
from juanji.engine.fuse import Fuser, Unit
from juanji.engine.simplify import Program
from juanji.errors import ArgumentError
from juanji.graph import Node
from juanji.kernels.isa import ISA, host_features
from juanji.tensor import Tensor

SMALL = 4096  # elements that are not worth rounding
NEEDS = "avx512bf16"
WEIGHTS = {"conv": 1, "conv_input_grad": 0, "conv_weight_grad": None}  # which operand they are
PASSING = {"add", "sub", "mul", "neg", "where", "relu", "maximum", "minimum"}
MATRICES = {"amx-tile", "amx-bf16"}


def settled(name: str, isa: ISA) -> str:
    """What a precision means here: "auto" is bfloat16 where the CPU has instructions for it, else float32.

    Raises ArgumentError where bfloat16 is asked for and there are none.
    """
    lacks = missing(isa)
    if name == "bfloat16" and lacks:
        raise ArgumentError(
            "this machine cannot compute in bfloat16",
            received=lacks,
            rule="AVX512_BF16 multiplies bfloat16",
            fix='precision="float32", or "auto"',
        )
    return name if name != "auto" else "float32" if lacks else "bfloat16"


def missing(isa: ISA) -> str:
    """What bfloat16 lacks here; empty where it can be had."""
    if isa.name != "avx512":
        return f"the instruction set {isa.name}"
    return "" if NEEDS in host_features() else f"the CPU has no {NEEDS}"


def instructions(precision: str, isa: ISA) -> ISA:
    """The instruction set to compute with in a precision: with AMX, where it multiplies bfloat16, unless `JUANJI_ISA`
    asks for one without."""
    if precision != "bfloat16" or os.environ.get("JUANJI_ISA") or not host_features() >= MATRICES:
        return isa
    return replace(isa, matrices=not refused())


@functools.cache
def refused() -> bool:
    """Whether the system does not let this process use AMX, which is said once."""
    if reason := platform.without_matrices():
        warnings.warn(f"{reason}; AVX512_BF16 multiplies bfloat16 instead, at a fraction of the speed", stacklevel=2)
    return bool(reason)


def rounded(program: Program, fuser: Fuser, units: Iterable[Unit]) -> set[int]:
    """The stored tensors that are kept in bfloat16, by identity: large ones on their way between contractions and
    poolings, with what is added to them, multiplied with them or chosen from them in between."""
    parts = [x for node in program.nodes if node.name == "fold" for x in node.inputs]  # of sums
    kept = {id(fuser.root(x)) for x in (*program.wanted, *parts)}
    passing = {id(x) for node in program.nodes for x in images(program, fuser, node)}
    for node in program.nodes:
        (y,) = node.outputs[:1]
        if node.name in PASSING and any(id(fuser.root(x)) in passing and x.shape == y.shape for x in node.inputs):
            passing.add(id(y))

    def is_rounded(x: Tensor) -> bool:
        return x.dtype == "float32" and x.size >= SMALL and id(x) in passing - kept

    return {id(x) for unit in units for x in unit.outputs if is_rounded(x)}


def images(program: Program, fuser: Fuser, node: Node) -> Iterator[Tensor]:
    """The stored images or features that a contraction or pooling takes and gives, and their gradients; no weights."""
    if node.name == "matmul":
        cells, given = ({x.shape for x in some} for some in (program.cells.values(), program.inputs))
        yield from (x for x in map(fuser.root, node.inputs) if x.shape not in cells)
        yield from (x for x in node.outputs if x.shape not in cells | given)
    elif node.name in WEIGHTS or node.name.startswith("window_"):
        yield from (fuser.root(x) for i, x in enumerate(node.inputs) if i != WEIGHTS.get(node.name))
        yield from node.outputs if node.name != "conv_weight_grad" else ()
