"""Contractions in AMX's matrices, on any machine: what the instructions do is done by Python instead."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace
from typing import Any
from unittest import mock

import llvmlite.binding as llvm
import numpy as np
import pytest
from frames import AMX, CANARY, added, bits, call, framed, run, stored, strides, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import juanji as jj
from juanji.engine import platform, precision, profile
from juanji.engine.contract import Choice
from juanji.engine.planner import Planner
from juanji.engine.simplify import simplify
from juanji.kernels import machine, matrices, nest
from juanji.kernels.contraction import Contraction, Dim
from juanji.kernels.convolution import border, forward, weight_grad
from juanji.kernels.direct import direct
from juanji.kernels.isa import ISAS, host_features
from juanji.kernels.nest import build, ways
from juanji.kernels.pairs import Words
from juanji.ops.conv import weight_grad_define
from juanji.ops.convspec import ConvSpec

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


@st.composite
def convolutions(draw: Any) -> tuple[ConvSpec, int, int, int]:
    """Specifications, images, and channels in and out, whose weight gradients matrices can do."""
    taps = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = (2, 2) if taps == (1, 1) and draw(st.booleans()) else (1, 1)
    output = draw(st.integers(2, 5)), draw(st.sampled_from([4, 7, 8, 14, 20, 32]))
    padding = tuple(draw(st.integers(0, min(1, n - 1))) for n in taps)
    size = tuple((n - 1) * s + k - 2 * p for n, s, k, p in zip(output, stride, taps, padding, strict=True))
    groups = draw(st.sampled_from([1, 2]))
    spec = ConvSpec(size, taps, output, stride, padding, (1, 1), groups)
    return spec, draw(st.integers(1, 5)), groups * draw(st.integers(2, 20)), groups * draw(st.sampled_from([2, 16, 33]))


def weight_gradients(isa: Any, found: Any, blocks: tuple[int, ...] | None) -> None:
    """Check a weight gradient by matrices, maybe with the sum in other blocks than those of the model."""
    spec, n, cin, cout = found
    rng = np.random.default_rng(0)
    x, g = bits(rng.normal(size=(n, *spec.input, cin))), bits(rng.normal(size=(n, *spec.output, cout)))
    want = weight_grad_define(values(x), values(g), spec)
    _, x = framed(values(x), border("conv", spec), "bfloat", np.nan)
    _, g = framed(values(g), [(0, 0)] * 2, "bfloat", np.nan)
    face = weight_grad(spec, cin, cout, strides(x), strides(g), "float")
    face = replace(face, stored=("bfloat", "bfloat", ""))
    turned = Words.options(face, isa)[1]

    def only(*args: Any, **options: Any) -> Any:
        some = [(form, way) for form, way in ways(*args, **options) if way.matrices]
        return [(form, replace(way, blocks=way.blocks if blocks is None else blocks)) for form, way in some]

    # A name of its own, because kernels are remembered by the instruction set.
    with mock.patch.object(nest, "ways", only), mock.patch.object(Words, "options", return_value=[turned]):
        work = direct(face, replace(isa, name=f"blocks {blocks}"), n, lambda own: None)
    assert any("tdpbf16ps" in stage.text for stage in work.stages)
    dw = np.full(want.shape, CANARY, np.float32)
    memory = run(work.stages, work.memory, isa, a=x, b=g, c=dw)
    if work.parts:
        added(dw, memory["partial"], work.parts, work.strides)
    np.testing.assert_allclose(dw, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("isa", AMX, ids=str)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(found=convolutions())
def test_weight_gradients(isa: Any, found: Any) -> None:
    weight_gradients(isa, found, None)


@pytest.mark.parametrize("isa", AMX, ids=str)
@pytest.mark.parametrize("blocks", [(1,), (2,), (1, 2)], ids=str)
def test_sums_are_taken_up_again(isa: Any, blocks: tuple[int, ...]) -> None:
    """Between blocks of images, and of rows of pixels, sums lie in memory."""
    spec = ConvSpec((6, 8), (3, 3), (6, 8), (1, 1), (1, 1), (1, 1), 1)
    weight_gradients(isa, (spec, 9, 5, 17), blocks)


@pytest.mark.parametrize("isa", AMX, ids=str)
def test_what_is_left_at_edges_fits_too(isa: Any) -> None:
    """A box of rows that run on may be one matrix, and without its edges several."""
    spec = ConvSpec((6, 6), (1, 1), (8, 8), (1, 1), (1, 1), (1, 1), 1)
    face = forward(spec, 64, 64, (64 * 64, 8 * 64, 64), (64 * 64, 8 * 64, 64))
    face = replace(face, stored=("bfloat", "", "bfloat"))
    found = [way for way in ways(face, isa, keep_rows=False) if way[1].matrices]
    assert any("zeros left out" in str(way) for _, way in found)
    assert all(build(face, isa, way) for way in found)


@pytest.mark.parametrize("isa", AMX, ids=str)
def test_a_training_step_uses_them(isa: Any) -> None:
    """All three faces of a convolution in the middle of a network; only planned, because this machine may have none."""
    net = jj.nn.Sequential(
        *(layer for n in (3, 64, 64) for layer in (jj.nn.Conv2d(n, 64, 3, padding=1), jj.nn.ReLU())),
        jj.nn.AdaptiveAvgPool2d(1), jj.nn.Flatten(), jj.nn.Linear(64, 10),
    )  # fmt: skip
    optimiser = jj.optim.SGD(net, 0.1)

    def step(x: Any, y: Any) -> Any:
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(net)
        optimiser.update(net, grads)
        return loss

    graph = jj.trace(step, np.zeros((8, 16, 16, 3), np.float32), np.zeros(8, np.int64))
    draft = Planner(simplify(graph), isa, Choice(precision="bfloat16")).draft()
    found = {call.node.name for call in draft.calls if call.node and "tdpbf16ps" in call.kernel.text}
    assert found == {"conv", "conv_input_grad", "conv_weight_grad"}
    assert all("matrices" in call.reason for call in draft.calls if "tdpbf16ps" in call.kernel.text)


@pytest.mark.parametrize("isa", AMX, ids=str)
def test_machine_code(isa: Any) -> None:
    """Sums stay in their registers: inside the loop there are loads and products alone, and numbers that count."""
    contraction = Contraction(
        (Dim(2, 256 * 64, 0, 196 * 64),), (Dim(14, 16 * 64, 0, 14 * 64), Dim(14, 64, 0, 64)), Dim(64, 0, 1, 1),
        (Dim(3, 16 * 64, 3 * 64 * 64), Dim(3, 64, 64 * 64), Dim(64, 1, 64)), stored=("bfloat", "", "bfloat"),
    )  # fmt: skip
    text = build(contraction, isa).text
    target = llvm.Target.from_default_triple().create_target_machine(cpu="sapphirerapids", opt=2, jit=True)
    lines = [line.split("#")[0].strip() for line in target.emit_assembly(machine.optimised(text, isa)).splitlines()]
    products = [i for i, line in enumerate(lines) if line.startswith("tdpbf16ps")]
    begins = max(i for i, line in enumerate(lines[: products[0]]) if line.startswith(".LBB"))
    inside = lines[begins : products[-1] + 1]
    assert len(products) == 4
    assert sum(line.startswith("tileloadd") for line in inside) == 4
    assert not any("(%rsp)" in line for line in inside)
    assert profile.products(isa, "bfloat16") == 4 * 16 * 16 * 32
    peak = target.emit_assembly(machine.optimised(profile.peak_text(isa, "bfloat16"), isa))
    assert peak.count("tdpbf16ps") == 4


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A processor with AMX, and a system that answers as it is told."""
    monkeypatch.setattr(precision, "host_features", lambda: frozenset(precision.MATRICES | {"avx512bf16"}))
    monkeypatch.delenv("JUANJI_ISA", raising=False)
    precision.refused.cache_clear()
    yield lambda answer: monkeypatch.setattr(platform, "without_matrices", lambda: answer)
    precision.refused.cache_clear()


def test_the_system_is_asked_for_them(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    isa = ISAS["avx512"]
    asked("")
    assert precision.instructions("bfloat16", isa).matrices
    assert not precision.instructions("float32", isa).matrices
    monkeypatch.setenv("JUANJI_ISA", "avx512")
    assert not precision.instructions("bfloat16", isa).matrices


def test_a_refusal_is_said_once(asked: Any) -> None:
    asked("the system refuses AMX: Operation not permitted")
    with pytest.warns(UserWarning, match="refuses AMX: Operation not permitted; AVX512_BF16"):
        assert not precision.instructions("bfloat16", ISAS["avx512"]).matrices
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not precision.instructions("bfloat16", ISAS["avx512"]).matrices


@pytest.mark.skipif(sys.platform != "linux", reason="other systems are not asked")
def test_what_the_system_answers() -> None:
    assert bool(platform.without_matrices()) != (host_features() >= precision.MATRICES)
