"""`convolve` and `correlate` against scipy.signal, over any shapes of 1, 2 and 3 axes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

import juanji as jj


@st.composite
def operands(draw, mode):
    """Two shapes; in mode "valid" one of them contains the other."""
    rank = draw(st.integers(1, 3))
    limit = {1: 12, 2: 7, 3: 5}[rank]
    x = [draw(st.integers(1, limit)) for _ in range(rank)]
    w = [draw(st.integers(1, n if mode == "valid" else limit)) for n in x]
    shapes = [x, w] if draw(st.booleans()) else [w, x]
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    return [rng.normal(size=shape) for shape in shapes]


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_agrees_with_scipy(name, mode, data):
    x, w = data.draw(operands(mode))
    expected = getattr(signal, name)(x, w, mode, method="direct")
    np.testing.assert_allclose(getattr(jj, name)(x, w, mode), expected, 1e-9, 1e-9)


@pytest.mark.parametrize("mode", ["full", "same", "valid"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_neither_contains_the_other(name, mode):
    x, w = np.ones((3, 5)), np.ones((4, 2))
    if mode == "valid":
        with pytest.raises(ValueError, match="does not fit"):
            getattr(jj, name)(x, w, mode)
    else:
        np.testing.assert_allclose(getattr(jj, name)(x, w, mode), getattr(signal, name)(x, w, mode))
