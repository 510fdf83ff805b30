"""Every registered network: published counts, torchvision's names, shapes, gradients by name, heads, saving."""

import functools
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import ONE_OF_A_KIND, OPTIONS, batch, make, slow_but, without_dropout

import juanji as jj
from juanji import models, nn
from juanji.cli.models import written
from juanji.cli.options import value_of
from juanji.errors import ArgumentError, ShapeError
from juanji.interop import load_weights, save_weights
from juanji.models.inception_v2 import BLOCKS as V2
from juanji.models.network import with_classes
from juanji.summary import summarise

every_network = pytest.mark.parametrize("name", models.MODELS)
one_of_a_kind = pytest.mark.parametrize("name", slow_but(ONE_OF_A_KIND))


def test_the_tables_cover_every_network():
    assert set(OPTIONS) == set(models.MODELS)
    assert {name for name, *_ in COUNTS} == set(models.MODELS)
    assert models.list() == sorted(models.MODELS)
    assert sorted([*models.list("classification"), *models.list("segmentation")]) == models.list()


# How many parameters.


def norm(c):
    return 2 * c


def conv(c, m, taps, bias=True):
    return taps * c * m + bias * m


def unit(c, m, taps):
    """A convolution with batch normalisation."""
    return conv(c, m, taps, False) + norm(m)


def inception_v2(classes):
    """The table of the paper, row by row."""
    total, c = unit(3, 64, 49) + unit(64, 64, 1) + unit(64, 192, 9), 192
    for b1, reduce3, b3, reduce5, b5, _, last in V2.values():
        total += unit(c, reduce3, 1) + unit(reduce3, b3, 9)
        total += unit(c, reduce5, 1) + unit(reduce5, b5, 9) + unit(b5, b5, 9)
        total += (unit(c, b1, 1) if b1 else 0) + (unit(c, last, 1) if last else 0)
        c = b1 + b3 + b5 + (last or c)
    assert c == 1024
    return total + conv(c, classes, 1)


def preact_resnet18(classes):
    """Sixteen 3×3 convolutions with a normalisation before each, three 1×1 shortcuts; one normalisation at the end."""
    total, c = conv(3, 64, 49, False), 64
    for m in (64, 128, 256, 512):
        total += norm(c) + conv(c, m, 9, False) + 3 * (norm(m) + conv(m, m, 9, False))
        total += conv(c, m, 1, False) if c != m else 0
        c = m
    return total + norm(c) + conv(c, classes, 1)


def padded_resnet(n, classes):
    """2n convolutions a stage, and shortcuts without parameters: 0.27, 0.46 and 0.85 million for n = 3, 5, 9."""
    total, c = unit(3, 16, 9), 16
    for m in (16, 32, 64):
        total += unit(c, m, 9) + (2 * n - 1) * unit(m, m, 9)
        c = m
    return total + conv(c, classes, 1)


def offsets():
    """18 numbers a place from 3×3 of what the four convolutions of the last stage see."""
    return conv(256, 18, 9) + 3 * conv(512, 18, 9)


def fcn(stride, classes):
    """VGG-16's 14,714,688 up to the last pooling and the two dense layers: 134 million, as published; then scores and
    transposed convolutions."""
    total = 14_714_688 + conv(512, 4096, 49) + conv(4096, 4096, 1) + conv(4096, classes, 1)
    total += (2 * stride) ** 2 * classes**2
    total += {32: 0, 16: 16 * classes**2 + conv(512, classes, 1)}.get(
        stride, 2 * 16 * classes**2 + conv(512, classes, 1) + conv(256, classes, 1)
    )
    return total


