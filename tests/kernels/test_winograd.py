"""Convolutions by short algorithms against their definitions, in stages and in one kernel, and when they are chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import frames
import numpy as np
import pytest
from frames import AMX, CANARY, HALVES_HERE, HERE, framed, stored, strides, untouched, values
from hypothesis import given, settings
from hypothesis import strategies as st

import juanji as jj
from juanji.errors import ArgumentError, UnknownNameError
from juanji.kernels import choice, convolution
from juanji.kernels import isa as isas
from juanji.kernels.contraction import Contraction
from juanji.kernels.convolution import border
from juanji.kernels.cooktoom import POINTS, algorithm, product, transposed
from juanji.kernels.isa import ISAS
from juanji.kernels.spectra import Spectra, Tiling
from juanji.kernels.text import Text, Value
from juanji.kernels.winograd import Outputs, Weights, Winograd
from juanji.ops.conv import conv_define, input_grad_define, weight_grad_define
from juanji.ops.convspec import ConvSpec

ACCURACY, HALF_ACCURACY = 4e-5, 5e-2  # of the largest value


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


def run(way: Winograd, **operands: Any) -> None:
    frames.run(way.stages(lambda count: None), way.memory(), way.isa, **operands)


def close(found: Any, expected: Any, accuracy: float = ACCURACY) -> None:
    assert np.abs(found - expected).max() <= accuracy * max(np.abs(expected).max(), 1e-3)


def faces(spec: ConvSpec, n: int, cin: int, cout: int, kind: str) -> Any:
    """Each face with its operands, its result between canaries, and what that should be."""
    rng = np.random.default_rng(0)
    shapes = (n, *spec.input, cin), (*spec.kernel, cin, cout), (n, *spec.output, cout)
    x, w, g = (values(stored(rng.standard_normal(shape), kind)) for shape in shapes)
    none, weights = [(0, 0)] * spec.rank, stored(w, "float")
    halves = ("bfloat", "bfloat") if kind == "bfloat" else ("", "")
    xv, gv = (framed(v, border(face, spec), kind, np.nan)[1] for v, face in ((x, "conv"), (g, "conv_input_grad")))
    (yb, y), (dxb, dx) = (framed(v, none, "float", CANARY) for v in (g, x))
    _, plain = framed(g, none, kind, np.nan)
    dw = np.full(w.shape, np.nan, np.float32)
    forward = convolution.forward(spec, cin, cout, strides(xv), strides(y))
    yield replace(forward, stored=(halves[0], "", "")), (xv, weights, y), yb, conv_define(x, w, spec)
    (backward,) = convolution.input_grad(spec, cin, cout, strides(gv), strides(dx))
    yield replace(backward, stored=(halves[0], "", "")), (gv, weights, dx), dxb, input_grad_define(w, g, spec)
    gradient = convolution.weight_grad(spec, cin, cout, strides(xv), strides(plain))
    yield replace(gradient, stored=(*halves, "")), (xv, plain, dw), dw, weight_grad_define(x, g, spec)


def variants(problem: Contraction, *known: Any, strips: int, half: bool) -> Iterator[Winograd]:
    """In one kernel and in stages; all products in bfloat16 too, where that can be."""
    for together in (strips, 0):
        way: Winograd
        if problem.sums_batch:
            way = Weights(problem, *known, together, 2 if together else 1)
        else:
            way = Outputs(problem, *known, together)
        yield way
        if half and choice.pairable(way):
            yield replace(way, pair=True)


def check(
    spec: ConvSpec, n: int, cin: int, cout: int, products: int, tiles: int, strips: int, isa: Any, kind: str = "float"
) -> None:
    found = choice.algorithms(spec.kernel, products)
    assert found
    for contraction, operands, buffer, expected in faces(spec, n, cin, cout, kind):
        problem, result = replace(contraction.upward(), windows=(), scattered=None), operands[-1]
        for way in variants(problem, found, isa, n, tiles, strips=strips, half=kind == "bfloat"):
            result[...] = np.nan
            run(way, **dict(zip("abc", operands, strict=True)))
            close(result, expected, HALF_ACCURACY if way.pair else ACCURACY)
            assert untouched(buffer) == buffer.size - result.size


PROBLEMS = [  # images, size, kernel, padding, channels in and out, products
    (3, (9, 9), (3, 3), (1, 1), 17, 33, 6),
    (2, (8, 13), (3, 3), (0, 2), 32, 48, 6),
    (2, (4, 4), (3, 3), (1, 1), 3, 5, 4),
    (1, (3, 3), (3, 3), (1, 1), 20, 70, 6),
    (2, (13, 14), (3, 3), (1, 1), 5, 16, 4),
    (2, (9, 8), (5, 5), (2, 2), 6, 16, 6),
    (3, (11, 7), (5, 5), (2, 2), 6, 17, 8),
    (2, (9, 5), (7, 1), (3, 0), 20, 12, 8),
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


@pytest.mark.parametrize("isa", [*HALVES_HERE, *AMX], ids=str)
@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_problems_in_bfloat16(problem: Any, isa: Any) -> None:
    n, size, kernel, padding, cin, cout, products = problem
    check(specification(size, kernel, padding), n, cin, cout, products, 6, 3, isa, "bfloat")


@pytest.mark.parametrize("channels", [3, 7])
@pytest.mark.parametrize(("isa", "halves"), [*((isa, True) for isa in HERE), (HERE[0], False)], ids=str)
def test_tiles_of_few_channels_share_vectors(monkeypatch: Any, isa: Any, halves: bool, channels: int) -> None:
    """As many as fit, whatever the width of vectors, and those that are left over by themselves."""
    monkeypatch.setattr(isas, "HALVES", (isas.host_name(),) if halves else ())
    spec, strips = specification((10, 26), (5, 5), (2, 2)), 2
    tiles = strips * Tiling(spec.output, (4, 4)).width
    check(spec, 3, channels, 9, 8, tiles, strips, isa)


@pytest.mark.parametrize(("halves", "expected"), [(False, [4, 4, 2, 1]), (True, [2, 2, 1, 1])])
def test_how_many_tiles_share_a_vector(monkeypatch: Any, halves: bool, expected: list[int]) -> None:
    monkeypatch.setattr(isas, "HALVES", (isas.host_name(),) if halves else ())
    for channels, count in zip((3, 4, 8, 16), expected, strict=True):
        way = Outputs(face(28, channels, 8, 5), known(5, 8), ISAS["avx512"], 1, 14, 2)
        assert way.data.beside(way.width(channels), way.tiling) == count
        # Of seven tiles in a row some are by themselves.
        assert ("shufflevector" in way.gathering()) is (count > 1)
        assert way.tiling.groups(count) == 7 // count + 7 % count
        assert replace(way, tiles=13).data.beside(way.width(channels), way.tiling) == 1


def known(taps: int, products: int) -> Any:
    found = choice.algorithms((taps, taps), products)
    assert found
    return found


@pytest.mark.parametrize(
    ("size", "batch", "strips", "of_weights"), [(28, 128, 8, 8), (10, 128, 16, 12), (28, 20, 9, 9), (28, 2, 0, 0)]
)
def test_tasks_end_at_nearly_the_same_time(size: int, batch: int, strips: int, of_weights: int) -> None:
    """Of 896 strips of 7 tiles 9 would be 100 tasks, or 7 rounds of 16 chunks of which the last has 4."""
    isa = ISAS["avx512"]
    output = Outputs(unpadded(size, 8, 16), known(5, 8), isa, batch, 1, 0)
    weight = Weights(unpadded(size, 8, 16, convolution.weight_grad), known(5, 8), isa, batch, 1, 0)
    assert choice.strips_of_a_task(output, choice.TASKS) == strips
    assert choice.strips_of_a_task(weight, choice.CHUNKS) == of_weights
    for way in choice.weights(weight.contraction, known(5, 8), isa, batch, False):
        assert not way.strips or way.chunks == choice.CHUNKS


@pytest.mark.parametrize("channels", [1, 3, 8, 17, 64, 256])
def test_elements_of_a_tile_lie_an_odd_number_of_lines_apart(channels: int) -> None:
    for tiles in range(1, 65):
        plane = Spectra(36, tiles, channels, "float").plane
        assert plane % 16 == 0
        assert plane // 16 % 2 == 1
        assert plane >= tiles * channels


@st.composite
def problems(draw: Any) -> tuple[Any, ...]:
    rank, products = draw(st.sampled_from([(1, 8), (1, 6), (1, 4), (2, 8), (2, 6), (2, 4), (3, 4)]))

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    kernel = sizes(1, products - 1)
    kernel = tuple(k if 2 <= products + 1 - k <= choice.OUTPUTS else 1 for k in kernel)
    size = tuple(max(k, n) for k, n in zip(kernel, sizes(1, 12), strict=True))
    padding = tuple(min(p, k - 1) for p, k in zip(sizes(0, 2), kernel, strict=True))
    channels = draw(st.sampled_from([(1, 2), (2, 17), (3, 8), (16, 16), (35, 3)]))
    return specification(size, kernel, padding), draw(st.integers(1, 3)), *channels, products


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(found=problems(), tiles=st.integers(1, 14), strips=st.integers(1, 6))
def test_any_problem(isa: Any, found: Any, tiles: int, strips: int) -> None:
    check(*found, tiles, strips, isa)


@pytest.mark.parametrize("isa", [*HALVES_HERE, *AMX], ids=str)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(found=problems(), tiles=st.integers(1, 14), strips=st.integers(1, 6))
def test_any_problem_in_bfloat16(isa: Any, found: Any, tiles: int, strips: int) -> None:
    check(*found, tiles, strips, isa, "bfloat")


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


def unpadded(size: int, cin: int, cout: int, make: Any = convolution.forward) -> Contraction:
    """A face of a convolution by 5×5 taps with so many outputs."""
    wide, ones = size + 4, (1, 1)
    spec = ConvSpec((wide,) * 2, (5, 5), (size,) * 2, ones, (0, 0), ones)
    return make(spec, cin, cout, (wide * wide * cin, wide * cin, cin), (size * size * cout, size * cout, cout))


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
    assert len(found) == len(re.findall(r"^ +Winograd, tiles", text, re.M)) == 4
    assert all(0 < error < ACCURACY for error in found)
    assert all(map(np.array_equal, before, after))
    assert re.search(r"not Winograd, tiles of .*; tile .* by \d vectors", text)
    assert "no short algorithm: one tap" not in text
