"""Published weights: names, axes, what is left out, and everything that does not fit told at once."""

import inspect
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import juanji as jj
from juanji import models, nn
from juanji.errors import ArgumentError, WeightsError
from juanji.interop import (
    load_torch_weights,
    load_weights,
    save_torch_weights,
    save_weights,
    torchlayout,
    torchnames,
)
from juanji.interop.checkpoint import WRAPPERS
from juanji.interop.fit import first_kernels
from juanji.interop.torchlayout import head_of, layouts, traced
from juanji.interop.torchnames import FAMILIES, matched


def state(model):
    return {path: np.asarray(value) for path, value in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def small(classes=3, seed=0):
    """A network with all that differs: kernels, statistics, a dense layer behind flattening."""
    model = nn.Sequential(
        {"conv": nn.Conv2d(2, 3, 3), "bn": nn.BatchNorm2d(3), "flat": nn.Flatten(), "fc": nn.Linear(12, classes)}
    )
    model.initialise(seed)
    return model


SHAPE = (4, 4, 2)


def published(model, **changes):
    """The arrays of `small` as PyTorch has them, by hand: axes moved, columns of the dense layer put in order."""
    arrays = state(model)
    arrays["conv.weight"] = np.ascontiguousarray(arrays["conv.weight"].transpose(3, 2, 0, 1))
    dense = arrays["fc.weight"].reshape(-1, 2, 2, 3)
    arrays["fc.weight"] = np.ascontiguousarray(dense.transpose(0, 3, 1, 2).reshape(-1, 12))
    return {path: array for path, array in {**arrays, **changes}.items() if array is not None}


@pytest.fixture
def file(tmp_path):
    save_file(published(small(seed=1)), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_axes_and_columns_by_hand(file):
    model = small()
    assert load_torch_weights(model, file, input_shape=SHAPE).left == ()
    assert equal(state(model), state(small(seed=1)))


def test_a_dictionary_in_memory():
    model = small()
    load_torch_weights(model, published(small(seed=1)), input_shape=SHAPE)
    assert equal(state(model), state(small(seed=1)))
    with pytest.raises(WeightsError, match=r"the state dictionary cannot be read\n  received  conv.weight: KeyError"):
        load_torch_weights(model, {"conv.weight": object()}, input_shape=SHAPE)


def test_what_is_saved_is_what_it_was_by_hand(file, tmp_path):
    save_torch_weights(small(seed=1), tmp_path / "again.safetensors", input_shape=SHAPE)
    from safetensors import safe_open
    from safetensors.numpy import load_file

    assert equal(load_file(tmp_path / "again.safetensors"), load_file(file))
    with safe_open(tmp_path / "again.safetensors", "numpy") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_files_of_juanji_are_taken_as_they_lie(tmp_path):
    save_weights(small(seed=1), tmp_path / "ours")
    model = small()
    load_torch_weights(model, tmp_path / "ours", input_shape=SHAPE)
    assert equal(state(model), state(small(seed=1)))


def test_the_count_of_batches_is_passed_over(tmp_path):
    model = small()
    model.load_state_dict({**state(model), "bn.num_batches_tracked": np.array(5)})
    for count in (np.array(9), None):
        save_file(published(small(seed=1), **{"bn.num_batches_tracked": count}), tmp_path / "x")
        load_torch_weights(model, tmp_path / "x", input_shape=SHAPE)
        assert state(model)["bn.num_batches_tracked"] == 5


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_numbers_become_the_models(dtype, tmp_path):
    arrays = published(small(seed=1))
    save_file({path: x.astype(dtype) if x.dtype.kind == "f" else x for path, x in arrays.items()}, tmp_path / "x")
    model = small()
    load_torch_weights(model, tmp_path / "x", input_shape=SHAPE)
    expected = {path: x.astype(dtype).astype(x.dtype) for path, x in state(small(seed=1)).items()}
    assert {x.dtype for x in state(model).values()} == {np.dtype("float32"), np.dtype("int64")}
    assert equal({**state(model), "bn.num_batches_tracked": 0}, {**expected, "bn.num_batches_tracked": 0})


def test_numbers_that_are_too_large(tmp_path):
    save_file(published(small(), **{"fc.bias": np.array([1, 1e300, 2])}), tmp_path / "x")
    with pytest.raises(WeightsError, match=r"cannot be read[\s\S]*overflow encountered in cast"):
        load_torch_weights(small(), tmp_path / "x", input_shape=SHAPE)


def test_everything_that_does_not_fit_is_told_and_nothing_changed(tmp_path):
    changes = {
        "conv.bias": None,
        "bn.running_var": np.ones(3, np.int32),
        "fc.weight": np.ones((5, 12), np.float32),
        "fc.bias": np.ones(5, np.float32),
        "conv.weight": np.ones((3, 3, 2, 3), np.float32),
        "extra.weight": np.ones(2, np.float32),
    }
    save_file(published(small(seed=1), **changes), tmp_path / "x")
    model = small()
    with pytest.raises(WeightsError) as caught:
        load_torch_weights(model, tmp_path / "x", input_shape=SHAPE)
    text = str(caught.value)
    assert text.startswith("the weights do not fit Sequential\n")
    assert f"at        {tmp_path / 'x'}" in text
    assert "missing conv.bias (3,)" in text
    assert "unknown extra.weight (2,)" in text
    assert "misfitting bn.running_var I32(3,), the model's float32(3,)" in text
    assert "misfitting fc.weight F32(5, 12), the model's float32(3, 12)" in text
    assert "misfitting conv.weight F32(3, 3, 2, 3), the model's float32(3, 2, 3, 3)" in text
    assert "fix       the network that was saved: `juanji models` lists those with names" in text
    assert equal(state(model), state(small()))


def test_names_in_the_file_are_told_where_they_differ(tmp_path):
    save_file({f"module.{k}": x for k, x in published(small(), **{"fc.bias": np.ones(5)}).items()}, tmp_path / "x")
    with pytest.raises(WeightsError, match=r"misfitting fc\.bias \(module\.fc\.bias in the file\) F64\(5,\)"):
        load_torch_weights(small(), tmp_path / "x", input_shape=SHAPE)


def test_numbers_of_eight_bits_do_not_fit(tmp_path):
    import json
    import struct

    entry = {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [0, 3]}
    header = json.dumps({"weight": entry, "bias": entry}).replace(
        '"data_offsets": [0, 3]}}', '"data_offsets": [3, 6]}}'
    )
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(6))
    with pytest.raises(WeightsError, match=r"misfitting weight F8_E4M3\(3,\), the model's float32\(3,\)"):
        load_torch_weights(nn.GroupNorm(1, 3), tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"{", b"GIF89a", b"PK\3\4", b"\x80\x02N."])
