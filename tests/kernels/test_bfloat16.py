"""`compile(precision="bfloat16")`: what is rounded, what is multiplied in pairs, how networks train, and refusals."""

import json
import re

import numpy as np
import pytest
from frames import HALVES_HERE, bits, values
from typer.testing import CliRunner

import juanji as jj
from juanji.cli import app
from juanji.engine import precision
from juanji.engine.compiled import precision_here
from juanji.errors import ArgumentError, UnknownNameError
from juanji.kernels.isa import ISAS
from juanji.train import load_run

RNG = np.random.default_rng(0)
here = pytest.mark.skipif(not HALVES_HERE, reason="no such instructions here")


def normal(*shape):
    """Numbers that are the same in bfloat16."""
    return values(bits(RNG.normal(size=shape))).astype(np.float32)


def training(name, **options):
    net = jj.models.create(name, seed=1, **options)
    optimiser = jj.optim.SGD(net, 0.02, momentum=0.9)

    def step(x, y):
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(net)
        optimiser.update(net, grads)
        return loss, grads

    return step, net, optimiser


def batches(net, count, size):
    shape = (size, *net.config["input_size"], net.config["in_channels"])
    return [(normal(*shape), RNG.integers(10, size=size)) for _ in range(count)]


# With the least cosine of a parameter's gradient. Through a ResNet that has learnt nothing errors grow; gradients of
# two batches have 0.1.
NETWORKS = {
    "lenet5": ({}, 0.99),
    "perceptron": ({"hidden": (256, 128), "input_size": 20}, 0.99),
    "resnet18": ({"stem": "small", "channels": (16, 32, 32, 64), "input_size": 16}, 0.6),
    "vgg11_bn": ({"stages": ((16,), (32,), (32, 32)), "pooled": 2, "hidden": (64,), "input_size": 17}, 0.95),
}


def cosine(x, y):
    a, b = (each.array.ravel().astype(np.float64) for each in (x, y))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@here
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_train_as_in_float32(name):
    """The first gradients point the same way, and the losses of some steps are the same but for a little."""
    (options, least), runs = NETWORKS[name], []
    for kind in ("float32", "bfloat16"):
        RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state
        step, net, optimiser = training(name, **options)
        compiled = jj.compile(step, precision=kind)
        found = [compiled(x, y) for x, y in batches(net, 1, 33) * 6]
        cells = [cell.read() for owner in (net, optimiser) for cell in owner.cells().values()]
        assert all(np.isfinite(x.array).all() for x in cells)
        runs.append(([float(loss) for loss, _ in found], jj.tree.leaves(found[0][1])))
    (want, exact), (losses, grads) = runs
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(losses, want, rtol=0.03, atol=0.01)
    for mine, reference in zip(grads, exact, strict=True):
        # biases before a batch norm have none
        assert np.abs(reference.array).max() < 1e-4 or cosine(mine, reference) > least


@here
def test_what_is_rounded():
    """Features and their gradients; no parameter, no statistic, no loss."""
    step, net, _ = training("resnet18", stem="small", channels=(16, 32), blocks=(1, 1), input_size=16)
    ((x, y),) = batches(net, 1, 8)
    compiled = jj.compile(step, precision="bfloat16")
    draft = compiled.plan(x, y).draft
    rounded = {key for key, layout in draft.layouts.items() if layout.rounded}
    assert rounded
    stored = {id(each): each for node in draft.program.nodes for each in node.outputs if id(each) in draft.layouts}
    for key, tensor in stored.items():
        if tensor.ndim == 4 and tensor.shape[0] == 8 and tensor.size >= precision.SMALL:
            assert key in rounded
        if tensor.ndim < 2 or tensor.shape[:2] == (3, 3):
            assert key not in rounded
    found, grads = compiled(x, y)
    assert all(each.dtype == "float32" for each in (found, *jj.tree.leaves(grads)))
    want = jj.compile(training("resnet18", stem="small", channels=(16, 32), blocks=(1, 1), input_size=16)[0])
    assert compiled.plan(x, y).peak < 0.65 * want.plan(x, y).peak


