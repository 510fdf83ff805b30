"""Modules: state by name, paths, containers, initialisers, modes, pickling."""

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest

import juanji as jj
from juanji import nn
from juanji.errors import ArgumentError, DTypeError, ShapeError, UnknownNameError, WeightsError


def small() -> nn.Sequential:
    return nn.Sequential(
        {
            "conv": nn.Conv2d(2, 4, 3, padding="same"),
            "bn": nn.BatchNorm2d(4),
            "relu": nn.ReLU(),
            "drop": nn.Dropout(0.5),
            "flat": nn.Flatten(),
            "fc": nn.Linear(64, 3),
        }
    )


IMAGES = np.random.default_rng(0).normal(size=(5, 4, 4, 2)).astype("float32")


def test_names_are_torchvisions():
    assert list(small().state_dict()) == [
        "conv.weight",
        "conv.bias",
        "bn.weight",
        "bn.bias",
        "bn.running_mean",
        "bn.running_var",
        "bn.num_batches_tracked",
        "fc.weight",
        "fc.bias",
    ]
    assert list(small().parameters()) == [
        "conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias",
    ]  # fmt: skip


def test_train_and_eval_reach_every_module():
    model = small()
    assert all(module.training for module in model.modules().values())
    assert model.eval() is model
    assert not any(module.training for module in model.modules().values())
    assert model.train().training


def test_batch_norm_moves_statistics_in_training_only():
    layer = nn.BatchNorm2d(2)
    x = jj.Tensor(IMAGES)
    y = np.asarray(layer(x))
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(layer.running_mean, 0.1 * IMAGES.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * IMAGES.var((0, 1, 2), ddof=1), rtol=1e-5)
    before = np.asarray(layer.running_mean).copy()
    layer.eval()(x)
    np.testing.assert_array_equal(before, layer.running_mean)
    assert int(layer.num_batches_tracked) == 1


def test_biased_running_variance_is_the_notes():
    layer = nn.BatchNorm2d(2, momentum=1.0, unbiased=False)
    layer(jj.Tensor(IMAGES))
    np.testing.assert_allclose(layer.running_var, IMAGES.var((0, 1, 2)), rtol=1e-5)


def test_batch_norm_without_running_statistics():
    layer = nn.BatchNorm2d(2, track_running_stats=False, affine=False).eval()
    assert not layer.cells()
    np.testing.assert_allclose(np.asarray(layer(IMAGES)).mean((0, 1, 2)), 0, atol=1e-6)


def test_batch_norm_inside_a_gradient_moves_statistics_once():
    layer = nn.BatchNorm2d(2)
    jj.value_and_grad(lambda m, x: m(x).sum())(layer, jj.Tensor(IMAGES))
    assert int(layer.num_batches_tracked) == 1


def test_dropout_is_its_own_stream():
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    model.initialise(3)
    x = jj.Tensor(np.ones((64, 64), "float32"))
    first, second = np.asarray(model[0](x)), np.asarray(model[0](x))
    other = np.asarray(model[1](x))
    assert set(np.unique(first)) == {0.0, 2.0}
    assert (first != second).any()
    assert (first != other).any()
    model.initialise(3)
    np.testing.assert_array_equal(first, model[0](x))
    np.testing.assert_array_equal(model.eval()(x), x)


def test_dropout2d_drops_channels():
    y = np.asarray(nn.Dropout2d(0.5)(np.ones((4, 3, 3, 8), "float32")))
    assert {len(np.unique(y[n, ..., c])) for n in range(4) for c in range(8)} == {1}
    assert set(np.unique(y)) == {0.0, 2.0}


def test_traced_dropout_draws_anew():
    layer = nn.Dropout(0.5)
    graph = jj.trace(layer, jj.Tensor.spec((100,)))
    ones = jj.Tensor(np.ones(100, "float32"))
    assert (np.asarray(graph(ones)) != np.asarray(graph(ones))).any()


