"""Arithmetic, functions of one variable and comparisons, with their derivatives one to a line."""

from __future__ import annotations

import math
from numbers import Number
from typing import Any

import numpy as np

from juanji.graph import Array, Geometry, Pointwise, Primitive, primitive
from juanji.ops._geometry import away, floating
from juanji.ops.elementwise import Function, comparison, pointwise, where
from juanji.tensor import Tensor, composite, method

ERF = np.frompyfunc(math.erf, 1, 1)


def erf_define(x: Array) -> Array:
    return np.asarray(ERF(x)).astype(x.dtype)


def sigmoid_define(x: Array) -> Array:
    """1/(1 + e^−x) without overflow on either side."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def softplus_define(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def wins(x: Tensor, y: Tensor) -> Tensor:
    """1 where x > y, ½ where they are equal, 0 elsewhere."""
    return (greater(x, y).astype(x.dtype) + greater_equal(x, y).astype(x.dtype)) * 0.5


equal = comparison("equal", np.equal, doc="x = y, elementwise.")
not_equal = comparison("not_equal", np.not_equal, doc="x ≠ y, elementwise.")
less = comparison("less", np.less, doc="x < y, elementwise.")
less_equal = comparison("less_equal", np.less_equal, doc="x ≤ y, elementwise.")
greater = comparison("greater", np.greater, doc="x > y, elementwise.")
greater_equal = comparison("greater_equal", np.greater_equal, doc="x ≥ y, elementwise.")
logical_and = comparison("logical_and", np.logical_and, doc="Both true.", kinds="b")
logical_or = comparison("logical_or", np.logical_or, doc="Either true.", kinds="b")
logical_not = comparison("logical_not", np.logical_not, doc="Not true.", kinds="b", arity=1)
isfinite = comparison("isfinite", np.isfinite, doc="Neither infinite nor NaN.", arity=1, kinds="f")

add = pointwise("add", np.add, lambda z, x, y: 1, lambda z, x, y: 1, doc="x + y.", kinds="fiu")
sub = pointwise("sub", np.subtract, lambda z, x, y: 1, lambda z, x, y: -1, doc="x − y.", kinds="fiu")
mul = pointwise(
    "mul", np.multiply, lambda z, x, y: y, lambda z, x, y: x, doc="x · y, the ⊙ of 002 eq. 2.7.", kinds="fiu"
)
div = pointwise("div", np.divide, lambda z, x, y: 1 / y, lambda z, x, y: -z / y, doc="x / y.")
maximum = pointwise(
    "maximum", np.maximum, lambda z, x, y: wins(x, y), lambda z, x, y: wins(y, x), kinds="fiu",
    doc="The larger of x and y; where they are equal each gets half the gradient.",
)  # fmt: skip
minimum = pointwise(
    "minimum", np.minimum, lambda z, x, y: wins(y, x), lambda z, x, y: wins(x, y), kinds="fiu",
    doc="The smaller of x and y; where they are equal each gets half the gradient.",
)  # fmt: skip

neg = pointwise("neg", np.negative, lambda y, x: -1, doc="−x.", kinds="fi")
abs = pointwise("abs", np.abs, lambda y, x: sign(x), doc="|x|, with derivative 0 at 0.", kinds="fiu")
sign: Function = pointwise("sign", np.sign, None, doc="−1, 0 or 1.", kinds="fi")
floor = pointwise("floor", np.floor, None, doc="⌊x⌋.")
ceil = pointwise("ceil", np.ceil, None, doc="⌈x⌉.")
round = pointwise("round", np.round, None, doc="The nearest whole number, halves to even.")
exp = pointwise("exp", np.exp, lambda y, x: y, doc="e^x.")
expm1 = pointwise("expm1", np.expm1, lambda y, x: y + 1, doc="e^x − 1, exact near 0.")
log = pointwise("log", np.log, lambda y, x: 1 / x, doc="ln x.", positive=True)
log1p = pointwise("log1p", np.log1p, lambda y, x: 1 / (x + 1), doc="ln(1 + x), exact near 0.", positive=True)
sqrt = pointwise("sqrt", np.sqrt, lambda y, x: 0.5 / y, doc="√x.", positive=True)
sin = pointwise("sin", np.sin, lambda y, x: cos(x), doc="sin x.")
cos: Function = pointwise("cos", np.cos, lambda y, x: -sin(x), doc="cos x.")
tanh = pointwise("tanh", np.tanh, lambda y, x: 1 - y * y, doc="(e^x − e^−x)/(e^x + e^−x).")
sigmoid = pointwise(
    "sigmoid", sigmoid_define, lambda y, x: y * (1 - y), doc="σ(x) = 1/(1 + e^−x), the f of 002 eq. 3.1."
)
softplus = pointwise("softplus", softplus_define, lambda y, x: sigmoid(x), doc="ln(1 + e^x).")
erf = pointwise("erf", erf_define, lambda y, x: exp(-x * x) * (2 / math.sqrt(math.pi)), doc="2/√π · ∫₀ˣ e^−t² dt.")
relu = pointwise(
    "relu",
    lambda x: np.maximum(x, 0),
    lambda y, x: greater(x, 0).astype(x.dtype),
    doc="max(x, 0), with derivative 0 at 0.",
)


def power_geometry(x: Tensor, *, exponent: float) -> Geometry:
    floating("pow", x)
    return x.shape, x.dtype


def power_partial(y: Tensor, x: Tensor, *, exponent: float) -> Tensor | float:
    return 0.0 if exponent == 0 else pow(x, exponent - 1) * exponent


power: Primitive = primitive(
    "power",
    power_geometry,
    lambda x, exponent: np.power(x, x.dtype.type(exponent)),
    Pointwise(power_partial),
    lambda rng: [((np.abs(away(rng, 2, 3)),), {"exponent": e}) for e in (0, 1, 2, 3, -1, 0.5, 2.5)],
)


def base_partial(z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """y · x^(y − 1), which is 0 for y = 0 whatever x is."""
    return where(equal(y, 0), 0.0, y * tensor_pow(x, where(equal(y, 0), 1.0, y - 1)))


def exponent_partial(z: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x^y · ln x, which goes to 0 with x."""
    return where(greater(x, 0), z * log(where(greater(x, 0), x, 1.0)), 0.0)


