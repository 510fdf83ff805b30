"""Contractions of any strides in machine code against NumPy, and what the machine code looks like."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from typing import Any, cast

import llvmlite.binding as llvm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juanji.kernels import convolution, machine
from juanji.kernels.contraction import BATCH, Contraction, Dim, merged
from juanji.kernels.isa import ISAS
from juanji.kernels.machine import Kernel
from juanji.kernels.nest import ContractionKernel, build, ways
from juanji.kernels.schedule import columns, runs
from juanji.kernels.text import Text, Value
from juanji.kernels.tile import Place
from juanji.ops.convspec import ConvSpec

HERE = [isa for isa in ISAS.values() if not isa.missing()]
CANARY = -7777.0


def run(kernel: ContractionKernel, isa: Any, a: Any, b: Any, c: Any, batch: int, *more: Any) -> None:
    """A kernel, after its packing, one task at a time, the last one first."""
    pointers = [x.ctypes.data for x in (a, b, c)]
    calls = [(kernel.text, pointers, kernel.tasks(batch))]
    if kernel.pack:
        packed = np.full(kernel.pack.size(batch), np.nan, a.dtype)
        calls.insert(0, (kernel.pack.text, [pointers[1], packed.ctypes.data], kernel.pack.tasks(batch)))
        pointers[1] = packed.ctypes.data
    for text, slots, tasks in calls:
        (address,) = machine.addresses([Kernel.of(text, isa)], isa)
        table = np.array([*slots, batch, kernel.chunk_length(batch), *(x.ctypes.data for x in more)], np.int64)
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
        for task in reversed(range(tasks)):
            function(table.ctypes.data, task, task + 1)


def offsets(dims: tuple[Dim, ...], operand: str) -> Any:
    """Where all elements of some dimensions lie in an operand, flat."""
    places = np.zeros(1, np.int64)
    for d in dims:
        places = (places[:, None] + np.arange(d.size) * getattr(d, operand)).ravel()
    return places


def expected(problem: Contraction, a: Any, b: Any, c: Any) -> None:
    """The definition: A and B as matrices, for each outer index."""
    lanes = (problem.lanes,)
    starts = zip(*(offsets(problem.outer, operand) for operand in "abc"), strict=True)
    for at_a, at_b, at_c in starts:
        rows = at_a + problem.a0 + offsets(problem.rows, "a")[:, None, None]
        left = a[rows + offsets(problem.reduce, "a")[:, None] + offsets(lanes, "a")]
        right = b[at_b + problem.b0 + offsets(problem.reduce, "b")[:, None] + offsets(lanes, "b")]
        c[at_c + problem.c0 + offsets(problem.rows, "c")[:, None] + offsets(lanes, "c")] = (left * right).sum(1)


def dense(sizes: list[int], order: list[int]) -> list[int]:
    """Strides of dimensions that lie in memory in some order, the last of it running fastest."""
    steps, total = [0] * len(sizes), 1
    for axis in reversed(order):
        steps[axis], total = total, total * sizes[axis]
    return steps


@st.composite
def contractions(draw: Any) -> Contraction:
    """Random sizes; A and B with their dimensions in a random order, some of them downwards."""
    count = [draw(st.integers(0, 2)), draw(st.integers(0, 3)), draw(st.integers(0, 3))]
    outer, rows, reduce = ([draw(st.integers(1, 6)) for _ in range(n)] for n in count)
    lanes = draw(st.sampled_from([1, 3, 8, 16, 17, 40, 70]))
    vector = draw(st.booleans())
    a = dense([*outer, *rows, *reduce, lanes if vector else 1], [*draw(st.permutations(range(sum(count)))), sum(count)])
    b = dense([*outer, *reduce, lanes], draw(st.permutations(range(count[0] + count[2] + 1))))
    c = dense([*outer, *rows, lanes], [*draw(st.permutations(range(count[0] + count[1]))), count[0] + count[1]])
    signs = [draw(st.sampled_from([1, -1])) for _ in reduce]
    o, r = count[0], count[0] + count[1]
    falls = [(n - 1, x, y) for n, x, y, s in zip(reduce, a[r:], b[o:], signs, strict=False) if s < 0]
    return Contraction(
        tuple(Dim(n, *steps) for n, *steps in zip(outer, a, b, c, strict=False)),
        tuple(Dim(n, x, 0, z) for n, x, z in zip(rows, a[o:], c[o:], strict=False)),
        Dim(lanes, 1 if vector else 0, b[-1], 1),
        tuple(Dim(n, s * x, s * y) for n, x, y, s in zip(reduce, a[r:], b[o:], signs, strict=False)),
        draw(st.sampled_from(["float", "double"])),
        sum(n * x for n, x, _ in falls),
        sum(n * y for n, _, y in falls),
    )


def sized(dims: tuple[Dim, ...], batch: int) -> tuple[Dim, ...]:
    return tuple(replace(d, size=batch) if d.size == BATCH else d for d in dims)


def check(problem: Contraction, isa: Any, batch: int = 1) -> None:
    """Operands between NaN, and C between canaries, neither of which may be read or written."""
    outer, rows, reduce = (sized(dims, batch) for dims in (problem.outer, problem.rows, problem.reduce))
    known = replace(problem, outer=outer, rows=rows, reduce=reduce)
    dtype = np.float32 if problem.kind == "float" else np.float64
    rng = np.random.default_rng(0)
    margin, arrays = 64, []
    dims = (*known.outer, *known.rows, known.lanes, *known.reduce)
    for operand in "abc":
        size = 1 + sum((d.size - 1) * abs(getattr(d, operand)) for d in dims)
        array = np.full(size + 2 * margin, CANARY if operand == "c" else np.nan, dtype)
        if operand != "c":
            array[margin:-margin] = rng.standard_normal(size)
        arrays.append(array)
    a, b, c = (array[margin:] for array in arrays)
    wanted = arrays[2].astype(np.float64)
    expected(known, a.astype(np.float64), b.astype(np.float64), wanted[margin:])
    run(build(problem, isa), isa, a, b, c, batch)
    np.testing.assert_allclose(arrays[2], wanted, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(problem=contractions())
def test_any_contraction(isa: Any, problem: Contraction) -> None:
    check(problem, isa)


MATMULS = [
    convolution.matmul(BATCH, 30, 40, (30, 1), (40, 1), 40),
    convolution.matmul(BATCH, 5, 3, (5, 1), (1, 5), 3),
    convolution.matmul(33, BATCH, 20, (1, 33), (20, 1), 20),
    convolution.matmul(7, 9, 70, (9, 1), (1, 9), 70, (Dim(BATCH, 63, 630, 490),), "double"),
    convolution.matmul(6, 0, 20, (1, 1), (20, 1), 20),
]


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("batch", [1, 3, 14, 47])
@pytest.mark.parametrize("problem", MATMULS, ids=range(len(MATMULS)))
def test_matmul(problem: Contraction, batch: int, isa: Any) -> None:
    kernel = build(problem, isa)
    if not problem.sums_batch or kernel.chunks(batch) == 1:
        check(problem, isa, batch)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_every_schedule_gives_the_same_bits(isa: Any) -> None:
    problem = Contraction(
        (Dim(BATCH, 700, 0, 700),), (Dim(5, 70, 0, 100), Dim(5, 7, 0, 20)), Dim(20, 0, 1, 1), (Dim(7, 1, 20),)
    )
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(2000).astype(np.float32), rng.standard_normal(200).astype(np.float32)
    found = []
    for way in ways(problem, isa, keep_rows=False):
        c = np.zeros(2000, np.float32)
        run(build(problem, isa, way), isa, a, b, c, 2)
        found.append(c)
    assert len(found) > 3
    assert all(np.array_equal(c, found[0]) for c in found)


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
def test_epilogue(isa: Any) -> None:
    """A bias and a residual of other strides: the indices of a place are those of the contraction as it is given."""
    n, h, k, c = 2, 4, 6, 21
    x, w = np.random.default_rng(0).standard_normal((n, h, h, k)), np.random.default_rng(1).standard_normal((k, c))
    bias, residual = np.arange(c, dtype=float), np.random.default_rng(2).standard_normal((n, h + 2, h + 3, c))

    def epilogue(t: Text, place: Place, acc: Value, mask: Value | None) -> None:
        (image, _), (p, q) = place.outer, place.rows
        at = t.add(t.mul(image, (h + 2) * (h + 3) * c), t.add(t.mul(p, (h + 3) * c), t.add(t.mul(q, c), place.lane)))
        for slot, offset in ((5, place.lane), (6, at)):
            pointer = t.at(t.slot(slot), offset, "double")
            acc = t.op("fadd", acc, t.load(pointer, "double", acc.lanes, mask))
        t.store(acc, t.at(t.slot(2), place.offset, "double"), mask)

    spec = ConvSpec((h, h), (1, 1), (h, h), (1, 1), (0, 0), (1, 1))
    steps = (h * h * k, h * k, k), (h * h * c, h * c, c)
    kernel = build(convolution.forward(spec, k, c, *steps, "double"), isa, epilogue=epilogue)
    y = np.zeros((n, h, h, c))
    run(kernel, isa, x, w, y, n, bias, residual)
    np.testing.assert_allclose(y, x @ w + bias + residual[:, :h, :h], atol=1e-12)


def inner_loops(assembly: str) -> list[list[str]]:
    """The instructions of every loop without a loop inside."""
    lines, labels, found = assembly.splitlines(), dict[str, int](), []
    for i, line in enumerate(lines):
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = i
        jump = re.match(r"\s+j\w+\s+(\.LBB\w+)", line)
        if jump and jump[1] in labels:
            body = lines[labels[jump[1]] + 1 : i]
            if not any(line.startswith(".LBB") for line in body):
                found.append(body)
    return found


LAYERS = [(64, 56, 64, 3, 1), (256, 14, 256, 3, 1), (512, 7, 512, 3, 1), (3, 224, 64, 7, 2), (64, 56, 256, 1, 1)]


@pytest.mark.skipif(bool(ISAS["avx2"].missing()), reason="no such machine code here")
@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("face", ["forward", "weight_grad"])
@pytest.mark.parametrize("isa", [isa for isa in HERE if isa.name in ("avx512", "avx2")], ids=lambda isa: isa.name)
def test_hot_loops_keep_their_sums_in_registers(isa: Any, face: str, layer: tuple[int, ...]) -> None:
    c, h, k, r, s = layer
    p, y = r // 2, (h - 1) // s + 1
    spec = ConvSpec((h, h), (r, r), (y, y), (s, s), (p, p), (1, 1))
    wide = h + 2 * p
    steps = (wide * wide * c, wide * c, c), (y * y * k, y * k, k)
    assembly = machine.assembly(build(getattr(convolution, face)(spec, c, k, *steps), isa).text, isa)
    hot = [body for body in inner_loops(assembly) if sum("vfmadd" in line for line in body) >= 6]
    register = "zmm" if isa.name == "avx512" else "ymm"
    assert hot
    for body in hot:
        assert all(register in line for line in body if "vfmadd" in line)
        assert not [line for line in body if "(%rsp)" in line and "mm" in line]


def test_neon_text_is_machine_code_for_arm() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    spec = ConvSpec((14, 14), (3, 3), (14, 14), (1, 1), (1, 1), (1, 1))
    kernel = build(convolution.forward(spec, 24, 40, (6144, 384, 24), (7840, 560, 40)), ISAS["neon"])
    target = llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(opt=2)
    for text in (kernel.text, kernel.pack.text if kernel.pack else ""):
        module = llvm.parse_assembly(text, llvm.create_context())
        module.verify()
        assert target.emit_object(module)


@pytest.mark.parametrize(
    ("n", "tile", "sizes"), [(56, 14, [14] * 4), (13, 12, [7, 6]), (30, 14, [10] * 3), (3, 9, [3])]
)
def test_runs(n: int, tile: int, sizes: list[int]) -> None:
    found = runs(Text("count"), n, tile)
    assert [run.size for run in found for _ in range(cast(int, run.count))] == sizes


def test_columns_end_in_a_smaller_block() -> None:
    found = [(run.start, run.count, run.size, tail) for run, tail in columns(70, 16, 2)]
    assert found == [(0, 2, 2, 16), (4, 1, 1, 6)]


def test_merged_dimensions() -> None:
    dims = (Dim(BATCH, 60, 60, 60), Dim(3, 20, 20, 20), Dim(1, 9, 9, 9), Dim(4, 5, 5, 5), Dim(5, 1, 1, 7))
    assert merged(dims) == (Dim(BATCH, 60, 60, 60), Dim(12, 5, 5, 5), Dim(5, 1, 1, 7))
