"""The faces of convolution in machine code against their definitions."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import frames
import numpy as np
import pytest
from frames import AMX, CANARY, DTYPES, HALVES_HERE, HERE, added, call, framed, stored, strides, untouched, values
from hypothesis import given, settings
from hypothesis import strategies as st

from juanji.kernels import convolution
from juanji.kernels import isa as isas
from juanji.kernels.contraction import BATCH, Contraction
from juanji.kernels.direct import direct
from juanji.kernels.isa import ISAS
from juanji.kernels.nest import Way, build, ways
from juanji.kernels.text import Text, Value
from juanji.kernels.tile import Place
from juanji.ops.conv import conv_define, input_grad_define, weight_grad_define
from juanji.ops.convspec import ConvSpec


def each_form(contraction: Contraction, isa: Any) -> list[Way]:
    """Every form of a contraction, in its cheapest way."""
    found = ways(contraction, isa, keep_rows=False)
    return list({form: (form, schedule) for form, schedule in reversed(found)}.values())


def run(contraction: Contraction, isa: Any, a: int, b: int, c: Any, batch: int, way: Way | None = None) -> None:
    """C of a contraction into the array c, whose address is given with those of A and B."""
    kernel = build(contraction, isa, way)
    dtype = DTYPES[contraction.kind]
    if kernel.pack:
        packed = np.full(kernel.pack.size(batch) + 32, CANARY, dtype)
        call(kernel.pack.text, isa, [b, packed.ctypes.data], kernel.pack.tasks(batch))
        assert untouched(packed[kernel.pack.size(batch) :]) == 32
        b = packed.ctypes.data
    found = kernel.parts(batch)
    chunks = kernel.chunks(batch)
    if not found:
        call(kernel.text, isa, [a, b, c.ctypes.data, batch, batch], kernel.tasks(batch))
        return
    parts = np.full((chunks + 1, kernel.partial), CANARY, dtype)
    call(kernel.text, isa, [a, b, parts.ctypes.data, batch, kernel.chunk_length(batch)], kernel.tasks(batch))
    assert untouched(parts[chunks]) == kernel.partial
    added(c, parts, found, kernel.part_strides)


def check(spec: ConvSpec, n: int, cin: int, cout: int, kind: str, isa: Any) -> None:
    """Every form of every face. In bfloat16, so are the numbers, which leaves sums, and the rounding of results."""
    rng = np.random.default_rng(0)
    half = "bfloat" if kind == "bfloat" else ""
    sums = "float" if half else kind
    tolerance = {"float": 2e-4, "double": 1e-11}[sums]

    def draw(*shape: int) -> Any:
        return values(stored(rng.standard_normal(shape), kind))

    def close(found: Any, expected: Any) -> None:
        step = 2**-8 if found.dtype == np.uint16 else 0  # of a bfloat16
        error = np.abs(values(found) - expected) - step * np.abs(expected)
        assert error.max() <= tolerance * (np.abs(expected).max() + 1)

    x, g, w = draw(n, *spec.input, cin), draw(n, *spec.output, cout), draw(*spec.kernel, cin // spec.groups, cout)
    none = [(0, 0)] * spec.rank
    _, gv = framed(g, none, kind, np.nan)
    weights = np.full(w.size + 64, np.nan, DTYPES[sums])
    weights[32:-32] = w.ravel()
    wp = weights[32:].ctypes.data

    _, xv = framed(x, convolution.border("conv", spec), kind, np.nan)
    buffer, y = framed(np.full_like(g, np.nan), none, kind, CANARY)
    face = convolution.forward(spec, cin, cout, strides(xv), strides(y), sums)
    face = replace(face, stored=(half, "", half))
    for way in each_form(face, isa):
        y[...] = stored(np.nan, kind)
        run(face, isa, xv.ctypes.data, wp, y, n, way)
        close(y, conv_define(x, w, spec))
        assert untouched(buffer) == buffer.size - y.size

    face = convolution.weight_grad(spec, cin, cout, strides(xv), strides(gv), sums)
    face = replace(face, stored=(half, half, ""))
    expected = weight_grad_define(x, g, spec)
    for way in each_form(face, isa):
        dw = np.full(w.shape, CANARY, DTYPES[sums])
        run(face, isa, xv.ctypes.data, gv.ctypes.data, dw, n, way)
        close(dw, expected)
    if half:
        dw = np.full(w.shape, CANARY, DTYPES[sums])
        work = direct(face, isa, n, lambda own: None)
        found = frames.run(work.stages, work.memory, isa, a=xv, b=gv, c=dw)
        if work.parts:
            added(dw, found["partial"], work.parts, work.strides)
        close(dw, expected)

    _, gv = framed(g, convolution.border("conv_input_grad", spec), kind, np.nan)
    buffer, dx = framed(np.full_like(x, np.nan), none, kind, CANARY)
    sectors = [
        replace(face, stored=(half, "", half))
        for face in convolution.input_grad(spec, cin, cout, strides(gv), strides(dx), sums)
    ]
    for chosen in itertools.zip_longest(*(each_form(face, isa) for face in sectors)):
        dx[...] = stored(np.nan, kind)
        for face, some in zip(sectors, chosen, strict=True):
            run(face, isa, gv.ctypes.data, wp, dx, n, some)
        close(dx, input_grad_define(w, g, spec))
        assert untouched(buffer) == buffer.size - dx.size


def problem(*numbers: int) -> tuple[ConvSpec, int, int, int]:
    """(N, C, H, K, R, stride, padding, groups) in two dimensions."""
    n, c, h, k, r, s, p, groups = numbers
    y = (h + 2 * p - r) // s + 1
    return ConvSpec((h, h), (r, r), (y, y), (s, s), (p, p), (1, 1), groups), n, c, k


PROBLEMS = [
    (2, 16, 9, 32, 3, 1, 1, 1),
    (3, 3, 17, 20, 7, 2, 3, 1),
    (2, 1, 12, 6, 5, 1, 2, 1),
    (2, 40, 7, 70, 1, 1, 0, 1),
    (1, 37, 8, 37, 3, 1, 1, 37),
    (2, 8, 8, 12, 3, 2, 1, 4),
    (20, 4, 5, 6, 3, 1, 1, 1),
    (2, 48, 4, 130, 3, 2, 1, 1),
    (3, 6, 14, 16, 5, 1, 0, 1),
    (2, 3, 12, 20, 3, 1, 1, 1),
    (2, 4, 12, 3, 3, 2, 1, 1),
    (3, 120, 4, 256, 1, 1, 0, 1),
    (2, 24, 9, 24, 3, 2, 1, 6),
    (2, 16, 6, 16, 3, 1, 1, 2),
]


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("kind", ["float", "double"])
@pytest.mark.parametrize("numbers", PROBLEMS, ids=str)
def test_problems(numbers: tuple[int, ...], kind: str, isa: Any) -> None:
    spec, n, c, k = problem(*numbers)
    check(spec, n, c, k, kind, isa)


def faces(spec: ConvSpec, cin: int, cout: int) -> dict[str, Contraction]:
    """The faces of a problem between dense images in one border."""
    wide, (h, _), (y, _) = spec.low[0], spec.input, spec.output
    x, dx, g = ((n * n * c, n * c, c) for n, c in ((h + 2 * wide, cin), (h, cin), (y, cout)))
    gv = tuple(n * cout for n in ((y + 2 * h) ** 2, y + 2 * h, 1))
    return {
        "forward": convolution.forward(spec, cin, cout, x, g),
        "input_grad": convolution.input_grad(spec, cin, cout, gv, dx)[0],
        "weight_grad": convolution.weight_grad(spec, cin, cout, x, g),
    }


@pytest.mark.skipif(bool(ISAS["avx512"].missing()), reason="no such vectors here")
@pytest.mark.parametrize(
    ("numbers", "face", "note"),
    [
        ((64, 1, 28, 6, 5, 1, 2, 1), "forward", "2 pixels as lanes"),
        ((64, 1, 28, 6, 5, 1, 2, 1), "weight_grad", "2 pixels as lanes"),
        ((64, 6, 14, 16, 5, 1, 0, 1), "forward", ""),
        ((64, 6, 14, 16, 5, 1, 0, 1), "input_grad", "added up in memory"),
        ((8, 64, 56, 64, 3, 1, 1, 1), "input_grad", ""),
        ((8, 128, 28, 128, 3, 1, 1, 32), "forward", "4 groups as lanes"),
        ((8, 64, 28, 64, 3, 1, 1, 8), "input_grad", "2 groups as lanes"),
        ((8, 512, 7, 512, 3, 1, 1, 1), "forward", "zeros left out"),
        ((8, 512, 7, 512, 3, 1, 1, 1), "weight_grad", "zeros left out"),
    ],
    ids=str,
)
def test_few_lanes_are_filled(numbers: tuple[int, ...], face: str, note: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(isas, "HALVES", ())
    spec, _, c, k = problem(*numbers)
    best = ways(faces(spec, c, k)[face], ISAS["avx512"], keep_rows=False)
    assert best[0][1].note == note
    assert all(x.cycles <= y.cycles for (_, x), (_, y) in itertools.pairwise(best))


@pytest.mark.skipif(bool(ISAS["avx512"].missing()), reason="no such vectors here")
@pytest.mark.parametrize(
    ("numbers", "note"), [((8, 3, 32, 8, 5, 1, 0, 1), "half as wide"), ((8, 3, 32, 16, 5, 1, 0, 1), "")], ids=str
)
def test_few_lanes_may_have_vectors_half_as_wide(numbers: tuple[int, ...], note: str, monkeypatch: Any) -> None:
    """Where the processor takes wide ones as two halves: with all forms, and with an epilogue."""
    isa = ISAS["avx512"]
    monkeypatch.setattr(isas, "HALVES", (isas.host_name(),))
    spec, n, c, k = problem(*numbers)
    assert ways(faces(spec, c, k)["forward"], isa, keep_rows=False)[0][1].note == note
    check(spec, n, c, k, "float", isa)
    check_epilogue(numbers, "forward", isa)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize(("numbers", "face"), [(PROBLEMS[2], "forward"), (PROBLEMS[8], "input_grad")], ids=str)
def test_epilogue_sees_pixels_and_channels(numbers: tuple[int, ...], face: str, isa: Any) -> None:
    """However a contraction is written, its epilogue gets the indices of the contraction as it is given."""
    check_epilogue(numbers, face, isa)


def check_epilogue(numbers: tuple[int, ...], face: str, isa: Any) -> None:
    spec, n, c, k = problem(*numbers)
    contraction = faces(spec, c, k)[face]
    size = 1 + sum((n if d.size == BATCH else d.size) * abs(d.a) for d in (*contraction.outer, *contraction.rows))
    images = math.prod(d.size for d in contraction.rows) * contraction.lanes.size
    extents = [d.size for d in contraction.rows]

    def epilogue(t: Text, place: Place, sums: Value, mask: Value | None) -> None:
        at: Any = place.lane
        for i, step in zip((place.outer[0], *place.rows), (images, *(d.c for d in contraction.rows)), strict=True):
            at = t.add(at, t.mul(i, step))
        factor = t.load(t.at(t.slot(4), at, "float"), "float", sums.lanes, mask)
        t.store(t.op("fmul", sums, factor), t.at(t.slot(2), at, "float"), mask)

    rng = np.random.default_rng(0)
    a, b = (np.asarray(rng.standard_normal(m), np.float32) for m in (3 * size, c * k * math.prod(spec.kernel)))
    factors = np.asarray(rng.standard_normal((n, *extents, contraction.lanes.size)), np.float32)
    plain, found = np.full_like(factors, CANARY), np.full_like(factors, CANARY)
    start = a[size:].ctypes.data
    run(contraction, isa, start, b.ctypes.data, plain, n)
    kernel = build(contraction, isa, epilogue=epilogue)
    packed = np.zeros(kernel.pack.size(n) if kernel.pack else 1, np.float32)
    if kernel.pack:
        call(kernel.pack.text, isa, [b.ctypes.data, packed.ctypes.data], kernel.pack.tasks(n))
    read = packed if kernel.pack else b
    slots = [start, read.ctypes.data, found.ctypes.data, n, factors.ctypes.data]
    call(kernel.text, isa, slots, kernel.tasks(n))
    np.testing.assert_allclose(found, plain * factors, rtol=1e-5, atol=1e-5)


@st.composite
def problems(draw: Any) -> tuple[ConvSpec, int, int, int]:
    rank = draw(st.integers(1, 3))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    per = draw(st.sampled_from([(1, 1), (1, 2), (3, 5), (5, 17), (2, 33)]))
    spec = ConvSpec(sizes(1, 6), sizes(1, 3), sizes(1, 5), sizes(1, 3), sizes(-2, 3), sizes(1, 3), groups)
    return spec, draw(st.integers(1, 3)), groups * per[0], groups * per[1]


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(found=problems(), kind=st.sampled_from(["float", "double"]))
def test_any_spec(isa: Any, found: tuple[ConvSpec, int, int, int], kind: str) -> None:
    check(*found, kind, isa)


@pytest.mark.parametrize("isa", [*HALVES_HERE, *AMX], ids=str)
@pytest.mark.parametrize("numbers", PROBLEMS, ids=str)
def test_problems_in_bfloat16(numbers: tuple[int, ...], isa: Any) -> None:
    spec, n, c, k = problem(*numbers)
    check(spec, n, c, k, "bfloat", isa)


@pytest.mark.parametrize("isa", [*HALVES_HERE, *AMX], ids=str)
@settings(max_examples=30, deadline=None, derandomize=True)
@given(found=problems())
def test_any_spec_in_bfloat16(isa: Any, found: tuple[ConvSpec, int, int, int]) -> None:
    check(*found, "bfloat", isa)
