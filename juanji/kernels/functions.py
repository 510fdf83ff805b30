"""Elementwise primitives as LLVM text, by name: what `emit` writes for each of them.

Values have NumPy's semantics: NaN wins in maximum and minimum, integers wrap around, halves round to even. Kinds do not
know signs (i8 is int8 or uint8), so what depends on them is told the dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from juanji.kernels import elementary
from juanji.kernels.elementary import Function, like, wide
from juanji.kernels.text import KINDS, Text, Value

DType = np.dtype[Any]
CONDITIONS = {"less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge"}


def emit(
    name: str, t: Text, inputs: Sequence[Value], dtypes: Sequence[DType], dtype: DType, attrs: Mapping[str, Any]
) -> Value:
    """The primitive `name` of values of any number of lanes, in `dtypes` each, whose result is of `dtype`."""
    # The one attribute that is called dtype, that of cast, is the result's.
    return FUNCTIONS[name](t, *inputs, **{**attrs, "dtypes": dtypes, "dtype": dtype})


def plain(rule: Function) -> Function:
    """A function to which kinds say enough."""
    return lambda t, *inputs, dtypes, dtype: rule(t, *inputs)


def arithmetic(name: str) -> Function:
    """An instruction whose floating form has an f before its name."""
    return plain(lambda t, x, y: t.op(f"f{name}" if x.is_float else name, x, y))


def signed(dtype: DType) -> bool:
    return dtype.kind == "i"


def compare(t: Text, condition: str, x: Value, y: Value, dtype: DType) -> Value:
    """`lt`, `ge`, … of floats, where NaN makes it false, and of integers of either kind."""
    return t.compare(("o" if x.is_float else "s" if signed(dtype) else "u") + condition, x, y)


def ordering(condition: str) -> Function:
    return lambda t, x, y, dtypes, dtype: compare(t, condition, x, y, dtypes[0])


def equality(floating: str, whole: str) -> Function:
    return plain(lambda t, x, y: t.compare(floating if x.is_float else whole, x, y))


def extreme(condition: str) -> Function:
    """The larger or the smaller of two; NaN if either is."""

    def rule(t: Text, x: Value, y: Value, *, dtypes: Sequence[DType], dtype: DType) -> Value:
        # A comparison with NaN is false, so this is y where either is NaN; x is put right below.
        z = t.select(compare(t, condition, x, y, dtype), x, y)
        return t.select(t.compare("uno", x, x), x, z) if x.is_float else z

    return rule


def neg(t: Text, x: Value) -> Value:
    return elementary.negated(t, x) if x.is_float else t.op("sub", like(x, 0), x)


def absolute(t: Text, x: Value, *, dtypes: Sequence[DType], dtype: DType) -> Value:
    if x.is_float:
        return t.call("fabs", x)
    return t.select(t.compare("slt", x, like(x, 0)), neg(t, x), x) if signed(dtype) else x


def sign(t: Text, x: Value, *, dtypes: Sequence[DType], dtype: DType) -> Value:
    """−1, 0 or 1, and NaN of NaN."""
    zero = like(x, 0)
    y = t.select(compare(t, "gt", x, zero, dtype), like(x, 1), like(x, -1))
    y = t.select(t.compare("oeq" if x.is_float else "eq", x, zero), zero, y)
    return t.select(t.compare("uno", x, x), x, y) if x.is_float else y


def isfinite(t: Text, x: Value) -> Value:
    return t.compare("olt", t.call("fabs", x), like(x, np.inf))


def power(t: Text, x: Value, *, exponent: float, dtypes: Sequence[DType], dtype: DType) -> Value:
    """x to the power of a number; the frequent ones by what they are, so the root of −∞ is NaN, as that of −1 is."""
    one = like(x, 1)
    known: dict[float, Callable[[], Value]] = {
        0: lambda: one,
        1: lambda: x,
        2: lambda: t.op("fmul", x, x),
        3: lambda: t.op("fmul", t.op("fmul", x, x), x),
        -1: lambda: t.op("fdiv", one, x),
        0.5: lambda: t.call("sqrt", x),
        -0.5: lambda: t.op("fdiv", one, t.call("sqrt", x)),
    }
    return known[exponent]() if exponent in known else elementary.pow(t, x, like(x, exponent))


def cast(t: Text, x: Value, *, dtypes: Sequence[DType], dtype: DType) -> Value:
    """NumPy's astype: towards zero from float to whole, wrapping around from whole to whole."""
    kind, sign = KINDS[dtype.name], "s" if signed(dtypes[0]) else "u"
    if kind == x.kind:
        return x
    if kind == "i1":
        return t.compare("une" if x.is_float else "ne", x, like(x, 0))
    if x.is_float:
        return from_float(t, x, kind, dtype)
    if kind in ("float", "double"):
        return t.convert(f"{sign}itofp", x, kind)
    narrower = dtype.itemsize < dtypes[0].itemsize
    return t.convert("trunc" if narrower else "sext" if sign == "s" else "zext", x, kind)


def from_float(t: Text, x: Value, kind: str, dtype: DType) -> Value:
    """To another floating kind, or to a whole one by way of one that holds its negative numbers as well."""
    if kind in ("float", "double"):
        return t.convert("fpext" if kind == "double" else "fptrunc", x, kind)
    through = "i64" if dtype in (np.uint32, np.int64) else "i32"
    whole = t.convert("fptosi", x, through)
    return whole if kind == through else t.convert("trunc", whole, kind)


FUNCTIONS: dict[str, Function] = {
    **{name: arithmetic(name) for name in ("add", "sub", "mul", "div")},
    **{name: ordering(condition) for name, condition in CONDITIONS.items()},
    "equal": equality("oeq", "eq"),
    "not_equal": equality("une", "ne"),
    "maximum": extreme("gt"),
    "minimum": extreme("lt"),
    "abs": absolute,
    "sign": sign,
    "neg": plain(neg),
    "isfinite": plain(isfinite),
    "logical_and": plain(lambda t, x, y: t.op("and", x, y)),
    "logical_or": plain(lambda t, x, y: t.op("or", x, y)),
    "logical_not": plain(lambda t, x: t.op("xor", x, like(x, 1))),
    "where": plain(lambda t, condition, x, y: t.select(condition, x, y)),
    "identity": plain(lambda t, x: x),
    "stop_gradient": plain(lambda t, x: x),
    "cast": cast,
    "relu": plain(lambda t, x: elementary.between(t, x, 0, None)),
    "floor": plain(lambda t, x: t.call("floor", x)),
    "ceil": plain(lambda t, x: t.call("ceil", x)),
    "round": plain(lambda t, x: t.call("roundeven", x)),
    "sqrt": plain(lambda t, x: t.call("sqrt", x)),
    "exp": plain(elementary.exp),
    "expm1": plain(elementary.expm1),
    "log": plain(elementary.log),
    "log1p": plain(elementary.log1p),
    "sin": plain(wide(elementary.sin)),
    "cos": plain(wide(elementary.cos)),
    "tanh": plain(elementary.tanh),
    "sigmoid": plain(elementary.sigmoid),
    "softplus": plain(elementary.softplus),
    "erf": plain(elementary.erf),
    "power": power,
    "pow": plain(elementary.pow),
}
