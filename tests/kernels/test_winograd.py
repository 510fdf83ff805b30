"""Convolutions by short algorithms against their definitions, in stages and in one kernel, and when they are chosen."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juanji as jj
from juanji.errors import ArgumentError, UnknownNameError
from juanji.kernels import choice, convolution, machine
from juanji.kernels.contraction import Contraction
from juanji.kernels.cooktoom import POINTS, algorithm, product, transposed
from juanji.kernels.isa import ISAS
from juanji.kernels.machine import Kernel
from juanji.kernels.text import Text, Value
from juanji.kernels.winograd import Outputs, Weights, Winograd
from juanji.ops.conv import conv_define, input_grad_define, weight_grad_define
from juanji.ops.convspec import ConvSpec

HERE = [isa for isa in ISAS.values() if not isa.missing()]
CANARY, ACCURACY = -7777.0, 4e-5


@pytest.mark.parametrize("products", [n for n in POINTS if n > 1])
def test_short_algorithms_are_convolutions(products: int) -> None:
    """Exactly, in fractions, for every number of taps."""
    for taps in range(2, products):
        found = algorithm(products, taps)
        x = [Fraction(3 * i * i - 7, 5) for i in range(products)]
        w = [Fraction(i * i + 1, 3) for i in range(taps)]

        def times(matrix: Any, vector: Any) -> list[Fraction]:
            return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]

        spectrum = [a * b for a, b in zip(times(found.data, x), times(found.taps, w), strict=True)]
        y = [sum(x[i + j] * w[j] for j in range(taps)) for i in range(found.step)]
        assert times(transposed(found.outputs), spectrum) == y


@pytest.mark.parametrize(("name", "operations"), [("data", 12), ("outputs", 8), ("taps", 9)])
def test_pairs_of_points_share_their_arithmetic(name: str, operations: int) -> None:
    t, matrix = Text(), getattr(algorithm(6, 3), name)
    product(t, matrix, [Value(f"%x{i}", "float", 16) for i in range(len(matrix[0]))])
    assert len(t.lines) == operations


def framed(x: Any, border: list[tuple[int, int]], outside: float) -> tuple[Any, Any]:
    """x in a buffer with a border of zeros and with `outside` all around; the buffer, and x within it."""
    inner = np.pad(x, [(0, 0), *border, (0, 0)])
    buffer = np.full((x.shape[0] + 2, *inner.shape[1:]), outside, np.float32)
    buffer[1:-1] = inner
    around = [(1, 1), *border, (0, 0)]
    return buffer, buffer[tuple(slice(low, low + n) for (low, _), n in zip(around, x.shape, strict=True))]


def strides(view: Any) -> tuple[int, ...]:
    return tuple(s // view.itemsize for s in view.strides[:-1])


def run(way: Winograd, **operands: Any) -> None:
    """All stages, every task by one of two threads, in memory that is NaN wherever nothing was written."""
    memory = {name: np.full(2 * size + 64, np.nan, np.float32) for name, size in way.memory().items()}
    memory |= operands
    for stage in way.stages(lambda count: None):
        (address,) = machine.addresses([Kernel.of(stage.text, way.isa)], way.isa)
        slots = [memory[slot].ctypes.data if isinstance(slot, str) else slot for slot in stage.slots]
        table = np.array(slots, np.int64)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)(address)
        for task in reversed(range(stage.tasks)):
            function(table.ctypes.data, task, task + 1, task % 2)


def close(found: Any, expected: Any) -> None:
    assert np.abs(found - expected).max() <= ACCURACY * max(np.abs(expected).max(), 1e-3)


def faces(spec: ConvSpec, n: int, cin: int, cout: int) -> Any:
    """Each face with its operands, its result between canaries, and what that should be."""
    rng = np.random.default_rng(0)
    shapes = (n, *spec.input, cin), (*spec.kernel, cin, cout), (n, *spec.output, cout)
    x, w, g = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    wide, none = [v.astype(np.float64) for v in (x, w, g)], [(0, 0)] * spec.rank
    xv, gv = (framed(v, convolution.border(face, spec), np.nan)[1] for v, face in ((x, "conv"), (g, "conv_input_grad")))
    (yb, y), (dxb, dx), (_, plain) = (
        framed(v, none, outside) for v, outside in ((g, CANARY), (x, CANARY), (g, np.nan))
    )
    dw = np.full(w.shape, np.nan, np.float32)
    forward = convolution.forward(spec, cin, cout, strides(xv), strides(y))
    yield forward, {"a": xv, "b": w, "c": y}, (yb, y), conv_define(wide[0], wide[1], spec)
    (backward,) = convolution.input_grad(spec, cin, cout, strides(gv), strides(dx))
    yield backward, {"a": gv, "b": w, "c": dx}, (dxb, dx), input_grad_define(wide[1], wide[2], spec)
    gradient = convolution.weight_grad(spec, cin, cout, strides(xv), strides(plain))
    yield gradient, {"a": xv, "b": plain, "c": dw}, (dw, dw), weight_grad_define(wide[0], wide[2], spec)


def check(spec: ConvSpec, n: int, cin: int, cout: int, products: int, tiles: int, strips: int, isa: Any) -> None:
    found = choice.algorithms(spec.kernel, products)
    assert found
    for contraction, operands, (buffer, result), expected in faces(spec, n, cin, cout):
        problem = replace(contraction.upward(), windows=(), scattered=None)
        for together in (strips, 0):
            way: Winograd
            if problem.sums_batch:
                way = Weights(problem, found, isa, n, tiles, together, 2 if together else 1)
            else:
                way = Outputs(problem, found, isa, n, tiles, together)
            result[...] = np.nan
            run(way, **operands)
            close(result, expected)
            assert (buffer == CANARY).sum() == buffer.size - result.size


PROBLEMS = [  # images, size, kernel, padding, channels in and out, products
    (3, (9, 9), (3, 3), (1, 1), 17, 33, 6),
    (2, (8, 13), (3, 3), (0, 2), 32, 48, 6),
    (2, (4, 4), (3, 3), (1, 1), 3, 5, 4),
    (1, (3, 3), (3, 3), (1, 1), 20, 70, 6),
    (2, (13, 14), (3, 3), (1, 1), 5, 16, 4),
    (2, (9, 8), (5, 5), (2, 2), 6, 16, 6),
    (3, (20,), (3,), (1,), 16, 40, 6),
    (2, (7, 9), (1, 3), (0, 1), 8, 12, 6),
    (2, (5, 6, 4), (3, 2, 3), (1, 0, 1), 4, 9, 4),
]


def specification(size: tuple[int, ...], kernel: tuple[int, ...], padding: tuple[int, ...]) -> ConvSpec:
    output = tuple(n + 2 * p - k + 1 for n, k, p in zip(size, kernel, padding, strict=True))
    ones = (1,) * len(size)
    return ConvSpec(size, kernel, output, ones, padding, ones)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_problems(problem: Any, isa: Any) -> None:
    n, size, kernel, padding, cin, cout, products = problem
    check(specification(size, kernel, padding), n, cin, cout, products, 5, 3, isa)


@st.composite
def problems(draw: Any) -> tuple[Any, ...]:
    rank, products = draw(st.sampled_from([(1, 6), (1, 4), (2, 6), (2, 4), (3, 4)]))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel = sizes(1, products - 1)
    kernel = tuple(k if products + 1 - k >= 2 else 1 for k in kernel)
    size = tuple(max(k, n) for k, n in zip(kernel, sizes(1, 12), strict=True))
    padding = tuple(min(p, k - 1) for p, k in zip(sizes(0, 2), kernel, strict=True))
    channels = draw(st.sampled_from([(1, 2), (2, 17), (16, 16), (35, 3)]))
    return specification(size, kernel, padding), draw(st.integers(1, 3)), *channels, products


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(found=problems(), tiles=st.integers(1, 14), strips=st.integers(1, 6))
def test_any_problem(isa: Any, found: Any, tiles: int, strips: int) -> None:
    check(*found, tiles, strips, isa)


# Choosing


def face(size: int, cin: int, cout: int, kernel: int = 3, **options: Any) -> Contraction:
    same = {"stride": 1, "dilation": 1, "groups": 1} | options
    p, s, d = same["dilation"] * (kernel // 2), same["stride"], same["dilation"]
    out = (size + 2 * p - d * (kernel - 1) - 1) // s + 1
    spec = ConvSpec((size,) * 2, (kernel,) * 2, (out,) * 2, (s,) * 2, (p,) * 2, (d,) * 2, same["groups"])
    wide = size + 2 * p
    kind = options.get("kind", "float")
    steps = (wide * wide * cin, wide * cin, cin), (out * out * cout, out * cout, cout)
    return convolution.forward(spec, cin, cout, *steps, kind)


@pytest.mark.parametrize(
    ("contraction", "why"),
    [
        (face(14, 64, 64), ""),
        (face(14, 64, 64, 1), "one tap"),
        (face(14, 64, 64, stride=2), "with a stride or a dilation"),
        (face(14, 64, 64, dilation=2), "with a stride or a dilation"),
        (face(14, 64, 64, groups=4), "in groups"),
        (face(14, 64, 64, groups=64), "no convolution"),
        (face(14, 64, 64, kind="double"), "for float32 only"),
        (convolution.matmul(8, 8, 8, (8, 1), (8, 1), 8), "no convolution"),
    ],
)
def test_what_has_a_short_algorithm(contraction: Contraction, why: str) -> None:
    assert choice.refusal(contraction) == why


@pytest.mark.skipif(bool(ISAS["avx512"].missing()), reason="no such vectors here")
@pytest.mark.parametrize(
    ("contraction", "batch", "chosen"),
    [(face(32, 64, 64), 128, True), (face(8, 256, 256), 128, True), (face(32, 3, 64), 128, False),
     (face(7, 512, 512), 1, False)],
)  # fmt: skip
def test_the_model_of_the_cost_chooses(contraction: Contraction, batch: int, chosen: bool) -> None:
    assert (choice.best(contraction, ISAS["avx512"], batch) is not None) is chosen


def gradients(algorithms: str) -> tuple[Any, list[str]]:
    """Loss and gradients of two convolutions with something at their ends, and the reasons for the plan's calls."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 24, 24, 64)).astype(np.float32)
    v, w = (rng.normal(size=(3, 3, 64, 64)).astype(np.float32) / 24 for _ in range(2))

    def loss(x: Any, v: Any, w: Any) -> Any:
        y = jj.relu(jj.conv(x, v, padding=1) + 0.1)
        return jj.tanh(jj.conv(y, w, padding=1) + y).sum()

    step = jj.compile(jj.value_and_grad(loss, argnums=(0, 1, 2)), algorithms=algorithms)
    return step(x, v, w), [call.reason for call in step.plan(x, v, w).calls]


