"""The shares of MixUp and CutMix against scipy's Beta distribution, quantile by quantile."""

import numpy as np
import pytest
from scipy import stats

from juanji.data import mixing


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.2, 0.4, 0.9, 1.0, 1.5, 2.0, 8.0, 32.0])
def test_quantiles(alpha):
    draws = np.concatenate([np.linspace(0.001, 0.999, 400), [0.5]])
    found, expected = mixing.beta(draws, alpha), stats.beta.ppf(draws, alpha, alpha)
    assert np.abs(found - expected).max() < 2e-4
    lower = draws <= 0.5  # near 1 float64 has no numbers for the others; they are one minus these
    assert np.abs(stats.beta.cdf(found[lower], alpha, alpha) - draws[lower]).max() < 2e-3
