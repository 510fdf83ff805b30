"""Networks as ONNX files: the runtimes agree, the graph is what people expect, and mistakes are told."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtimes import checked, close, kinds, session, settled, with_evaluator, with_onnxruntime

import juanji as jj
from juanji import nn
from juanji.errors import ArgumentError, DataError
from juanji.interop import save_onnx, to_onnx
from juanji.interop.export import model as exporting
from juanji.models import MODELS

# Options that make a model of each family narrow, and images small.
NARROW = {
    "ResNet": {"channels": (4, 6, 8, 10), "input_size": 64},
    "VGG": {"stages": ((4,), (6, 6), (8,)), "hidden": (12,), "pooled": 3, "input_size": 32},
}
SMALL = [name for name, entry in MODELS.items() if entry["make"].__name__ in NARROW or entry["input_size"] <= 32]


# How many batch normalisations cannot be folded, because something stands between them and the convolution.
BEHIND_POOLINGS = {"airbench94": 3}


def narrow(name, **options):
    entry = MODELS[name]
    return settled(jj.models.create(name, **NARROW.get(entry["make"].__name__, {}), **options))


def images(model, n, seed=0, dtype="float32"):
    shape = (n, *model.config["input_size"], model.config["in_channels"])
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("name", SMALL)
def test_model(name):
    """Both layouts, batch normalisation kept and folded, and batches that were not traced."""
    model = narrow(name)
    for options in ({}, {"layout": "NHWC"}, {"fold_batch_norm": True}):
        proto = checked(to_onnx(model, **options))
        layout = options.get("layout", "NCHW")
        for n in (1, 5):
            x = images(model, n)
            close(with_onnxruntime(proto, [x], layout), model(x), 1e-5)
        # One channel needs none to come first.
        assert kinds(proto)["Transpose"] == (layout == "NHWC" and model.config["in_channels"] > 1)
        if options.get("fold_batch_norm"):
            assert kinds(proto)["BatchNormalization"] == BEHIND_POOLINGS.get(name, 0)


@pytest.mark.parametrize("name", ["lenet5", "batchnorm_net", "resnet18"])
def test_model_in_double_precision(name):
    model = narrow(name).astype("float64")
    x = images(model, 2, dtype="float64")
    close(with_evaluator(checked(to_onnx(model)), [x]), model(x), 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS))
def test_model_of_full_size(name):
    model = settled(jj.models.create(name))
    x = images(model, 1)
    for fold in (False, True):
        close(with_onnxruntime(checked(to_onnx(model, fold_batch_norm=fold)), [x]), model(x), 1e-4)


EXPECTED = {
    "lenet5": {"Conv": 2, "MaxPool": 2, "Relu": 4, "Flatten": 1, "Gemm": 3},
    "vgg11": {"Conv": 8, "MaxPool": 5, "Relu": 10, "Flatten": 1, "Gemm": 3},
    "resnet18": {
        "Conv": 20,
        "BatchNormalization": 20,
        "Relu": 17,
        "MaxPool": 1,
        "Add": 8,
        "GlobalAveragePool": 1,
        "Flatten": 1,
        "Gemm": 1,
    },
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_graph_is_that_of_published_models(name):
    """As many operations as layers: no Transpose, no Add for a bias, no Reshape but Flatten."""
    size = 28 if name == "lenet5" else 224
    narrowed = {"vgg11": {"stages": [[2]] + [[2]] + [[2, 2]] * 3, "hidden": (4, 4)}, "resnet18": {"channels": (2,) * 4}}
    model = jj.models.create(name, input_size=size, **narrowed.get(name, {}))
    assert kinds(to_onnx(model)) == EXPECTED[name]


# Names, numbers and what the file says about itself


def test_initialisers_are_the_parameters_in_the_order_of_onnx():
    model = narrow("lenet5")
    weights = {x.name: onnx.numpy_helper.to_array(x) for x in to_onnx(model).graph.initializer}
    assert set(weights) == set(model.parameters())
    own = {name: np.asarray(x) for name, x in model.parameters().items()}
    np.testing.assert_array_equal(weights["conv2.weight"], own["conv2.weight"].transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(weights["fc2.weight"], own["fc2.weight"])
    columns = own["fc1.weight"].reshape(120, 5, 5, 16).transpose(0, 3, 1, 2).reshape(120, 400)
    np.testing.assert_array_equal(weights["fc1.weight"], columns)


def test_nodes_are_named_after_their_modules():
    names = [node.name for node in to_onnx(narrow("resnet18")).graph.node]
    assert {"conv1/Conv", "bn1/BatchNormalization", "layer2.0.downsample.0/Conv", "fc/Gemm"} <= set(names)
    assert len(set(names)) == len(names)


def test_inputs_and_outputs_are_declared():
    proto = to_onnx(narrow("lenet5"))
    run = session(proto)
    assert [(x.name, x.shape, x.type) for x in run.get_inputs()] == [("x", ["N", 1, 28, 28], "tensor(float)")]
    assert [(x.name, x.shape) for x in run.get_outputs()] == [("output", ["N", 10])]
    fixed = session(to_onnx(narrow("lenet5"), dynamic_batch=False, layout="NHWC"))
    assert [x.shape for x in (*fixed.get_inputs(), *fixed.get_outputs())] == [[1, 28, 28, 1], [1, 10]]
    flat = session(to_onnx(lambda x: x.reshape(-1, 2), jj.Tensor.spec((1, 6))))
    assert flat.get_outputs()[0].shape == ["3*N", 2]


def test_the_file_says_what_it_is():
    proto = to_onnx(narrow("lenet5", classes=7), metadata={"class_names": ["ä", "b"], "note": "as it is"})
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert jj.models.create(**json.loads(said["model"])).config == narrow("lenet5", classes=7).config
    assert (said["layout"], said["note"], json.loads(said["class_names"])) == ("NCHW", "as it is", ["ä", "b"])
    assert (proto.producer_name, proto.producer_version, proto.graph.name) == ("juanji", jj.__version__, "lenet5")
    assert proto.doc_string == "lenet5: 61,451 parameters, in evaluation mode, images NCHW. Takes x (N, 1, 28, 28)."


def test_versions():
    proto = to_onnx(narrow("cnn_small"))
    assert (proto.opset_import[0].version, proto.ir_version) == (28, 14)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 2)
    )
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype("float32")
    old = checked(to_onnx(model, x, opset=21))
    assert (old.opset_import[0].version, old.ir_version) == (21, 10)
    close(with_onnxruntime(old, [x]), model.eval()(x), 1e-5)
    with pytest.raises(ArgumentError, match=r"bad opset\n  received  opset=20\n  rule      21 … 28"):
        to_onnx(model, x, opset=20)


def test_the_mode_of_the_model_is_left_as_it_was():
    model = jj.models.create("batchnorm_net").train()
    model.bn1.eval()
    to_onnx(model)
    assert model.training
    assert not model.bn1.training


# Folding


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, groups=2), (5, 6, 4)),
        (nn.Conv2d(4, 6, 3, bias=False), (5, 6, 4)),
        (nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (5, 6, 4)),
        (nn.ConvTranspose2d(4, 6, 3, bias=False), (5, 6, 4)),
        (nn.Linear(5, 6), (5,)),
        (nn.Linear(5, 6, bias=False), (5,)),
    ],
    ids=lambda v: getattr(v, "label", None),
)
def test_batch_norm_goes_into_the_layer_before(layer, shape):
    norm = nn.BatchNorm1d(6) if len(shape) == 1 else nn.BatchNorm2d(6)
    model = settled(nn.Sequential(layer, norm))
    norm.weight, norm.bias = jj.Tensor(np.linspace(-1, 2, 6, dtype="float32")), norm.bias + 0.5
    x = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    proto = checked(to_onnx(model, x, fold_batch_norm=True))
    assert [node.op_type for node in proto.graph.node] == [type(layer).__name__[:-2].replace("Line", "Gemm")]
    close(with_onnxruntime(proto, [x]), model(x), 1e-5)


class Deformed(nn.Module):
    """A deformable convolution with offsets, and masks if wanted, from the image, and normalisation behind it."""

    def __init__(self, masked, bias):
        self.masked, self.norm = masked, nn.BatchNorm2d(6)
        self.offsets, self.deform = nn.Conv2d(4, 27, 3, padding=1), nn.DeformConv2d(4, 6, 3, padding=1, bias=bias)

    def forward(self, x):
        y = self.offsets(x)
        return self.norm(self.deform(x, y[..., :18], jj.sigmoid(y[..., 18:]) if self.masked else None))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_batch_norm_goes_into_a_deformable_convolution(masked, bias):
    model, x = settled(Deformed(masked, bias)), np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")
    proto = checked(to_onnx(model, x, fold_batch_norm=True))
    assert (kinds(proto)["BatchNormalization"], kinds(proto)["Transpose"]) == (0, 0)
    close(with_onnxruntime(proto, [x]), model(x), 1e-5)


class Shared(nn.Module):
    """One convolution twice, normalised once, and its first result read by two."""

    def __init__(self):
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(self.conv(y)) + self.other(y) * y


def test_what_others_read_is_not_changed():
    model, x = settled(Shared()), np.random.default_rng(0).normal(size=(2, 5, 5, 3)).astype("float32")
    proto = checked(to_onnx(model, x, fold_batch_norm=True))
    assert kinds(proto)["BatchNormalization"] == 1
    close(with_onnxruntime(proto, [x]), model(x), 1e-5)


# Layouts, shapes, functions


@st.composite
def walks(draw):
    """The shape of an image, and transposes, reshapes and additions that keep the batch in front."""
    start = draw(st.lists(st.integers(1, 4), min_size=2, max_size=3))
    shape, steps = start, []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(["transpose", "reshape", "add", "relu", "slice"]))
        if kind == "transpose":
            order = draw(st.permutations(range(len(shape))))
            steps.append((kind, [0, *(axis + 1 for axis in order)]))
            shape = [shape[axis] for axis in order]
        elif kind == "reshape":
            size = int(np.prod(shape))
            first = draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
            shape = draw(st.sampled_from([[size], [first, size // first], [first, 1, size // first]]))
            steps.append((kind, shape))
        else:
            steps.append((kind, draw(st.integers(0, len(shape) - 1))))
    return start, steps


def walk(x, steps):
    for kind, how in steps:
        if kind == "transpose":
            x = x.transpose(how)
        elif kind == "reshape":
            x = x.reshape(x.shape[0], *how)
        elif kind == "add":
            x = x + np.arange(x.shape[-1], dtype="float32")
        elif kind == "relu":
            x = jj.relu(x - 3)
        else:
            x = x[(slice(None), *[slice(None)] * how, slice(None, None, -1))]
    return x


@settings(max_examples=60, deadline=None, derandomize=True)
@given(walks(), st.sampled_from(["NCHW", "NHWC"]))
def test_elements_come_out_where_they_belong(drawn, layout):
    """Whatever order of axes the graph goes on with, for a batch that was not traced."""
    start, steps = drawn
    x = np.arange(4 * np.prod(start), dtype="float32").reshape(4, *start)
    proto = to_onnx(lambda x: walk(x, steps), x, layout=layout)
    close(with_onnxruntime(proto, [x], layout), walk(jj.Tensor(x), steps), 1e-6)


def squeeze_excite(x, w):
    gate = jj.sigmoid(jj.linear(x.mean((1, 2)), w))
    return x * gate.reshape(x.shape[0], 1, 1, x.shape[-1])


def tokens(x, w):
    n, h, width, c = x.shape
    y = jj.linear(x.reshape(n, h * width, c), w)
    scores = jj.softmax(y @ y.transpose(0, 2, 1))
    return (scores @ y).reshape(n, h, width, c) + x


def shuffle(x, w):
    n, h, width, c = x.shape
    return x.reshape(n, h, width, 2, c // 2).transpose(0, 1, 2, 4, 3).reshape(x.shape)


def joined(x, w):
    first = jj.broadcast_to(w[:1, None, None], (x.shape[0], 1, x.shape[2], x.shape[3]))
    return jj.concat([first, x], 1)


def from_the_left(x, w):
    return jj.matmul(w, jj.matmul(w + 1, x.transpose(0, 3, 1, 2)[:, :, 0, :, None]))


def pairs(x, w):
    y = jj.linear(x.max((1, 2)), w)
    return jj.exp(-((y[:, None] - y[:, :, None][:, :3]) ** 2).sum(-1)), jj.argmax(y, -1)


@pytest.mark.parametrize(
    ("function", "transposes"),
    [(squeeze_excite, 0), (tokens, 3), (shuffle, 1), (joined, 0), (pairs, 0), (from_the_left, 0)],
)
def test_functions_of_images_by_any_batch(function, transposes):
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 3, 4, 4)).astype("float32"), jj.Tensor(rng.normal(size=(4, 4)).astype("float32"))
    proto = checked(to_onnx(lambda x: function(x, w), x))
    assert kinds(proto)["Transpose"] <= transposes
    for n in (1, 5):
        close(with_onnxruntime(proto, [x[:n]]), function(jj.Tensor(x[:n]), w), 1e-5)


class ChannelsFirst(nn.Module):
    layout = "NCHW"

    def __init__(self):
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return jj.ops.moveaxis(self.conv(jj.ops.moveaxis(x, 1, -1)), -1, 1)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_module_whose_channels_come_first(layout):
    model = ChannelsFirst().eval()
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 6)).astype("float32")
    proto = checked(to_onnx(model, x, layout=layout))
    assert kinds(proto)["Transpose"] == (2 if layout == "NHWC" else 0)
    given = x if layout == "NCHW" else x.transpose(0, 2, 3, 1)
    (y,) = session(proto).run(None, {"x": given})
    close([y if layout == "NCHW" else y.transpose(0, 3, 1, 2)], model(x), 1e-5)


def test_the_same_tensor_twice_and_an_input_as_it_is():
    proto = checked(to_onnx(lambda x: (y := jj.relu(x), x, y), np.ones((1, 3), "float32")))
    x = np.array([[-1, 2, 3]], "float32")
    close(with_onnxruntime(proto, [x]), (np.maximum(x, 0), x, np.maximum(x, 0)), 0)


def test_outputs_that_are_no_tensors():
    x = np.zeros((2, 3), "float32")
    close(with_onnxruntime(checked(to_onnx(lambda x: {"y": x * 2, "n": 3}, x)), [x]), (x, np.int64(3)), 0)
    with pytest.raises(ArgumentError, match="a constant depends on the number of images"):
        to_onnx(lambda x: (x, len(x)), x)
    with pytest.raises(ArgumentError, match=r"the number of results depends (?s:.*)images: 2 and 3"):
        to_onnx(lambda x: [x] * len(x), x)


# Mistakes


class Net(nn.Module):
    def __init__(self, body):
        self.layer, self.body = nn.Linear(3, 3), body

    def forward(self, x):
        return self.layer(self.body(self.layer(x)))


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_gradients_of_what_onnx_can_do():
    """Max pooling backwards is a scatter; what comes between the parts of a composite is exported too."""
    gradient = jj.grad(lambda x: (jj.max_pool(x, 2, 1) ** 3).sum())
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
    close(with_onnxruntime(checked(to_onnx(gradient, x)), [x]), gradient(jj.Tensor(x)), 1e-5)


ROWS = jj.Tensor.spec((1, 3))
MISTAKES = [
    (lambda x: x * x.shape[0], "to_onnx: a constant depends on the number of images in another way than by repetition"),
    (lambda x: x[: x.shape[0] - 1], "to_onnx: a slice depends on the number of images"),
    (lambda x: jj.pad(x, [(0, 1), (0, 0)]), "to_onnx: a border depends on the number of images"),
    (lambda x: x + 1 if len(x) < 3 else x * 2, "received  with 2 and 3 images: add becomes mul"),
    (jj.grad(lambda x: (jj.avg_pool(x[..., None], 2, 1) ** 2).sum()), "to_onnx: window_spread has no counterpart"),
]


@pytest.mark.parametrize(("function", "text"), MISTAKES)
def test_what_cannot_be_exported_names_its_module(function, text):
    model = Net(Lambda(function))
    with pytest.raises(ArgumentError) as error:
        to_onnx(model, ROWS)
    assert text in str(error.value)
    assert "at        body" in str(error.value)


def test_another_number_of_operations_depends_on_the_batch():
    with pytest.raises(ArgumentError, match="with 2 and 3 images: 1 and 2 operations"):
        to_onnx(lambda x: jj.relu(x) if len(x) < 3 else jj.relu(x) + 1, ROWS)
    with pytest.raises(ArgumentError, match=r"a shape depends .*\n  received  with 2 and 3 images: \(4,\) and \(9,\)"):
        to_onnx(lambda x: jj.reshape(jj.sum(x[:, None] + x[None], -1), -1), ROWS)
    fixed = to_onnx(lambda x: x * x.shape[0], ROWS, dynamic_batch=False)
    close(with_onnxruntime(fixed, [np.ones((1, 3), "float32")]), np.ones((1, 3), "float32"), 0)


def test_functions_have_to_be_in_evaluation_mode():
    norm = nn.BatchNorm1d(3)
    with pytest.raises(
        ArgumentError, match=r"changes its state\n  received  running_mean is written(?s:.*)model\.eval\(\)"
    ):
        to_onnx(lambda x: norm(x), ROWS)
    norm.eval()
    assert kinds(to_onnx(lambda x: jj.ops.softmax(norm(x)), ROWS)) == {"BatchNormalization": 1, "Softmax": 1}


def test_arguments_are_checked():
    with pytest.raises(ArgumentError, match=r"which inputs does the model take\?(?s:.*)jj\.Tensor\.spec"):
        to_onnx(nn.Linear(3, 3))
    with pytest.raises(
        ArgumentError, match="the metadata cannot be written\n  received  Object of type set is not JSON"
    ):
        to_onnx(nn.Linear(3, 3), ROWS, metadata={"names": {"a"}})
    with pytest.raises(ArgumentError, match="to_onnx: unknown layout"):
        to_onnx(nn.Linear(3, 3), ROWS, layout="CHWN")


# Files


def test_a_file_is_written_whole(tmp_path):
    model, path = narrow("lenet5"), tmp_path / "model.onnx"
    save_onnx(model, path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert path.read_bytes() == to_onnx(model).SerializeToString(deterministic=True)
    x = images(model, 3)
    run = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    close(run.run(None, {"x": x.transpose(0, 3, 1, 2)}), model(x), 1e-5)
    with pytest.raises(DataError, match="the file cannot be written"):
        save_onnx(model, tmp_path / "nowhere" / "model.onnx")


def test_weights_beyond_the_limit_of_protobuf_lie_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "LIMIT", 10_000)
    model, path = narrow("lenet5"), tmp_path / "big.onnx"
    save_onnx(model, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert path.stat().st_size < 10_000 < (tmp_path / "big.onnx.data").stat().st_size
    onnx.checker.check_model(str(path), full_check=True)
    x = images(model, 3)
    run = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    close(run.run(None, {"x": x.transpose(0, 3, 1, 2)}), model(x), 1e-5)
    close(with_evaluator(onnx.load(path), [x]), model(x), 1e-5)
    with pytest.raises(ArgumentError, match=r"too large for one message of protobuf(?s:.*)fix       save_onnx"):
        to_onnx(model)
