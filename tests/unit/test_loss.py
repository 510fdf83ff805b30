"""Losses: values by hand, labels of every kind, and refusals. (tests/torch has all options.)"""

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.ops import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    l1_loss,
    log_softmax,
    mse_loss,
    nll_loss,
    one_hot,
    smooth_l1_loss,
    softmax,
)

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 4))
LABELS = np.array([0, 3, 1, 1, 2])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "uint32"])
def test_labels_of_any_whole_dtype(dtype):
    labels = LABELS.astype(dtype)
    expected = -np.asarray(log_softmax(LOGITS))[np.arange(5), LABELS].mean()
    np.testing.assert_allclose(cross_entropy(LOGITS, labels), expected)
    np.testing.assert_allclose(nll_loss(log_softmax(LOGITS), labels), expected)
    np.testing.assert_array_equal(one_hot(labels, 4), np.eye(4)[LABELS])


def test_gradient_is_the_error():
    """∂L/∂z = (softmax(z) − t)/N."""
    gradient = jj.grad(cross_entropy)(LOGITS, LABELS)
    np.testing.assert_allclose(gradient, (softmax(LOGITS).array - np.eye(4)[LABELS]) / 5)


def test_labels_and_their_one_hot_probabilities_agree():
    probabilities = one_hot(LABELS, 4, "float64")
    for options in ({}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        np.testing.assert_allclose(
            cross_entropy(LOGITS, probabilities, **options), cross_entropy(LOGITS, LABELS, **options)
        )


def test_a_class_ruled_out():
    """A logit of −∞ for another class costs nothing and spoils no gradient."""
    logits = np.where(np.arange(4) == 3, -np.inf, LOGITS)[:1]
    assert np.isfinite(float(cross_entropy(logits, LABELS[:1])))
    assert np.isfinite(np.asarray(jj.grad(cross_entropy)(logits, LABELS[:1]))).all()


def test_ignored_labels():
    labels = np.where(np.arange(5) < 2, -100, LABELS)
    np.testing.assert_allclose(cross_entropy(LOGITS, labels), cross_entropy(LOGITS[2:], LABELS[2:]))
    gradient = np.asarray(jj.grad(cross_entropy)(LOGITS, labels))
    assert not gradient[:2].any()
    assert gradient[2:].all()
    assert np.isnan(float(cross_entropy(LOGITS, np.full(5, -100))))  # as PyTorch: the mean of nothing


def test_traced_labels_are_not_looked_at():
    graph = jj.trace(cross_entropy, jj.Tensor.spec((5, 4), "float64"), jj.Tensor.spec((5,), "int64"))
    assert [node.name for node in graph.nodes] == ["cross_entropy"]
    np.testing.assert_allclose(graph(LOGITS, LABELS), cross_entropy(LOGITS, LABELS))


def test_one_hot_shapes_and_dtypes():
    assert one_hot(np.array(2), 3).tolist() == [0, 0, 1]
    y = one_hot(np.zeros((2, 3), int), 5, "uint8")
    assert (y.shape, y.dtype) == ((2, 3, 5), "uint8")
    assert one_hot(np.zeros(0, int), 5).shape == (0, 5)


def test_distances_by_hand():
    x, t = np.array([0.0, 0.5, -3.0]), np.zeros(3)
    np.testing.assert_allclose(mse_loss(x, t), (0.25 + 9) / 3)
    np.testing.assert_allclose(l1_loss(x, t, reduction="sum"), 3.5)
    np.testing.assert_allclose(huber_loss(x, t, delta=2, reduction="none"), [0, 0.125, 4])
    np.testing.assert_allclose(smooth_l1_loss(x, t, beta=2, reduction="none"), [0, 0.0625, 2])
    np.testing.assert_allclose(smooth_l1_loss(x, t, beta=0), l1_loss(x, t))


def test_binary_cross_entropy_by_hand():
    p, t = np.array([0.2, 0.9, 0.5]), np.array([0.0, 1.0, 0.25])
    logits = np.log(p / (1 - p))
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    np.testing.assert_allclose(binary_cross_entropy_with_logits(logits, t, reduction="none"), expected)
    assert float(binary_cross_entropy_with_logits(np.array([1e4]), np.array([0.0]))) == 1e4


@pytest.mark.parametrize("loss", [mse_loss, l1_loss, huber_loss, smooth_l1_loss, binary_cross_entropy_with_logits])
def test_pairs_have_one_shape(loss):
    with pytest.raises(ShapeError, match=r"output and target differ in shape[\s\S]*\(3,\) and \(3, 1\)"):
        loss(np.ones(3), np.ones((3, 1)))
    with pytest.raises(DTypeError, match="needs floating-point numbers"):
        loss(np.ones(3), np.ones(3, int))
    with pytest.raises(ArgumentError, match=r"unknown reduction[\s\S]*'average'"):
        loss(np.ones(3), np.ones(3), reduction="average")


def test_refusals():
    with pytest.raises(ShapeError, match=r"cross_entropy: a label is not one of the classes[\s\S]*label 4, 4 classes"):
        cross_entropy(LOGITS, LABELS + 1)
    with pytest.raises(ShapeError, match=r"nll_loss: a label[\s\S]*0 … 3, or -100 to be ignored"):
        nll_loss(LOGITS, LABELS - 1)
    with pytest.raises(ShapeError, match=r"one_hot: a label[\s\S]*label -1, 3 classes"):
        one_hot(np.array([0, -1]), 3)
    with pytest.raises(DTypeError, match=r"one_hot: labels are whole numbers[\s\S]*astype"):
        one_hot(np.array([0.0, 1.0]), 3)
    with pytest.raises(DTypeError, match="cross_entropy: labels are whole numbers"):
        cross_entropy(LOGITS, LABELS.astype(float))
    with pytest.raises(ShapeError, match=r"cross_entropy: the target does not fit[\s\S]*probabilities"):
        cross_entropy(LOGITS, LABELS[:, None])
    with pytest.raises(ShapeError, match=r"nll_loss: the target does not fit"):
        nll_loss(LOGITS, LABELS[:3])
    with pytest.raises(ShapeError, match=r"cross_entropy: weight does not fit[\s\S]*one number for each class: \(4,\)"):
        cross_entropy(LOGITS, LABELS, weight=np.ones(3))
    with pytest.raises(ShapeError, match="pos_weight does not fit"):
        binary_cross_entropy_with_logits(LOGITS, LOGITS, pos_weight=np.ones(3))
    with pytest.raises(DTypeError, match="cross_entropy: the tensors have different dtypes"):
        cross_entropy(LOGITS, np.full((5, 4), 0.25, np.float32))
    with pytest.raises(DTypeError, match="cross_entropy: needs floating-point"):
        cross_entropy(LABELS[:, None], LABELS)
    with pytest.raises(ArgumentError, match="cross_entropy: bad label_smoothing"):
        cross_entropy(LOGITS, LABELS, label_smoothing=1.5)
    with pytest.raises(ArgumentError, match="cross_entropy: unknown reduction"):
        cross_entropy(LOGITS, LABELS, reduction="batch")
    with pytest.raises(ArgumentError, match="huber_loss: bad delta"):
        huber_loss(LOGITS, LOGITS, delta=0)
    with pytest.raises(ArgumentError, match="smooth_l1_loss: bad beta"):
        smooth_l1_loss(LOGITS, LOGITS, beta=-1)
