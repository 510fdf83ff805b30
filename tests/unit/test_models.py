"""The small models, in every respect: figures, gradients by name, learning, saving, and what it refuses."""

import copy
import pickle

import numpy as np
import pytest

import juanji as jj
from juanji import models, nn
from juanji.errors import ArgumentError, DTypeError, ShapeError, UnknownNameError
from juanji.models.lenet import TABLE, codes

PARAMETERS = {
    ("perceptron", ()): 335_114,
    ("cnn_small", ()): 56_442,
    ("batchnorm_net", ()): 60_118,
    ("lenet5", ()): 61_706,
    ("lenet5", (("in_channels", 3), ("input_size", 32), ("classes", 100))): 456 + 2416 + 69_240 + 10_164 + 8500,
    ("lenet5", (("input_size", (12, 20)),)): 156 + 2416 + 5880 + 10_164 + 850,
    ("lenet5_1998", ()): 60_000,
    ("lenet5_1998", (("classes", 4),)): 60_000,
    ("lenet5_1998", (("classes", 26),)): 60_000,
    ("perceptron", (("hidden", (32,)), ("input_size", 8))): 64 * 32 + 32 + 330,
    ("lenet5", (("batch_norm", True),)): 61_706 + 44,
}  # fmt: skip


# Networks for large images made small, with every part they have. All others are in test_networks.py.
RESNET = {"channels": (8, 8, 16, 16), "input_size": 20, "stem": "small"}
VGG = {"stages": ((8,), (8,), (12, 12)), "input_size": 16, "pooled": 2, "hidden": (24,), "dropout": 0.0}
SMALL = {"resnet18": RESNET, "vgg11": VGG, "vgg11_bn": VGG}


def make(name, **options):
    return models.create(name, **{**SMALL.get(name, {}), **options})


def batch(model, n=8, seed=0):
    size, channels = model.config["input_size"], model.config["in_channels"]
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *size, channels)).astype("float32")
    return jj.Tensor(x), jj.Tensor(np.arange(n) % model.config["classes"])


def loss(model, x, y):
    return jj.ops.cross_entropy(model(x), y)


every_model = pytest.mark.parametrize("name", sorted({name for name, _ in PARAMETERS} | set(SMALL)))


@pytest.mark.parametrize(("entry", "count"), PARAMETERS.items())
def test_parameters(entry, count):
    model = models.create(entry[0], **dict(entry[1]))
    assert sum(p.size for p in model.parameters().values()) == count
    x, _ = batch(model, 2)
    assert model(x).shape == (2, model.config["classes"])


@every_model
def test_every_parameter_gets_a_gradient(name):
    model = make(name)
    x, y = batch(model)
    _, grads = jj.value_and_grad(loss)(model, x, y)
    assert list(grads) == list(model.parameters())
    for path, g in grads.items():
        assert np.isfinite(np.asarray(g)).all(), path
        assert np.asarray(g).any(), path


@every_model
def test_it_learns_eight_images_by_heart(name):
    model = make(name)
    x, y = batch(model)
    opt = jj.optim.Adam(model, lr=0.003)
    for _ in range(60):
        value, grads = jj.value_and_grad(loss)(model, x, y)
        opt.update(model, grads)
        if float(value) < 0.05:
            break
    np.testing.assert_array_equal(model(x).argmax(-1), y)


@every_model
def test_saving_copying_and_making_again(name):
    model = make(name, seed=5)
    x, _ = batch(model)
    model(x)
    model.eval()
    again = models.create(**{**model.config, "seed": 6}).eval()
    assert (np.asarray(again(x)) != np.asarray(model(x))).any()
    again.load_state_dict(model.state_dict())
    for twin in (again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin(x), model(x))
    fresh = models.create(**model.config)
    for path, value in make(name, seed=5).parameters().items():
        np.testing.assert_array_equal(value, fresh.parameters()[path])


@every_model
def test_the_traced_forward_is_the_eager_one(name):
    model = make(name).eval()
    x, _ = batch(model, 3)
    np.testing.assert_array_equal(jj.trace(model, x)(x), model(x))


@every_model
def test_a_traced_training_step_changes_cells_as_the_eager_one(name):
    eager, static = make(name), make(name)
    one, two = jj.optim.SGD(eager, 0.01, momentum=0.9), jj.optim.SGD(static, 0.01, momentum=0.9)
    x, y = batch(eager, 4)

    def step(model, opt, x, y):
        value, grads = jj.value_and_grad(loss)(model, x, y)
        opt.update(model, grads)
        return value

    graph = jj.trace(lambda x, y: step(static, two, x, y), x, y)
    for _ in range(2):
        np.testing.assert_allclose(graph(x, y), step(eager, one, x, y), rtol=1e-5)
    for path, value in eager.state_dict().items():
        np.testing.assert_allclose(static.state_dict()[path], value, rtol=1e-4, atol=1e-6, err_msg=path)


@every_model
def test_images_of_another_size_are_refused(name):
    model = make(name)
    height, width = model.config["input_size"]
    with pytest.raises(ShapeError) as error:
        model(np.zeros((2, height + 1, width, model.config["in_channels"]), "float32"))
    assert f"{name}: images of another size than the network was made for" in str(error.value)
    assert f"H={height}, W={width}" in str(error.value)


