"""Which tensors a plan keeps in bfloat16: images and features on their way, and their gradients.

Only memory is rounded. Everything is computed in float32 from what lies there, sums above all; parameters, what the
optimiser remembers, statistics, the loss and gradients by parameters stay float32 throughout.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Iterable
from dataclasses import replace

from juanji.engine import platform
from juanji.engine.fuse import Fuser, Unit
from juanji.engine.simplify import Program
from juanji.errors import ArgumentError
from juanji.kernels.isa import ISA, host_features
from juanji.tensor import Tensor

SMALL = 4096  # elements that are not worth rounding
NEEDS = "avx512bf16"
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
    if precision != "bfloat16" or "JUANJI_ISA" in os.environ or not host_features() >= MATRICES:
        return isa
    return replace(isa, matrices=not refused())


@functools.cache
def refused() -> bool:
    """Whether the system does not let this process use AMX, which is said once."""
    if reason := platform.without_matrices():
        warnings.warn(f"{reason}; AVX512_BF16 multiplies bfloat16 instead, at a fraction of the speed", stacklevel=2)
    return bool(reason)


def rounded(program: Program, fuser: Fuser, units: Iterable[Unit]) -> set[int]:
    """The stored tensors that are kept in bfloat16, by identity."""
    kept = {id(fuser.root(x)) for x in program.wanted}
    parameters = {cell.shape for cell in program.cells}
    operands = {id(fuser.root(x)) for node in program.nodes if "contraction" in node.record.lower for x in node.inputs}

    def on_its_way(x: Tensor) -> bool:
        if x.dtype != "float32" or id(x) in kept or x.shape in parameters or x.size < SMALL:
            return False
        return x.ndim > 2 or id(x) in operands

    return {id(x) for unit in units for x in unit.outputs if on_its_way(x)}
