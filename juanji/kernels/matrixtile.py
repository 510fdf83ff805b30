"""The tile in matrices, which are registers by number: what lies in them, LLVM does not know."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from juanji.kernels import matrices
from juanji.kernels.contraction import Dim
from juanji.kernels.matrices import LANES, REGISTERS, ROWS
from juanji.kernels.text import Int, Text, Value, const, index
from juanji.kernels.tile import Bounds, Cursor, Epilogue, Tile

WORD = 4  # bytes
MATRIX = ROWS * LANES  # sums


class Shapes:
    """The shapes that a kernel's matrices have: the processor is told whenever a tile needs others than the last one.

    memory  where sums go on their way to vectors
    """

    def __init__(self, t: Text) -> None:
        self.t, self.known = t, dict[bytes, int]()
        self.current = t.variable(const(0, "i64"))
        t.slots.append(f"  %matrices = alloca [{REGISTERS * MATRIX} x float], align 64")
        self.memory = Value("%matrices", "ptr")

    def need(self, shapes: dict[int, tuple[int, int]]) -> None:
        """Have registers, by number, of so many rows of so many words."""
        t, table = self.t, bytearray(64)
        table[0] = 1  # the only palette that there is
        for register, (rows, words) in shapes.items():
            table[16 + 2 * register], table[48 + register] = WORD * words, rows
        number = self.known.setdefault(bytes(table), len(self.known) + 1)
        text = "".join(f"\\{byte:02X}" for byte in table)
        t.declarations[f'@shapes{number} = private constant [64 x i8] c"{text}", align 64'] = None

        def tell() -> None:
            instruction(t, "ldtilecfg", Value(f"@shapes{number}", "ptr"))
            t.set(self.current, const(number, "i64"))

        t.when(t.compare("ne", t.get(self.current), const(number, "i64")), tell)

    def release(self) -> None:
        """Let the processor forget them, which makes what follows and whatever the system switches to cheaper."""
        instruction(self.t, "tilerelease")


def instruction(t: Text, name: str, *arguments: Value | int) -> None:
    """An instruction on registers, given by number, and memory."""
    kinds = ", ".join("i8 immarg" if isinstance(x, int) else x.type for x in arguments)
    t.declarations[f"declare void @llvm.x86.{name}({kinds})"] = None
    t.line(f"call void @llvm.x86.{name}({', '.join(f'i8 {x}' if isinstance(x, int) else str(x) for x in arguments)})")


@dataclass
class MatrixTile(Tile):
    """A tile whose sums are matrices: pieces of its rows by its vectors."""

    shapes: Shapes

    def begin(self) -> None:
        t, count = self.t, self.vectors
        self.pieces = matrices.pieces(self.contraction, tuple(self.box))
        self.step = matrices.step(self.contraction)
        numbers = iter(range(REGISTERS))
        self.registers = [[next(numbers) for _ in range(count)] for _ in self.pieces]
        self.columns = [next(numbers) for _ in range(count)]
        # Registers of A have as many rows as the sums. Where all have the same, two of them take turns.
        equal = len({piece.rows for piece in self.pieces}) == 1
        turns = [i % 2 if equal else piece.rows for i, piece in enumerate(self.pieces)]
        own = {turn: next(numbers) for turn in dict.fromkeys(turns)}
        self.numbers = [own[turn] for turn in turns]
        needed = dict.fromkeys(self.columns, (self.step, LANES))
        for piece, sums, number in zip(self.pieces, self.registers, self.numbers, strict=True):
            needed |= dict.fromkeys(sums, (piece.rows, LANES))
            needed[number] = piece.rows, self.step
        self.shapes.need(needed)
        for register in itertools.chain(*self.registers):
            instruction(t, "tilezero", register)

    def resume(self, c: Value) -> None:
        for row, place in enumerate(self.c_rows):
            for lane in self.lanes:
                self.t.store(self.load(c, place, lane, self.kinds[2]), self.kept(row, lane))
        self.each("tileloadd64")

    def add(self, at: Cursor, bounds: Sequence[Bounds]) -> None:
        self.steps(at, list(zip(self.contraction.reduce[:-1], bounds[:-1], strict=True)))

    def steps(self, at: Cursor, dims: Sequence[tuple[Dim, Bounds]]) -> None:
        """The sum over some dimensions and the last one, of which a few words are taken at once."""
        t = self.t
        if dims:
            (d, (low, high)), *rest = dims
            t.loop(low, high, lambda i: self.steps(at.moved(t, i, Dim(0, d.a, d.b)), rest))
            return
        last = self.contraction.reduce[-1]
        t.loop(0, last.size, lambda i: self.products(at.moved(t, i, Dim(0, last.a, last.b))), self.step)

    def products(self, at: Cursor) -> None:
        """One step: all matrices of A by all of B."""
        t, apart = self.t, index(WORD * self.contraction.reduce[-1].b)
        for lane, column in zip(self.lanes, self.columns, strict=True):
            instruction(t, "tileloadd64", column, t.at(at.b, lane, "i32"), apart)
        for piece, sums, number in zip(self.pieces, self.registers, self.numbers, strict=True):
            place = t.at(at.a, self.a_rows[piece.first], "i32")
            instruction(t, "tileloadd64", number, place, index(WORD * piece.apart))
            for total, column in zip(sums, self.columns, strict=True):
                instruction(t, "tdpbf16ps", total, number, column)

    def finish(
        self, c: Value, outer: tuple[Int, ...], starts: tuple[Int, ...], lane: Int, store: Epilogue | None
    ) -> None:
        self.each("tilestored64")
        super().finish(c, outer, starts, lane, store)

    def each(self, name: str) -> None:
        """Have all sums from memory, or put them there."""
        for register in itertools.chain(*self.registers):
            place = self.t.at(self.shapes.memory, register * MATRIX, "float")
            instruction(self.t, name, register, place, index(WORD * LANES))

    def total(self, row: int, lane: int) -> Value:
        return self.t.load(self.kept(row, lane), "float", LANES)

    def kept(self, row: int, lane: int) -> Value:
        """Where in memory the sums of a row from a lane on go."""
        number = max(i for i, piece in enumerate(self.pieces) if piece.first <= row)
        register = self.registers[number][lane // LANES]
        offset = register * MATRIX + (row - self.pieces[number].first) * LANES
        return self.t.at(self.shapes.memory, offset, "float")