def test_direct_convolution_can_be_asked_for() -> None:
    (short, some), (direct, none) = gradients("all"), gradients("direct")
    assert sum("Winograd" in reason for reason in some) == 6
    assert not any("Winograd" in reason for reason in none)
    for a, b in zip(jj.tree.leaves(short), jj.tree.leaves(direct), strict=True):
        close(a.array, b.array)


def test_options_that_there_are_not() -> None:
    with pytest.raises(UnknownNameError, match="no choice of algorithms named 'fast'"):
        jj.compile(jj.relu, algorithms="fast")
    with pytest.raises(ArgumentError, match="no such batch\n  received  batch=0"):
        jj.compile(jj.relu, batch=0)


def test_compile_with_options_is_a_decorator_too() -> None:
    @jj.compile(algorithms="direct")
    def double(x: Any) -> Any:
        return x * 2

    assert double(np.ones(2)).tolist() == [2, 2]


def test_the_error_of_every_layer_is_told_against_double_precision() -> None:
    """Of both operands' few images in a step as it is, which changes nothing."""
    rng = np.random.default_rng(0)
    net = jj.nn.Sequential(
        jj.nn.Conv2d(3, 64, 3, padding=1), jj.nn.ReLU(), jj.nn.Conv2d(64, 64, 3, padding=1), jj.nn.Tanh()
    )
    optimiser = jj.optim.SGD(net, 0.01, momentum=0.9)

    @jj.compile
    def step(x: Any) -> Any:
        loss, grads = jj.value_and_grad(lambda m: (m(x) ** 2).sum())(net)
        optimiser.update(net, grads)
        return loss

    x = rng.normal(size=(20, 24, 24, 3)).astype(np.float32)
    step(x)
    before = [cell.read().array for owner in (net, optimiser) for cell in owner.cells().values()]
    text = jj.explain_plan(step, x, accuracy=True)
    after = [cell.read().array for owner in (net, optimiser) for cell in owner.cells().values()]
    found = [float(error) for error in re.findall(r"error (\S+) of the largest value", text)]
    assert len(found) == len(re.findall(r"^ +Winograd, tiles", text, re.M)) == 3
    assert all(0 < error < ACCURACY for error in found)
    assert all(map(np.array_equal, before, after))
    assert re.search(r"not Winograd, tiles of .*; tile .* by \d vectors", text)
    assert "no short algorithm: one tap" not in text