def test_files_of_no_format(content, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match="the weight file cannot be read") as caught:
        load_torch_weights(nn.Conv2d(1, 1, 1), tmp_path / "x")
    assert f"at        {tmp_path / 'x'}" in str(caught.value)


def test_headers_that_are_too_large(file, monkeypatch):
    monkeypatch.setattr("juanji.interop.contents.LARGEST", 100)
    with pytest.raises(WeightsError, match=r"a header of \d+ bytes, where at most 100 are expected"):
        load_torch_weights(small(), file, input_shape=SHAPE)


def test_missing_files(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no such weight file\n  at        .*gone"):
        load_torch_weights(nn.Conv2d(1, 1, 1), tmp_path / "gone")
    with pytest.raises(WeightsError, match="the weight file cannot be read"):
        load_torch_weights(nn.Conv2d(1, 1, 1), tmp_path)


@pytest.mark.parametrize("use", [load_torch_weights, save_torch_weights])
def test_the_input_shape_is_asked_for(use, file):
    with pytest.raises(ArgumentError) as caught:
        use(small(), file)
    assert f"{use.__name__}: the shape of the network's input is needed" in str(caught.value)
    assert "fix       input_shape=(H, W, C), such as input_shape=(32, 32, 3)" in str(caught.value)


def test_networks_of_convolutions_need_no_input_shape(tmp_path):
    for model in (nn.Conv2d(2, 3, (3, 1)), nn.Sequential(nn.ConvTranspose1d(2, 3, 3), nn.BatchNorm1d(3))):
        before = state(model)
        save_torch_weights(model, tmp_path / "x")
        model.initialise(seed=9)
        load_torch_weights(model, tmp_path / "x")
        assert equal(state(model), before)


# The head


def test_a_head_for_other_classes_is_left_out(tmp_path):
    save_file(published(small(5, seed=1)), tmp_path / "x")
    for head in (False, None):
        model = small()
        assert load_torch_weights(model, tmp_path / "x", head=head, input_shape=SHAPE).left == ("fc.weight", "fc.bias")
        now, file, begin = state(model), state(small(5, seed=1)), state(small())
        assert equal(now, {path: (begin if path.startswith("fc") else file)[path] for path in now})


def test_a_head_that_fits(file):
    model = small()
    assert load_torch_weights(model, file, head=None, input_shape=SHAPE).left == ()
    assert equal(state(model), state(small(seed=1)))
    model = small()
    assert load_torch_weights(model, file, head=False, input_shape=SHAPE).left == ("fc.weight", "fc.bias")
    assert np.array_equal(state(model)["fc.weight"], state(small())["fc.weight"])


def test_a_file_without_a_head(tmp_path):
    save_file(published(small(seed=1), **{"fc.weight": None, "fc.bias": None}), tmp_path / "x")
    assert load_torch_weights(small(), tmp_path / "x", head=None, input_shape=SHAPE).left == ("fc.weight", "fc.bias")
    with pytest.raises(WeightsError, match=r"missing fc\.weight \(3, 12\)"):
        load_torch_weights(small(), tmp_path / "x", input_shape=SHAPE)


def test_without_the_head_everything_else_must_fit(tmp_path):
    save_file(published(small(5, seed=1), **{"bn.bias": None}), tmp_path / "x")
    with pytest.raises(WeightsError) as caught:
        load_torch_weights(small(), tmp_path / "x", head=False, input_shape=SHAPE)
    assert "received  missing bn.bias (3,)\n" in str(caught.value)
    assert "head=False" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "head"),
    [
        ("resnet18", {"input_size": 32, "channels": (2, 2, 2, 2)}, "fc"),
        ("vgg11", {"input_size": 32, "stages": ((2,), (2,)), "hidden": (3, 4)}, "classifier.6"),
        ("lenet5", {}, "fc3"),
    ],
)
def test_the_heads_of_networks(name, options, head, tmp_path):
    save_torch_weights(models.create(name, classes=4, **options), tmp_path / "x")
    model = models.create(name, classes=6, **options)
    assert load_torch_weights(model, tmp_path / "x", head=False).left == (f"{head}.weight", f"{head}.bias")


