"""Random numbers in machine code: Philox4x32-10, word for word what `juanji.random` gives."""

from __future__ import annotations

from collections.abc import Sequence

from juanji.kernels.text import Text, Value, const
from juanji.random import MULTIPLIERS, ROUNDS, WEYL


def blocks(t: Text, words: Sequence[Value], block: Value) -> list[Value]:
    """The four words of each block: `words` is the state (key 0, key 1, step), `block` a counter of kind i32."""
    zero = const(0, "i32", block.lanes)
    left, right, step = (t.splat(word, block.lanes) for word in words)
    counter = [block, zero, step, zero]
    for _ in range(ROUNDS):
        counter = turn(t, counter, left, right)
        left, right = (t.op("add", key, const(WEYL[i], "i32", key.lanes)) for i, key in enumerate((left, right)))
    return counter


def turn(t: Text, counter: Sequence[Value], left: Value, right: Value) -> list[Value]:
    """One round."""
    high0, low0 = product(t, counter[0], int(MULTIPLIERS[0]))
    high1, low1 = product(t, counter[2], int(MULTIPLIERS[1]))
    first = t.op("xor", t.op("xor", high1, counter[1]), left)
    third = t.op("xor", t.op("xor", high0, counter[3]), right)
    return [first, low1, third, low0]


def product(t: Text, x: Value, multiplier: int) -> tuple[Value, Value]:
    """The upper and the lower word of the product of 32-bit words."""
    long = t.op("mul", t.convert("zext", x, "i64"), const(multiplier, "i64", x.lanes))
    upper = t.op("lshr", long, const(32, "i64", x.lanes))
    return t.convert("trunc", upper, "i32"), t.convert("trunc", long, "i32")


def fractions(t: Text, words: Value, kind: str) -> Value:
    """Words as multiples of 2⁻²⁴ in [0, 1)."""
    whole = t.op("lshr", words, const(8, "i32", words.lanes))
    return t.op("fmul", t.convert("sitofp", whole, kind), const(2.0**-24, kind, words.lanes))


def uniform(t: Text, words: Sequence[Value], position: Value, kind: str) -> Value:
    """Elements of `juanji.random.uniform` at any positions (i64): every lane works out its own block."""
    block = t.convert("trunc", t.op("lshr", position, const(2, "i64", position.lanes)), "i32")
    first, second, third, fourth = blocks(t, words, block)
    odd, upper = (bit(t, position, mask) for mask in (1, 2))
    return fractions(t, t.select(upper, t.select(odd, fourth, third), t.select(odd, second, first)), kind)


def bit(t: Text, x: Value, mask: int) -> Value:
    return t.compare("ne", t.op("and", x, const(mask, x.kind, x.lanes)), const(0, x.kind, x.lanes))


def consecutive(t: Text, words: Sequence[Value], position: Value, lanes: int, kind: str) -> Value:
    """`lanes` elements from `position` (one i64) on, both multiples of four: a block serves four of them."""
    count = lanes // 4
    start = t.convert("trunc", t.op("lshr", position, const(2, "i64")), "i32")
    four = blocks(t, words, t.op("add", t.splat(start, count), t.iota(count, "i32")))
    low, high = (joined(t, pair, range(2 * count)) for pair in (four[:2], four[2:]))
    order = [word * count + block for block in range(count) for word in range(4)]
    return fractions(t, joined(t, (low, high), order), kind)


def joined(t: Text, pair: Sequence[Value], order: Sequence[int]) -> Value:
    """Lanes of two vectors laid end to end, in the given order."""
    x, y = pair
    if x.lanes == 1:
        vector = t.value(f"insertelement <2 x {x.kind}> poison, {x}, i32 0", x.kind, 2)
        return t.value(f"insertelement {vector}, {y}, i32 1", x.kind, 2)
    places = ", ".join(f"i32 {i}" for i in order)
    return t.value(f"shufflevector {x}, {y}, <{len(order)} x i32> <{places}>", x.kind, len(order))
