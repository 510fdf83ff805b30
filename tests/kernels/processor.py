"""A processor with AMX, done by Python: what its instructions do to eight registers, and what it would refuse."""

from __future__ import annotations

import ctypes
import re
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from juanji.kernels import machine

REGISTER, PLACE = ctypes.c_uint8, ctypes.c_int64
INSTRUCTIONS = {
    "ldtilecfg": [PLACE],
    "tilerelease": [],
    "tilezero": [REGISTER],
    "tileloadd64": [REGISTER, PLACE, PLACE],
    "tilestored64": [REGISTER, PLACE, PLACE],
    "tdpbf16ps": [REGISTER] * 3,
}


class Processor:
    """Eight registers with their shapes, and what instructions do to them. What a processor would refuse is kept."""

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[int, int]] = {}
        self.registers: dict[int, Any] = {}
        self.refused: list[str] = []

    def ldtilecfg(self, place: int) -> None:
        table = ctypes.string_at(place, 64)
        sizes = [(table[48 + i], table[16 + 2 * i]) for i in range(8)]
        if table[0] != 1 or any(rows > 16 or size > 64 or (rows == 0) != (size == 0) for rows, size in sizes):
            self.refused.append(f"shapes {sizes}")
        self.shapes = {i: shape for i, shape in enumerate(sizes) if shape[0]}
        self.registers = {}

    def tilerelease(self) -> None:
        self.shapes, self.registers = {}, {}

    def tilezero(self, register: int) -> None:
        rows, size = self.shapes[register]
        self.registers[register] = np.zeros((rows, size), np.uint8)

    def tileloadd64(self, register: int, place: int, step: int) -> None:
        rows, size = self.shapes[register]
        found = [np.frombuffer(ctypes.string_at(place + i * step, size), np.uint8) for i in range(rows)]
        self.registers[register] = np.stack(found)

    def tilestored64(self, register: int, place: int, step: int) -> None:
        for i, row in enumerate(self.registers[register]):
            ctypes.memmove(place + i * step, row.tobytes(), row.size)

    def tdpbf16ps(self, total: int, left: int, right: int) -> None:
        (m, n), (rows, k), (depth, columns) = (self.shapes[i] for i in (total, left, right))
        if (rows, columns, k) != (m, n, 4 * depth) or len({total, left, right}) < 3:
            self.refused.append(f"product of {rows}×{k} and {depth}×{columns} for {m}×{n} bytes")
        a, b = (widened(self.registers[i]) for i in (left, right))
        sums = self.registers[total].view(np.float32)
        sums += np.einsum("mkp,knp->mn", a, b)


def widened(words: Any) -> Any:
    """Rows of bytes as words of two numbers, which are the upper halves of floats."""
    numbers = (words.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return numbers.reshape(len(words), -1, 2)


PROCESSOR = Processor()


def symbol(name: str, kinds: list[Any]) -> Any:
    """What kernels call instead of an instruction, known to LLVM by name."""

    def called(*arguments: int) -> None:
        try:
            getattr(PROCESSOR, name)(*arguments)
        except Exception as error:  # it would be lost on its way through machine code
            PROCESSOR.refused.append(repr(error))

    function = ctypes.CFUNCTYPE(None, *kinds)(called)
    llvm.add_symbol(f"soft_{name}", ctypes.cast(function, ctypes.c_void_p).value)
    return function


SYMBOLS = [symbol(name, kinds) for name, kinds in INSTRUCTIONS.items()]


def emulated(text: str, isa: Any, slots: list[int], tasks: int) -> None:
    """A kernel, its tasks in two parts, with calls where it has instructions of AMX."""
    text = re.sub(rf"@llvm\.x86\.({'|'.join(INSTRUCTIONS)})\b", r"@soft_\1", text).replace("i8 immarg", "i8")
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=machine.features(isa), jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(text, llvm.create_context()), target)
    engine.finalize_object()
    kinds = [ctypes.c_void_p, *[ctypes.c_int64] * 3]
    function = ctypes.CFUNCTYPE(None, *kinds)(engine.get_function_address("kernel"))
    table = np.array(slots, np.int64)
    for lo, hi in ((tasks // 2, tasks), (0, tasks // 2)):
        function(table.ctypes.data, lo, hi, 0)
    assert not PROCESSOR.refused
    assert not PROCESSOR.shapes
