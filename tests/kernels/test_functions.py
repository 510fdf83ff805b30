"""Elementwise primitives in machine code against their definitions, on every instruction set that runs here."""

import ctypes
import itertools

import llvmlite.binding as llvm
import numpy as np
import pytest

from juanji.graph import PRIMITIVES
from juanji.kernels import machine
from juanji.kernels.functions import FUNCTIONS, emit
from juanji.kernels.isa import ISAS
from juanji.kernels.machine import Kernel
from juanji.kernels.text import KINDS, kernel_text
from juanji.tensor import DTYPES

HERE = [isa for isa in ISAS.values() if not isa.missing()]
COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
FLOATS, SIGNED, UNSIGNED = ("float32", "float64"), ("int8", "int16", "int32", "int64"), ("uint8", "uint32")
NUMBERS = FLOATS + SIGNED + UNSIGNED
SPECIAL = [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 0.5, -0.5, 1.5, 2, 2.5, -2.5, 3, -3, 1e-30, -1e30]

# Greatest error in units of the last place: as measured, and a little; float32 and float64.
ULPS = {
    "exp": (1.1, 1.1),
    "expm1": (1.7, 2.1),
    "log": (0.9, 0.9),
    "log1p": (0.9, 0.9),
    "sin": (0.51, 2.5),
    "cos": (0.51, 2.5),
    "tanh": (1.4, 1.5),
    "sigmoid": (2, 2),
    "softplus": (1.7, 1.7),
    "erf": (1.5, 4),  # math.erf, the judge of float64, is itself a few units off
}


def kernel(isa, name, dtypes, dtype, attrs, lanes):
    t = kernel_text(isa.fused)
    pointers = [t.slot(i) for i in range(len(dtypes) + 1)]

    def body(i):
        places = zip(pointers, dtypes, strict=False)
        inputs = [t.load(t.at(p, i, KINDS[d.name]), KINDS[d.name], lanes) for p, d in places]
        t.store(emit(name, t, inputs, dtypes, dtype, attrs), t.at(pointers[-1], i, KINDS[dtype.name]))

    t.loop(t.argument("lo"), t.argument("hi"), body, lanes)
    return str(t)