class WithAuxiliary(nn.Module):
    """A classifier on the way, which only training uses."""

    def __init__(self, classes):
        self.conv, self.aux1, self.fc = nn.Conv2d(2, 3, 3), nn.Linear(12, classes), nn.Linear(3, classes)

    def forward(self, x):
        y = self.conv(x)
        answer = self.fc(y.mean((1, 2)))
        return (answer, self.aux1(jj.ops.flatten(y))) if self.training else answer


def test_auxiliary_classifiers(tmp_path):
    save_torch_weights(WithAuxiliary(3), tmp_path / "x", input_shape=SHAPE)
    model = WithAuxiliary(5)
    left = load_torch_weights(model, tmp_path / "x", head=False, input_shape=SHAPE).left
    assert set(left) == {"aux1.weight", "aux1.bias", "fc.weight", "fc.bias"}
    assert model.training
    again = WithAuxiliary(3).eval()
    again.initialise(seed=2)
    load_torch_weights(again, tmp_path / "x", input_shape=SHAPE)
    assert equal(state(again), state(WithAuxiliary(3)))
    assert not again.training
    assert layouts(again, traced("", again, SHAPE))["aux1.weight"].orders.keys() == {1}
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3)
    without = nn.Sequential({"conv": nn.Conv2d(2, 3, 3), **dict(zip(("pool", "flat", "fc"), pooled, strict=True))})
    load_torch_weights(without, tmp_path / "x", input_shape=SHAPE)


def test_a_model_can_name_its_heads(tmp_path):
    class TwoHeads(nn.Module):
        heads = ("left", "deep.1")

        def __init__(self, classes):
            self.conv, self.left = nn.Conv2d(2, 3, 4), nn.Linear(3, classes)
            self.deep = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, classes))

        def forward(self, x):
            y = jj.ops.flatten(self.conv(x))
            return self.left(y) + self.deep(y)

    save_torch_weights(TwoHeads(3), tmp_path / "x", input_shape=SHAPE)
    left = load_torch_weights(TwoHeads(5), tmp_path / "x", head=False, input_shape=SHAPE).left
    assert set(left) == {"left.weight", "left.bias", "deep.1.weight", "deep.1.bias"}


def test_head_is_one_of_three(tmp_path):
    with pytest.raises(ArgumentError, match="bad head\n  received  'no'"):
        load_torch_weights(models.create("lenet5"), tmp_path / "x", head="no")


