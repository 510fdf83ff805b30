"""Elementary functions as LLVM text: exponentials, logarithms, sine and cosine, erf, powers.

They call no library, so that the same input has the same value on every machine of one instruction
set, in every lane. Their polynomials are our own weighted minimax fits, made with 60 digits and rounded; the forms they
stand in are those of fdlibm (Sun Microsystems 1993) and of Cody and Waite, "Software Manual for the Elementary
Functions", 1980. exp, expm1, log, log1p, tanh, sigmoid, softplus and erf are written once for both precisions; sin, cos
and pow of float run in double.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji.kernels.text import Text, Value, const

Function = Callable[..., Value]
Pair = tuple[Value, Value]


@dataclass(frozen=True)
class Format:
    """A floating kind: the integers of its size, its bits, and the coefficients (highest power first) that suit it.

    ln2          ln 2 in two parts, the first so short that its product with an exponent is exact
    exp_range    beyond it e^x is 0 or infinite
    exp          (e^r − 1 − r)/r² for |r| ≤ ½ ln 2
    log          (atanh(s)/s − 1)·2/s², in s², for |s| ≤ (√2 − 1)/(√2 + 1)
    tanh         (tanh(x)/x − 1)/x², in x², for |x| ≤ TANH_NEAR
    erf          erf(x)/x − 1, in x², for |x| ≤ 1
    erfc         e^(x²)·erfc(x), in (x − 2)/(x + 2), for 1 ≤ x ≤ erf_one
    erf_one      from there on erf is 1
    """

    integer: str
    mantissa: int
    bias: int
    ln2: tuple[float, float]
    exp_range: tuple[float, float]
    exp: tuple[float, ...]
    log: tuple[float, ...]
    tanh: tuple[float, ...]
    erf: tuple[float, ...]
    erfc: tuple[float, ...]
    erf_one: float


FORMATS = {
    "float": Format(
        "i32", 23, 127, (0.693145751953125, 1.4286068203094173e-06), (-104.0, 89.0),
        exp=(0.00139462587, 0.00836662203, 0.0416662842, 0.16666542, 0.5),
        log=(0.235836506, 0.285372287, 0.400003374, 0.666666627),
        tanh=(-0.00570881832, 0.0206434671, -0.0537413917, 0.133314669, -0.333332837),
        erf=(7.88878751e-05, -0.00080207421, 0.00518952403, -0.0268544387, 0.112836003, -0.37612626, 0.128379166),
        erfc=(0.00721274083, 0.00372990733, -0.0789868534, 0.241657272, -0.427185863, 0.255395681),
        erf_one=4.0,
    ),
    "double": Format(
        "i64", 52, 1023, (0.6931471805601177, -1.7239444525614835e-13), (-746.0, 710.0),
        exp=(
            2.5111910395093424e-08, 2.7626424465777186e-07, 2.7557235727277014e-06, 2.480150418614772e-05,
            0.00019841269894792224, 0.001388888893261465, 0.008333333333318113, 0.04166666666657279,
            0.16666666666666682, 0.5000000000000006,
        ),
        log=(
            0.13252847376017596, 0.1324995057177464, 0.15387098231415713, 0.18181775493049748, 0.22222222648981874,
            0.28571428569071056, 0.40000000000006297, 0.6666666666666666,
        ),
        tanh=(
            6.037092390838805e-06, -3.0176381062680732e-05, 9.154909766862861e-05, -0.00023700729973600123,
            0.000589450535649434, -0.0014557257319233203, 0.0035921139797426976, -0.008863234312020218,
            0.021869488468782693, -0.053968253966065485, 0.13333333333329764, -0.33333333333333315,
        ),
        erf=(
            5.96052220477555e-11, -1.1374857195974963e-09, 1.466030266602844e-08, -1.6350392262129177e-07,
            1.646100809571797e-06, -1.4925595747814499e-05, 0.00012055331131918198, -0.0008548326981396422,
            0.005223977624827912, -0.02686617064507782, 0.11283791670954885, -0.3761263890318375, 0.1283791670955126,
        ),
        erfc=(
            -1.2644584637303417e-05, -2.661219929611229e-05, 2.7622846432534862e-05, 0.00017428844970752017,
            4.353618975780203e-05, -0.0009819764713578062, -0.0008471425903231815, 0.006997461785504158,
            0.00373289239852486, -0.07897858101641589, 0.2416581942424687, -0.4271858474139568, 0.25539567631050575,
        ),
        erf_one=6.0,
    ),
}  # fmt: skip

TANH_NEAR = 0.625
# (sin(r)/r − 1)/r² and (cos(r) − 1 + r²/2)/r⁴, in r², for |r| ≤ π/4
SIN = (
    1.5896776468503877e-10, -2.505075774558692e-08, 2.755731368923226e-06, -0.00019841269829798776,
    0.0083333333333224, -0.16666666666666632,
)  # fmt: skip
COS = (
    -1.1359562976572981e-11, 2.0875721498745112e-09, -2.7557314338008755e-07, 2.4801587289426802e-05,
    -0.0013888888888874023, 0.0416666666666666,
)  # fmt: skip
# π/2 in four parts, three of 33 bits: their products with a quadrant below 2²⁰ are exact
HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32)
FAR = 2.0**20
# 2/π as a whole number of units of 2^−TURN_BITS, enough for every double
TURN_BITS = 1168
# (atanh(s)/s − 1)·2/s² − 2/3, over s², in s²; and 2/3 in two parts
POW_LOG = (
    0.11990724935898427, 0.11674610345187474, 0.13336327833489434, 0.15384556595050647, 0.1818181887445937,
    0.22222222217501592, 0.2857142857144526, 0.3999999999999998,
)  # fmt: skip
TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


# Parts of numbers


def like(x: Value, number: float) -> Value:
    """A constant of the type of x."""
    return const(number, x.kind, x.lanes)


def bits(t: Text, x: Value) -> Value:
    return t.convert("bitcast", x, FORMATS[x.kind].integer)


def pattern(kind: str, number: float) -> int:
    """The bits of a constant."""
    return int(np.array(number, np.float32).view(np.int32) if kind == "float" else np.array(number).view(np.int64))


def negated(t: Text, x: Value) -> Value:
    return t.value(f"fneg {x}", x.kind, x.lanes)


def between(t: Text, x: Value, low: float | None, high: float | None) -> Value:
    """x held in a range; NaN stays NaN."""
    if low is not None:
        x = t.select(t.compare("olt", x, like(x, low)), like(x, low), x)
    return x if high is None else t.select(t.compare("ogt", x, like(x, high)), like(x, high), x)


def polynomial(t: Text, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's scheme, highest power first."""
    y = like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        y = t.fma(y, x, like(x, coefficient))
    return y


