"""Every record and its derivatives compiled, against the definitions, for every instruction set that runs here."""

import functools

import numpy as np
import pytest

import juanji as jj
from juanji import tree
from juanji.engine import compile
from juanji.graph import COMPOSITES, PRIMITIVES, NotDifferentiable
from juanji.kernels.isa import ISAS
from juanji.tensor import Tensor

RECORDS = {**PRIMITIVES, **COMPOSITES}
RUNNING = [name for name, isa in ISAS.items() if not isa.missing()]


def as_dtype(x, dtype):
    return None if x is None else Tensor(x.astype(dtype) if x.dtype.kind == "f" else x)


def examples(name, dtype):
    for arrays, attrs in RECORDS[name].examples(np.random.default_rng(0)):
        yield [as_dtype(None if a is None else np.asarray(a), dtype) for a in arrays], attrs


def agree(mine, want, tolerance):
    for x, y in zip(tree.leaves(mine), tree.leaves(want), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        scale = np.abs(y.array).max(initial=1e-30) if y.is_floating else 0
        np.testing.assert_allclose(x.array, y.array, rtol=0, atol=scale * tolerance)


def with_gradients(name, inputs, attrs):
    """A function of the inputs to the record's outputs, and the gradients by all inputs that have one."""
    record = RECORDS[name]
    kind = getattr(record, "kind", None)
    places = [i for i, x in enumerate(inputs) if x is not None and x.is_floating and (kind is None or kind.rule(i))]

    def of_places(full, *chosen):
        full = list(full)
        for place, x in zip(places, chosen, strict=True):
            full[place] = x
        return record(*full, **attrs)

    def whole(*xs):
        if isinstance(kind, NotDifferentiable) or not places:
            return record(*xs, **attrs)
        output, pull = jj.vjp(functools.partial(of_places, xs), *(xs[i] for i in places))
        rng = np.random.default_rng(1)
        return output, pull(tree.map(lambda y: Tensor(np.asarray(rng.normal(size=y.shape), y.dtype)), output))

    return whole


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDS)
def test_compiled_as_defined(name, dtype):
    for inputs, attrs in examples(name, dtype):
        record = functools.partial(RECORDS[name], **attrs)
        agree(compile(record)(*inputs), record(*inputs), 1e-5 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("isa", RUNNING)
@pytest.mark.parametrize("name", RECORDS)
def test_derivatives_compiled_as_defined(name, isa, monkeypatch):
    monkeypatch.setenv("JUANJI_ISA", isa)
    for dtype, tolerance in (("float32", 2e-5), ("float64", 1e-11)):
        for inputs, attrs in examples(name, dtype):
            function = with_gradients(name, inputs, attrs)
            agree(compile(function)(*inputs), function(*inputs), tolerance)


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_has_a_lowering(name):
    """A composite may be lowered through what it is made of."""
    compile(jj.exp)  # registers the lowerings
    assert name in COMPOSITES or PRIMITIVES[name].lower


@pytest.mark.parametrize("channels", [5, 16, 64, 161])
@pytest.mark.parametrize(("low", "high", "start"), [(2, 2, 0), (2, 2, 4), (0, 3, 3), (3, 0, 0)])
def test_sums_of_columns_beside_the_edge(channels, low, high, start):
    """Neighbours past the last channel count as zeros, in sums whose lanes are channels too (local response
    normalisation, and the gradient of a bias through it)."""
    x = np.random.default_rng(0).normal(size=(3, 5, channels))

    def neighbours(x):
        return jj.pad(x, [(0, 0), (0, 0), (low, high)])[..., start : start + channels].sum((0, 1))

    np.testing.assert_allclose(compile(neighbours)(x), neighbours(Tensor(x)), rtol=1e-12, atol=1e-12)
