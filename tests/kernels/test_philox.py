"""Philox in machine code, bit for bit against `juanji.random`."""

import ctypes

import numpy as np
import pytest

from juanji import random
from juanji.kernels import machine, philox
from juanji.kernels.isa import ISAS
from juanji.kernels.machine import Kernel
from juanji.kernels.text import const, kernel_text

HERE = [isa for isa in ISAS.values() if not isa.missing()]


def run(isa, state, size, dtype, lanes, element, start=0):
    """A kernel that writes `element(text, words, i)` for i = start, start + lanes, …"""
    t = kernel_text(isa.fused)
    source, target = t.slot(0), t.slot(1)
    words = [t.load(t.at(source, i, "i32"), "i32") for i in range(3)]
    kind = {"float32": "float", "float64": "double"}[dtype]

    def body(i):
        position = t.op("add", i, const(start, "i64"))
        t.store(element(t, words, position, kind), t.at(target, i, kind))

    t.loop(t.argument("lo"), t.argument("hi"), body, lanes)
    (address,) = machine.addresses([Kernel.of(str(t), isa)], isa)
    output = np.empty(size, dtype)
    table = np.array([state.ctypes.data, output.ctypes.data], np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)(table.ctypes.data, 0, size)
    return output


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", [4, 8, 16, 32])
def test_consecutive_elements(isa, dtype, lanes):
    state = random.state(7, "layer.dropout", 41)

    def element(t, words, position, kind):
        return philox.consecutive(t, words, position, lanes, kind)

    expected = random.uniform(state, (1064,), dtype)
    np.testing.assert_array_equal(run(isa, state, 1024, dtype, lanes, element), expected[:1024])
    np.testing.assert_array_equal(run(isa, state, 1024, dtype, lanes, element, start=40), expected[40:])


@pytest.mark.parametrize("isa", HERE, ids=lambda isa: isa.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("lanes", "stride"), [(1, 1), (8, 1), (16, 5)])
def test_any_elements(isa, dtype, lanes, stride):
    state = random.state(2**31, "x", 2**32 - 1)

    def element(t, words, position, kind):
        places = t.op("add", t.splat(position, lanes), t.iota(lanes))
        return philox.uniform(t, words, t.op("mul", places, const(stride, "i64", lanes)), kind)

    expected = random.uniform(state, (256 * stride,), dtype)[::stride]
    np.testing.assert_array_equal(run(isa, state, 256, dtype, lanes, element), expected)