def layouts(function, *args):
    """Of every stored result in float32: which primitive made it, and whether it is rounded."""
    draft = jj.compile(function, precision="bfloat16").plan(*args).draft
    made = {id(x): node.name for node in draft.program.nodes for x in node.outputs}
    found = [
        (made[key], each.rounded) for key, each in draft.layouts.items() if key in made and each.dtype == "float32"
    ]
    return {name: {rounded for other, rounded in found if other == name} for name, _ in found}


def segmentation(w, x, y):
    return jj.value_and_grad(lambda w: jj.cross_entropy(jj.conv(x, w, padding=1), y))(w)


def standardised(w, x, y):
    """A convolution by weights that are computed."""

    def loss(w):
        spread = w - w.mean((0, 1, 2), keepdims=True)
        return jj.cross_entropy(jj.conv(jj.relu(x * 2), spread / jj.sqrt((spread**2).mean())), y)

    return jj.value_and_grad(loss)(w)


@here
@pytest.mark.parametrize("function", [segmentation, standardised])
def test_losses_and_weights_stay_as_they_are(function):
    """However large they are: here a softmax of every pixel, and weights that are no cells."""
    w, x, y = normal(3, 3, 16, 32), normal(4, 40, 40, 16), RNG.integers(32, size=(4, 40, 40))
    y = y if function is segmentation else y[:, 1:-1, 1:-1]
    found = layouts(function, w, x, y)
    assert found["conv"] == {True}
    assert not any(True in found.get(name, ()) for name in ("max", "exp", "sum", "log", "div", "conv_weight_grad"))


@here
def test_statistics_of_every_sample_stay_as_they_are():
    norm = jj.nn.LayerNorm((64,))
    norm.initialise(0)
    found = layouts(lambda x, w, v: jj.relu(norm(x @ w)) @ v, normal(512, 32), normal(32, 64), normal(64, 32))
    assert True in found["matmul"]
    assert not any(True in found.get(name, ()) for name in ("sum", "power", "moments"))


@here
def test_short_algorithms_multiply_in_bfloat16_in_training_only():
    """Transposed convolutions, too. In answers their errors would be too large."""
    net = jj.nn.Sequential(
        jj.nn.Conv2d(64, 64, 3, padding=1), jj.nn.ReLU(), jj.nn.ConvTranspose2d(64, 64, 3, padding=1), jj.nn.ReLU(),
        jj.nn.Conv2d(64, 64, 1),
    )  # fmt: skip
    net.initialise(0)
    step = lambda x: jj.value_and_grad(lambda net: (net(x) ** 2).mean())(net)  # noqa: E731
    for function, count, pairs in ((step, 3, True), (net, 2, False)):
        plan = jj.compile(function, precision="bfloat16").plan(normal(16, 28, 28, 64))
        found = [call for call in plan.calls if "Winograd" in call.reason and "weight" not in call.what]
        assert ["in bfloat16" in call.reason for call in found] == [pairs] * count


PRODUCTS = {  # what is multiplied, and how often in bfloat16: a rounded operand has to be one of the step's own
    "rows": (lambda x, y: jj.tanh(x) @ y, [(96, 64), (64, 80)], 1),
    "rows and odd sums": (lambda x, y: jj.tanh(x) @ y, [(96, 63), (63, 80)], 0),
    "both": (lambda x, y: jj.tanh(x) @ jj.tanh(y), [(96, 64), (64, 80)], 1),
    "columns": (lambda x, y: jj.transpose(jj.tanh(x)) @ jj.tanh(y), [(65, 72), (65, 80)], 1),
    "batches": (lambda x, y: jj.tanh(x) @ jj.tanh(y), [(5, 40, 34), (5, 34, 30)], 1),
    "batches of columns": (
        lambda x, y: jj.transpose(jj.tanh(x), (0, 2, 1)) @ jj.tanh(y),
        [(5, 34, 40), (5, 34, 30)],
        0,
    ),
}