@pytest.mark.parametrize(
    ("shape", "fix"),
    [
        ((2, 1, 28, 28), "images are channels last, (N, H, W, C): x.transpose(0, 2, 3, 1)"),
        ((28, 28, 1), "add an axis for the batch first: x[None]"),
        ((2, 28, 28), "add an axis for the channels last: x[..., None]"),
        ((28, 28), "add an axis for the batch first and one for the channels last"),
        ((2, 30, 30, 1), "resize the images"),
    ],
)
def test_axes_that_are_missing_or_out_of_order(shape, fix):
    with pytest.raises(ShapeError) as error:
        models.create("lenet5")(np.zeros(shape, "float32"))
    assert f"fix       {fix}" in str(error.value)


def test_a_summary_without_channels():
    with pytest.raises(ShapeError, match=r"add an axis for the channels last.*\(H, W, 1\)"):
        models.create("lenet5").summary((28, 28))


@every_model
def test_images_of_whole_numbers_are_refused(name):
    model = make(name)
    x = np.zeros((2, *model.config["input_size"], model.config["in_channels"]), "uint8")
    with pytest.raises(DTypeError, match=r'x\.astype\("float32"\) / 255'):
        model(x)


def test_perceptron_takes_flat_images():
    model = models.create("perceptron")
    x, _ = batch(model)
    np.testing.assert_array_equal(model(x), model(x.reshape(8, -1)))


def test_lenet5_has_the_usual_names():
    assert [path.split(".")[0] for path in models.create("lenet5").parameters()][::2] == [
        "conv1", "conv2", "fc1", "fc2", "fc3",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "least"), [("lenet5", 12), ("cnn_small", 16), ("batchnorm_net", 10)])
def test_the_minimum_is_named(name, least):
    models.create(name, input_size=least)
    with pytest.raises(ShapeError, match=f"{name}: the images are too small") as error:
        models.create(name, input_size=(least - 1, 40))
    assert f"at least {least}×{least}" in str(error.value)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: models.create("lenet"), UnknownNameError, "did you mean 'lenet5'"),
        (lambda: models.create("zzz"), UnknownNameError, "one of airbench94, alexnet, alexnet_2012"),
        (lambda: models.create("resnet19"), UnknownNameError, "did you mean 'resnet18'"),
        (lambda: models.list("detection"), UnknownNameError, "there is no task named 'detection'"),
        (lambda: models.create("lenet5", width=0), ArgumentError, "lenet5: bad width"),
        (lambda: models.create("lenet5_1998", width=2), ArgumentError, "lenet5_1998 has no such option"),
        (lambda: models.create("lenet5", num_classes=3), ArgumentError, "did you mean 'classes'"),
        (lambda: models.create("lenet5", seed=1.5), ArgumentError, "lenet5: bad seed\n  received  seed=1.5"),
        (lambda: models.create("lenet5", depth=3), ArgumentError, "lenet5 has no such option\n  received  depth"),
        (lambda: models.create("lenet5", classes=0), ArgumentError, "lenet5: bad classes"),
        (lambda: models.create("lenet5", in_channels=-1), ArgumentError, "lenet5: bad in_channels"),
        (lambda: models.create("lenet5", input_size=(1, 2, 3)), ArgumentError, "lenet5: bad input_size"),
        (lambda: models.create("lenet5", channels=()), ArgumentError, "lenet5: no convolution"),
        (lambda: models.create("perceptron", hidden=(0,)), ArgumentError, "perceptron: bad hidden"),
        (lambda: models.create("lenet5_1998", input_size=28), ArgumentError, "lenet5_1998: takes 32×32 images only"),
    ],
)
def test_mistakes(call, kind, text):
    with pytest.raises(kind) as error:
        call()
    assert text in str(error.value)


def test_the_partial_connections_of_1998():
    assert [len(maps) for maps in TABLE] == [3] * 6 + [4] * 9 + [6]
    assert TABLE[4] == (0, 4, 5)
    assert TABLE[9] == (0, 3, 4, 5)
    assert TABLE[14] == (0, 2, 3, 5)
    uses = np.bincount([place for maps in TABLE for place in maps])
    np.testing.assert_array_equal(uses, 10)
    weights = sum(25 * len(maps) for maps in TABLE)
    assert weights + 16 == 1516


def test_codes_are_distinct_pictures():
    pictures = codes(30)
    assert pictures.shape == (30, 84)
    assert set(np.unique(pictures)) == {-1.0, 1.0}
    apart = (pictures[:, None] != pictures[None]).sum(-1)
    assert apart[~np.eye(30, dtype=bool)].min() >= 8
    np.testing.assert_array_equal(codes(4), pictures[:4])


def test_outputs_of_1998_are_negated_squared_distances():
    model = models.create("lenet5_1998").eval()
    layer = model.output
    x = np.random.default_rng(0).normal(size=(3, 84)).astype("float32")
    expected = -((x[:, None] - codes(10)[None]) ** 2).sum(-1)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)
    assert isinstance(layer, nn.Module)
    assert list(model.buffers()) == ["output.centres"]