@pytest.mark.parametrize("name", ["net.pth", "net.pt", "pytorch_model.bin"])
def test_files_are_called_what_they_are(name, tmp_path):
    with pytest.raises(ArgumentError, match=r"another format[\s\S]*fix .*\.safetensors"):
        save_torch_weights(models.create("lenet5"), tmp_path / name)
    assert not [*tmp_path.iterdir()]


def test_heads_may_be_a_child(tmp_path):
    model = nn.Sequential({"flat": nn.Flatten(), "heads": nn.Linear(32, 3)})
    save_torch_weights(model, tmp_path / "x", input_shape=SHAPE)
    assert load_torch_weights(model, tmp_path / "x", head=False, input_shape=SHAPE).left == (
        "heads.weight",
        "heads.bias",
    )


@pytest.mark.parametrize("name", models.list())
def test_every_network_can_be_published(name):
    """Its parameters have layouts of as many numbers, and it has a head. No weights are drawn."""
    model = models.create(name)
    graphs = traced("", model, None)
    cells = model.cells("parameter", "buffer")
    for path, place in layouts(model, graphs).items():
        assert math.prod(place.shape) == math.prod(cells[path].shape)
        assert all(sorted(order) == [*range(cells[path].shape[axis])] for axis, order in place.orders.items())
    assert {path for path in head_of(graphs[0], model) if path.endswith(("weight", "centres"))}


def test_one_slope_behind_flattening(tmp_path):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.PReLU(), nn.Linear(12, 2))
    places = layouts(model, traced("", model, SHAPE))
    assert not places["2.weight"].orders
    assert places["3.weight"].orders.keys() == {1}


# What does not fit


def refusal(model, path, load=load_torch_weights, **options):
    before = state(model)
    with pytest.raises(WeightsError) as caught:
        load(model, path, **options)
    assert equal(state(model), before)
    return caught.value


@pytest.mark.parametrize(("saved", "made"), [("resnet34", "resnet18"), ("resnet18", "lenet5"), ("lenet5", "resnet20")])
def test_of_many_names_the_first_few_are_told(saved, made, tmp_path):
    """And the network that the file is of."""
    network = models.create(saved, classes=7)
    places = {path: place for path, place in layouts(network, ()).items() if not path.endswith("tracked")}
    arrays = {path: np.zeros(place.shape, "float32") for path, place in places.items()}
    save_file(arrays, tmp_path / "x")
    error = refusal(models.create(made), tmp_path / "x")
    assert error.fix == f"this is a file of {saved}: models.create({saved!r}), or --model {saved}"
    told = error.received.split("; ")
    assert len(told) <= 15
    for kind in ("missing", "unknown", "misfitting"):
        assert sum(text.startswith(kind) for text in told) <= 4
    unknown = len(arrays.keys() - models.create(made).cells("parameter", "buffer").keys())
    assert (f"and {unknown - 4} more unknown" in told) == (unknown > 4)


def test_files_of_juanji_are_told_apart_too(tmp_path):
    save_weights(models.create("lenet5", classes=7), tmp_path / "x")
    error = refusal(models.create("perceptron"), tmp_path / "x", load_weights)
    assert error.fix.startswith("this is a file of lenet5: ")
    assert refusal(models.create("perceptron"), tmp_path / "x").fix == error.fix


THIN = {"input_size": 32, "channels": (2, 2, 2, 2)}


@pytest.mark.parametrize(
    ("options", "load", "fix"),
    [
        ({"classes": 7}, load_torch_weights, "head=False leaves a classifier for other classes out"),
        ({"in_channels": 1}, load_torch_weights, "adapt_channels=True sums or repeats the first kernels"),
        ({"in_channels": 1, "classes": 7}, load_torch_weights, "head=False leaves[^;]*; adapt_channels=True sums"),
        ({"in_channels": 2, "classes": 7}, load_torch_weights, "head=False leaves[^;]*; adapt_channels=True sums"),
        ({"width": 2}, load_torch_weights, "the network as it was saved: classes, in_channels, input_size and options"),
        ({"classes": 7}, load_weights, "the network as it was saved: classes, in_channels, input_size and options"),
    ],
)
def test_what_to_do_about_another_network_of_the_name(options, load, fix, tmp_path):
    save_torch_weights(models.create("resnet18", **THIN), tmp_path / "x")
    if load is load_weights:
        save_weights(models.create("resnet18", **THIN), tmp_path / "x")
    assert re.match(fix, refusal(models.create("resnet18", **THIN, **options), tmp_path / "x", load).fix)