@here
@pytest.mark.parametrize("name", PRODUCTS)
def test_matrix_products(name):
    """Of numbers that are rounded before they are multiplied, added up in float32."""
    product, shapes, pairs = PRODUCTS[name]
    x, y = (normal(*shape) for shape in shapes)
    exact = lambda x, y: (product(x, y) ** 2).sum()  # noqa: E731
    compiled = jj.compile(lambda x, y: jj.sin(product(x, y)) * 1, precision="bfloat16")
    reasons = [call.reason for call in compiled.plan(x, y).calls if call.products]
    assert len(reasons) == 1
    assert sum("in bfloat16" in reason for reason in reasons) == pairs
    want = np.sin(product(jj.Tensor(x.astype(np.float64)), jj.Tensor(y.astype(np.float64))).array)
    assert np.abs(compiled(x, y).array - want).mean() < 0.02
    assert np.isfinite(float(jj.compile(exact, precision="bfloat16")(x, y)))


@here
def test_the_error_is_that_of_the_products_of_the_step():
    """In an answer it would be that of rounding alone, 0.2 %."""
    net = jj.nn.Sequential(jj.nn.Conv2d(64, 64, 3, padding=1), jj.nn.ReLU(), jj.nn.Conv2d(64, 64, 3, padding=1))
    net.initialise(0)
    step = jj.compile(lambda x: jj.value_and_grad(lambda m: (m(x) ** 2).mean())(net), precision="bfloat16")
    x = normal(16, 24, 24, 64)
    told = [jj.explain_plan(each, x, accuracy=True) for each in (step, jj.compile(net, precision="bfloat16"))]
    training, answer = ([float(e) for e in re.findall(r"error (\S+) of the largest", text)] for text in told)
    assert 0.004 < min(training[:2]) <= max(training) < 0.03
    assert max(answer) < 0.003


@here
def test_all_faces_of_convolutions_are_multiplied_in_bfloat16():
    w = normal(3, 3, 64, 64) / 24

    def loss(x, v, w):
        return jj.tanh(jj.conv(jj.relu(jj.conv(x, v, padding=1)), w, padding=1)).sum()

    step = jj.compile(jj.value_and_grad(loss, argnums=(1, 2)), precision="bfloat16")
    x = normal(16, 24, 24, 64)
    calls = [call for call in step.plan(x, w, w).calls if "Winograd" in call.reason]
    assert {call.what.split("+")[0]: "in bfloat16" in call.reason for call in calls} == {
        "conv": True, "conv_input_grad": True, "conv_weight_grad": True,
    }  # fmt: skip


@here
def test_inference():
    net = jj.models.create("resnet18", stem="small", channels=(16, 32, 32, 64), input_size=16, seed=0).eval()
    ((x, _),) = batches(net, 1, 32)
    want, found = jj.compile(net)(x).array, jj.compile(net, precision="bfloat16")(x).array
    assert found.dtype == np.float32
    assert 0 < np.abs(found - want).max() < 0.03 * np.abs(want).max()


@here
def test_the_command_trains_in_bfloat16(tmp_path):
    arguments = ["train", "digits", "--epochs", "2", "--quiet", "--precision", "bfloat16", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert load_run(tmp_path).config.recipe.precision == "bfloat16"
    assert json.loads((tmp_path / "metrics.json").read_text())["test_accuracy"] > 0.6


@pytest.mark.parametrize(
    ("isa", "features", "received"),
    [("avx2", {"avx512bf16"}, "the instruction set avx2"), ("avx512", {"avx512f"}, "the CPU has no avx512bf16")],
)
def test_refusals_name_what_is_missing(isa, features, received, monkeypatch):
    monkeypatch.setattr(precision, "host_features", lambda: features)
    with pytest.raises(ArgumentError, match=f"cannot compute in bfloat16\n  received  {received}") as caught:
        precision.settled("bfloat16", ISAS[isa])
    assert 'precision="float32"' in str(caught.value)
    assert precision.settled("float32", ISAS[isa]) == precision.settled("auto", ISAS[isa]) == "float32"


def test_the_best_precision_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(precision, "host_features", lambda: {"avx512bf16"})
    assert precision.settled("auto", ISAS["avx512"]) == precision.settled("bfloat16", ISAS["avx512"]) == "bfloat16"


def test_definitions_have_no_bfloat16(monkeypatch):
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    assert precision_here("auto") == precision_here("float32") == "float32"
    with pytest.raises(ArgumentError, match="the definitions do not compute in bfloat16"):
        precision_here("bfloat16")


def test_no_such_precision():
    with pytest.raises(UnknownNameError, match="no precision named 'half'"):
        jj.compile(jj.relu, precision="half")