def run(isa, name, inputs, result=None, lanes=None, **attrs):
    """The primitive on arrays, which are filled up to whole vectors; `result` is the dtype of its values."""
    dtypes = [x.dtype for x in inputs]
    dtype, lanes, size = np.dtype(result or dtypes[0]), lanes or isa.lanes("float"), len(inputs[0])
    whole = -(-size // lanes) * lanes
    padded = [np.concatenate([x, np.ones(whole - size, x.dtype)]) for x in inputs]
    output = np.empty(whole, dtype)
    (address,) = machine.addresses([Kernel.of(kernel(isa, name, dtypes, dtype, attrs, lanes), isa)], isa)
    table = np.array([x.ctypes.data for x in [*padded, output]], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(table.ctypes.data, 0, whole)
    return output[:size]


def defined(name, *inputs, **attrs):
    with np.errstate(all="ignore"):
        return np.asarray(PRIMITIVES[name].define(*inputs, **attrs))


def worst(result, exact):
    """The greatest error in units of the last place of `result`'s dtype; infinite where one is NaN and one is not."""
    dtype = result.dtype
    with np.errstate(all="ignore"):
        nearest = exact.astype(dtype)
        same = (result == nearest) | (np.isnan(result) & np.isnan(nearest))
        unit = np.spacing(np.maximum(np.abs(nearest), np.finfo(dtype).tiny)).astype(np.longdouble)
        # Infinity stands for the number after the greatest one.
        limit = np.longdouble(2) ** np.finfo(dtype).maxexp
        near, far = (np.clip(x.astype(np.longdouble), -limit, limit) for x in (result, exact))
        error = np.where(same & ~np.isfinite(nearest), 0, np.abs(near - far) / unit)
    return float(np.where(np.isnan(error), np.inf, error).max())


def sweep(dtype):
    """Every exponent and sign, densely where functions bend, and what is special."""
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        special = np.array(SPECIAL, dtype)
    around = rng.normal(size=60000) * np.repeat([10, 1, 0.1], 20000)
    if dtype == "float32":
        patterns = np.arange(0, 2**32, 2003, dtype=np.uint64).astype(np.uint32).view(np.float32)
    else:
        patterns = np.concatenate([rng.integers(0, 2**64, 50000, np.uint64).view(float), rng.uniform(-745, 710, 50000)])
    return np.concatenate([patterns, around.astype(dtype), special])


def small_numbers(dtype, seed=0):
    dtype, rng = np.dtype(dtype), np.random.default_rng(seed)
    if dtype.kind == "f":
        return np.array(list(itertools.product(SPECIAL, SPECIAL)), "float32").astype(dtype)[:, seed % 2]
    if dtype.kind == "b":
        return rng.random(100) > 0.5
    edges = [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1]
    return np.concatenate([edges, rng.permutation(edges), rng.integers(0, 99, 92)]).astype(dtype)


def check(isa, name, *inputs, **attrs):
    expected = defined(name, *inputs, **attrs)
    result = run(isa, name, inputs, expected.dtype, **attrs)
    np.testing.assert_array_equal(result, expected, err_msg=f"{isa.name} {name} {[x.dtype.name for x in inputs]}")


def test_every_pointwise_primitive_is_here():
    pointwise = {name for name, record in PRIMITIVES.items() if type(record.kind).__name__ == "Pointwise"}
    others = {*COMPARISONS, "logical_and", "logical_or", "logical_not", "isfinite", "sign", "floor", "ceil", "round"}
    others |= {"where", "cast", "identity", "stop_gradient"}
    assert set(FUNCTIONS) == pointwise | others


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("name", ULPS)
def test_elementary_functions(name, isa):
    for dtype, exact, bound in zip(FLOATS, ("float64", "longdouble"), ULPS[name], strict=True):
        x = sweep(dtype)
        with np.errstate(all="ignore"):
            assert worst(run(isa, name, [x]), defined(name, x.astype(exact))) < bound, f"{name} {dtype}"
        zero = np.array([-0.0, 0.0], dtype)
        np.testing.assert_array_equal(np.signbit(run(isa, name, [zero])), np.signbit(defined(name, zero)))


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("dtype", FLOATS)
def test_pow(dtype, isa):
    rng = np.random.default_rng(0)
    wide = np.longdouble if dtype == "float64" else np.float64
    x = np.abs(np.concatenate([sweep(dtype), (1 + rng.normal(size=9000) * 1e-3).astype(dtype)]))
    x = np.where((x > 0) & (x < np.inf) & (x != 1), x, 2).astype(dtype)
    limit = np.log(np.finfo(dtype).max)
    y = (rng.uniform(-limit, limit, x.size) / np.log(x.astype(wide))).astype(dtype)
    with np.errstate(all="ignore"):
        assert worst(run(isa, "pow", [x, y]), np.power(x.astype(wide), y.astype(wide))) < 1.5
        x, y = (np.array(part, dtype) for part in zip(*itertools.product(SPECIAL, SPECIAL), strict=True))
        assert worst(run(isa, "pow", [x, y]), np.power(x.astype(wide), y.astype(wide))) < 1.5
        for exponent in (0, 1, 2, 3, -1, 0.5, -0.5, 2.5, 7, -3):
            base = np.abs(sweep(dtype)) if exponent % 1 else sweep(dtype)
            exact = np.power(base.astype(wide), wide(exponent))
            # Two or three roundings; below the normal numbers a product is rounded in units of its own.
            assert worst(run(isa, "power", [base], exponent=exponent), exact) < 2, exponent


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_exact_functions(isa):
    for dtype in NUMBERS:
        x, y = small_numbers(dtype), small_numbers(dtype, 1)
        binary = ["add", "sub", "mul", "maximum", "minimum", *COMPARISONS]
        unary = ["identity", "stop_gradient"] + ["abs"] * (dtype != "bool")
        if dtype in FLOATS:
            binary.append("div")
            unary += ["relu", "floor", "ceil", "round", "sqrt", "isfinite"]
        if dtype not in UNSIGNED:
            unary += ["neg", "sign"]
        for name in binary:
            check(isa, name, x, y)
        for name in unary:
            check(isa, name, x)
        check(isa, "where", small_numbers("bool", 2)[np.arange(x.size) % 100], x, y)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_truth_values(isa):
    x, y = small_numbers("bool"), small_numbers("bool", 1)
    for name in ("logical_and", "logical_or", *COMPARISONS):
        check(isa, name, x, y)
    check(isa, "logical_not", x)
    check(isa, "where", x, y, ~y)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("source", DTYPES)
def test_cast(source, isa):
    for target in DTYPES:
        x = small_numbers(source)
        if source in FLOATS and target not in (*FLOATS, "bool"):
            x = np.array([0.0, -0.0, 1.5, 2.5, 100.9, *([] if target in UNSIGNED else [-1.5, -100.9])], source)
        with np.errstate(all="ignore"):
            check(isa, "cast", x, dtype=target)


@pytest.mark.parametrize("lanes", [1, 2, 64])
def test_any_number_of_lanes(lanes):
    isa, x = HERE[0], np.array([0.3, 4e7, -2, np.inf, 1e-40, 300], "float32")
    for name in (*ULPS, "relu", "isfinite"):
        dtype = defined(name, x).dtype
        np.testing.assert_array_equal(run(isa, name, [x], dtype, lanes), run(isa, name, [x], dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_machine_code_for_arm_calls_nothing(dtype):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("aarch64-linux-gnu").create_target_machine(opt=1)
    isa, dtype = ISAS["neon"], np.dtype(dtype)
    for name in (*ULPS, "pow", "maximum", "round"):
        dtypes = [dtype] * (2 if name in ("pow", "maximum") else 1)
        text = kernel(isa, name, dtypes, dtype, {}, isa.lanes(KINDS[dtype.name]))
        assembly = target.emit_assembly(llvm.parse_assembly(text, llvm.create_context()))
        assert "\tret" in assembly
        assert "\tbl\t" not in assembly, name
