"""Optimisers: what they find, traced as eager, and what they refuse. Formulas: tests/torch."""

import math

import numpy as np
import pytest

import juanji as jj
from juanji import nn, optim
from juanji.errors import ArgumentError
from juanji.interop import load_weights, save_weights
from juanji.optim import schedules

OPTIMISERS = [
    lambda model: optim.SGD(model, 0.1),
    lambda model: optim.SGD(model, 0.05, momentum=0.9, weight_decay=1e-3),
    lambda model: optim.SGD(model, 0.05, momentum=0.9, nesterov=True),
    lambda model: optim.Muon(model, 0.05),
    lambda model: optim.RMSprop(model, 0.01),
    lambda model: optim.RMSprop(model, 0.01, momentum=0.5, weight_decay=1e-3),
    lambda model: optim.Adam(model, 0.05, weight_decay=1e-3),
    lambda model: optim.AdamW(model, 0.05),
]
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X @ np.array([[1.0], [-2.0], [0.5], [3.0]], "float32") + 1


def loss(model, x, y):
    return jj.ops.mse_loss(model(x), y)


def train(model, opt, steps):
    for _ in range(steps):
        value, grads = jj.value_and_grad(loss)(model, jj.Tensor(X), jj.Tensor(Y))
        opt.update(model, grads)
    return float(value)


@pytest.mark.parametrize("make", OPTIMISERS)
def test_each_finds_a_line(make):
    model = nn.Linear(4, 1)
    first = train(model, make(model), 1)
    assert train(model, make(model), 300) < 0.02 * first


@pytest.mark.parametrize("frozen", [["weihgt"], "weight", ["0"]])
def test_what_is_frozen_are_parameters(frozen):
    model = nn.Linear(4, 1)
    optimiser = optim.SGD(model, 0.1)
    with pytest.raises(ArgumentError, match=r"what is frozen are no parameters[\s\S]*such as weight, bias"):
        optimiser.update(model, {path: x * 0 for path, x in model.parameters().items()}, frozen)
    assert int(optimiser.updates) == 0


def test_what_is_assigned_is_checked():
    model = nn.Linear(4, 1)
    optimiser = optim.SGD(model, 0.1, momentum=0.9)
    for lr in (None, -0.5, math.nan, "much"):
        with pytest.raises(ArgumentError, match="SGD: bad lr"):
            optimiser.lr = lr
    optimiser.lr = 0
    assert float(optimiser.lr) == 0
    grads = {path: x * 0 + 1 for path, x in model.parameters().items()}
    optimiser.momentum = 0.0
    optimiser.update(model, grads)
    assert (np.asarray(optimiser.velocity["bias"].read()) == 1).all()
    plain = optim.SGD(model, 0.1)
    plain.momentum = 0.9
    with pytest.raises(ArgumentError, match="no velocity for a momentum"):
        plain.update(model, grads)


@pytest.mark.parametrize("make", [*OPTIMISERS, optim.ExponentialMovingAverage])
def test_state_is_saved_and_restored(make, tmp_path):
    model = nn.Linear(4, 1)
    one, other = make(model), make(model)
    grads = {path: x * 0 + 1 for path, x in model.parameters().items()}
    one.update(model, grads) if isinstance(one, optim.Optimizer) else one.update(model)
    assert one.state_dict().keys() == one.cells().keys()
    save_weights(one, tmp_path / "state.safetensors")
    load_weights(other, tmp_path / "state.safetensors")
    again = make(model)
    again.load_state_dict(one.state_dict())
    for path, value in one.state_dict().items():
        assert (np.asarray(value) == np.asarray(other.cells()[path].read())).all()
        assert (np.asarray(value) == np.asarray(again.cells()[path].read())).all()
    assert int(other.updates) == 1


