"""LLVM text, written one instruction at a time.

llvmlite's own builder knows no vector `fma` and no bfloat, so kernels are text. A variable that changes is a stack
slot, which LLVM turns into a register; that spares every loop its phi nodes.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np


@functools.cache
def vector(kind: str, lanes: int) -> str:
    return f"<{lanes} x {kind}>"


KINDS = {
    "float32": "float",
    "float64": "double",
    "bool": "i1",
    "uint8": "i8",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "uint32": "i32",
    "int64": "i64",
}
# Of what lies in memory. Truth values are bytes there, and "bfloat" is what a float is rounded to.
SIZES = {"bfloat": 2, "float": 4, "double": 8, "i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "ptr": 8}


class Value:
    """A number, a pointer, or a vector of numbers: an LLVM register or literal and its type. It never changes."""

    __slots__ = ("kind", "lanes", "text", "type")

    def __init__(self, text: str, kind: str, lanes: int = 1) -> None:
        self.text, self.kind, self.lanes = text, kind, lanes
        self.type = kind if lanes == 1 else vector(kind, lanes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Value) and (self.text, self.type) == (other.text, other.type)

    def __hash__(self) -> int:
        return hash((self.text, self.type))

    @property
    def suffix(self) -> str:
        """The type as intrinsics spell it: `v16f32`."""
        short = {"float": "f32", "double": "f64", "bfloat": "bf16"}.get(self.kind, self.kind)
        return short if self.lanes == 1 else f"v{self.lanes}{short}"

    @property
    def is_float(self) -> bool:
        return self.kind in ("float", "double")

    def __str__(self) -> str:
        return f"{self.type} {self.text}"


Int = Value | int


def literal(value: Any, kind: str) -> str:
    """A number as LLVM writes it; floating ones by their bits, so that nothing is rounded twice."""
    if kind in ("float", "double"):
        number = float(np.float32(value)) if kind == "float" else float(value)
        return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
    return str(int(value))


def const(value: Any, kind: str, lanes: int = 1) -> Value:
    return constant(literal(value, kind), kind, lanes)


@functools.cache  # of texts, because 0.0 and −0.0 are equal
def constant(one: str, kind: str, lanes: int) -> Value:
    return Value(one if lanes == 1 else f"splat ({kind} {one})", kind, lanes)


def index(value: Int) -> Value:
    return value if isinstance(value, Value) else const(value, "i64")


class Text:
    """The body of one function while it is being written: `Text("kernel", args="ptr", lo="i64", hi="i64")`."""

    def __init__(self, name: str = "kernel", fused: bool = True, **arguments: str) -> None:
        self.name, self.fused = name, fused
        self.arguments = arguments
        self.slots: list[str] = []
        self.lines: list[str] = []
        self.declarations: dict[str, None] = {}
        self.count = 0

    def argument(self, name: str) -> Value:
        return Value(f"%{name}", self.arguments[name])

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def fresh(self, letter: str = "v") -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def value(self, expression: str, kind: str, lanes: int = 1) -> Value:
        """A new register for `expression`."""
        name = f"%{self.fresh()}"
        self.line(f"{name} = {expression}")
        return Value(name, kind, lanes)

    # Arithmetic

    def op(self, name: str, x: Value, y: Value) -> Value:
        """A binary instruction: `fadd`, `mul nsw`, `and`, …"""
        return self.value(f"{name} {x}, {y.text}", x.kind, x.lanes)

    def call(self, intrinsic: str, *args: Value, like: Value | None = None, suffix: str | None = None) -> Value:
        """`llvm.<intrinsic>.<suffix>` of the arguments, whose result has the type of `like`, by default the first."""
        result = like or args[0]
        name = f"@llvm.{intrinsic}" + (f".{result.suffix}" if suffix is None else suffix)
        self.declarations[f"declare {result.type} {name}({', '.join(x.type for x in args)})"] = None
        return self.value(f"call {result.type} {name}({', '.join(map(str, args))})", result.kind, result.lanes)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x·y + z, rounded once where the machine does that in one instruction."""
        return self.call("fma" if self.fused else "fmuladd", x, y, z)

    def compare(self, condition: str, x: Value, y: Value) -> Value:
        """`olt`, `oeq`, … for floats, `slt`, `eq`, … for integers."""
        return self.value(f"{'fcmp' if x.is_float else 'icmp'} {condition} {x}, {y.text}", "i1", x.lanes)

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        return self.value(f"select {condition}, {x}, {y}", x.kind, x.lanes)

    def convert(self, how: str, x: Value, kind: str) -> Value:
        """`zext`, `sitofp`, `bitcast`, … to another kind."""
        return self.value(f"{how} {x} to {Value('', kind, x.lanes).type}", kind, x.lanes)

    def add(self, x: Int, y: Int) -> Int:
        """Integers, folded where both are known."""
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if y == 0 or x == 0:
            return x if y == 0 else y
        return self.op("add nsw", index(x), index(y))

    def mul(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if x == 0 or y == 0:
            return 0
        if x == 1 or y == 1:
            return x if y == 1 else y
        return self.op("mul nsw", index(x), index(y))

    def divmod(self, x: Int, y: int) -> tuple[Int, Int]:
        """Quotient and remainder of a number of at least 0 by a known one."""
        if isinstance(x, int):
            return divmod(x, y)
        if y == 1:
            return x, 0
        quotient = self.op("udiv", x, index(y))
        return quotient, self.op("sub nsw", x, index(self.mul(quotient, y)))

    def minimum(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        return self.call("smin", index(x), index(y))

    def maximum(self, x: Int, y: Int) -> Int:
        if isinstance(x, int) and isinstance(y, int):
            return max(x, y)
        return self.call("smax", index(x), index(y))

    # Vectors

    def splat(self, x: Value, lanes: int) -> Value:
        if lanes == 1 or x.lanes == lanes:
            return x
        if not x.text.startswith("%"):
            return Value(f"splat ({x})", x.kind, lanes)
        vector = f"<{lanes} x {x.kind}>"
        first = self.value(f"insertelement {vector} poison, {x}, i32 0", x.kind, lanes)
        return self.value(f"shufflevector {first}, {vector} poison, <{lanes} x i32> zeroinitializer", x.kind, lanes)

    def iota(self, lanes: int, kind: str = "i64") -> Value:
        if lanes == 1:
            return const(0, kind)
        return self.numbers(range(lanes), kind)

    def numbers(self, values: Iterable[int], kind: str = "i64") -> Value:
        """Known whole numbers, one for each lane."""
        texts = [f"{kind} {value}" for value in values]
        return Value(f"<{', '.join(texts)}>", kind, len(texts))

    def first(self, count: Int, lanes: int) -> Value:
        """A mask of the first `count` lanes."""
        if isinstance(count, int):
            bits = [i < count for i in range(lanes)]
            return Value("<" + ", ".join(f"i1 {str(bit).lower()}" for bit in bits) + ">", "i1", lanes)
        narrow = self.convert("trunc", self.call("smin", count, const(lanes, "i64")), "i32")
        return self.compare("slt", self.iota(lanes, "i32"), self.splat(narrow, lanes))

    def reduce(self, how: str, x: Value) -> Value:
        """All lanes in one number, in a fixed tree: halves are added until one is left."""
        while x.lanes > 1:
            half = x.lanes // 2
            low, high = (self.shuffle(x, range(start, start + half)) for start in (0, half))
            x = self.combine(how, low, high)
        return x

    def combine(self, how: str, x: Value, y: Value) -> Value:
        if how == "add":
            return self.op("fadd" if x.is_float else "add", x, y)
        return self.call(how, x, y)

    def shuffle(self, x: Value, lanes: Sequence[int]) -> Value:
        if len(lanes) == 1:
            return self.value(f"extractelement {x}, i32 {lanes[0]}", x.kind)
        places = ", ".join(f"i32 {i}" for i in lanes)
        return self.value(f"shufflevector {x}, {x.type} poison, <{len(lanes)} x i32> <{places}>", x.kind, len(lanes))

    # Memory

    def at(self, pointer: Value, offset: Int, kind: str) -> Value:
        """The address `offset` elements after `pointer`."""
        if offset == 0:
            return pointer
        element = "i8" if kind == "i1" else kind
        return self.value(f"getelementptr inbounds {element}, {pointer}, {index(offset)}", "ptr")

    def load(self, pointer: Value, kind: str, lanes: int = 1, mask: Value | None = None) -> Value:
        """What lies at `pointer`, truth values as bytes, "bfloat" widened to float; lanes outside the mask are zero and
        not touched."""
        stored = "i8" if kind == "i1" else kind
        shape = Value("zeroinitializer", stored, lanes)
        if mask is None:
            x = self.value(f"load {shape.type}, {pointer}, align {SIZES[stored]}", stored, lanes)
        else:
            align = const(SIZES[stored], "i32")
            x = self.call("masked.load", pointer, align, mask, shape, like=shape, suffix=f".{shape.suffix}.p0")
        return self.loaded(x, kind)

    def loaded(self, x: Value, kind: str) -> Value:
        """What came from memory as it is computed with."""
        if kind == "i1":
            return self.compare("ne", x, Value("zeroinitializer" if x.lanes > 1 else "0", "i8", x.lanes))
        return self.convert("fpext", x, "float") if kind == "bfloat" else x

    def kept(self, x: Value, kind: str) -> Value:
        """A value as it is put in memory."""
        if x.kind == "i1":
            return self.convert("zext", x, "i8")
        return self.convert("fptrunc", x, "bfloat") if kind == "bfloat" else x

    def store(self, x: Value, pointer: Value, mask: Value | None = None, kind: str = "") -> None:
        """Put a value at `pointer`, rounded if `kind` is "bfloat"."""
        x = self.kept(x, kind)
        if mask is None:
            self.line(f"store {x}, {pointer}, align {SIZES[x.kind]}")
            return
        name = f"@llvm.masked.store.{x.suffix}.p0"
        self.declarations[f"declare void {name}({x.type}, ptr, i32, {mask.type})"] = None
        self.line(f"call void {name}({x}, {pointer}, i32 {SIZES[x.kind]}, {mask})")

    def gather(self, pointer: Value, offsets: Value, kind: str, mask: Value | None = None) -> Value:
        """Elements at offsets of their own."""
        stored = "i8" if kind == "i1" else kind
        lanes = offsets.lanes
        places = self.value(f"getelementptr inbounds {stored}, {pointer}, {offsets}", "ptr", lanes)
        shape = Value("zeroinitializer", stored, lanes)
        mask = mask or Value("<" + ", ".join(["i1 true"] * lanes) + ">", "i1", lanes)
        x = self.call(
            "masked.gather", places, const(SIZES[stored], "i32"), mask, shape, like=shape,
            suffix=f".{shape.suffix}.v{lanes}p0",
        )  # fmt: skip
        return self.loaded(x, kind)

    def scatter(self, x: Value, pointer: Value, offsets: Value, mask: Value | None = None, kind: str = "") -> None:
        """Elements stored at offsets of their own, in the order of the lanes."""
        x = self.kept(x, kind)
        places = self.value(f"getelementptr inbounds {x.kind}, {pointer}, {offsets}", "ptr", offsets.lanes)
        mask = mask or Value("<" + ", ".join(["i1 true"] * x.lanes) + ">", "i1", x.lanes)
        name = f"@llvm.masked.scatter.{x.suffix}.v{x.lanes}p0"
        self.declarations[f"declare void {name}({x.type}, {places.type}, i32, {mask.type})"] = None
        self.line(f"call void {name}({x}, {places}, i32 {SIZES[x.kind]}, {mask})")

    def prefetch(self, pointer: Value) -> None:
        """Have what lies there come to the second cache."""
        self.declarations["declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"] = None
        self.line(f"call void @llvm.prefetch.p0({pointer}, i32 0, i32 2, i32 1)")

    def slot(self, number: int, kind: str = "ptr") -> Value:
        """Argument `number` of a kernel: what lies in its table of arguments."""
        return self.load(self.at(self.argument("args"), number, "i64"), kind)

    # Variables and control

    def variable(self, start: Value) -> Value:
        """A stack slot that holds `start`."""
        name = f"%{self.fresh('s')}"
        self.slots.append(f"  {name} = alloca {start.type}")
        self.line(f"store {start}, ptr {name}")
        return Value(name, start.kind, start.lanes)

    def get(self, variable: Value) -> Value:
        return self.value(f"load {variable.type}, ptr {variable.text}", variable.kind, variable.lanes)

    def set(self, variable: Value, x: Value) -> None:
        self.line(f"store {x}, ptr {variable.text}")

    def loop(self, start: Int, stop: Int, body: Callable[[Int], None], step: int = 1) -> None:
        """`body(i)` for i = start, start + step, … below stop. One that runs once is no loop."""
        if isinstance(start, int) and isinstance(stop, int) and stop - start <= step:
            if stop > start:
                body(start)
            return
        head, inside, after = (self.fresh(letter) for letter in "hbx")
        counter = self.variable(index(start))
        self.line(f"br label %{head}")
        self.label(head)
        i = self.get(counter)
        self.branch(self.compare("slt", i, index(stop)), inside, after)
        self.label(inside)
        body(i)
        self.set(counter, self.op("add nsw", i, const(step, "i64")))
        self.line(f"br label %{head}")
        self.label(after)

    def branch(self, condition: Value, there: str, otherwise: str) -> None:
        self.line(f"br {condition}, label %{there}, label %{otherwise}")

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        inside, after = self.fresh("t"), self.fresh("x")
        self.branch(condition, inside, after)
        self.label(inside)
        body()
        self.line(f"br label %{after}")
        self.label(after)

    def __str__(self) -> str:
        arguments = ", ".join(f"{kind} %{name}" for name, kind in self.arguments.items())
        body = [f"define void @{self.name}({arguments}) {{", "entry:", *self.slots, *self.lines, "  ret void", "}"]
        return "\n".join([*sorted(self.declarations), *body, ""])


def kernel_text(fused: bool = True) -> Text:
    """A kernel: a table of arguments, the part [lo, hi) of the work, and the number of the thread that does it."""
    return Text("kernel", fused, args="ptr", lo="i64", hi="i64", who="i64")
