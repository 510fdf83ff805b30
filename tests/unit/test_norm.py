"""Normalisation: the equations of 003, running statistics, and refusals."""

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.ops import batch_norm, group_norm, instance_norm, layer_norm, local_response_norm

RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (4, 5, 6, 3))
SCALE, BIAS = RNG.normal(size=3), RNG.normal(size=3)


def test_training_by_the_equations():
    """003 eq. 29-32, with κ = 0.9 and the notes' biased variance."""
    mean, var = np.zeros(3), np.ones(3)
    mu, sigma2 = X.mean((0, 1, 2)), X.var((0, 1, 2))
    y, new_mean, new_var = batch_norm(X, SCALE, BIAS, mean, var, training=True, momentum=0.1, unbiased=False)
    np.testing.assert_allclose(y, (X - mu) / np.sqrt(sigma2 + 1e-5) * SCALE + BIAS)
    np.testing.assert_allclose(new_mean, 0.9 * mean + 0.1 * mu)
    np.testing.assert_allclose(new_var, 0.9 * var + 0.1 * sigma2)


def test_running_variance_is_unbiased_by_default():
    _, _, var = batch_norm(X, mean=np.zeros(3), var=np.zeros(3), training=True, momentum=1.0)
    np.testing.assert_allclose(var, X.var((0, 1, 2), ddof=1))


def test_without_running_statistics():
    y, mean, var = batch_norm(X, training=True)
    np.testing.assert_allclose(mean, X.mean((0, 1, 2)))
    np.testing.assert_allclose(var, X.var((0, 1, 2), ddof=1))
    np.testing.assert_allclose(batch_norm(X, None, None, mean, var * 119 / 120), y)


def test_inference_by_the_equation():
    mean, var = RNG.normal(size=3), RNG.uniform(1, 2, 3)
    y = batch_norm(X, SCALE, BIAS, mean, var, epsilon=0.1)
    np.testing.assert_allclose(y, (X - mean) / np.sqrt(var + 0.1) * SCALE + BIAS)


def test_running_statistics_are_constants():
    def running(x):
        _, mean, var = batch_norm(x, mean=np.zeros(3), var=np.ones(3), training=True)
        return (mean + var).sum()

    assert not np.asarray(jj.grad(running)(X)).any()


def test_gradient_through_the_statistics():
    """Σ y does not depend on x, which only the statistics' own derivatives bring about."""
    gradient = jj.grad(lambda x: (batch_norm(x, training=True)[0] * SCALE).sum())(X)
    np.testing.assert_allclose(gradient, 0, atol=1e-12)


@pytest.mark.parametrize("axes", [-1, (1, 2, 3), (0,), (1, 3)])
def test_layer_norm(axes):
    chosen = (axes,) if isinstance(axes, int) else axes
    sizes = [X.shape[a] for a in chosen]
    scale = RNG.normal(size=sizes)
    full = scale.reshape([n if a in [c % 4 for c in chosen] else 1 for a, n in enumerate(X.shape)])
    mu, sigma2 = X.mean(axes, keepdims=True), X.var(axes, keepdims=True)
    np.testing.assert_allclose(layer_norm(X, scale, axes=axes), (X - mu) / np.sqrt(sigma2 + 1e-5) * full)


def test_groups_from_one_to_all():
    """One group is a layer norm over the image, as many as channels an instance norm."""
    np.testing.assert_allclose(group_norm(X, 1), layer_norm(X, axes=(1, 2, 3)))
    np.testing.assert_allclose(group_norm(X, 3, SCALE, BIAS), instance_norm(X, SCALE, BIAS))


def test_local_response_norm_as_in_alexnet():
    """b = a / (k + α Σ a²)^β over n = 5 channels: k = 2, α = 10⁻⁴, β = 0.75 (Krizhevsky et al. 2012, §3.3)."""
    a = RNG.normal(0, 30, (2, 3, 3, 8))
    expected = np.empty_like(a)
    for i in range(8):
        near = a[..., max(0, i - 2) : i + 3]
        expected[..., i] = a[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(local_response_norm(a, 5, alpha=5e-4, beta=0.75, k=2.0), expected)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: batch_norm(x, training=True)[0],
        lambda x: batch_norm(x, mean=np.zeros(3, "f4"), var=np.ones(3, "f4"), training=True)[2],
        lambda x: layer_norm(x),
        lambda x: group_norm(x, 3),
        lambda x: instance_norm(x),
        lambda x: local_response_norm(x, 3),
    ],
)
def test_float32_stays(function):
    x = X.astype("float32")
    y = function(x)
    graph = jj.trace(function, jj.Tensor.spec(x.shape))
    assert y.dtype == graph.outputs.dtype == "float32"
    assert graph.outputs.shape == y.shape


def test_names_in_the_graph():
    graph = jj.trace(lambda x: instance_norm(group_norm(layer_norm(x), 3)), jj.Tensor(X))
    assert [node.name for node in graph.nodes] == ["layer_norm", "group_norm", "instance_norm"]


def test_refusals():
    with pytest.raises(ShapeError, match=r"batch_norm: a variance needs more than one value[\s\S]*1 a channel"):
        batch_norm(np.ones((1, 3)), training=True)
    with pytest.raises(ShapeError, match="instance_norm: a variance needs more than one value"):
        instance_norm(np.ones((4, 1, 1, 3)))
    with pytest.raises(ArgumentError, match=r"there are no statistics[\s\S]*no mean and no var"):
        batch_norm(X)
    with pytest.raises(ArgumentError, match=r"there are no statistics[\s\S]*no var"):
        batch_norm(X, mean=np.zeros(3), training=True)
    with pytest.raises(ShapeError, match=r"batch_norm: scale does not fit[\s\S]*scale has shape \(3,\)"):
        batch_norm(X, np.ones(4), training=True)
    with pytest.raises(ShapeError, match="batch_norm: var does not fit"):
        batch_norm(X, mean=np.zeros(3), var=np.ones(()))
    with pytest.raises(ShapeError, match=r"layer_norm: bias does not fit[\s\S]*\(6, 3\)"):
        layer_norm(X, bias=np.ones(3), axes=(2, 3))
    with pytest.raises(ShapeError, match="layer_norm: there is no axis 4"):
        layer_norm(X, axes=4)
    with pytest.raises(ArgumentError, match=r"the groups do not divide the channels[\s\S]*groups=2"):
        group_norm(X, 2)
    with pytest.raises(ArgumentError, match="the groups do not divide the channels"):
        group_norm(X, 0)
    with pytest.raises(ArgumentError, match="local_response_norm: bad size"):
        local_response_norm(X, 0)
    with pytest.raises(ShapeError, match=r"local_response_norm: wrong rank[\s\S]*\(N, …, C\)"):
        local_response_norm(np.ones(3), 3)
    with pytest.raises(DTypeError, match="batch_norm: the tensors have different dtypes"):
        batch_norm(X.astype("float32"), SCALE, training=True)
    with pytest.raises(DTypeError, match="group_norm: needs floating-point"):
        group_norm(np.ones((2, 3), int), 3)
