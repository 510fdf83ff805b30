"""Layers: what they give, what they refuse."""

import re

import numpy as np
import pytest

import juanji as jj
from juanji import nn
from juanji.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(0)


def images(*shape: int) -> jj.Tensor:
    return jj.Tensor(RNG.normal(size=shape).astype("float32"))


# layer, input shape, output shape
SHAPES = [
    (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 9, 3), (2, 5, 4)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=((1, 0), (0, 1)), groups=2), (2, 8, 7, 4), (2, 4, 7, 6)),
    (nn.Conv2d(3, 4, 3, padding="same", stride=2, padding_mode="reflect"), (2, 7, 8, 3), (2, 4, 4, 4)),
    (nn.Conv2d(3, 4, 3, padding=2, dilation=2, padding_mode="replicate"), (2, 7, 8, 3), (2, 7, 8, 4)),
    (nn.Conv3d(2, 3, 2), (1, 4, 5, 6, 2), (1, 3, 4, 5, 3)),
    (nn.ConvTranspose1d(3, 4, 4, 2, 1), (2, 5, 3), (2, 10, 4)),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), (2, 5, 4, 4), (2, 10, 8, 6)),
    (nn.ConvTranspose3d(2, 3, 2, 2), (1, 2, 3, 2, 2), (1, 4, 6, 4, 3)),
    (nn.LocallyConnected1d(3, 4, 3, 9), (2, 9, 3), (2, 7, 4)),
    (nn.LocallyConnected2d(3, 4, 3, (6, 5), stride=2, padding=1), (2, 6, 5, 3), (2, 3, 3, 4)),
    (nn.PartialConv2d(3, ((0, 1), (1, 2), (0, 1, 2)), 3), (2, 6, 5, 3), (2, 4, 3, 3)),
    (nn.Linear(5, 3), (2, 5), (2, 3)),
    (nn.Linear(5, 3, bias=False), (2, 4, 4, 5), (2, 4, 4, 3)),
    (nn.Flatten(), (2, 3, 4, 5), (2, 60)),
    (nn.Flatten(0, 1), (2, 3, 4), (6, 4)),
    (nn.Identity(), (2, 3), (2, 3)),
    (nn.MaxPool1d(2), (2, 7, 3), (2, 3, 3)),
    (nn.MaxPool2d(3, 2, 1), (2, 7, 8, 3), (2, 4, 4, 3)),
    (nn.MaxPool2d((2, 3), ceil_mode=True), (2, 7, 8, 3), (2, 4, 3, 3)),
    (nn.MaxPool3d(2), (1, 4, 4, 4, 2), (1, 2, 2, 2, 2)),
    (nn.AvgPool1d(2), (2, 7, 3), (2, 3, 3)),
    (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 7, 8, 3), (2, 4, 4, 3)),
    (nn.AvgPool3d(2), (1, 4, 4, 4, 2), (1, 2, 2, 2, 2)),
    (nn.LPPool1d(2, 2), (2, 8, 3), (2, 4, 3)),
    (nn.LPPool2d(2, 2), (2, 8, 6, 3), (2, 4, 3, 3)),
    (nn.TrainablePool2d(3), (2, 8, 6, 3), (2, 4, 3, 3)),
    (nn.AdaptiveAvgPool1d(3), (2, 7, 3), (2, 3, 3)),
    (nn.AdaptiveAvgPool2d((3, None)), (2, 7, 5, 3), (2, 3, 5, 3)),
    (nn.AdaptiveAvgPool3d(1), (1, 4, 4, 4, 2), (1, 1, 1, 1, 2)),
    (nn.AdaptiveMaxPool1d(3), (2, 7, 3), (2, 3, 3)),
    (nn.AdaptiveMaxPool2d(3), (2, 7, 5, 3), (2, 3, 3, 3)),
    (nn.AdaptiveMaxPool3d(2), (1, 4, 4, 4, 2), (1, 2, 2, 2, 2)),
    (nn.BatchNorm1d(3), (4, 3), (4, 3)),
    (nn.BatchNorm1d(3), (4, 6, 3), (4, 6, 3)),
    (nn.BatchNorm3d(3), (2, 2, 2, 2, 3), (2, 2, 2, 2, 3)),
    (nn.LayerNorm(3), (4, 5, 3), (4, 5, 3)),
    (nn.LayerNorm((5, 3)), (4, 5, 3), (4, 5, 3)),
    (nn.GroupNorm(2, 4), (2, 5, 5, 4), (2, 5, 5, 4)),
    (nn.InstanceNorm2d(3, affine=True), (2, 5, 5, 3), (2, 5, 5, 3)),
    (nn.LocalResponseNorm(3), (2, 5, 5, 4), (2, 5, 5, 4)),
    (nn.Softmax(), (2, 5), (2, 5)),
    (nn.LogSoftmax(1), (2, 5, 3), (2, 5, 3)),
    (nn.Upsample(scale_factor=2), (2, 3, 4, 2), (2, 6, 8, 2)),
    (nn.Upsample((5, 7), mode="bilinear"), (2, 3, 4, 2), (2, 5, 7, 2)),
    (nn.ZeroPad2d(1), (2, 3, 4, 2), (2, 5, 6, 2)),
    (nn.ReflectionPad2d((1, 2, 0, 1)), (2, 3, 4, 2), (2, 4, 7, 2)),
    (nn.ReplicationPad2d(2), (2, 3, 4, 2), (2, 7, 8, 2)),
    (nn.Residual(nn.Conv2d(3, 3, 3, padding=1)), (2, 4, 4, 3), (2, 4, 4, 3)),
    (nn.Residual(nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(3, 5, 1, 2)), (2, 4, 4, 3), (2, 2, 2, 5)),
    (nn.Highway(nn.Linear(4, 4), nn.Linear(4, 4)), (2, 4), (2, 4)),
    (nn.Branches(nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 3, padding=1)), (2, 5, 5, 3), (2, 5, 5, 6)),
    (nn.InceptionBlock(8, 4, 2, 6, 2, 3, 5), (2, 7, 7, 8), (2, 7, 7, 18)),
    (nn.InceptionBlock(8, 4, 2, 6, 2, 3, 5, normalise=nn.BatchNorm2d), (2, 7, 7, 8), (2, 7, 7, 18)),
    *((layer, (3, 4), (3, 4)) for layer in (
        nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.PReLU(), nn.PReLU(4), nn.ELU(), nn.SELU(), nn.GELU(),
        nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.Tanh(), nn.ScaledTanh(), nn.Softplus(),
        nn.Hardsigmoid(), nn.Hardswish(), nn.Hardtanh(),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "given", "expected"), SHAPES, ids=lambda v: getattr(v, "label", None))
