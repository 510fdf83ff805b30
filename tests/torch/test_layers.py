"""Every layer that PyTorch has too, with copied weights in float64: outputs, gradients, statistics and beginnings."""

import numpy as np
import pytest
import torch

import juanji as jj
from juanji import nn

T = torch.nn
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}


def first(a):
    """(N, *X, C) to (N, C, *X)."""
    return np.moveaxis(a, -1, 1) if a.ndim > 2 else a


def last(a):
    return np.moveaxis(a, 1, -1) if a.ndim > 2 else a


def torchs(a, layer):
    """A weight or its gradient as PyTorch has it: (*k, in, out) to (out, in, *k), for convolutions."""
    a = np.asarray(a)
    is_conv = isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) or "ConvTranspose" in type(layer).__name__
    return a.transpose(a.ndim - 1, a.ndim - 2, *range(a.ndim - 2)) if is_conv and a.ndim > 2 else a


def copied(ours, theirs):
    """Both in float64, theirs with our weights."""
    ours, theirs = ours.astype("float64"), theirs.double()
    ours.initialise(1)
    state = {name: torch.tensor(torchs(value, ours)) for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state, strict=True)
    return ours, theirs


def compare(ours, theirs, x, moved=True, tolerance=1e-9):
    to, back = (first, last) if moved else (lambda a: a, lambda a: a)
    tx = torch.tensor(np.ascontiguousarray(to(x)), requires_grad=True)
    ty = theirs(tx)
    y = ours(jj.Tensor(x))
    np.testing.assert_allclose(y, back(ty.detach().numpy()), **TOLERANCE)
    g = np.random.default_rng(1).normal(size=y.shape)
    ty.backward(torch.tensor(np.ascontiguousarray(to(g))))
    _, (grads, dx) = jj.value_and_grad(lambda m, x: (m(x) * jj.Tensor(g)).sum(), (0, 1))(ours, jj.Tensor(x))
    np.testing.assert_allclose(dx, back(tx.grad.numpy()), rtol=tolerance, atol=tolerance)
    for name, parameter in theirs.named_parameters():
        np.testing.assert_allclose(torchs(grads[name], ours), parameter.grad.numpy(), err_msg=name, **TOLERANCE)


# Our layer and theirs made from the same arguments, and an input (N, *X, C).
CASES = [
    ("Conv1d", (3, 4, 3, 2, 1), {}, (2, 9, 3)),
    ("Conv1d", (4, 6, 3), {"padding": 2, "dilation": 2, "groups": 2, "padding_mode": "reflect"}, (2, 9, 4)),
    ("Conv2d", (3, 4, 3), {}, (2, 6, 5, 3)),
    ("Conv2d", (4, 6, (3, 2), (2, 1), (1, 0), 1, 2), {}, (2, 7, 6, 4)),
    ("Conv2d", (4, 4, 3), {"padding": "same", "groups": 4, "bias": False}, (2, 6, 5, 4)),
    ("Conv2d", (3, 4, 3, 2), {"padding": (2, 1), "padding_mode": "replicate"}, (2, 6, 5, 3)),
    ("Conv2d", (3, 4, 3), {"padding": 2, "dilation": (1, 2), "padding_mode": "reflect"}, (2, 6, 7, 3)),
    ("Conv3d", (2, 3, 2, 1, 1), {"dilation": 2}, (1, 4, 5, 4, 2)),
    ("ConvTranspose1d", (3, 4, 4, 2, 1), {}, (2, 5, 3)),
    ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2), {}, (2, 4, 5, 4)),
    ("ConvTranspose2d", (3, 4, (2, 3), (2, 1), (0, 1)), {"bias": False, "dilation": (2, 1)}, (2, 4, 5, 3)),
    ("ConvTranspose3d", (2, 3, 2, 2), {}, (1, 2, 3, 2, 2)),
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (4, 5)),
    ("MaxPool1d", (3, 2, 1), {}, (2, 9, 3)),
    ("MaxPool2d", (2,), {}, (2, 7, 6, 3)),
    ("MaxPool2d", ((3, 2), (2, 1), (1, 0), (1, 2)), {"ceil_mode": True}, (2, 8, 7, 3)),
    ("MaxPool3d", (2,), {}, (1, 4, 5, 4, 2)),
    ("AvgPool1d", (3, 2, 1), {}, (2, 9, 3)),
    ("AvgPool2d", (3, 2, 1), {"ceil_mode": True, "count_include_pad": False}, (2, 8, 7, 3)),
    ("AvgPool3d", (2,), {}, (1, 4, 5, 4, 2)),
    ("LPPool1d", (3, 2), {}, (2, 8, 3)),
    ("LPPool2d", (1, 2), {}, (2, 8, 6, 3)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 7, 3)),
    ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 7, 5, 3)),
    ("AdaptiveAvgPool3d", (2,), {}, (1, 4, 5, 4, 2)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 7, 3)),
    ("AdaptiveMaxPool2d", ((3, 2),), {}, (2, 7, 5, 3)),
    ("AdaptiveMaxPool3d", (2,), {}, (1, 4, 5, 4, 2)),
    ("BatchNorm1d", (3,), {}, (6, 3)),
    ("BatchNorm1d", (3,), {"eps": 0.1, "affine": False}, (4, 5, 3)),
    ("BatchNorm2d", (3,), {"momentum": 0.3}, (4, 5, 6, 3)),
    ("BatchNorm3d", (3,), {"track_running_stats": False}, (2, 3, 2, 2, 3)),
    ("GroupNorm", (2, 4), {}, (3, 4, 5, 4)),
    ("LocalResponseNorm", (3, 0.1, 0.5, 2.0), {}, (2, 4, 3, 5)),
    ("ZeroPad2d", ((1, 2, 0, 3),), {}, (2, 4, 5, 3)),
    ("ReflectionPad2d", ((1, 2, 0, 3),), {}, (2, 4, 5, 3)),
    ("ReplicationPad2d", (2,), {}, (2, 4, 5, 3)),
    ("Upsample", (), {"scale_factor": 2, "mode": "nearest"}, (2, 4, 5, 3)),
    ("Upsample", ((7, 3),), {"mode": "bilinear"}, (2, 4, 5, 3)),
    ("PReLU", (3,), {}, (4, 5, 2, 3)),
    *((name, (), {}, (4, 5)) for name in (
        "ReLU", "ReLU6", "ELU", "SELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Softplus",
        "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "PReLU", "Identity",
    )),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "options", "shape"), CASES)