def test_other_classes_of_a_network_without_dense_layers(tmp_path):
    options = {"input_size": 32, "width": 0.05}
    save_torch_weights(models.create("squeezenet1_1", classes=7, **options), tmp_path / "x")
    error = refusal(models.create("squeezenet1_1", **options), tmp_path / "x")
    assert error.fix == "head=False leaves a classifier for other classes out"


def test_names_of_a_network_with_other_options(tmp_path):
    save_torch_weights(models.create("resnet18", **THIN), tmp_path / "x")
    fix = refusal(models.create("lenet5"), tmp_path / "x").fix
    assert fix == "the names are those of resnet18, the shapes those of other options, or images"


# Images of another number of channels


@pytest.mark.parametrize(("before", "now"), [(3, 1), (1, 3), (3, 4), (3, 7), (1, 2), (4, 1)])
@pytest.mark.parametrize("save", [save_weights, save_torch_weights])
def test_kernels_for_other_images(save, before, now, tmp_path):
    published, model = (models.create("resnet18", in_channels=c, seed=c, **THIN) for c in (before, now))
    save(published, tmp_path / "x")
    assert load_torch_weights(model, tmp_path / "x", adapt_channels=True) == ((), ("conv1.weight",))
    theirs, ours = state(published), state(model)
    assert equal({**ours, "conv1.weight": 0}, {**theirs, "conv1.weight": 0})
    kernels = theirs["conv1.weight"]
    if now == 1:
        expected = kernels.sum(2, keepdims=True)
    else:
        expected = np.concatenate([kernels] * now, axis=2)[:, :, :now] * (before / now)
    np.testing.assert_allclose(ours["conv1.weight"], expected, rtol=1e-6)


def test_grey_images_get_the_same_answers(tmp_path):
    colour, grey = (models.create("squeezenet1_1", in_channels=c, input_size=32, width=0.1).eval() for c in (3, 1))
    save_torch_weights(colour, tmp_path / "x")
    load_torch_weights(grey, tmp_path / "x", adapt_channels=True)
    x = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    expected = np.asarray(colour(np.repeat(x, 3, -1)))
    np.testing.assert_allclose(np.asarray(grey(x)), expected, rtol=1e-4, atol=1e-6)
    save_torch_weights(grey, tmp_path / "y")
    load_torch_weights(colour, tmp_path / "y", adapt_channels=True)
    np.testing.assert_allclose(np.asarray(colour(np.repeat(x, 3, -1))), expected, rtol=1e-4, atol=1e-6)


def test_nothing_is_adapted_that_fits(tmp_path):
    save_torch_weights(models.create("resnet18", **THIN), tmp_path / "x")
    model = models.create("resnet18", **THIN, classes=7)
    left = ("fc.weight", "fc.bias")
    assert load_torch_weights(model, tmp_path / "x", head=None, adapt_channels=True) == (left, ())


@pytest.mark.parametrize("options", [{"in_channels": 2}, {"in_channels": 5}])
def test_images_that_are_neither_grey_nor_colour_are_not_adapted(options, tmp_path):
    save_torch_weights(models.create("resnet18", **THIN, **options), tmp_path / "x")
    error = refusal(models.create("resnet18", **THIN), tmp_path / "x", adapt_channels=True)
    assert error.received.startswith("misfitting conv1.weight F32(2, ")
    assert "adapt_channels" not in error.fix


def test_adapting_is_asked_for_plainly(tmp_path):
    with pytest.raises(ArgumentError, match="bad adapt_channels"):
        load_torch_weights(models.create("lenet5"), tmp_path / "x", adapt_channels="yes")


@pytest.mark.parametrize("name", models.list())
def test_the_first_kernels_are_those_that_see_the_images(name):
    model = models.create(name, in_channels=5)
    path = first_kernels(model)
    assert (path == "") == (name in ("perceptron", "highway"))
    assert path == "" or model.cells("parameter")[path].shape[-2] == 5


# Layouts