THOUSAND = {"classes": 1000}
# Published where a number stands alone: by torchvision's table of weights, by Caffe's models (alexnet_2012,
# inception_v1), by the usual port to PyTorch (inception_v4). Rounded in the paper where a function counts.
COUNTS = [
    ("perceptron", {}, 784 * 256 + 2 * 256 * 256 + 3 * 256 + 256 * 10 + 10),
    ("cnn_small", {}, 56_442),
    ("batchnorm_net", {}, 60_118),
    ("lenet5", {}, 61_706),
    ("lenet5_1998", {}, 60_000),
    ("alexnet", THOUSAND, 61_100_840),
    ("alexnet_2012", THOUSAND, 60_965_224),
    ("nin", {}, 966_986),  # 0.97 million
    ("vgg11", THOUSAND, 132_863_336),
    ("vgg11_bn", THOUSAND, 132_868_840),
    ("vgg13", THOUSAND, 133_047_848),
    ("vgg13_bn", THOUSAND, 133_053_736),
    ("vgg16", THOUSAND, 138_357_544),
    ("vgg16_bn", THOUSAND, 138_365_992),
    ("vgg19", THOUSAND, 143_667_240),
    ("vgg19_bn", THOUSAND, 143_678_248),
    ("inception_v1", THOUSAND | {"aux": False}, 6_998_552),
    ("inception_v1", THOUSAND, 13_378_280),
    ("googlenet", THOUSAND | {"aux": False}, 6_624_904),
    ("googlenet", THOUSAND, 13_004_888),
    ("inception_v2", THOUSAND, inception_v2(1000)),
    ("inception_v3", THOUSAND | {"aux": False}, 23_834_568),
    ("inception_v3", THOUSAND, 27_161_264),
    ("inception_v4", THOUSAND, 42_679_816),
    ("highway", {}, conv(784, 50, 1) + 9 * 2 * conv(50, 50, 1) + conv(50, 10, 1)),
    (
        "highway_conv",
        {},
        conv(3, 16, 9) + conv(16, 32, 9) + conv(32, 64, 9) + 4 * sum(conv(m, m, 9) for m in (16, 32, 64)) + 650,
    ),
    ("resnet18", THOUSAND, 11_689_512),
    ("resnet34", THOUSAND, 21_797_672),
    ("resnet50", THOUSAND, 25_557_032),
    ("resnet101", THOUSAND, 44_549_160),
    ("resnet152", THOUSAND, 60_192_808),
    ("resnet20", {}, padded_resnet(3, 10)),
    ("resnet32", {}, padded_resnet(5, 10)),
    ("resnet56", {}, padded_resnet(9, 10)),
    ("preact_resnet18", THOUSAND, preact_resnet18(1000)),
    ("deform_resnet18", THOUSAND, 11_689_512 + offsets()),
    ("densenet121", THOUSAND, 7_978_856),
    ("squeezenet1_1", THOUSAND, 1_235_496),
    ("mobilenet_v2", THOUSAND, 3_504_872),
    ("mobilenet_v2", THOUSAND | {"width": 0.5}, 1_968_680),
    ("mobilenet_v2", THOUSAND | {"width": 1.4}, 6_108_776),
    (
        "airbench94",
        {},
        3 * 24 * 4
        + sum(conv(c, m, 9, False) + conv(m, m, 9, False) + 2 * m for c, m in ((24, 64), (64, 256), (256, 256)))
        + 2560,
    ),
    ("fcn32s", {"classes": 21}, fcn(32, 21)),
    ("fcn16s", {"classes": 21}, fcn(16, 21)),
    ("fcn8s", {"classes": 21}, fcn(8, 21)),
    ("fcn_resnet50", {"classes": 21}, 32_957_013),
    ("fcn_resnet50", {"classes": 21, "aux": True}, 35_322_218),
]


@pytest.mark.parametrize(("name", "options", "count"), COUNTS)
def test_parameters(name, options, count):
    assert sum(math.prod(cell.shape) for cell in models.create(name, **options).cells("parameter").values()) == count


def test_counts_in_words():
    millions = [f"{padded_resnet(n, 10) / 1e6:.2f}" for n in (3, 5, 9)]
    assert millions == ["0.27", "0.46", "0.85"]  # the paper's table 6
    assert f"{(fcn(32, 21) - 64**2 * 21**2) / 1e6:.0f}" == "134"  # the paper's table 1, without upsampling


# Names.