def test_layer(name, arguments, options, shape):
    ours, theirs = copied(getattr(nn, name)(*arguments, **options), getattr(T, name)(*arguments, **options))
    x = np.random.default_rng(0).normal(size=shape)
    if "LPPool" in name:
        x = np.abs(x)
    # PyTorch's gradient of hardsigmoid multiplies by 1/6 rounded to float32.
    compare(ours, theirs, x, tolerance=1e-7 if name == "Hardsigmoid" else 1e-9)


@pytest.mark.parametrize("shape", [3, (5, 3)])
def test_layer_norm(shape):
    compare(*copied(nn.LayerNorm(shape), T.LayerNorm(shape)), np.random.default_rng(0).normal(size=(4, 5, 3)), False)


def test_instance_norm():
    ours, theirs = nn.InstanceNorm2d(3, affine=True), T.InstanceNorm2d(3, affine=True)
    compare(*copied(ours, theirs), np.random.default_rng(0).normal(size=(4, 5, 6, 3)))


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_softmax(name):
    ours, theirs = getattr(nn, name)(1), getattr(T, name)(1)
    compare(*copied(ours, theirs), np.random.default_rng(0).normal(size=(4, 5, 3)), False)


def test_running_statistics():
    ours, theirs = copied(nn.BatchNorm2d(3, momentum=0.2), T.BatchNorm2d(3, momentum=0.2))
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.normal(1, 2, (4, 5, 6, 3))
        ours(jj.Tensor(x))
        theirs(torch.tensor(first(x)))
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, theirs.state_dict()[name], err_msg=name, **TOLERANCE)
    compare(ours.eval(), theirs.eval(), rng.normal(size=(2, 5, 6, 3)))


def test_a_network_with_copied_weights():
    ours = nn.Sequential(
        {
            "conv1": nn.Conv2d(2, 4, 3),
            "bn": nn.BatchNorm2d(4),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flat": nn.Flatten(),
            "fc": nn.Linear(4 * 3 * 3, 5),
        }
    ).astype("float64")
    ours.initialise(2)
    theirs = T.Sequential()
    for name, module in {
        "conv1": T.Conv2d(2, 4, 3), "bn": T.BatchNorm2d(4), "relu": T.ReLU(), "pool": T.MaxPool2d(2),
        "flat": T.Flatten(), "fc": T.Linear(36, 5),
    }.items():  # fmt: skip
        theirs.add_module(name, module)
    theirs.double()
    state = {name: torch.tensor(np.asarray(value)) for name, value in ours.state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].permute(3, 2, 0, 1)
    # A dense layer after Flatten takes its inputs in the order (H, W, C) here, (C, H, W) there.
    state["fc.weight"] = state["fc.weight"].reshape(5, 3, 3, 4).permute(0, 3, 1, 2).reshape(5, 36)
    theirs.load_state_dict(state)
    x = np.random.default_rng(0).normal(size=(6, 8, 8, 2))
    labels = np.arange(6) % 5
    value, grads = jj.value_and_grad(lambda m: nn.CrossEntropyLoss()(m(jj.Tensor(x)), labels))(ours)
    expected = T.CrossEntropyLoss()(theirs(torch.tensor(first(x))), torch.tensor(labels))
    expected.backward()
    np.testing.assert_allclose(value, expected.detach(), **TOLERANCE)
    for name in ("conv1.bias", "bn.weight", "bn.bias", "fc.bias"):
        np.testing.assert_allclose(grads[name], dict(theirs.named_parameters())[name].grad, **TOLERANCE)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nn.Conv2d(16, 32, 3, groups=4), T.Conv2d(16, 32, 3, groups=4)),
        (nn.ConvTranspose2d(16, 32, 3, groups=4), T.ConvTranspose2d(16, 32, 3, groups=4)),
        (nn.Linear(100, 200), T.Linear(100, 200)),
    ],
)
def test_layers_begin_with_the_same_spread(ours, theirs):
    """The largest of many uniform numbers tells the bound."""
    for name, value in theirs.named_parameters():
        value, mine = value.detach().numpy(), np.asarray(ours.parameters()[name])
        assert sorted(value.shape) == sorted(mine.shape)
        assert abs(np.abs(mine).max() / np.abs(value).max() - 1) < (0.02 if value.ndim > 1 else 0.25)