def test_shape_eager_traced_and_gradients(layer, given, expected):
    x = images(*given)
    graph = jj.trace(layer, x)
    assert graph.outputs.shape == expected
    layer.eval()
    y = layer(x)
    assert y.shape == expected
    np.testing.assert_array_equal(jj.trace(layer, x)(x), y)
    weights = images(*expected)
    _, (grads, dx) = jj.value_and_grad(lambda m, x: (m(x) * weights).sum(), (0, 1))(layer, x)
    assert {name: g.shape for name, g in grads.items()} == {n: p.shape for n, p in layer.parameters().items()}
    assert all(np.isfinite(np.asarray(g)).all() and np.asarray(g).any() for g in [dx, *grads.values()])
    assert dx.shape == given


def test_unpooling_undoes_pooling():
    x = jj.abs(images(2, 4, 6, 3))
    y, places = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(y, places)
    assert back.shape == x.shape
    np.testing.assert_array_equal(nn.MaxPool2d(2)(back), y)
    assert nn.MaxUnpool2d(2)(y, places, output_size=(4, 6)).shape == x.shape
    y, places = nn.AdaptiveMaxPool2d(2, return_indices=True)(x)
    assert places.shape == y.shape


def test_trainable_pooling_is_a_scaled_window_sum():
    layer = nn.TrainablePool2d(3, activation=None)
    layer.weight, layer.bias = jj.Tensor([1.0, 2.0, 3.0], "float32"), jj.Tensor([0.0, 1.0, 2.0], "float32")
    x = np.asarray(images(1, 4, 4, 3))
    total = x.reshape(1, 2, 2, 2, 2, 3).sum((2, 4))
    np.testing.assert_allclose(layer(x), total * [1, 2, 3] + [0, 1, 2], rtol=1e-5, atol=1e-6)