NAMES = {
    "alexnet": ["features.0.weight", "features.10.bias", "classifier.1.weight", "classifier.6.bias"],
    "alexnet_2012": ["features.0.weight", "features.4.weight", "classifier.6.bias"],
    "vgg13": ["features.22.weight", "classifier.0.weight"],
    "vgg19_bn": ["features.49.weight", "features.50.running_mean", "classifier.6.weight"],
    "googlenet": [
        "conv1.conv.weight", "conv1.bn.num_batches_tracked", "inception3a.branch1.conv.weight",
        "inception3a.branch2.0.conv.weight", "inception4e.branch3.1.bn.running_var",
        "inception5b.branch4.1.conv.weight", "aux1.conv.conv.weight", "aux1.fc1.weight", "aux2.fc2.bias", "fc.weight",
    ],
    "inception_v3": [
        "Conv2d_1a_3x3.conv.weight", "Conv2d_3b_1x1.bn.weight", "Mixed_5b.branch1x1.conv.weight",
        "Mixed_5b.branch5x5_2.conv.weight", "Mixed_5d.branch3x3dbl_3.bn.bias", "Mixed_6a.branch3x3.conv.weight",
        "Mixed_6e.branch7x7dbl_5.conv.weight", "Mixed_6b.branch_pool.conv.weight", "AuxLogits.conv0.conv.weight",
        "AuxLogits.conv1.bn.bias", "AuxLogits.fc.weight", "Mixed_7a.branch7x7x3_4.conv.weight",
        "Mixed_7c.branch3x3_2b.conv.weight", "Mixed_7c.branch3x3dbl_3a.conv.weight", "fc.bias",
    ],
    "inception_v4": [
        "features.0.conv.weight", "features.3.conv.conv.weight", "features.4.branch1.3.bn.weight",
        "features.6.branch0.conv.weight", "features.6.branch3.1.conv.weight", "features.10.branch0.conv.weight",
        "features.21.branch1_1a.conv.weight", "features.21.branch3.1.conv.weight", "last_linear.weight",
    ],
    "resnet50": ["conv1.weight", "layer1.0.conv3.weight", "layer1.0.downsample.1.weight", "layer3.5.bn3.bias"],
    "densenet121": [
        "features.conv0.weight", "features.denseblock1.denselayer1.norm1.weight", "features.transition3.conv.weight",
        "features.denseblock4.denselayer16.conv2.weight", "features.norm5.bias", "classifier.weight",
    ],
    "squeezenet1_1": ["features.0.weight", "features.3.squeeze.weight", "features.12.expand3x3.bias",
                      "classifier.1.weight"],
    "mobilenet_v2": [
        "features.0.0.weight", "features.1.conv.0.0.weight", "features.1.conv.1.weight", "features.2.conv.0.1.bias",
        "features.17.conv.3.running_mean", "features.18.1.weight", "classifier.1.weight",
    ],
    "fcn_resnet50": ["backbone.conv1.weight", "backbone.layer4.2.conv3.weight", "classifier.0.weight",
                     "classifier.1.running_mean", "classifier.4.bias"],
    "fcn8s": ["features.28.weight", "fc6.weight", "score_fr.bias", "upscore2.weight", "score_pool4.weight",
              "upscore_pool4.weight", "score_pool3.weight", "upscore8.weight"],
    "deform_resnet18": ["layer3.1.conv2.weight", "layer4.0.conv1.weight", "layer4.0.conv1.offset.bias"],
    "preact_resnet18": ["layer1.0.bn1.weight", "layer2.0.downsample.weight", "bn.running_var"],
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert set(NAMES[name]) <= set(models.create(name).cells("parameter", "buffer"))


def test_a_deformable_network_has_all_of_the_one_without():
    plain, deformable = models.create("resnet18").cells(), models.create("deform_resnet18").cells()
    places = itertools.product((0, 1), (1, 2), ("weight", "bias"))
    offsets = {f"layer4.{block}.conv{i}.offset.{part}" for block, i, part in places}
    assert {path for path in deformable if path not in plain} == offsets
    assert {path: cell.shape for path, cell in plain.items()}.items() <= {
        path: cell.shape for path, cell in deformable.items()
    }.items()


# Shapes.


def graph_of(model, function=None, batch=2):
    config = model.config
    return jj.trace(function or model, jj.Tensor.spec((batch, *config["input_size"], config["in_channels"])))


def traced(model, function=None, batch=2):
    return graph_of(model, function, batch).outputs


# Of full-size networks: the last feature map of one image.
FEATURES = {
    "perceptron": (256,), "cnn_small": (5, 5, 16), "batchnorm_net": (5, 5, 16), "lenet5": (5, 5, 16),
    "lenet5_1998": (1, 1, 120), "alexnet": (6, 6, 256), "alexnet_2012": (6, 6, 256), "nin": (8, 8, 192),
    "inception_v1": (7, 7, 1024), "googlenet": (7, 7, 1024), "inception_v2": (7, 7, 1024), "inception_v3": (8, 8, 2048),
    "inception_v4": (8, 8, 1536), "highway": (50,), "highway_conv": (4, 4, 64), "resnet18": (7, 7, 512),
    "resnet34": (7, 7, 512), "resnet50": (7, 7, 2048), "resnet101": (7, 7, 2048), "resnet152": (7, 7, 2048),
    "resnet20": (8, 8, 64), "resnet32": (8, 8, 64), "resnet56": (8, 8, 64), "preact_resnet18": (7, 7, 512),
    "deform_resnet18": (7, 7, 512), "densenet121": (7, 7, 1024), "squeezenet1_1": (13, 13, 512),
    "mobilenet_v2": (7, 7, 1280), "airbench94": (3, 3, 256),
    "fcn32s": (7, 7, 4096), "fcn16s": (7, 7, 4096), "fcn8s": (7, 7, 4096), "fcn_resnet50": (28, 28, 2048),
}  # fmt: skip


@every_network
def test_features_of_full_size(name):
    model = models.create(name).eval()
    assert traced(model, model.forward_features).shape == (2, *FEATURES.get(name, (7, 7, 512)))


@every_network
def test_outputs(name):
    model = make(name, classes=7)
    size = tuple(model.config["input_size"]) if model.task == "segmentation" else ()
    for mode in (True, False):
        output = nn.main_logits(traced(model.train(mode)))
        assert output.shape == (2, *size, 7)


@given(name=st.sampled_from(["fcn32s", "fcn16s", "fcn8s", "fcn_resnet50"]), height=st.integers(1, 70),
       width=st.integers(1, 70))  # fmt: skip
@settings(deadline=None, max_examples=25)
def test_segmentation_of_any_size(name, height, width):
    model = make(name, input_size=(height, width), classes=3, width=1 / 32)
    assert traced(model.eval(), batch=1).shape == (1, height, width, 3)


MINIMA = [
    ("alexnet", {}, 63),
    ("alexnet_2012", {}, 67),
    ("nin", {}, 1),
    ("vgg13", {}, 32),
    ("inception_v1", {}, 31),
    ("inception_v1", {"stem": "small"}, 4),
    ("googlenet", {}, 15),
    ("inception_v2", {}, 1),
    ("inception_v3", {"aux": False}, 75),
    ("inception_v3", {"aux": True}, 299),
    ("inception_v4", {}, 75),
    ("highway_conv", {}, 8),
    ("resnet50", {}, 1),
    ("preact_resnet18", {}, 1),
    ("densenet121", {}, 29),
    ("densenet121", {"stem": "small"}, 8),
    ("squeezenet1_1", {}, 17),
    ("squeezenet1_1", {"stem": "small"}, 4),
    ("mobilenet_v2", {}, 1),
    ("airbench94", {}, 9),
]


@pytest.mark.parametrize(("name", "options", "least"), MINIMA)
def test_the_smallest_images(name, options, least):
    options = {"width": 1 / 16, **options}
    model = models.create(name, **options, input_size=least)
    assert nn.main_logits(traced(model)).shape == (2, 10)
    if least > 1:
        with pytest.raises(ShapeError, match=rf"{name}: the images are too small\n.*\n.*at least {least}×{least}"):
            models.create(name, **options, input_size=(least - 1, least + 40))


def test_what_to_do_about_small_images():
    with pytest.raises(ShapeError, match="or more, or aux=False, which takes smaller ones"):
        models.create("inception_v3", input_size=100)


WITH_STEMS = [name for name in models.MODELS if re.match("resnet(18|50)|preact|deform|dense|goo|.*_v[12]$|squ", name)]


@pytest.mark.parametrize("name", WITH_STEMS)
def test_small_stems_keep_more_of_small_images(name):
    large, small = (models.create(name, stem=stem, input_size=64, width=1 / 8) for stem in ("large", "small"))
    (_, h, w, c), (_, height, width, channels) = (traced(m, m.forward_features).shape for m in (large, small))
    assert channels == c
    assert height >= 2 * h
    assert width >= 2 * w
    with pytest.raises(ArgumentError, match=f"{name}: unknown stem"):
        models.create(name, stem="tiny")


# Width.


@pytest.mark.parametrize("name", [name for name in models.MODELS if name not in ("lenet5_1998", "mobilenet_v2")])
def test_width_is_that_of_every_layer(name):
    """All but LeNet-5's, whose connections are published, and MobileNet's, whose counts are (see COUNTS).

    24 filters whiten patches of 2×2 with 3 channels, in Airbench.
    """
    full = {path: cell.shape for path, cell in models.create(name, classes=7).cells("parameter").items()}
    half = {path: cell.shape for path, cell in models.create(name, classes=7, width=0.5).cells("parameter").items()}
    assert list(full) == list(half)
    for path, shape in full.items():
        sides = zip(shape[-2:], half[path][-2:], strict=True)
        assert all(
            n == 2 * m or (n == m and n in (1, 3, 7, 18, 24)) or path.startswith(flat(name)) for n, m in sides
        ), path
        assert shape[:-2] == half[path][:-2]
    narrowest = models.create(name, width=1e-4).cells("parameter")
    assert min(cell.shape[-1] for cell in narrowest.values()) == 1


def flat(name):
    """The first dense layer of networks that flatten images: it has the pixels for inputs."""
    return {"perceptron": "layers.0", "highway": "first"}.get(name, "none")


@pytest.mark.parametrize("width", [0, -1, float("nan"), "wide"])
def test_a_bad_width(width):
    with pytest.raises(ArgumentError, match="vgg16: bad width"):
        models.create("vgg16", width=width)


# Heads.


@every_network
def test_another_head(name):
    model, like = make(name, seed=5), make(name, seed=5, classes=3)
    cells = model.cells()
    assert model.replace_head(3) is model
    assert list(model.cells()) == list(cells)
    assert {path: cell.shape for path, cell in model.cells().items()} == {
        path: cell.shape for path, cell in like.cells().items()
    }
    for path, cell in model.cells().items():
        assert (cells[path] is cell) == (not path.startswith(model.heads))
    for path in model.heads:
        for name, cell in model.modules()[path].cells().items():
            np.testing.assert_array_equal(cell.read(), like.cells()[f"{path}.{name}"].read(), err_msg=path)
    assert model.config == like.config
    assert nn.main_logits(traced(model)).shape[-1] == 3


def test_another_head_keeps_dtype_and_what_was_trained():
    model = models.create("alexnet", width=1 / 16, input_size=63).astype("float64").eval()
    features = model.features[0]
    features.weight = features.weight * 0 + 3
    model.replace_head(4)
    assert model.classifier[6].weight.dtype == np.float64
    assert (np.asarray(model.features[0].weight) == 3).all()
    assert not any(module.training for module in model.modules().values())
    with pytest.raises(ArgumentError, match="alexnet: bad classes"):
        model.replace_head(0)
    with pytest.raises(NotImplementedError, match="no head can be a Flatten"):
        with_classes(nn.Flatten(), 3)


def test_predictions_follow_a_new_head():
    """Evaluation keeps a network's plan; a new head needs a new one."""
    model = models.create("lenet5", width=1 / 2)
    x, _ = batch(model, 3)
    assert jj.train.predict(model, x).shape == (3, 10)
    assert jj.train.predict(model.replace_head(4), x).shape == (3, 4)


# Auxiliary heads.


@pytest.mark.parametrize(("name", "options", "weight", "heads"), [
    ("googlenet", {}, 0.3, 2), ("inception_v1", {}, 0.3, 2), ("inception_v3", {"aux": True, "input_size": 299}, 0.4, 1),
    ("fcn_resnet50", {"aux": True}, 0.5, 1),
])  # fmt: skip
def test_auxiliary_heads(name, options, weight, heads):
    model = make(name, **options)
    outputs = traced(model)
    assert isinstance(outputs, nn.AuxiliaryOutputs)
    assert (outputs.aux_weight, len(outputs.aux_logits)) == (weight, heads)
    assert {x.shape for x in outputs.aux_logits} == {outputs.logits.shape}
    assert isinstance(traced(model.eval()), jj.Tensor)
    assert isinstance(traced(make(name, **options | {"aux": False})), jj.Tensor)


def test_the_loss_of_auxiliary_heads():
    rng = np.random.default_rng(0)
    logits, first, second = (jj.Tensor(rng.normal(size=(4, 3))) for _ in range(3))
    y, one = jj.Tensor(np.array([0, 1, 2, 0])), jj.cross_entropy
    loss = nn.with_auxiliary(one)
    total = float(one(logits, y)) + 0.3 * (float(one(first, y)) + float(one(second, y)))
    np.testing.assert_allclose(float(loss(nn.AuxiliaryOutputs(logits, (first, second)), y)), total)
    assert float(loss(logits, y)) == float(one(logits, y))
    assert nn.main_logits(logits) is logits


def test_the_trainer_counts_auxiliary_heads():
    model = without_dropout(make("googlenet"))
    x, y = batch(model, 4)
    outputs = model(x)
    expected = float(nn.with_auxiliary(jj.cross_entropy)(outputs, y))
    model.initialise(0)
    trainer = jj.train.Stepper(model, jj.optim.SGD(model, 1e-3), jj.cross_entropy)
    images, labels = jj.Tensor(x), jj.Tensor(y)
    loss, right = trainer.update(images, labels)
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    assert expected > 1.3 * float(jj.cross_entropy(outputs.logits, labels))
    assert int(right) == int((np.asarray(outputs.logits).argmax(-1) == y).sum())


# Gradients, saving.


@one_of_a_kind
def test_every_parameter_gets_a_gradient(name):
    model = without_dropout(make(name))
    x, y = batch(model, 4)
    _, grads = jj.value_and_grad(lambda m: nn.with_auxiliary(jj.cross_entropy)(m(x), y))(model)
    assert list(grads) == list(model.parameters())
    wrong = [path for path, g in grads.items() if not (np.isfinite(np.asarray(g)).all() and np.asarray(g).any())]
    assert not wrong, f"no gradient for {', '.join(wrong)}"


@one_of_a_kind
def test_saving_and_loading(name, tmp_path):
    model = make(name, seed=5).eval()
    save_weights(model, tmp_path / "model.safetensors")
    again = models.create(**{**model.config, "seed": 6}).eval()
    load_weights(again, tmp_path / "model.safetensors")
    saved, loaded = model.state_dict(), again.state_dict()
    assert list(saved) == list(loaded)
    for path, value in saved.items():
        np.testing.assert_array_equal(loaded[path], value, err_msg=path)


# Parts.


@pytest.mark.parametrize("times", [2, 8, 16, 32])
def test_upsampling_begins_as_bilinear_interpolation(times):
    model = models.create("fcn8s", width=1 / 64, classes=3)
    layer = functools.reduce(getattr, [{2: "upscore2", 8: "upscore8"}.get(times, "upscore8")], model)
    if times > 8:
        layer = getattr(models.create(f"fcn{times}s", width=1 / 64, classes=3), f"upscore{times}")
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 3)).astype("float32")
    inside = slice(times, -times)  # at the border zeros lie outside, where resizing repeats the last pixel
    expected = np.asarray(jj.resize(x, scale=times, mode="bilinear"))
    found = np.asarray(layer(x))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[:, inside, inside], expected[:, inside, inside], rtol=1e-5, atol=1e-5)


