"""Training steps and inference of whole networks, compiled, against the definitions."""

import copy

import numpy as np
import pytest

import juanji as jj
from juanji.ops.norm import batch_norm_train

TINY = {
    "perceptron": {"hidden": (24, 17), "input_size": 9},
    "lenet5": {},
    "lenet5_1998": {},
    "cnn_small": {"input_size": 20},
    "batchnorm_net": {"input_size": 20},
    "resnet18": {"stem": "small", "channels": (8, 16, 32, 64), "input_size": 16},
    "vgg11_bn": {"stages": ((8,), (16,), (16, 16)), "pooled": 2, "hidden": (20,), "input_size": 17},
}
# A small ε would make rounding errors of gradients that are about 0 into whole steps.
OPTIMISERS = {
    "momentum": lambda net: jj.optim.SGD(net, 0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda net: jj.optim.SGD(net, 0.05, momentum=0.9, nesterov=True),
    "adam": lambda net: jj.optim.Adam(net, 0.003, eps=1e-3, weight_decay=0.01),
    "adamw": lambda net: jj.optim.AdamW(net, 0.003, eps=1e-3),
    "rmsprop": lambda net: jj.optim.RMSprop(net, 0.001, eps=1e-3, momentum=0.5),
}


def batches(net, count, size=6):
    rng = np.random.default_rng(5)
    config = net.config
    shape = (size, *config["input_size"], config["in_channels"])
    return [(rng.normal(size=shape).astype(np.float32), rng.integers(10, size=size)) for _ in range(count)]


def twins(name, dtype="float32"):
    """A network, and a copy of it."""
    net = jj.models.create(name, seed=3, **TINY[name])
    for cell in net.cells().values():
        cell.convert(dtype)
    return net, copy.deepcopy(net)


def training_step(net, optimiser, bound=None):
    def step(x, y):
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(net)
        optimiser.update(net, grads if bound is None else jj.optim.clip_grad_norm(grads, bound))
        return loss, grads

    return step


def agree(mine, want, tolerance):
    """Every cell, and every tensor of a dictionary, the same but for rounding."""
    assert mine.keys() == want.keys()
    for path, x in want.items():
        a, b = np.asarray(mine[path]), np.asarray(x)
        assert a.dtype == b.dtype
        exact = b.dtype.kind != "f"
        np.testing.assert_allclose(
            a, b, rtol=0, atol=0 if exact else tolerance * max(np.abs(b).max(), 1e-3), err_msg=path
        )


def values(owner):
    return {path: cell.read() for path, cell in owner.cells().items()}


def steps_agree(name, optimiser, bound, dtype, count, tolerance):
    net, twin = twins(name, dtype)
    mine, its = OPTIMISERS[optimiser](net), OPTIMISERS[optimiser](twin)
    step, defined = jj.compile(training_step(net, mine, bound)), training_step(twin, its, bound)
    for x, y in batches(net, count):
        (loss, grads), (want, wanted) = step(x.astype(dtype), y), defined(x.astype(dtype), y)
        assert abs(float(loss) - float(want)) <= tolerance * abs(float(want))
        agree(grads, wanted, tolerance * 10)
    agree(values(net), values(twin), tolerance * 10)
    agree(values(mine), values(its), tolerance * 10)


@pytest.mark.parametrize("name", TINY)
def test_training_in_double_precision(name):
    """Where rounding decides nothing: no ReLU is on one side here and on the other there."""
    steps_agree(name, "momentum", 1.0, "float64", 3, 1e-9)


@pytest.mark.parametrize("name", TINY)
def test_training_in_single_precision(name):
    steps_agree(name, "momentum", None, "float32", 2, 1e-5)


@pytest.mark.parametrize("bound", [None, 0.5], ids=["free", "clipped"])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_optimisers(optimiser, bound):
    steps_agree("perceptron", optimiser, bound, "float64", 6, 1e-9)
    steps_agree("lenet5", optimiser, bound, "float32", 2, 2e-5)


@pytest.mark.parametrize("name", TINY)
def test_evaluation(name):
    net, twin = twins(name)
    for model in (net, twin):
        model.eval()
    ((x, _),) = batches(net, 1)
    before = values(twin)
    agree({"logits": jj.compile(net)(x)}, {"logits": twin(x)}, 1e-5)
    agree(values(net), before, 0)


def test_dropout_masks_are_those_of_the_definitions():
    class Noise(jj.nn.Module):
        def __init__(self):
            self.first, self.second, self.images = jj.nn.Dropout(0.3), jj.nn.Dropout(0.6), jj.nn.Dropout2d(0.5)

        def forward(self, x):
            return self.first(x), self.second(x), self.images(x), self.first(x)

    net = Noise()
    twin = copy.deepcopy(net)
    step, x = jj.compile(net), np.ones((3, 5, 7, 9), np.float32)
    before = None
    for _ in range(3):
        mine, want = step(x), twin(x)
        for a, b in zip(mine, want, strict=True):
            np.testing.assert_array_equal(a.array, b.array)
        assert before is None or (before != mine[0].array).any()
        before = mine[0].array
    agree(values(net), values(twin), 0)


@pytest.mark.parametrize(("mean", "spread"), [(0, 1), (5, 0.1), (100, 1), (-3, 0)])
def test_statistics_in_one_pass(mean, spread):
    """Large batches: Σ(x − μ)² by way of the first image's mean, no worse than the definition in float32."""
    x = (np.random.default_rng(0).normal(size=(9, 16, 16, 40)) * spread + mean).astype(np.float32)
    normalised = lambda x: batch_norm_train(x, None, None, epsilon=1e-5)  # noqa: E731
    exact = normalised(jj.Tensor(x.astype(np.float64)))
    for mine, defined, want in zip(jj.compile(normalised)(x), normalised(jj.Tensor(x)), exact, strict=True):
        scale = max(np.abs(want.array).max(), 1e-3)
        error, allowed = (np.abs(each.array - want.array).max() / scale for each in (mine, defined))
        assert error <= max(allowed, 1e-5)
