"""Contractions in AMX's matrices, on any machine: what the instructions do is done by Python instead."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from frames import AMX, CANARY, bits, call, stored, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from juanji.kernels import matrices
from juanji.kernels.contraction import Contraction, Dim
from juanji.kernels.nest import build, ways

SIZES = st.tuples(
    st.tuples(st.just(3), st.integers(0, 1)),
    st.tuples(st.just(34), st.integers(0, 2)),
    st.tuples(st.just(3), st.integers(0, 2)),
)


def dense(sizes: list[int]) -> list[int]:
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


@st.composite
def products(draw: Any) -> Contraction:
    """Random sizes, the channels of A side by side in pairs, everything else in any order."""
    outer, rows, taps = ([draw(st.integers(1, most)) for _ in range(n)] for most, n in draw(SIZES))
    channels, lanes = draw(st.sampled_from([8, 14, 16, 24, 34, 40, 64])), draw(st.sampled_from([1, 3, 16, 17, 40]))
    sizes = [*outer, *rows, *taps]
    order = draw(st.permutations(range(len(sizes))))
    steps = dense([*(sizes[i] for i in order), channels])
    a = dict(zip(order, steps, strict=False))
    b, c = dense([*taps, channels, lanes]), dense([*outer, *rows, lanes])
    dims = [Dim(size, a[i]) for i, size in enumerate(sizes)]
    first, last = len(outer), len(outer) + len(rows)
    return Contraction(
        tuple(replace(d, c=step) for d, step in zip(dims[:first], c, strict=False)),
        tuple(replace(d, c=step) for d, step in zip(dims[first:last], c[first:], strict=False)),
        Dim(lanes, 0, 1, 1),
        (*(replace(d, b=step) for d, step in zip(dims[last:], b, strict=False)), Dim(channels, 1, b[-2])),
        stored=("bfloat", draw(st.sampled_from(["", "bfloat"])), draw(st.sampled_from(["", "bfloat"]))),
    )


def expected(problem: Contraction, a: Any, b: Any) -> Any:
    """The sums as C has them, in float64."""
    outer, rows, taps, lanes = problem.outer, problem.rows, problem.reduce, problem.lanes.size
    left = np.lib.stride_tricks.as_strided(
        a, [d.size for d in (*outer, *rows, *taps)], [a.itemsize * d.a for d in (*outer, *rows, *taps)]
    )
    flat = left.reshape(-1, math.prod(d.size for d in taps))
    return flat @ b.reshape(-1, lanes)


@pytest.mark.parametrize("isa", AMX, ids=str)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(problem=products(), data=st.data())
def test_contractions(isa: Any, problem: Contraction, data: Any) -> None:
    found = [way for way in ways(problem, isa, keep_rows=False) if way[1].matrices]
    assert found or not matrices.step(problem.paired().simplified())
    assume(found)
    way = data.draw(st.sampled_from(found))
    kernel = build(problem, isa, way)
    rng = np.random.default_rng(0)
    a_size = 1 + sum((d.size - 1) * d.a for d in (*problem.outer, *problem.rows, *problem.reduce))
    a, b = (
        bits(rng.normal(size=a_size)),
        rng.normal(size=math.prod(d.size for d in problem.reduce) * problem.lanes.size),
    )
    b = bits(b) if problem.stored[1] else b.astype(np.float32)
    total = math.prod(d.size for d in (*problem.outer, *problem.rows, problem.lanes))
    c = stored(np.full(total + 16, CANARY), problem.stored[2] or "float")
    packed = np.full(kernel.pack.size(), np.nan, np.float32)
    call(kernel.pack.text, isa, [b.ctypes.data, packed.ctypes.data], kernel.pack.tasks())
    call(kernel.text, isa, [x.ctypes.data for x in (a, packed, c)], kernel.tasks())
    want = expected(problem, values(a), values(bits(values(b)))).ravel()
    np.testing.assert_array_equal(values(c)[total:], CANARY)
    bound = np.abs(want).max() * (1e-5 if c.dtype == np.float32 else 1e-2)
    np.testing.assert_allclose(values(c)[:total], want, rtol=0, atol=bound)