def test_deformable_convolutions_begin_as_plain_ones():
    plain, deformable = make("resnet18").eval(), make("deform_resnet18").eval()
    x, _ = batch(plain, 2)
    np.testing.assert_allclose(deformable(x), plain(x), rtol=1e-4, atol=1e-5)


def test_dilated_stages_keep_the_size():
    backbone = models.create("fcn_resnet50").backbone
    dilations = [backbone.layer2[0].conv2, backbone.layer3[0].conv2, backbone.layer3[1].conv2, backbone.layer4[0].conv2,
                 backbone.layer4[2].conv2]  # fmt: skip
    assert [conv.dilation[0] for conv in dilations] == [1, 1, 2, 2, 4]
    assert [conv.stride[0] for conv in dilations] == [2, 1, 1, 1, 1]


def test_shortcuts_without_parameters():
    shortcut = models.create("resnet20").layer2[0].downsample
    x = np.arange(2 * 4 * 4 * 16, dtype="float32").reshape(2, 4, 4, 16)
    y = np.asarray(shortcut(x))
    np.testing.assert_array_equal(y[..., :16], x[:, ::2, ::2])
    assert y.shape == (2, 2, 2, 32)
    assert not y[..., 16:].any()
    assert shortcut.label == "PaddedShortcut(stride=2, 16 more channels)"


