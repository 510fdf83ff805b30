"""Every record compiled, against its definition."""

import numpy as np
import pytest

import juanji as jj
from juanji import tree
from juanji.engine import compile
from juanji.graph import COMPOSITES, PRIMITIVES
from juanji.tensor import Tensor

RECORDS = {**PRIMITIVES, **COMPOSITES}


def compiled(record, arrays, attrs):
    return compile(lambda *xs: record(*xs, **attrs))(*arrays)


def as_dtype(x, dtype):
    return None if x is None else Tensor(x.astype(dtype) if x.dtype.kind == "f" else x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", RECORDS)
def test_compiled_as_defined(name, dtype):
    for arrays, attrs in RECORDS[name].examples(np.random.default_rng(0)):
        inputs = [as_dtype(x, dtype) for x in map(lambda a: None if a is None else np.asarray(a), arrays)]
        want = tree.leaves(RECORDS[name](*inputs, **attrs))
        got = tree.leaves(compiled(RECORDS[name], inputs, attrs))
        for x, y in zip(got, want, strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)
            scale = np.abs(y.array).max(initial=1e-30) if y.is_floating else 0
            np.testing.assert_allclose(x.array, y.array, rtol=0, atol=scale * (1e-5 if dtype == "float32" else 1e-12))


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_has_a_lowering(name):
    """A composite may be lowered through what it is made of."""
    compile(jj.exp)  # registers the lowerings
    assert name in COMPOSITES or PRIMITIVES[name].lower