def test_save_and_restore():
    one, two = small(), small()
    one.initialise(1)
    one(jj.Tensor(IMAGES))
    two.load_state_dict({name: np.asarray(value) for name, value in one.state_dict().items()})
    np.testing.assert_array_equal(one.eval()(IMAGES), two.eval()(IMAGES))


def test_strict_loading_lists_everything_at_once():
    model = small()
    values = {name: np.asarray(value) for name, value in model.state_dict().items()}
    del values["conv.bias"]
    values["head.weight"] = np.zeros((2, 2))
    values["fc.weight"] = np.zeros((3, 5), "float32")
    values["bn.weight"] = values["bn.weight"] + 1
    with pytest.raises(WeightsError) as error:
        model.load_state_dict(values)
    for part in ("missing conv.bias (4,)", "unknown head.weight (2, 2)", "misshapen fc.weight (3, 5)", "(3, 64)"):
        assert part in str(error.value)
    assert float(model.bn.weight[0]) == 1, "nothing is changed unless everything fits"


@pytest.mark.parametrize(
    ("bad", "kind", "text"),
    [
        (3.0, WeightsError, "Sequential: what is loaded is tensors or arrays\n  received  1.bias: 3.0"),
        (np.zeros(2, "complex64"), DTypeError, "complex64"),
    ],
)
def test_loading_changes_nothing_unless_all_values_can_be_taken(bad, kind, text):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    values = {name: np.ones(value.shape) for name, value in model.state_dict().items()}
    with pytest.raises(kind) as error:
        model.load_state_dict({**values, "1.bias": bad})
    assert text in str(error.value)
    assert (np.asarray(model[0].weight) != 1).any()


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_equal_and_independent(clone):
    model = small()
    model.initialise(4)
    twin = clone(model)
    np.testing.assert_array_equal(model.eval()(IMAGES), twin.eval()(IMAGES))
    twin.fc.bias = twin.fc.bias + 1
    assert (np.asarray(model(IMAGES)) != np.asarray(twin(IMAGES))).any()


def test_seeds():
    one, two, three = small(), small(), small()
    one.initialise(7)
    two.initialise(7)
    three.initialise(8)
    np.testing.assert_array_equal(one.fc.weight, two.fc.weight)
    assert (np.asarray(one.fc.weight) != np.asarray(three.fc.weight)).any()


def test_equal_layers_begin_differently():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model.initialise()
    assert (np.asarray(model[0].weight) != np.asarray(model[1].weight)).any()


def test_astype_converts_floats_only():
    model = small().astype("float64")
    assert model.conv.weight.dtype == "float64"
    assert model.bn.num_batches_tracked.dtype == "int64"
    assert model(IMAGES.astype("float64")).dtype == "float64"


@pytest.mark.parametrize("dtype", ["int32", "float16", "bfloat16", np.int64, None, 3])
def test_parameters_are_floats(dtype):
    model = small()
    with pytest.raises(DTypeError, match="parameters cannot be of this type"):
        model.astype(dtype)
    assert model.conv.weight.dtype == "float32"


def test_layers_that_are_converted_first_begin_differently():
    model = nn.Sequential(nn.Linear(4, 4).astype("float64"), nn.Linear(4, 4).astype(np.float64))
    assert (np.asarray(model[0].weight) != np.asarray(model[1].weight)).all()
    assert model[1].bias.dtype == "float64"