def test_gates_begin_nearly_closed():
    model = models.create("highway", gate_bias=-20.0)
    x, _ = batch(model, 2)
    np.testing.assert_allclose(model.forward_features(x), jj.relu(model.first(jj.flatten(x))), atol=1e-5)


def test_biases_of_2012():
    model = models.create("alexnet_2012", width=1 / 16)
    begin = {path: float(np.asarray(value)[0]) for path, value in model.parameters().items() if path.endswith("bias")}
    assert [*begin.values()] == [0, 1, 0, 1, 1, 1, 1, 0]
    std = np.asarray(model.classifier[1].weight).std()
    assert 0.009 < std < 0.011


MISTAKES = [
    ("fcn8s", {"stride": 4}, "fcn8s: no such stride\n  received  stride=4"),
    ("fcn_resnet50", {"blocks": (1, 1)}, "fcn_resnet50: blocks and channels, one a stage"),
    ("preact_resnet18", {"blocks": ()}, "one a stage"),
    ("densenet121", {"growth": 0}, "densenet121: bad blocks"),
    ("highway", {"units": 0}, "highway: bad units"),
    ("highway_conv", {"channels": (0,)}, "highway_conv: bad channels"),
    ("highway_conv", {"layers": 1.5}, "highway_conv: bad layers"),
]