def ordered_sum(t: Text, x: Value, y: Value) -> Pair:
    """x + y and its rounding error, where |x| ≥ |y| or x = 0 (Dekker 1971)."""
    total = t.op("fadd", x, y)
    return total, t.op("fsub", y, t.op("fsub", total, x))


def rounded(t: Text, x: Value, factor: float) -> Pair:
    """x·factor to the nearest whole number: as a float, and as an integer in the low bits.

    Adding 1.5·2^mantissa leaves the whole number in the last bits. Every instruction set has an addition; not every
    one converts between double and i64.
    """
    shift = 1.5 * 2.0 ** FORMATS[x.kind].mantissa
    shifted = t.fma(x, like(x, factor), like(x, shift))
    number = bits(t, shifted)
    return t.op("fsub", shifted, like(x, shift)), t.op("sub", number, like(number, pattern(x.kind, shift)))


def power_of_two(t: Text, n: Value, kind: str) -> Value:
    form = FORMATS[kind]
    biased = t.op("shl", t.op("add", n, like(n, form.bias)), like(n, form.mantissa))
    return t.convert("bitcast", biased, kind)


def halves(t: Text, n: Value) -> Pair:
    """n in two parts, so that 2^n may leave the range of a float without its factors doing so."""
    half = t.op("ashr", n, like(n, 1))
    return half, t.op("sub", n, half)


# Exponential functions


def reduced(t: Text, x: Value) -> Pair:
    """n and e^r − 1, where x = n·ln 2 + r and |r| ≤ ½ ln 2."""
    form = FORMATS[x.kind]
    r = between(t, x, *form.exp_range)
    whole, n = rounded(t, r, 1 / math.log(2))
    for part in form.ln2:
        r = t.fma(whole, like(x, -part), r)
    return n, t.fma(t.op("fmul", r, r), polynomial(t, r, form.exp), r)