def test_zero_offsets_make_a_plain_convolution():
    layer, plain = nn.DeformConv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1)
    plain.load_state_dict(layer.state_dict())
    x = images(2, 5, 5, 2)
    np.testing.assert_allclose(layer(x, np.zeros((2, 5, 5, 18), "float32")), plain(x), atol=1e-6)
    mask = np.full((2, 5, 5, 9), 0.5, "float32")
    half = np.asarray(layer(x, np.zeros((2, 5, 5, 18), "float32"), mask)) - np.asarray(layer.bias)
    np.testing.assert_allclose(half * 2 + np.asarray(layer.bias), plain(x), atol=1e-5)


def test_partial_connections_are_a_convolution_with_zeros():
    table = ((0, 2), (1, 2), (0, 1, 2))
    layer = nn.PartialConv2d(3, table, 3)
    w = np.zeros((3, 3, 3, 3), "float32")
    for i, maps in enumerate(table):
        run, place = (0, i) if i < 2 else (1, 0)
        w[:, :, list(maps), i] = np.asarray(getattr(layer, f"weight{run}"))[..., place]
    x = images(2, 6, 6, 3)
    np.testing.assert_allclose(layer(x), jj.conv(x, jj.Tensor(w), layer.bias), atol=1e-5)


def test_one_by_one_convolution_is_a_dense_layer_at_every_pixel():
    conv, dense = nn.Conv2d(5, 3, 1), nn.Linear(5, 3)
    dense.weight, dense.bias = conv.weight.reshape(5, 3).T, conv.bias
    x = images(2, 4, 4, 5)
    np.testing.assert_allclose(conv(x), dense(x), atol=1e-6)


def test_residual_of_nothing_is_the_input_and_highway_mixes():
    x = images(2, 4)
    body = nn.Linear(4, 4)
    body.weight, body.bias = body.weight * 0, body.bias * 0
    np.testing.assert_array_equal(nn.Residual(body)(x), x)
    gate = nn.Linear(4, 4)
    gate.weight, gate.bias = gate.weight * 0, gate.bias * 0
    np.testing.assert_allclose(nn.Highway(body, gate)(x), np.asarray(x) / 2)


LOSSES = [
    (nn.CrossEntropyLoss(label_smoothing=0.1), jj.ops.cross_entropy, {"label_smoothing": 0.1}, "labels"),
    (nn.NLLLoss(ignore_index=1), jj.ops.nll_loss, {"ignore_index": 1}, "labels"),
    (nn.MSELoss("sum"), jj.ops.mse_loss, {"reduction": "sum"}, "values"),
    (nn.L1Loss(), jj.ops.l1_loss, {}, "values"),
    (nn.HuberLoss(delta=0.5), jj.ops.huber_loss, {"delta": 0.5}, "values"),
    (nn.BCEWithLogitsLoss(), jj.ops.binary_cross_entropy_with_logits, {}, "shares"),
]


@pytest.mark.parametrize(("loss", "function", "options", "target"), LOSSES, ids=lambda v: getattr(v, "label", None))
def test_losses_are_the_functions(loss, function, options, target):
    x = images(6, 4)
    targets = {
        "labels": jj.Tensor(RNG.integers(0, 4, 6)),
        "values": images(6, 4),
        "shares": jj.Tensor(RNG.random((6, 4)).astype("float32")),
    }
    np.testing.assert_array_equal(loss(x, targets[target]), function(x, targets[target], **options))


