"""Every registered operator: a complete record whose examples agree with its geometry, definition and derivatives."""

import numpy as np
import pytest

import juanji as jj
from juanji import tree
from juanji.errors import ArgumentError
from juanji.graph import (
    COMPOSITES,
    PRIMITIVES,
    Kind,
    Linear,
    LinearInAll,
    Multilinear,
    NotDifferentiable,
    Pointwise,
    Primitive,
    register,
)
from juanji.testing import check_op

RECORDS = {**PRIMITIVES, **COMPOSITES}
NAMES = sorted(RECORDS)


def examples(name):
    """The examples of a record as tensors (None stays), and their options."""
    for arrays, attrs in RECORDS[name].examples(np.random.default_rng(1)):
        yield [None if array is None else jj.Tensor(array) for array in arrays], attrs


@pytest.mark.parametrize("name", NAMES)
def test_complete(name):
    record = RECORDS[name]
    assert record.name == name
    assert isinstance(record.lower, dict)
    assert list(examples(name))
    if name in PRIMITIVES:
        assert callable(record.geometry)
        assert callable(record.define)
        assert type(record.kind) in (Linear, LinearInAll, Multilinear, Pointwise, NotDifferentiable)
        assert isinstance(record.kind, NotDifferentiable) or any(record.kind.rules)
    else:
        assert callable(record.function)


def test_no_name_twice():
    assert not set(PRIMITIVES) & set(COMPOSITES)
    with pytest.raises(ArgumentError, match="'add' is already registered"):
        register(Primitive("add", None, None, Kind(), None))


@pytest.mark.parametrize("name", NAMES)
def test_check_op(name):
    """Geometry against definition in both precisions; both modes against differences, and each other, to order two."""
    check_op(name)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode(name):
    """Tangents go through every operator, and come out looking like its outputs."""
    for inputs, attrs in examples(name):
        places = [i for i, x in enumerate(inputs) if x is not None and x.is_floating]
        primals = [inputs[i] for i in places]

        def function(*xs, inputs=inputs, places=places, attrs=attrs):
            full = list(inputs)
            for place, x in zip(places, xs, strict=True):
                full[place] = x
            return RECORDS[name](*full, **attrs)

        value, tangent = jj.jvp(function, primals, primals)
        for y, dy in zip(tree.leaves(value), tree.leaves(tangent), strict=True):
            assert (y.shape, y.dtype) == (dy.shape, dy.dtype)
            assert np.isfinite(dy.array).all()


@pytest.mark.parametrize("name", NAMES)
def test_traced(name):
    """Traced without values the same shapes, dtypes and values come out, from one node of that name."""
    for inputs, attrs in examples(name):
        expected = RECORDS[name](*inputs, **attrs)
        graph = jj.trace(lambda *xs, attrs=attrs: RECORDS[name](*xs, **attrs), *inputs)
        assert [node.name for node in graph.nodes] == [name]
        assert not any(y.has_value for y in tree.leaves(graph.outputs))
        results = graph(*inputs)
        for mine, theirs in zip(tree.leaves(results), tree.leaves(expected), strict=True):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_tensors_stay_as_they_are(name):
    """No definition writes to its inputs, and every result is read-only."""
    for inputs, attrs in examples(name):
        before = [None if x is None else x.array.copy() for x in inputs]
        for y in tree.leaves(RECORDS[name](*inputs, **attrs)):
            assert not y.array.flags.writeable
        for x, array in zip(inputs, before, strict=True):
            assert x is None or np.array_equal(x.array, array)