def exp(t: Text, x: Value) -> Value:
    n, rest = reduced(t, x)
    y = t.op("fadd", rest, like(x, 1))
    for half in halves(t, n):
        y = t.op("fmul", y, power_of_two(t, half, x.kind))
    return y


def expm1(t: Text, x: Value) -> Value:
    """2^n·(e^r − 1) + (2^n − 1), with the sign of x for zeros as well."""
    n, rest = reduced(t, x)
    low, high = halves(t, n)
    scale = power_of_two(t, low, x.kind)
    one = power_of_two(t, t.op("sub", like(n, 0), high), x.kind)
    y = t.fma(rest, scale, t.op("fsub", scale, one))
    return t.call("copysign", t.op("fmul", y, power_of_two(t, high, x.kind)), x)


def tanh(t: Text, x: Value) -> Value:
    """x + x³·P(x²) near 0; 1 − 2/(e^2|x| + 1) from TANH_NEAR on."""
    size, z = t.call("fabs", x), t.op("fmul", x, x)
    near = t.fma(t.op("fmul", x, z), polynomial(t, z, FORMATS[x.kind].tanh), x)
    below = t.op("fadd", exp(t, t.op("fadd", size, size)), like(x, 1))
    away = t.op("fsub", like(x, 1), t.op("fdiv", like(x, 2), below))
    return t.call("copysign", t.select(t.compare("olt", size, like(x, TANH_NEAR)), near, away), x)


def sigmoid(t: Text, x: Value) -> Value:
    """1/(1 + e) or, for x < 0, e/(1 + e), where e = e^−|x|; the sum's rounding error is made good."""
    small = exp(t, negated(t, t.call("fabs", x)))
    below, error = ordered_sum(t, like(x, 1), small)
    y = t.op("fdiv", t.select(t.compare("oge", x, like(x, 0)), like(x, 1), small), below)
    return t.fma(negated(t, y), error, y)


def softplus(t: Text, x: Value) -> Value:
    small = exp(t, negated(t, t.call("fabs", x)))
    return t.op("fadd", between(t, x, 0, None), log_of_sum(t, small)[1])


def erf(t: Text, x: Value) -> Value:
    """x·P(x²) up to 1; beyond, 1 − erfc(x)."""
    form, size = FORMATS[x.kind], t.call("fabs", x)
    near = t.fma(x, polynomial(t, t.op("fmul", x, x), form.erf), x)
    a = between(t, size, None, form.erf_one)
    place = t.op("fdiv", t.op("fadd", a, like(x, -2)), t.op("fadd", a, like(x, 2)))
    small = exp(t, negated(t, t.op("fmul", a, a)))
    rest = t.fma(negated(t, small), polynomial(t, place, form.erfc), like(x, 1))
    return t.select(t.compare("olt", size, like(x, 1)), near, t.call("copysign", rest, x))


# Logarithms


def parts(t: Text, x: Value) -> Pair:
    """e and m of x = 2^e·m with √½ ≤ m < √2, both floats, for x > 0."""
    form = FORMATS[x.kind]
    denormal = t.compare("olt", x, like(x, 2.0 ** (1 - form.bias)))
    number = bits(t, t.select(denormal, t.op("fmul", x, like(x, 2.0 ** (form.mantissa + 1))), x))
    root = pattern(x.kind, math.sqrt(0.5))
    number = t.op("add", number, like(number, (form.bias << form.mantissa) - root))
    # The biased exponent becomes a float by lying in the last bits of 2^mantissa.
    exponent = t.op("lshr", number, like(number, form.mantissa))
    exponent = t.op("or", exponent, like(number, pattern(x.kind, 2.0**form.mantissa)))
    zero = 2.0**form.mantissa + form.bias
    zeros = t.select(denormal, like(x, zero + form.mantissa + 1), like(x, zero))
    fraction = t.op("and", number, like(number, (1 << form.mantissa) - 1))
    m = t.convert("bitcast", t.op("add", fraction, like(number, root)), x.kind)
    return t.op("fsub", t.convert("bitcast", exponent, x.kind), zeros), m


