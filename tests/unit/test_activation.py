"""Activations: values worked out by hand, kinks, far ends, and refusals. (tests/torch has the gradients.)"""

import pickle

import numpy as np
import pytest

import juanji as jj
from juanji import ops
from juanji.errors import ArgumentError, DTypeError, ShapeError

# x, f(x), f′(x): at kinks the derivative PyTorch gives
POINTS = {
    "leaky_relu": [(-2, -0.02, 0.01), (0, 0, 0.01), (3, 3, 1)],
    "elu": [(-1, np.expm1(-1), np.exp(-1)), (0, 0, 1), (2, 2, 1)],
    "selu": [(1, 1.0507009873554805, 1.0507009873554805), (0, 0, 1.7580993408473766)],
    "gelu": [(0, 0, 0.5), (40, 40, 1), (-40, 0, 0)],
    "silu": [(0, 0, 0.5), (1, 0.7310585786300049, 0.9276705118714869)],
    "mish": [(0, 0, 0.6), (40, 40, 1)],
    "relu6": [(-1, 0, 0), (0, 0, 0), (3, 3, 1), (6, 6, 0), (7, 6, 0)],
    "hardtanh": [(-1, -1, 0), (0.5, 0.5, 1), (1, 1, 0)],
    "hardsigmoid": [(-3, 0, 0), (0, 0.5, 1 / 6), (3, 1, 0)],
    "hardswish": [(-3, 0, 0), (0, 0, 0.5), (3, 3, 1), (4, 4, 1)],
    "softsign": [(0, 0, 1), (-1, -0.5, 0.25)],
    "logsigmoid": [(0, -np.log(2), 0.5), (-800, -800, 1), (800, 0, 0)],
    "scaled_tanh": [(0, 0, 1.7159 * 2 / 3), (1, 1.7159 * np.tanh(2 / 3), 1.7159 * 2 / 3 / np.cosh(2 / 3) ** 2)],
    "relu": [(-1, 0, 0), (0, 0, 0), (2, 2, 1)],
}


@pytest.mark.parametrize("name", POINTS)
def test_points(name):
    x, y, slope = np.array(POINTS[name], float).T
    value, tangent = jj.jvp(getattr(ops, name), (x,), (np.ones_like(x),))
    np.testing.assert_allclose(value, y, 1e-6, 1e-12)
    np.testing.assert_allclose(tangent, slope, 1e-6, 1e-12)
    np.testing.assert_array_equal(jj.grad(lambda x: getattr(ops, name)(x).sum())(x), tangent)


@pytest.mark.parametrize("name", [*POINTS, "sigmoid", "tanh", "softplus", "softmax", "log_softmax", "softmin"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_out(name, dtype):
    """Nothing overflows in value or derivative, the dtype stays, and any array-like is taken."""
    x = np.array([-1e4, -90.0, 90.0, 1e4], dtype)
    value, tangent = jj.jvp(getattr(ops, name), (x,), (np.ones_like(x),))
    assert value.dtype == tangent.dtype == dtype
    assert np.isfinite(value.array).all()
    assert np.isfinite(tangent.array).all()


def test_scaled_tanh_meets_one():
    """The constants are chosen for f(±1) = ±1 (LeCun et al. 1998)."""
    np.testing.assert_allclose(ops.scaled_tanh(np.array([-1.0, 1.0])), [-1, 1], atol=1e-4)


def test_softmax():
    x = np.random.default_rng(0).normal(0, 50, (3, 4, 5))
    for axis in range(-3, 3):
        y = np.asarray(ops.softmax(x, axis))
        np.testing.assert_allclose(y.sum(axis), 1)
        np.testing.assert_allclose(y, np.exp(ops.log_softmax(x, axis).array))
        np.testing.assert_allclose(y, ops.softmax(x + 1e3, axis))
        np.testing.assert_allclose(ops.softmin(x, axis), ops.softmax(-x, axis))


def test_softmax_with_impossible_classes():
    """−∞ has probability 0, and the others their gradients."""
    x = np.array([0.0, -np.inf, 1.0])
    np.testing.assert_allclose(ops.softmax(x)[1], 0)
    np.testing.assert_allclose(ops.log_softmax(x)[0], -np.log1p(np.e))
    assert np.isfinite(jj.grad(lambda x: ops.log_softmax(x)[0])(x).array).all()


def test_options_by_position_and_in_the_graph():
    np.testing.assert_allclose(ops.leaky_relu(np.array([-1.0]), 0.2), [-0.2])
    graph = jj.trace(lambda x: ops.leaky_relu(ops.elu(x)), jj.Tensor.spec((3,)))
    assert [(node.name, dict(node.attrs)) for node in graph.nodes] == [
        ("elu", {"alpha": 1.0}),
        ("leaky_relu", {"slope": 0.01}),
    ]


def test_prelu_slopes():
    x = np.array([[-1.0, -1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(ops.prelu(x, np.array([0.1, 0.5])), [[-0.1, -0.5], [2, 0]])
    np.testing.assert_array_equal(ops.prelu(x, np.array([0.5])), [[-0.5, -0.5], [2, 0]])
    gradient = jj.grad(lambda a: ops.prelu(x, a).sum())(np.array([0.1, 0.5]))
    np.testing.assert_array_equal(gradient, [-1, -1])


def test_refusals():
    x = np.ones((2, 3))
    with pytest.raises(DTypeError, match="gelu: needs floating-point numbers"):
        ops.gelu(np.arange(3))
    with pytest.raises(ArgumentError, match=r"gelu: unknown approximation[\s\S]*'erf'"):
        ops.gelu(x, "erf")
    with pytest.raises(ArgumentError, match="hardtanh: bad bounds"):
        ops.hardtanh(x, 1, -1)
    with pytest.raises(ShapeError, match="softmax: there is no axis 2"):
        ops.softmax(x, 2)
    with pytest.raises(ShapeError, match="log_softmax: there is no axis -3"):
        ops.log_softmax(x, -3)
    with pytest.raises(ShapeError, match=r"prelu: the slope does not fit[\s\S]*\(3,\)"):
        ops.prelu(x, np.ones(2))
    with pytest.raises(DTypeError, match="prelu: the tensors have different dtypes"):
        ops.prelu(x, np.ones(3, np.float32))


def test_log_softmax_keeps_its_digits_for_large_inputs():
    x = np.array([1000, 1001], np.float32)
    np.testing.assert_allclose(ops.log_softmax(x), [-1.3132617, -0.31326169], rtol=1e-6)


def test_functions_pickle():
    for function in (ops.relu, ops.tanh, ops.gelu, ops.scaled_tanh):
        assert pickle.loads(pickle.dumps(function)) is function