def test_class_weights_are_buffers():
    weight = np.array([1.0, 2.0, 0.5], "float32")
    loss = nn.CrossEntropyLoss(weight)
    x, labels = images(5, 3), jj.Tensor(np.array([0, 1, 2, 1, 0]))
    np.testing.assert_array_equal(loss(x, labels), jj.ops.cross_entropy(x, labels, weight=weight))
    assert list(loss.buffers()) == ["weight"]
    assert not loss.parameters()


MISTAKES = [
    (lambda: nn.Conv2d(0, 3, 3), "Conv2d: bad in_channels\n  received  in_channels=0"),
    (lambda: nn.Conv2d(3, 2.5, 3), "Conv2d: bad out_channels\n  received  out_channels=2.5"),
    (lambda: nn.Conv2d(3, 3, 0), "Conv2d: bad kernel_size\n  received  kernel_size=0"),
    (lambda: nn.Conv2d(3, 3, (3, 3, 3)), "an integer of at least 1, or 2 of them"),
    (lambda: nn.Conv2d(3, 3, 3, stride=-1), "Conv2d: bad stride"),
    (lambda: nn.Conv2d(3, 3, 3, dilation=0), "Conv2d: bad dilation"),
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "do not divide the channels\n  received  groups=2, in_channels=3"),
    (lambda: nn.Conv2d(3, 4, 3, padding="half"), "Conv2d: unknown padding\n  received  'half'"),
    (lambda: nn.Conv2d(3, 4, 3, padding_mode="circular"), "Conv2d: unknown padding_mode\n  received  padding_mode='c"),
    (lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, 2), "ConvTranspose2d: bad output_padding\n  received  output_padding=2"),
    (lambda: nn.LocallyConnected2d(3, 4, 3, 0), "LocallyConnected2d: bad input_size"),
    (lambda: nn.LocallyConnected2d(3, 4, 9, 5), "LocallyConnected2d: the kernel does not fit the input"),
    (lambda: nn.PartialConv2d(3, ((0, 3),), 3), "PartialConv2d: bad connection table"),
    (lambda: nn.Linear(3, -1), "Linear: bad out_features\n  received  out_features=-1"),
    (lambda: nn.MaxPool2d(0), "MaxPool2d: bad kernel_size"),
    (lambda: nn.AdaptiveAvgPool2d(0), "AdaptiveAvgPool2d: bad output_size"),
    (lambda: nn.BatchNorm2d(0), "BatchNorm2d: bad num_features"),
    (lambda: nn.BatchNorm2d(3, momentum=2), "BatchNorm2d: bad momentum\n  received  momentum=2"),
    (lambda: nn.LayerNorm(3, eps=0), "LayerNorm: bad eps\n  received  eps=0"),
    (lambda: nn.GroupNorm(2, 3), "GroupNorm: the groups do not divide the channels"),
    (lambda: nn.LocalResponseNorm(0), "LocalResponseNorm: bad size"),
    (lambda: nn.Dropout(1.5), "Dropout: bad p\n  received  p=1.5\n  rule      from 0 to 1"),
    (lambda: nn.GELU("fast"), "GELU: unknown approximate"),
    (lambda: nn.Hardtanh(2, 1), "Hardtanh: bad bounds"),
    (lambda: nn.PReLU(0), "PReLU: bad num_parameters"),
    (lambda: nn.Upsample(), "Upsample: size or scale_factor, please"),
    (lambda: nn.Upsample(2, mode="cubic"), "Upsample: unknown mode"),
    (lambda: nn.ZeroPad2d(-1), "ZeroPad2d: bad padding"),
    (lambda: nn.MSELoss("average"), "MSELoss: unknown reduction\n  received  reduction='average'"),
    (lambda: nn.HuberLoss(delta=0), "HuberLoss: bad delta"),
    (lambda: nn.CrossEntropyLoss(label_smoothing=2), "CrossEntropyLoss: bad label_smoothing"),
    (lambda: nn.Sequential(nn.Identity(), jj.relu), "Sequential: not a module"),
    (lambda: nn.Sequential(jj.ops.log_softmax), "fix       nn.LogSoftmax()"),
    (lambda: nn.Sequential(nn.ReLU), "fix       nn.ReLU()"),
    (lambda: nn.InceptionBlock(3, 0, 1, 1, 1, 1, 1), "InceptionBlock: bad b1"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), MISTAKES)
