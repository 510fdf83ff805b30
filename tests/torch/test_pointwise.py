"""Pointwise functions, activations and reductions against PyTorch: at random places, far out, and at kinks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

RNG = np.random.default_rng(0)
POSITIVE = RNG.uniform(0.1, 4, (3, 5))
ANY = np.concatenate([RNG.normal(0, 2, 20), [-800.0, -40.0, 40.0, 800.0]])
KINKS = np.array([-6.0, -3, -1, -0.5, 0, 0.5, 1, 3, 6])
EVERYWHERE = np.concatenate([ANY, KINKS])

UNARY = {
    "neg": (torch.neg, EVERYWHERE),
    "abs": (torch.abs, EVERYWHERE),
    "exp": (torch.exp, ANY[:20]),
    "expm1": (torch.expm1, ANY[:20]),
    "log": (torch.log, POSITIVE),
    "log1p": (torch.log1p, POSITIVE),
    "sqrt": (torch.sqrt, POSITIVE),
    "rsqrt": (torch.rsqrt, POSITIVE),
    "square": (torch.square, EVERYWHERE),
    "sin": (torch.sin, EVERYWHERE),
    "cos": (torch.cos, EVERYWHERE),
    "tanh": (torch.tanh, EVERYWHERE),
    "sigmoid": (torch.sigmoid, EVERYWHERE),
    "softplus": (lambda x: F.softplus(x, threshold=1000), ANY[:20]),
    "erf": (torch.erf, EVERYWHERE),
    "relu": (torch.relu, EVERYWHERE),
    "leaky_relu": (F.leaky_relu, EVERYWHERE),
    "elu": (F.elu, EVERYWHERE),
    "selu": (F.selu, EVERYWHERE),
    "gelu": (F.gelu, EVERYWHERE),
    "silu": (F.silu, EVERYWHERE),
    "mish": (F.mish, EVERYWHERE),
    "relu6": (F.relu6, EVERYWHERE),
    "hardswish": (F.hardswish, EVERYWHERE),
    "hardtanh": (F.hardtanh, EVERYWHERE),
    "softsign": (F.softsign, EVERYWHERE),
    "logsigmoid": (F.logsigmoid, EVERYWHERE),
    "scaled_tanh": (lambda x: 1.7159 * torch.tanh(2 * x / 3), EVERYWHERE),
    "softmax": (lambda x: torch.softmax(x, -1), POSITIVE),
    "log_softmax": (lambda x: torch.log_softmax(x, -1), EVERYWHERE),
    "softmin": (lambda x: F.softmin(x, -1), POSITIVE),
}


@pytest.mark.parametrize("name", UNARY)
def test_one_variable(compare, name):
    theirs, x = UNARY[name]
    compare(getattr(jj, name), theirs, x)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda x: jj.leaky_relu(x, 0.2), lambda x: F.leaky_relu(x, 0.2)),
        (lambda x: jj.elu(x, 0.6), lambda x: F.elu(x, 0.6)),
        (lambda x: jj.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (lambda x: jj.hardtanh(x, -0.5, 3), lambda x: F.hardtanh(x, -0.5, 3)),
        (lambda x: jj.clip(x, -0.7, 2.2), lambda x: torch.clamp(x, -0.7, 2.2)),
        (lambda x: x**3, lambda x: x**3),
        (lambda x: x**2, lambda x: x**2),
        (lambda x: 2**x, lambda x: 2**x),
    ],
    ids=["leaky_relu", "elu", "gelu", "hardtanh", "clip", "cube", "square", "power of two"],
)
def test_options(compare, ours, theirs):
    compare(ours, theirs, np.concatenate([ANY[:20], KINKS]))


def test_hardsigmoid(compare):
    """PyTorch's sixth has float32 precision, whatever the dtype."""
    compare(jj.hardsigmoid, F.hardsigmoid, EVERYWHERE, tolerance=1e-7)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_along_an_axis(compare, name, axis):
    x = RNG.normal(0, 100, (2, 3, 4))
    compare(lambda x: getattr(jj, name)(x, axis), lambda x: getattr(torch, name)(x, axis), x)


@pytest.mark.parametrize("slopes", [1, 4])
def test_prelu(compare, slopes):
    x = RNG.normal(size=(3, 5, 4))
    x[0, 0, 0] = 0
    theirs = lambda x, slope: F.prelu(x.movedim(-1, 1), slope).movedim(1, -1)  # noqa: E731
    compare(jj.prelu, theirs, x, RNG.normal(size=slopes))


BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "pow": torch.pow,
}


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((3, 1), (2, 1, 4)), ((), (2, 3)), ((0, 3), (3,))])
@pytest.mark.parametrize("name", BINARY)
def test_two_variables(compare, name, shapes):
    """With equal elements among them: maximum and minimum then share the gradient."""
    x, y = (RNG.integers(1, 5, shape) / 2 for shape in shapes)
    compare(getattr(jj, name), BINARY[name], np.asarray(x), np.asarray(y))


def test_power_of_zero(compare):
    compare(jj.pow, torch.pow, np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0, 0.0]))


def test_where(compare):
    condition = RNG.random((3, 4)) > 0.5
    compare(
        lambda x, y: jj.where(condition, x, y),
        lambda x, y: torch.where(torch.tensor(condition), x, y),
        RNG.normal(size=(3, 4)),
        RNG.normal(size=4),
    )


@pytest.mark.parametrize("axis", [None, 0, 2, (0, 2), (1, -1)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "var", "std", "logsumexp"])
def test_reductions(compare, name, keepdims, axis):
    axes = (0, 1, 2) if axis is None else axis
    theirs = {
        "sum": lambda x: torch.sum(x, axes, keepdim=keepdims),
        "mean": lambda x: torch.mean(x, axes, keepdim=keepdims),
        "var": lambda x: torch.var(x, axes, correction=1, keepdim=keepdims),
        "std": lambda x: torch.std(x, axes, correction=1, keepdim=keepdims),
        "logsumexp": lambda x: torch.logsumexp(x, axes, keepdim=keepdims),
    }[name]
    options = {"correction": 1} if name in ("var", "std") else {}
    compare(lambda x: getattr(jj, name)(x, axis, keepdims=keepdims, **options), theirs, RNG.normal(size=(2, 3, 4)))


@pytest.mark.parametrize("name", ["max", "min", "prod", "cumsum"])
def test_along_one_axis(compare, name):
    x = RNG.permutation(24).reshape(2, 3, 4) - 5.0  # a zero among the factors, no ties

    def theirs(x):
        result = getattr(torch, name)(x, 1)
        return result if isinstance(result, torch.Tensor) else result.values

    compare(lambda x: getattr(jj, name)(x, 1), theirs, x)