def test_layers_that_were_read_before_they_had_a_place_are_told():
    def scaled(layer):
        layer.weight = layer.weight * 0.1
        return layer

    with pytest.warns(UserWarning, match=r"^0\.weight and 2\.weight hold the same random numbers"):
        model = nn.Sequential(scaled(nn.Linear(4, 4)), scaled(nn.LayerNorm(4)), scaled(nn.Linear(4, 4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nn.Sequential(model, nn.ReLU())  # it is told once
        shared = scaled(nn.Linear(4, 4))
        nn.Sequential(shared, shared, copy.deepcopy(shared))
        again = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        again[0].weight, again[1].weight
        nn.Sequential(again, nn.ReLU())


def test_threads_that_evaluate_leave_the_mode_as_it_was():
    model = small()
    inside, outside = threading.Barrier(3), threading.Barrier(3)

    def look():
        with model.evaluating():
            inside.wait()
            outside.wait()

    threads = [threading.Thread(target=look) for _ in range(2)]
    [thread.start() for thread in threads]
    with model.evaluating():
        inside.wait()
    assert not model.training  # for the others
    outside.wait()
    [thread.join() for thread in threads]
    assert all(module.training for module in model.modules().values())
    assert "_evaluating" not in vars(model)


def test_what_is_not_for_load_state_dict():
    model, tensor = small(), type("Tensor", (), {"shape": (3,), "__module__": "torch.nn"})()
    with pytest.raises(WeightsError, match=r"PyTorch's tensors[\s\S]*a torch.nn.Tensor\n[\s\S]*load_torch_weights"):
        model.load_state_dict({"conv.weight": tensor})
    with pytest.raises(WeightsError, match=r"is a dictionary\n  received  5\n  rule .*\n  fix       what state_dict"):
        model.load_state_dict(5)
    with pytest.raises(
        ArgumentError,
        match=r"summary: bad input_shape\n  received  input_shape=8\n  rule .*\n  fix       input_shape=\(32, 32, 3\)",
    ):
        model.summary(8)


def test_sequential():
    one, two, three = nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)
    model = nn.Sequential(one, two, three)
    assert len(model) == 3
    assert list(model) == [one, two, three]
    assert model[0] is one
    assert model[-1] is three
    assert model["1"] is two
    assert list(model[1:]) == [two, three]
    assert list(nn.Sequential([("a", one), ("b", two)]).items()) == [("a", one), ("b", two)]
    assert list(model.append(nn.Tanh()).parameters()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert isinstance(model[3], nn.Tanh)
    model[1] = model["3"] = nn.GELU()
    assert [type(layer).__name__ for layer in model] == ["Linear", "GELU", "Linear", "GELU"]


def test_container_errors():
    with pytest.raises(ArgumentError, match=r"Sequential: not a module\n  received  1: <function"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with pytest.raises(ArgumentError, match=r"(?s)this name cannot be used.*'forward'"):
        nn.Sequential({"forward": nn.ReLU()})
    with pytest.raises(ArgumentError, match=r"(?s)this name cannot be used.*'a.b'.*no full stop"):
        nn.Sequential({"a.b": nn.ReLU()})
    with pytest.raises(UnknownNameError, match="Sequential holds no 'x'"):
        nn.Sequential(nn.ReLU())["x"]
    with pytest.raises(UnknownNameError, match="Sequential holds no 'x'"):
        nn.Sequential(nn.ReLU())["x"] = nn.ReLU()
    with pytest.raises(ArgumentError, match="Sequential: not a module"):
        nn.Sequential(nn.ReLU())[0] = jj.relu
    with pytest.raises(IndexError, match="there is no module 1: Sequential holds 1"):
        nn.Sequential(nn.ReLU())[1]


class Blocks(nn.Module):
    def __init__(self):
        self.blocks = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.heads = nn.ModuleDict({"a": nn.Linear(2, 1)})

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.heads["a"](x)


def test_modules_in_lists_have_full_paths():
    model = Blocks()
    graph = jj.trace(model, jj.Tensor.spec((1, 2)))
    assert [scope.path for scope in graph.scopes] == ["blocks.0", "blocks.1", "heads.a", ""]
    assert {cell.path for cell in graph.cells} == set(model.cells())
    assert list(model.blocks[:1]) == [model.blocks[0]]
    assert model.blocks[0].place == "blocks.0"


def test_equal_layers_begin_differently_whatever_is_read_first():
    model, other = (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))) for _ in range(2))
    first, second = np.asarray(model[0].weight), np.asarray(model[1][0].weight)
    assert (first != second).any()
    other(np.zeros((1, 2), np.float32))
    np.testing.assert_array_equal(other.parameters()["1.0.weight"], second)


class Scale(nn.Module):
    def __init__(self, features):
        self.weight = nn.Parameter(np.ones(features))
        self.calls = nn.Buffer(0, "int64")

    def forward(self, x):
        self.calls = self.calls + 1
        return x * self.weight


def test_parameters_and_buffers_from_values():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Scale(4))
    assert [list(model.parameters()), list(model.buffers())] == [["0.weight", "0.bias", "2.weight"], ["2.calls"]]
    grads = jj.grad(lambda m: m(np.ones((2, 3), np.float32)).sum())(model)
    assert grads["2.weight"].shape == (4,)
    assert int(model[2].calls) == 1
    assert pickle.loads(pickle.dumps(model)).state_dict().keys() == model.state_dict().keys()