tensor_pow = pointwise("pow", np.power, base_partial, exponent_partial, doc="x^y.", positive=True)


@method
def pow(x: Any, y: Any) -> Tensor:
    """x^y. With a number for y any x will do that has such a power; with a tensor, derivatives by y need x > 0."""
    if isinstance(y, Number) and not isinstance(x, Number):
        return power(Tensor.of(x), exponent=y)
    return tensor_pow(x, y)


def rsqrt(x: Any) -> Tensor:
    """1/√x."""
    return pow(x, -0.5)


def square(x: Any) -> Tensor:
    """x²."""
    return x * x if isinstance(x, Tensor) else square(Tensor.of(x))


def clip_examples(rng: np.random.Generator) -> Any:
    for bounds in ({"low": -0.4, "high": 0.7}, {"low": 0.0, "high": None}, {"low": None, "high": 0.1}):
        yield (away(rng, 3, 4),), bounds


@composite(clip_examples, "clip")
def clip_c(x: Tensor, low: float | None, high: float | None) -> Tensor:
    if low is not None:
        x = where(less(x, low), low, x)
    return x if high is None else where(greater(x, high), high, x)


def clip(x: Any, low: float | None = None, high: float | None = None) -> Tensor:
    """x held between the numbers `low` and `high`: its derivative is 1 there, the bounds included, and 0 outside."""
    x = Tensor.of(x)
    return x if low is None and high is None else clip_c(x, low=low, high=high)
