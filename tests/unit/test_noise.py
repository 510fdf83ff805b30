"""Random tensors: the generator's numbers, traced too, and dropout."""

import numpy as np
import pytest

import juanji as jj
from juanji import random
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.ops import dropout, normal, uniform

STATE = random.state(1, "features.2", 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 3), (0, 2)])
def test_numbers_of_the_generator(shape, dtype):
    for function, definition in [(uniform, random.uniform), (normal, random.normal)]:
        x = function(STATE, shape, dtype)
        assert (x.shape, x.dtype) == (shape, dtype)
        np.testing.assert_array_equal(x, definition(STATE, shape, dtype))


def test_a_traced_state_is_an_input():
    graph = jj.trace(lambda state: normal(state, (2, 3)), jj.Tensor.spec((3,), "uint32"))
    for state in (STATE, random.state(8)):
        np.testing.assert_array_equal(graph(state), random.normal(state, (2, 3)))


def test_dropout_keeps_the_mean():
    x = jj.Tensor(np.ones((100, 100), np.float32))
    y = np.asarray(dropout(x, STATE, rate=0.3))
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(y.mean() - 1) < 0.02
    assert ((y != 0) == (random.uniform(STATE, (100, 100)) >= 0.3)).all()


def test_dropout_drops_the_same_in_both_precisions():
    x = np.ones(1000)
    assert ((np.asarray(dropout(x, STATE)) == 0) == (np.asarray(dropout(x.astype("float32"), STATE)) == 0)).all()


def test_dropout_extremes():
    x = np.array([1.0, np.inf, -2.0])
    np.testing.assert_array_equal(dropout(x, STATE, rate=0), x)
    np.testing.assert_array_equal(dropout(x, STATE, rate=1), [0, 0, 0])
    np.testing.assert_array_equal(jj.grad(lambda x: dropout(x, STATE, rate=1).sum())(x), [0, 0, 0])


def test_dropout_of_whole_channels():
    y = np.asarray(dropout(np.ones((8, 3, 4, 16)), STATE, rate=0.5, axes=(1, 2)))
    assert (y == y[:, :1, :1]).all()
    assert 0 < (y[:, 0, 0] == 0).mean() < 1


def test_gradient_goes_where_the_elements_went():
    x = np.arange(1.0, 21)
    np.testing.assert_allclose(jj.grad(lambda x: dropout(x, STATE).sum())(x) * x, dropout(x, STATE))


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_bad_rate(rate):
    with pytest.raises(ArgumentError, match=r"dropout: bad rate[\s\S]*0 … 1"):
        dropout(np.ones(3), STATE, rate=rate)


def test_refusals():
    with pytest.raises(ShapeError, match=r"not a random state[\s\S]*uint32 \(3,\)"):
        uniform(np.zeros(3), (2,))
    with pytest.raises(DTypeError, match="uniform: needs a floating-point dtype"):
        uniform(STATE, (2,), "int64")
    with pytest.raises(DTypeError, match="dropout: needs floating-point"):
        dropout(np.arange(3), STATE)
