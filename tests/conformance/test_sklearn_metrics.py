"""Figures of an evaluation against scikit-learn's and scipy's."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import calibration, metrics

from juanji.ops import softmax
from juanji.tensor import Tensor
from juanji.train.evaluation import Evaluation, answers
from juanji.train.metrics import mcnemar, wilson


def evaluation(seed, n, classes, sharp=2.0):
    rng = np.random.default_rng(seed)
    scores = (sharp * rng.standard_normal((n, classes))).astype(np.float32)
    labels = rng.integers(0, classes, n)
    scores[np.arange(n), labels] += sharp
    return Evaluation(classes, *answers(scores, labels)), np.asarray(softmax(Tensor(scores.astype(np.float64))))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 99), st.integers(1, 80), st.integers(2, 9))
def test_figures(seed, n, classes):
    result, p = evaluation(seed, n, classes)
    y, said, names = result.labels, result.predicted, np.arange(classes)
    assert result.accuracy == metrics.accuracy_score(y, said)
    assert (result.confusion == metrics.confusion_matrix(y, said, labels=names)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted but have no images
        assert result.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, said))
    assert result.macro_f1 == pytest.approx(metrics.f1_score(y, said, average="macro"))
    assert result.loss == pytest.approx(metrics.log_loss(y, p, labels=names), rel=1e-9)
    table = metrics.precision_recall_fscore_support(y, said, labels=names, zero_division=np.nan)
    for found, wanted in zip((result.precision, result.recall, result.f1, result.support), table, strict=True):
        np.testing.assert_allclose(np.array(found, float), wanted)
    for k in range(1, classes):
        if classes > 2:
            assert result.top(k) == pytest.approx(metrics.top_k_accuracy_score(y, p, k=k, labels=names))


def test_reliability_bins():
    result, _ = evaluation(0, 4000, 4)
    found = result.calibration
    accuracy, confidence = calibration.calibration_curve(result.right, result.confidence, n_bins=len(found.count))
    filled = found.count > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(1, 400))
def test_wilson(right, more):
    wanted = stats.binomtest(right, right + more).proportion_ci(method="wilson")
    assert wilson(right, right + more) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (0, 7), (3, 9), (10, 10), (412, 350), (30_000, 30_500)])
def test_mcnemar(ours, theirs):
    first = np.arange(ours + theirs + 5) < ours
    second = (np.arange(ours + theirs + 5) >= ours) & (np.arange(ours + theirs + 5) < ours + theirs)
    wanted = stats.binomtest(ours, ours + theirs).pvalue if ours + theirs else 1
    assert mcnemar(first, second) == pytest.approx(wanted, rel=1e-7)