@pytest.mark.parametrize("make", OPTIMISERS)
def test_a_whole_traced_step_is_the_eager_one(make):
    eager = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 1))
    eager.initialise(1)
    static = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 1))
    static.initialise(1)
    one, two = make(eager), make(static)

    def step(x, y):
        value, grads = jj.value_and_grad(loss)(static, x, y)
        two.update(static, grads)
        return value

    graph = jj.trace(step, jj.Tensor(X), jj.Tensor(Y))
    assert int(two.updates) == 0, "tracing changes nothing"
    for _ in range(3):
        value, grads = jj.value_and_grad(loss)(eager, jj.Tensor(X), jj.Tensor(Y))
        one.update(eager, grads)
        np.testing.assert_allclose(graph(jj.Tensor(X), jj.Tensor(Y)), value, rtol=1e-6)
        two.lr = one.lr = 0.01
    for path, cell in {**eager.cells(), **one.cells()}.items():
        twin = {**static.cells(), **two.cells()}[path]
        np.testing.assert_allclose(twin.read(), cell.read(), rtol=1e-5, atol=1e-7, err_msg=path)


@pytest.mark.parametrize(("axes", "c", "m"), [((3, 3), 4, 6), ((3, 3), 1, 12), ((5,), 8, 3), ((2, 3, 3), 2, 5)])
def test_muon_turns_kernels(axes, c, m):
    kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(axes)]
    model = kind(c, m, axes).astype("float64")
    model.initialise(0)
    opt, rng = optim.Muon(model, 0.2, momentum=0.7, rounds=4), np.random.default_rng(1)
    w, velocity = np.asarray(model.weight).reshape(-1, m), 0.0
    for _ in range(3):
        g = rng.normal(size=w.shape)
        velocity = 0.7 * velocity + g
        u, values, v = np.linalg.svd(g + 0.7 * velocity, full_matrices=False)
        values = values / np.linalg.norm(values)
        for _ in range(4):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        w = w * np.sqrt(m) / np.linalg.norm(w) - 0.2 * (u * values) @ v
        opt.update(model, {"weight": jj.Tensor(g.reshape(*axes, c, m)), "bias": jj.Tensor(np.zeros(m))})
        np.testing.assert_allclose(np.asarray(model.weight).reshape(-1, m), w, rtol=1e-5, atol=1e-6)


def test_muon_learns_without_gradients():
    """Of a unit that is dead all the time: nothing is divided by 0."""
    model = nn.Conv2d(2, 3, 3)
    model.initialise(0)
    optim.Muon(model).update(model, {path: jj.Tensor(np.zeros(c.shape, c.dtype)) for path, c in model.cells().items()})
    assert np.linalg.norm(model.weight) == pytest.approx(np.sqrt(3), rel=1e-5)


def test_the_learning_rate_is_read_and_assigned():
    opt = optim.SGD(nn.Linear(2, 1), lr=0.3)
    assert float(opt.lr) == 0.3
    opt.lr = 0.1
    assert float(opt.lr) == 0.1
    assert repr(opt) == "SGD(lr=0.1, momentum=0.0, nesterov=False, weight_decay=0.0)"


def test_slots_are_cells_of_the_parameters_shape_and_dtype():
    model = nn.Linear(2, 1).astype("float64")
    opt = optim.Adam(model)
    assert set(opt.cells()) == {"lr", "updates", "mean.weight", "mean.bias", "square.weight", "square.bias"}
    assert opt.cells()["mean.weight"].shape == (1, 2)
    assert opt.cells()["mean.weight"].dtype == "float64"
    assert {cell.kind for cell in opt.cells().values()} == {"slot"}