LAYERS = [
    lambda groups, c, m, k: nn.Conv1d(groups * c, groups * m, k, groups=groups),
    lambda groups, c, m, k: nn.Conv2d(groups * c, groups * m, (k, 2), groups=groups),
    lambda groups, c, m, k: nn.Conv3d(groups * c, groups * m, (1, k, 2), groups=groups),
    lambda groups, c, m, k: nn.ConvTranspose2d(groups * c, groups * m, (k, 2), groups=groups),
    lambda groups, c, m, k: nn.DeformConv2d(groups * c, groups * m, k, groups=groups),
    lambda groups, c, m, k: nn.LayerNorm((c, m, k)),
    lambda groups, c, m, k: nn.LocallyConnected2d(c, m, 1, k),
]
FEW = st.integers(1, 4)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LAYERS), st.tuples(FEW, FEW, FEW, FEW))
def test_layouts_are_read_in_both_directions(make, sizes):
    layer = make(*sizes)
    for path, place in layouts(layer, ()).items():
        ours = np.asarray(layer.state_dict()[path])
        theirs = place.theirs(ours)
        assert place.fits(theirs.shape)
        assert theirs.shape == place.shape
        assert np.array_equal(place.ours(theirs), ours)


def test_kernels_are_as_pytorch_says():
    """`(out, in/groups, *k)`, transposed `(in, out/groups, *k)`: torch.nn.Conv2d, torch.nn.ConvTranspose2d."""
    place = layouts(nn.Conv2d(6, 4, (3, 5), groups=2), ())["weight"]
    assert place.shape == (4, 3, 3, 5)
    assert layouts(nn.ConvTranspose2d(6, 4, (3, 5), groups=2), ())["weight"].shape == (6, 2, 3, 5)
    assert layouts(nn.LayerNorm((3, 5, 2)), ())["bias"].shape == (2, 3, 5)
    x = np.arange(180).reshape(4, 3, 3, 5)
    assert place.ours(x)[2, 4, 1, 3] == x[3, 1, 2, 4]


def test_axes_of_one_may_be_missing_or_too_many():
    layer = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * 6, 5))
    places = layouts(layer, traced("", layer, (2, 3, 3)))
    assert places["0.weight"].fits((4, 3))
    assert not places["0.weight"].fits((3, 4))
    assert places["0.bias"].fits((4, 1, 1))
    assert not places["0.bias"].fits((1, 4))
    assert places["2.weight"].fits((5, 4, 2, 3))
    assert not places["2.weight"].fits((4, 5, 2, 3))
    kernel = np.arange(120).reshape(5, 4, 2, 3)
    assert np.array_equal(places["2.weight"].ours(kernel), kernel.transpose(0, 2, 3, 1).reshape(5, 24))


class Cut(nn.Module):
    def __init__(self, function, features):
        self.conv, self.fc, self.function = nn.Conv2d(2, 3, 3), nn.Linear(features, 2), function

    def forward(self, x):
        return self.fc(self.function(jj.ops.flatten(self.conv(x))))


@pytest.mark.parametrize(
    ("name", "function", "features"),
    [
        ("slice", lambda y: y[:, 2:6], 4),
        ("take", lambda y: jj.ops.take(y, jj.Tensor([0, 5, 1]), -1), 3),
        ("flip", lambda y: jj.ops.flip(y, -1), 12),
        ("reshape", lambda y: y.reshape(2, 2, 6), 6),
        ("group_norm", lambda y: jj.ops.group_norm(y, 2), 12),
        ("matmul", lambda y: y @ np.ones((12, 4), np.float32), 4),
    ],
)
def test_features_that_cannot_be_followed_are_refused(name, function, features, tmp_path):
    model = Cut(function, features)
    with pytest.raises(WeightsError) as caught:
        save_torch_weights(model, tmp_path / "x", input_shape=SHAPE)
    assert "the order of flattened features cannot be followed" in str(caught.value)
    assert f"received  {name} of features that are a flattened image" in str(caught.value)
    assert not (tmp_path / "x").exists()


class Twice(nn.Module):
    """A dense layer that is given a flattened image, or what is none, or the same twice."""

    def __init__(self, same):
        self.conv, self.fc, self.same = nn.Conv2d(2, 3, 3), nn.Linear(12, 12), same

    def forward(self, x):
        y = jj.ops.flatten(self.conv(x))
        return self.fc(y) + self.fc(-y) if self.same else self.fc(self.fc(y))


def test_a_dense_layer_that_is_called_twice(tmp_path):
    with pytest.raises(WeightsError, match="a Linear that is called twice is given the same"):
        save_torch_weights(Twice(same=False), tmp_path / "x", input_shape=SHAPE)
    model = Twice(same=True)
    dense = layouts(model, traced("", model, SHAPE))["fc.weight"]
    assert dense.orders[1].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def test_features_of_two_orders_are_not_added(tmp_path):
    class Sum(nn.Module):
        def __init__(self):
            self.a, self.b, self.fc = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 6, (3, 4)), nn.Linear(12, 2)

        def forward(self, x):
            return self.fc(jj.ops.flatten(self.a(x)) + jj.ops.flatten(self.b(x)))

    with pytest.raises(WeightsError, match=r"received  add of features[\s\S]*put only features of one order together"):
        save_torch_weights(Sum(), tmp_path / "x", input_shape=SHAPE)