@pytest.mark.parametrize(("name", "options", "text"), MISTAKES)
def test_mistakes(name, options, text):
    with pytest.raises(ArgumentError, match=re.escape(text)):
        models.create(name, **options)


# The page about them.


ROW = re.compile(r"^\| `(\w+)` \| (\d+)×(\d+)×(\d+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)
PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


def test_the_page_has_every_network_with_its_figures():
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert [name for name, *_ in rows] == list(models.MODELS)
    for name, *figures in rows:
        *images, classes, parameters, multiplications = (int(number.replace(",", "")) for number in figures)
        model = models.create(name, classes=classes)
        assert images == [*model.config["input_size"], model.config["in_channels"]], name
        counted = summarise(graph_of(model.eval(), batch=1))
        assert (counted.parameters, counted.multiplications) == (parameters, multiplications), name


def test_every_option_has_a_meaning_and_the_page_says_so():
    taken = {name: models.options(name) for name in models.MODELS}
    assert {option for options in taken.values() for option in options} == set(models.OPTIONS)
    assert [name for name, options in taken.items() if options.get("width") != 1.0] == ["lenet5_1998"]
    rows = [f"| `{option}` | {meaning} |" for option, meaning in models.OPTIONS.items()]
    for name, options in taken.items():
        shown = ", ".join(f"`{key}={written(value)}`" for key, value in options.items() if key != "width")
        rows.append(f"| `{name}` | {shown or '—' if options else 'none, not even `width`'} |")
    page = PAGE.read_text(encoding="utf-8")
    part = page[page.index("## Options") : page.index("## Perceptron")]
    assert [line for line in part.splitlines() if line.startswith("| `")] == rows


def test_defaults_as_they_are_written_are_read_back():
    for name in models.MODELS:
        for key, value in models.options(name).items():
            assert value_of(written(value)) == value, (name, key)


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "highway", "googlenet"])
def test_defaults_are_what_is_made_without_them(name):
    plain, told = models.create(name), models.create(name, **models.options(name))
    assert {path: cell.shape for path, cell in plain.cells().items()} == {
        path: cell.shape for path, cell in told.cells().items()
    }