def test_gradients_must_fit():
    model = nn.Linear(2, 1)
    opt = optim.SGD(model, 0.1)
    before = np.asarray(model.weight).copy()
    wrong = {"weight": jj.Tensor(np.zeros((2, 2), "float32")), "scale": jj.Tensor(np.zeros(1, "float32"))}
    with pytest.raises(ArgumentError) as error:
        opt.update(model, wrong)
    for text in (
        "the gradients are not those",
        "missing bias",
        "unknown scale",
        "misshapen weight (2, 2), expected (1, 2)",
    ):
        assert text in str(error.value)
    np.testing.assert_array_equal(model.weight, before)
    assert int(opt.updates) == 0
    with pytest.raises(ArgumentError, match=r"(?s)the model's parameters are not those.*misshapen weight \(1, 3\)"):
        opt.update(nn.Linear(3, 1), wrong)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda m: optim.SGD(m, lr=0), "SGD: bad lr\n  received  lr=0\n  rule      above 0"),
        (lambda m: optim.SGD(m, momentum=1.0), "SGD: bad momentum"),
        (lambda m: optim.SGD(m, nesterov=True), "SGD: Nesterov's step needs momentum"),
        (lambda m: optim.SGD(m, weight_decay=-1), "SGD: bad weight_decay"),
        (lambda m: optim.Muon(m, momentum=1.0), "Muon: bad momentum"),
        (lambda m: optim.Muon(m, rounds=0), "Muon: bad rounds"),
        (lambda m: optim.Adam(m, betas=(0.9, 1.0)), "Adam: bad beta2"),
        (lambda m: optim.AdamW(m, lr=math.nan), "AdamW: bad lr"),
        (lambda m: optim.RMSprop(m, alpha=-0.1), "RMSprop: bad alpha"),
        (lambda m: optim.SGD(nn.ReLU()), "SGD: nothing to train\n  received  ReLU without parameters"),
        (lambda m: optim.Adam(m.parameters()), "Adam: an optimiser takes the model\n  received  a dict"),
        (lambda m: optim.Adam(m, lr="0.1"), "Adam: bad lr\n  received  lr='0.1'"),
        (lambda m: optim.Adam(m, betas=0.9), "Adam: bad betas\n  received  betas=0.9\n  rule      two numbers"),
        (lambda m: optim.Adam(m, betas=("a", 0.9)), "Adam: bad beta1"),
        (lambda m: optim.clip_grad_norm({}, 0), "clip_grad_norm: bad max_norm"),
        (lambda m: optim.grad_norm({}), "grad_norm: no gradients"),
        (lambda m: optim.StoppingRule(-1), "StoppingRule: bad epsilon"),
        (lambda m: schedules.cosine(0.1, 10, warmup=10), "cosine: warm-up takes all steps"),
        (
            lambda m: schedules.one_cycle(0.1, 2),
            "one_cycle: no room to rise and fall\n  received  rise=0.3, total=2\n"
            "  rule      0 < rise·total − 1 < total − 1\n  fix       more epochs, smaller batches",
        ),
        (lambda m: schedules.constant(0), "constant: bad lr"),
        (lambda m: schedules.stepwise(0.1, 0), "stepwise: bad every"),
    ],
)
def test_arguments_are_checked(make, text):
    with pytest.raises(ArgumentError) as error:
        make(nn.Linear(2, 1))
    assert text in str(error.value)


def test_clipping():
    grads = {"a": jj.Tensor([3.0, 0.0]), "b": jj.Tensor([[-4.0]])}
    assert float(optim.grad_norm(grads)) == 5
    clipped = optim.clip_grad_norm(grads, 1.0)
    np.testing.assert_allclose(clipped["b"], [[-0.8]], rtol=1e-6)
    np.testing.assert_array_equal(optim.clip_grad_norm(grads, 6.0)["a"], grads["a"])
    np.testing.assert_array_equal(optim.clip_grad_value(grads, 2.0)["b"], [[-2.0]])


def test_schedules():
    assert schedules.constant(0.1)(7) == 0.1
    assert [schedules.stepwise(1.0, 2, 0.5)(t) for t in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = schedules.cosine(1.0, 10, warmup=2, final=0.1)
    np.testing.assert_allclose([cosine(t) for t in (0, 1, 2, 6, 10, 99)], [0.5, 1, 1, 0.55, 0.1, 0.1])
    cycle = schedules.one_cycle(1.0, 11)
    values = [cycle(t) for t in range(11)]
    assert values[0] == pytest.approx(1 / 25)
    assert max(values) == pytest.approx(1, abs=0.03)
    assert values[-1] == pytest.approx(1e-4 / 25)


def test_the_stopping_rule_of_003():
    stop = optim.StoppingRule(0.1)
    values = [np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([1.0, 0.95])]
    assert [stop({"w": jj.Tensor(v)}) for v in values] == [False, False, True]
    assert stop.change == pytest.approx(0.05)
    model = nn.Linear(4, 1)
    opt, stop, steps = optim.SGD(model, 0.1), optim.StoppingRule(1e-4), 0
    while not stop(model.parameters()):
        train(model, opt, 1)
        steps += 1
    assert 10 < steps < 500