def test_batches_side_by_side_keep_the_order():
    class Pairs(Twice):
        def forward(self, x):
            y = jj.ops.flatten(self.conv(x))
            return self.fc(jj.ops.concat([y, y], axis=0))

    model = Pairs(same=True)
    assert 1 in layouts(model, traced("", model, SHAPE))["fc.weight"].orders


WEIGHT = re.compile(r"weight.*Cell\(")
SAME = {"Linear", "PReLU", "BatchNormNd", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "GroupNorm", "InstanceNorm2d"}
NOT_IN_PYTORCH = {"LocallyConnectedNd", "LocallyConnected1d", "LocallyConnected2d", "PartialConv2d", "TrainablePool2d"}


def test_every_layer_with_weights_has_a_layout():
    """The table names whatever has its axes in another order in PyTorch; a new layer has to be thought about here."""
    for name in nn.__all__:
        layer = getattr(nn, name)
        if isinstance(layer, type) and issubclass(layer, nn.Module) and WEIGHT.search(source_of(layer)):
            listed = any(issubclass(layer, kind) for kind, _ in torchlayout.AXES)
            assert listed or name in SAME | NOT_IN_PYTORCH, name


def source_of(layer):
    return "".join(inspect.getsource(kind) for kind in layer.__mro__ if kind.__module__.startswith("juanji.nn."))


# Names