def logarithm(t: Text, x: Value, rest: Value | None = None) -> Value:
    """ln(x) + rest for 0 < x < ∞: fdlibm's ln(1 + f) = f − f²/2 + s·(f²/2 + R(s²)), s = f/(2 + f)."""
    form = FORMATS[x.kind]
    e, m = parts(t, x)
    f = t.op("fsub", m, like(x, 1))
    s = t.op("fdiv", f, t.op("fadd", f, like(x, 2)))
    z, half = t.op("fmul", s, s), t.op("fmul", t.op("fmul", f, like(x, 0.5)), f)
    low = t.fma(e, like(x, form.ln2[1]), rest) if rest else t.op("fmul", e, like(x, form.ln2[1]))
    low = t.fma(s, t.fma(z, polynomial(t, z, form.log), half), low)
    return t.fma(e, like(x, form.ln2[0]), t.op("fsub", f, t.op("fsub", half, low)))


def at_edges(t: Text, x: Value, y: Value) -> Value:
    """ln(x) where y is not: at 0, below it, at infinity and NaN."""
    y = t.select(t.compare("olt", x, like(x, math.inf)), y, x)
    y = t.select(t.compare("oeq", x, like(x, 0)), like(x, -math.inf), y)
    return t.select(t.compare("olt", x, like(x, 0)), like(x, math.nan), y)


def log(t: Text, x: Value) -> Value:
    return at_edges(t, x, logarithm(t, x))


def log_of_sum(t: Text, x: Value) -> Pair:
    """1 + x, rounded, and ln(1 + x) with the rounding error made good: ln(u + c) = ln(u) + c/u."""
    u = t.op("fadd", x, like(x, 1))
    back = t.op("fsub", u, like(x, 1))
    error = t.op("fadd", t.op("fsub", like(x, 1), t.op("fsub", u, back)), t.op("fsub", x, back))
    return u, logarithm(t, u, t.op("fdiv", error, u))


def log1p(t: Text, x: Value) -> Value:
    return t.call("copysign", at_edges(t, *log_of_sum(t, x)), x)


# Sine and cosine, in double