def test_airbench_begins_with_white_patches():
    rng = np.random.default_rng(0)
    images = np.cumsum(rng.standard_normal((70, 12, 12, 3)), axis=1).astype(np.float32)
    model = make("airbench94", width=1.0)
    model.begin_with(lambda n: images[:n])
    answers = np.asarray(model.whiten(images)).reshape(-1, 24)
    moments = answers.T @ answers / len(answers)
    assert np.allclose(moments[:12, :12], np.eye(12), atol=0.01)
    assert np.allclose(answers[:, 12:], -answers[:, :12], atol=1e-5)


def test_airbench_begins_by_handing_on_its_inputs():
    model = make("airbench94", width=1.0)
    x = np.random.default_rng(0).random((1, 6, 6, 24), np.float32)
    assert np.allclose(np.asarray(model.blocks[0].conv1(x))[..., :24], x, atol=1e-6)


def test_the_page_says_something_of_every_network():
    text = PAGE.read_text(encoding="utf-8")
    told = text[text.index("## Perceptron") :]
    missing = {name for name in models.MODELS if f"`{name.removesuffix('_bn')}`" not in told}
    assert not missing
    drawings = "".join(re.findall(r"```text\n(.*?)```", told, re.DOTALL))
    assert not [family for family in ("alexnet", "nin", "vgg", "highway", "densenet", "fcn") if family not in drawings]
    for note in ("000", "001", "002 §4.4.1", "002 §4.4.2", "002 §4.4.3", "002 §4.4.4", "002 §4.6", "003", "004 §10"):
        assert note in " ".join(told.split())