RESNET = {
    "resnet.embedder.embedder.convolution.weight": "conv1.weight",
    "resnet.embedder.embedder.normalization.running_mean": "bn1.running_mean",
    "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight": "layer1.0.conv1.weight",
    "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight": "layer1.0.downsample.0.weight",
    "resnet.encoder.stages.3.layers.2.layer.2.normalization.bias": "layer4.2.bn3.bias",
    "resnet.encoder.stages.2.layers.0.shortcut.normalization.weight": "layer3.0.downsample.1.weight",
    "classifier.1.bias": "fc.bias",
}
PUBLISHED = {
    "torchvision": {"conv1.weight": "conv1.weight", "layer1.0.downsample.1.bias": "layer1.0.downsample.1.bias"},
    "torchvision DenseNet of 2017": {
        "features.denseblock1.denselayer2.norm.1.weight": "features.denseblock1.denselayer2.norm1.weight",
        "features.denseblock1.denselayer2.conv.2.weight": "features.denseblock1.denselayer2.conv2.weight",
        "features.transition1.norm.weight": "features.transition1.norm.weight",
    },
    "timm VGG": {
        "features.0.weight": "features.0.weight",
        "pre_logits.fc1.weight": "classifier.0.weight",
        "pre_logits.fc2.bias": "classifier.3.bias",
        "head.fc.weight": "classifier.6.weight",
    },
    "timm MobileNet v2": {
        "conv_stem.weight": "features.0.0.weight",
        "bn1.running_var": "features.0.1.running_var",
        "blocks.0.0.conv_dw.weight": "features.1.conv.0.0.weight",
        "blocks.0.0.bn1.weight": "features.1.conv.0.1.weight",
        "blocks.0.0.conv_pw.weight": "features.1.conv.1.weight",
        "blocks.0.0.bn2.weight": "features.1.conv.2.weight",
        "blocks.1.0.conv_pw.weight": "features.2.conv.0.0.weight",
        "blocks.2.1.bn1.bias": "features.5.conv.0.1.bias",
        "blocks.4.2.conv_dw.weight": "features.13.conv.1.0.weight",
        "blocks.5.1.bn2.weight": "features.15.conv.1.1.weight",
        "blocks.5.2.conv_pwl.weight": "features.16.conv.2.weight",
        "blocks.6.0.bn3.running_mean": "features.17.conv.3.running_mean",
        "conv_head.weight": "features.18.0.weight",
        "bn2.weight": "features.18.1.weight",
        "classifier.weight": "classifier.1.weight",
    },
    "Hugging Face ResNet": RESNET,
    "Hugging Face MobileNet v2": {
        "mobilenet_v2.conv_stem.first_conv.convolution.weight": "features.0.0.weight",
        "mobilenet_v2.conv_stem.conv_3x3.normalization.weight": "features.1.conv.0.1.weight",
        "mobilenet_v2.conv_stem.reduce_1x1.convolution.weight": "features.1.conv.1.weight",
        "mobilenet_v2.conv_stem.reduce_1x1.normalization.weight": "features.1.conv.2.weight",
        "mobilenet_v2.layer.0.expand_1x1.convolution.weight": "features.2.conv.0.0.weight",
        "mobilenet_v2.layer.9.conv_3x3.normalization.bias": "features.11.conv.1.1.bias",
        "mobilenet_v2.layer.15.reduce_1x1.convolution.weight": "features.17.conv.2.weight",
        "mobilenet_v2.layer.15.reduce_1x1.normalization.weight": "features.17.conv.3.weight",
        "mobilenet_v2.conv_1x1.normalization.running_var": "features.18.1.running_var",
        "classifier.bias": "classifier.1.bias",
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_every_family(family):
    """Each family's names as they are published, and ours for them; all patterns are of use."""
    names = PUBLISHED[family]
    expected = {ours: theirs for theirs, ours in names.items()}
    assert matched(names, expected.keys()) == expected
    for pattern, _ in FAMILIES[family]:
        assert any(re.search(pattern, name) for name in intermediate(names, family)), pattern


def test_the_documentation_names_every_family():
    text = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")
    assert all(f"| {family} |" in text for family in FAMILIES if FAMILIES[family])
    assert all(f"`{prefix}`" in text for prefix in torchnames.PREFIXES)
    assert all(f"`{name}`" in text for name in WRAPPERS)


def intermediate(names, family):
    """The names as they are between one pattern and the next."""
    for name in names:
        for pattern, replacement in FAMILIES[family]:
            yield name
            name = re.sub(pattern, replacement, name)


def test_the_whole_of_resnet18_as_hugging_face_has_it():
    model = models.create("resnet18")
    ours = [path for path in model.cells("parameter", "buffer") if not path.endswith("num_batches_tracked")]
    theirs = {}
    for path in ours:
        name = re.sub(r"^layer(\d)\.(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", path)
        name = re.sub(r"(?<=\d\.)conv(\d)", lambda m: f"layer.{int(m[1]) - 1}.convolution", name)
        name = re.sub(r"(?<=\d\.)bn(\d)", lambda m: f"layer.{int(m[1]) - 1}.normalization", name)
        name = name.replace("downsample.0", "shortcut.convolution").replace("downsample.1", "shortcut.normalization")
        name = re.sub(r"^conv1", "resnet.embedder.embedder.convolution", name)
        name = re.sub(r"^bn1", "resnet.embedder.embedder.normalization", name)
        theirs[path] = re.sub(r"^fc", "classifier.1", name)
    assert matched([*theirs.values(), "resnet.x.num_batches_tracked"], model.cells("parameter", "buffer")) == theirs
    bare = {path: name.removeprefix("resnet.") for path, name in theirs.items()}
    assert matched(bare.values(), model.cells("parameter", "buffer")) == bare


@pytest.mark.parametrize(
    "prefix", [*torchnames.PREFIXES, "module._orig_mod.", "_orig_mod.module.", "model.net.module."]
)
def test_prefixes(prefix):
    assert matched([f"{prefix}conv1.weight", f"{prefix}fc.bias"], ["conv1.weight", "fc.bias"]) == {
        "conv1.weight": f"{prefix}conv1.weight",
        "fc.bias": f"{prefix}fc.bias",
    }
    assert matched([f"{prefix}a"], [f"{prefix}a", f"{prefix}b"]) == {f"{prefix}a": f"{prefix}a"}


def test_a_prefix_of_some_names_is_none():
    assert matched(["model.a", "head.b"], ["a"]) == {"model.a": "model.a", "head.b": "head.b"}


def test_two_names_for_one_parameter():
    names = ["features.denseblock1.denselayer1.norm.1.weight", "features.denseblock1.denselayer1.norm1.weight"]
    with pytest.raises(WeightsError, match=r"two names of the file mean one parameter[\s\S]*norm\.1\.weight and "):
        matched(names, [names[1], "x"])


def test_auxiliary_classifiers_are_left_out_unless_the_model_has_them():
    names = ["conv.weight", "aux1.fc.weight", "AuxLogits.fc.bias", "aux_classifier.0.weight"]
    assert list(matched(names, ["conv.weight"])) == ["conv.weight"]
    assert list(matched(names, ["conv.weight", "aux1.fc.weight"])) == ["conv.weight", "aux1.fc.weight"]
