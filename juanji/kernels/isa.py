"""Instruction sets: how wide their vectors are, how many registers hold them, and what LLVM calls them."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass, replace

from juanji.errors import ArgumentError, unknown_name

BITS = {"float": 32, "double": 64, "i1": 8, "i8": 8, "i16": 16, "i32": 32, "i64": 64}


@dataclass(frozen=True)
class ISA:
    """One instruction set.

    width      bits of a vector register, `registers` how many there are
    fused      whether a·b + c is one instruction
    needs      features of the CPU without which its code does not run
    without    features that are switched off, so that a forced narrow path is what such a CPU would run
    machines   the machines, as `platform.machine` names them; empty for all
    matrices   whether AMX is there and may be used
    """

    name: str
    width: int
    registers: int
    fused: bool
    needs: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    matrices: bool = False

    def __str__(self) -> str:
        return self.name + " with AMX" * self.matrices

    def lanes(self, kind: str = "float") -> int:
        """How many numbers of a kind one register holds."""
        return self.width // BITS[kind]

    def halved(self, lanes: int, kind: str = "float") -> ISA | None:
        """Vectors half as wide, for so few lanes that fewer would be idle, where two of them are as fast as one."""
        whole, half = (-(-lanes // n) * n for n in (self.lanes(kind), self.lanes(kind) // 2))
        halves = self.name == "avx512" and host_name() in HALVES
        return replace(self, width=self.width // 2) if halves and whole >= IDLE * half else None

    def suited(self, lanes: int, kind: str = "float") -> int:
        """How many lanes vectors for so many numbers should have."""
        return (self.halved(lanes, kind) or self).lanes(kind)

    def missing(self) -> str:
        """Why this machine does not run it; empty if it does."""
        if self.machines and platform.machine() not in self.machines:
            return f"the machine is {platform.machine()}"
        absent = [feature for feature in self.needs if feature not in host_features()]
        return f"the CPU has no {', '.join(absent)}" if absent else ""


X86, ARM = ("x86_64", "AMD64"), ("aarch64", "arm64", "ARM64")
WIDE = ("avx512f", "avx512vl", "avx512bw", "avx512dq")
ISAS = {
    isa.name: isa
    for isa in (
        ISA("avx512", 512, 32, True, needs=(*WIDE, "avx2", "fma"), machines=X86),
        ISA("avx2", 256, 16, True, needs=("avx2", "fma"), without=("avx512f",), machines=X86),
        ISA("neon", 128, 32, True, machines=ARM),
        ISA("plain", 128, 16, False, without=("avx", "fma")),
    )
}


# Processors that take a vector of 512 bits as two halves.
HALVES = ("znver4",)
IDLE = 1.2  # times as many lanes as there need be


@functools.cache
def host_name() -> str:
    import llvmlite.binding as llvm

    return str(llvm.get_host_cpu_name())


@functools.cache
def host_features() -> frozenset[str]:
    import llvmlite.binding as llvm

    return frozenset(name for name, there in llvm.get_host_cpu_features().items() if there)


def current() -> ISA:
    """The widest instruction set of this machine, or the one that `JUANJI_ISA` names.

    Raises UnknownNameError for a name that there is not, ArgumentError for one this machine cannot run.
    """
    return chosen(os.environ.get("JUANJI_ISA", ""))


@functools.cache
def chosen(name: str) -> ISA:
    if not name:
        return next(isa for isa in ISAS.values() if not isa.missing())
    if name not in ISAS:
        raise unknown_name("instruction set", name, ISAS)
    if why := ISAS[name].missing():
        raise ArgumentError(
            f"JUANJI_ISA: {name} does not run here", received=why, fix="unset JUANJI_ISA, which takes the best there is"
        )
    return ISAS[name]