def test_arguments_are_checked_when_made(make, text):
    with pytest.raises((ArgumentError, ShapeError)) as error:
        make()
    assert text in str(error.value)


CALLS = [
    (nn.Conv2d(3, 4, 3), (8, 8, 3), "Conv2d: wrong rank", "add an axis of size 1"),
    (nn.Conv2d(3, 4, 3), (2, 3, 8, 8), "Conv2d: the channels do not match", "images are channels last: (N, H, W, C)"),
    (nn.Conv2d(3, 4, 5), (2, 3, 8, 3), "conv: the kernel does not fit the input", "(Conv2d(3, 4, 5))"),
    (nn.Conv2d(28, 4, 5), (1, 1, 28, 28), "conv: the kernel does not fit", "if axis 1 holds the channels"),
    (nn.BatchNorm2d(3), (2, 4, 4, 5), "BatchNorm2d: the channels do not match", "the last axis holds 3 channels"),
    (nn.BatchNorm2d(3), (1, 1, 1, 3), "batch_norm: a variance needs more than one value", "eval()"),
    (nn.BatchNorm1d(3), (2, 4, 4, 3), "BatchNorm1d: wrong rank", "3 axes, (N, W, C)"),
    (nn.LayerNorm(3), (2, 4), "LayerNorm: the last axes do not match", "(3,)"),
    (nn.GroupNorm(2, 4), (2, 3, 3, 6), "GroupNorm: the channels do not match", "4 channels"),
    (nn.MaxPool2d(2), (4, 4, 3), "MaxPool2d: wrong rank", "4 axes, (N, H, W, C)"),
    (nn.TrainablePool2d(4), (2, 4, 4, 3), "TrainablePool2d: the channels do not match", "4 channels"),
    (nn.Flatten(1, 5), (2, 3, 4), "Flatten: there are no such axes", "0 ≤ start ≤ end ≤ 2"),
    (nn.Linear(5, 3), (2, 4), "linear: the inputs do not match", "in_features=4"),
    (nn.Residual(nn.Linear(4, 3)), (2, 4), "Residual: the shapes differ", "(2, 3), (2, 4)"),
    (nn.Highway(nn.Linear(4, 3), nn.Linear(4, 4)), (2, 4), "Highway: the shapes differ", "one shape"),
    (nn.Branches(nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 1)), (2, 4, 4, 3), "Branches: the shapes differ", "padding="),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "shape", "what", "more"), CALLS)
def test_images_are_checked_when_called(layer, shape, what, more):
    with pytest.raises(ShapeError) as error:
        layer(images(*shape))
    assert what in str(error.value)
    assert more in str(error.value)


def test_layer_norm_of_a_numpy_size():
    assert nn.LayerNorm(np.int64(3)).normalized_shape == (3,)


def test_axes_have_the_names_of_pytorch():
    assert repr(nn.Softmax(dim=0)) == "Softmax(dim=0)"
    assert repr(nn.LogSoftmax(dim=1)) == "LogSoftmax(dim=1)"
    assert repr(nn.Flatten(start_dim=2, end_dim=3)) == "Flatten(start_dim=2, end_dim=3)"


def test_what_documentation_points_to_is_exported():
    for name in nn.__all__:
        for pointer in re.findall(r"Arguments as in `(\w+)`", getattr(nn, name).__doc__ or ""):
            assert hasattr(nn, pointer), f"{name} points to {pointer}"