def test_arguments_that_nobody_takes_are_refused():
    for make in (lambda: nn.Softplus(beta=2), lambda: nn.Tanh(1, 2), lambda: nn.ReLU(slope=3)):
        with pytest.raises(TypeError, match=r"\(\) takes no arguments"):
            make()


def test_plain_lists_of_modules_are_refused():
    with pytest.raises(ArgumentError, match=r"(?s)a list hides the modules.*ModuleList"):
        nn.ReLU().layers = [nn.Linear(2, 2)]


def test_print_shows_the_tree():
    assert repr(nn.Sequential(nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.MaxPool2d(2, 1))) == (
        "Sequential(\n  0: Conv2d(1, 6, 5, padding=2, bias=False)\n  1: MaxPool2d(2, stride=1)\n)"
    )
    assert str(small()).startswith("Sequential(\n  conv: Conv2d")


def test_errors_name_the_layer():
    model = nn.Sequential({"features": nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))})
    with pytest.raises(ShapeError, match=r"at        features\.1 \(Conv2d\(8, 8, 3\)\)"):
        model(np.zeros((1, 4, 3, 3), "float32"))


def test_traced_equals_eager():
    model = small().eval()
    graph = jj.trace(model, jj.Tensor.spec(IMAGES.shape))
    np.testing.assert_array_equal(graph(jj.Tensor(IMAGES)), model(IMAGES))


# Initialisers


@pytest.mark.parametrize(
    ("name", "shape", "std", "low"),
    [
        ("kaiming_uniform", (3, 3, 16, 32), 1 / np.sqrt(3 * 144), -1 / np.sqrt(144)),
        ("kaiming_uniform", (64, 100), 1 / np.sqrt(300), -0.1),
        ("kaiming_normal", (3, 3, 16, 32), np.sqrt(2 / 144), None),
        ("xavier_uniform", (64, 100), np.sqrt(2 / 164), -np.sqrt(6 / 164)),
        ("xavier_normal", (64, 100), np.sqrt(2 / 164), None),
    ],
)
def test_initialisers_have_the_spread_they_promise(name, shape, std, low):
    values = getattr(nn.init, name)(jj.random.state(0, name), shape, np.dtype("float64"))
    assert values.shape == shape
    assert abs(values.std() / std - 1) < 0.05
    if low is not None:
        assert low <= values.min() < 0.97 * low
        assert 0.97 * -low < values.max() <= -low


def test_grouped_convolutions_count_the_inputs_of_their_group():
    layer = nn.Conv2d(32, 64, 3, groups=8)
    assert layer.weight.shape == (3, 3, 4, 64)
    bound = 1 / np.sqrt(36)
    assert 0.95 * bound < np.abs(np.asarray(layer.weight)).max() <= bound
    assert np.abs(np.asarray(layer.bias)).max() <= bound


def test_constants():
    dtype = np.dtype("float32")
    state = jj.random.state(0)
    np.testing.assert_array_equal(nn.init.zeros(state, (2,), dtype), [0, 0])
    np.testing.assert_array_equal(nn.init.ones(state, (2,), dtype), [1, 1])
    np.testing.assert_array_equal(nn.init.constant(state, (2,), dtype, value=3), [3, 3])
    np.testing.assert_allclose(nn.init.normal(state, (9999,), dtype, mean=2.0, std=0.5).mean(), 2, atol=0.02)