@functools.cache
def two_over_pi() -> int:
    """2/π in units of 2^−TURN_BITS, from Machin's π = 16 atan(1/5) − 4 atan(1/239)."""
    one = 1 << (TURN_BITS + 64)

    def arctangent(x: int) -> int:
        terms = range(1, TURN_BITS, 2)
        return sum((1 - (k & 2)) * one // (k * x**k) for k in terms)

    return (2 * one << TURN_BITS) // (16 * arctangent(5) - 4 * arctangent(239))


def turn_table(t: Text) -> Value:
    """A constant that holds 2/π, lowest byte first, and zeros above it."""
    data = two_over_pi().to_bytes(TURN_BITS // 8 + 16, "little")
    text = "".join(f"\\{byte:02X}" for byte in data)
    t.declarations[f'@two_over_pi = private constant [{len(data)} x i8] c"{text}"'] = None
    return Value("@two_over_pi", "ptr")


def far_quadrant(t: Text, x: Value) -> Pair:
    """Quadrant and remainder of one number x ≥ FAR, by Payne and Hanek: x·2/π mod 4 from the bits of 2/π that matter.

    x is m·2^e. Bits of 2/π worth less than 2^(−e − 190) do not matter, those worth 4·2^−e and more are whole turns.
    """
    number = bits(t, x)
    m = t.op("or", t.op("and", number, like(number, (1 << 52) - 1)), like(number, 1 << 52))
    e = t.op("lshr", number, like(number, 52))
    first = t.op("sub", like(number, TURN_BITS - 190 + 1075), e)
    place = t.at(turn_table(t), t.op("lshr", first, like(number, 3)), "i8")
    window = t.value(f"load i256, {place}, align 1", "i256")
    window = t.op("lshr", window, t.convert("zext", t.op("and", first, like(number, 7)), "i256"))
    turns = t.op("shl", t.op("mul", window, t.convert("zext", m, "i256")), const(64, "i256"))
    quadrant = t.convert("trunc", t.op("lshr", turns, const(253, "i256")), "i64")
    high, low = (t.convert("trunc", t.op("lshr", turns, const(shift, "i256")), "i64") for shift in (190, 126))
    r = t.op("fmul", t.convert("uitofp", low, "double"), like(x, math.pi / 2 * 2.0**-128))
    r = t.fma(t.convert("sitofp", high, "double"), like(x, math.pi / 2 * 2.0**-64), r)
    # x − x makes infinities NaN.
    return t.op("lshr", t.op("add", quadrant, like(number, 1)), like(number, 1)), t.op("fadd", r, t.op("fsub", x, x))


def quadrant(t: Text, x: Value) -> Pair:
    """q and r, where x = q·π/2 + r modulo whole turns and |r| ≤ π/4, for x ≥ 0."""
    r = x
    whole, q = rounded(t, x, 2 / math.pi)
    for part in HALF_PI:
        r = t.fma(whole, like(x, -part), r)
    quadrants, rests = t.variable(q), t.variable(r)
    far = t.compare("oge", x, like(x, FAR))
    if x.lanes > 1:
        mask = t.value(f"bitcast {far} to i{x.lanes}", f"i{x.lanes}")
        far = t.compare("ne", mask, like(mask, 0))
    t.when(far, lambda: replace_far(t, x, quadrants, rests))
    return t.get(quadrants), t.get(rests)


def replace_far(t: Text, x: Value, quadrants: Value, rests: Value) -> None:
    """Put the results of `far_quadrant` where x ≥ FAR, one lane at a time."""
    # Copies in memory, so that the variables themselves can stay in registers.
    copies = [t.variable(v) for v in (x, t.get(quadrants), t.get(rests))]
    places = [Value(copy.text, "ptr") for copy in copies]

    def lane(i: Any) -> None:
        one = t.load(t.at(places[0], i, "double"), "double")
        t.when(t.compare("oge", one, like(one, FAR)), lambda: write(i, far_quadrant(t, one)))

    def write(i: Any, pair: Pair) -> None:
        for part, place in zip(pair, places[1:], strict=True):
            t.store(part, t.at(place, i, part.kind))

    t.loop(0, x.lanes, lane)
    t.set(quadrants, t.get(copies[1]))
    t.set(rests, t.get(copies[2]))


def wave(t: Text, x: Value, ahead: int) -> Value:
    """sin(x + ahead·π/2) for x ≥ 0."""
    q, r = quadrant(t, x)
    q = t.op("add", q, like(q, ahead)) if ahead else q
    z = t.op("fmul", r, r)
    sine = t.fma(t.op("fmul", r, z), polynomial(t, z, SIN), r)
    cosine = t.fma(t.op("fmul", z, z), polynomial(t, z, COS), t.fma(z, like(z, -0.5), like(z, 1)))
    odd = t.compare("ne", t.op("and", q, like(q, 1)), like(q, 0))
    sign = t.op("shl", t.op("and", q, like(q, 2)), like(q, 62))
    return t.convert("bitcast", t.op("xor", bits(t, t.select(odd, cosine, sine)), sign), x.kind)


def sin(t: Text, x: Value) -> Value:
    y = wave(t, t.call("fabs", x), 0)
    number = bits(t, x)
    return t.convert("bitcast", t.op("xor", bits(t, y), t.op("and", number, like(number, -(1 << 63)))), x.kind)


def cos(t: Text, x: Value) -> Value:
    return wave(t, t.call("fabs", x), 1)


# Powers, in double, and in pairs of doubles whose sum is the number


def split(t: Text, x: Value) -> Pair:
    """x in two parts of half the bits (Veltkamp)."""
    scaled = t.op("fmul", x, like(x, 2.0**27 + 1))
    high = t.op("fsub", scaled, t.op("fsub", scaled, x))
    return high, t.op("fsub", x, high)


def product(t: Text, x: Value, y: Value) -> Pair:
    """x·y and its rounding error."""
    whole = t.op("fmul", x, y)
    if t.fused:
        return whole, t.fma(x, y, negated(t, whole))
    (a, b), (c, d) = split(t, x), split(t, y)
    error = t.op("fsub", t.op("fmul", a, c), whole)
    for left, right in ((a, d), (b, c), (b, d)):
        error = t.op("fadd", error, t.op("fmul", left, right))
    return whole, error


def times(t: Text, x: Pair, y: Pair) -> Pair:
    whole, error = product(t, x[0], y[0])
    return whole, t.fma(x[0], y[1], t.fma(x[1], y[0], error))


def long_log(t: Text, x: Value) -> Pair:
    """ln(x) in a pair, for 0 < x < ∞: e·ln 2 + 2s + s³·(2/3 + …), s = (m − 1)/(m + 1)."""
    e, m = parts(t, x)
    f = t.op("fsub", m, like(x, 1))
    d, d_low = ordered_sum(t, like(x, 2), f)
    s = t.op("fdiv", f, d)
    near, error = product(t, s, d)
    left = t.op("fsub", t.op("fsub", t.op("fsub", f, near), error), t.op("fmul", s, d_low))
    root = s, t.op("fdiv", left, d)
    z = times(t, root, root)
    c, c_low = ordered_sum(t, like(x, TWO_THIRDS[0]), t.op("fmul", z[0], polynomial(t, z[0], POW_LOG)))
    w, w_low = times(t, times(t, root, z), (c, t.op("fadd", c_low, like(x, TWO_THIRDS[1]))))
    ln2 = FORMATS[x.kind].ln2
    high, low = ordered_sum(t, t.op("fmul", e, like(x, ln2[0])), t.op("fadd", s, s))
    high, lower = ordered_sum(t, high, w)
    small = t.fma(e, like(x, ln2[1]), t.fma(root[1], like(x, 2), w_low))
    return ordered_sum(t, high, t.op("fadd", t.op("fadd", low, lower), small))


def magnitude(t: Text, x: Value, y: Value) -> Value:
    """x^y of doubles for x ≥ 0: e^h·(1 + l), where h + l = y·ln(x)."""
    high, low = long_log(t, x)
    high = at_edges(t, x, high)
    h, error = product(t, high, y)
    low = t.fma(low, y, error)
    # At the edges, and where the power overflows anyway, there is no second part.
    inside = t.compare("olt", t.call("fabs", h), like(x, 1100))
    low = t.select(t.op("and", inside, t.compare("olt", low, like(x, 1))), low, like(x, 0))
    y = exp(t, h)
    return t.select(t.compare("olt", y, like(y, math.inf)), t.fma(y, low, y), y)


def narrow_magnitude(t: Text, x: Value, y: Value) -> Value:
    """x^y of floats in doubles, which has bits to spare."""
    return exp(t, t.op("fmul", log(t, x), y))


def pow_by(rule: Function, t: Text, x: Value, y: Value) -> Value:
    """x^y from |x|^y, with C's rules for signs, zeros, ones, infinities and NaN."""
    size = t.call("fabs", x)
    z = rule(t, size, y)
    z = t.select(t.compare("oeq", size, like(x, 1)), t.select(t.compare("uno", y, y), y, like(x, 1)), z)
    whole = t.compare("oeq", t.call("floor", y), y)
    half = t.op("fmul", y, like(y, 0.5))
    odd = t.op("and", whole, t.compare("une", t.call("floor", half), half))
    z = t.select(odd, t.call("copysign", z, x), z)
    below = t.op("and", t.compare("olt", x, like(x, 0)), t.compare("ogt", x, like(x, -math.inf)))
    z = t.select(t.op("and", below, t.compare("une", t.call("floor", y), y)), like(x, math.nan), z)
    one = t.op("or", t.compare("oeq", x, like(x, 1)), t.compare("oeq", y, like(y, 0)))
    return t.select(one, like(x, 1), z)


def in_double(t: Text, rule: Function, *inputs: Value) -> Value:
    return t.convert("fptrunc", rule(t, *(t.convert("fpext", x, "double") for x in inputs)), "float")


def wide(rule: Function) -> Function:
    """A function of doubles, for floats too."""
    return lambda t, x: rule(t, x) if x.kind == "double" else in_double(t, rule, x)


def pow(t: Text, x: Value, y: Value) -> Value:
    if x.kind == "double":
        return pow_by(magnitude, t, x, y)
    return in_double(t, functools.partial(pow_by, narrow_magnitude), x, y)
