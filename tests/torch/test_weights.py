"""Networks of plain PyTorch with random weights, saved there and loaded here, give the same answers; and back."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn as tnn

import juanji as jj
from juanji import models, nn
from juanji.interop import load_torch_weights, save_torch_weights

# The networks with torchvision's attribute names


class LeNet(tnn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = tnn.Conv2d(2, 6, 5, padding=2), tnn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = tnn.Linear(16 * 5 * 5, 12), tnn.Linear(12, 8), tnn.Linear(8, 3)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            x = torch.max_pool2d(torch.relu(conv(x)), 2)
        return self.fc3(torch.relu(self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))))


class BasicBlock(tnn.Module):
    def __init__(self, c, m, stride):
        super().__init__()
        self.conv1, self.bn1 = tnn.Conv2d(c, m, 3, stride, 1, bias=False), tnn.BatchNorm2d(m)
        self.conv2, self.bn2 = tnn.Conv2d(m, m, 3, 1, 1, bias=False), tnn.BatchNorm2d(m)
        if stride > 1 or c != m:
            self.downsample = tnn.Sequential(tnn.Conv2d(c, m, 1, stride, bias=False), tnn.BatchNorm2d(m))

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class ResNet(tnn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.bn1 = tnn.Conv2d(2, channels[0], 7, 2, 3, bias=False), tnn.BatchNorm2d(channels[0])
        c = channels[0]
        for i, m in enumerate(channels, 1):
            blocks = BasicBlock(c, m, 1 if i == 1 else 2), BasicBlock(m, m, 1)
            setattr(self, f"layer{i}", tnn.Sequential(*blocks))
            c = m
        self.fc = tnn.Linear(c, 3)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class VGG(tnn.Module):
    def __init__(self):
        super().__init__()
        layers, c = [], 2
        for m in (4, 5, 6):
            layers += [tnn.Conv2d(c, m, 3, padding=1), tnn.BatchNorm2d(m), tnn.ReLU(), tnn.MaxPool2d(2)]
            c = m
        self.features = tnn.Sequential(*layers)
        self.classifier = tnn.Sequential(
            tnn.Linear(6 * 49, 10), tnn.ReLU(), tnn.Dropout(), tnn.Linear(10, 9), tnn.ReLU(), tnn.Dropout(),
            tnn.Linear(9, 3),
        )  # fmt: skip

    def forward(self, x):
        return self.classifier(torch.flatten(tnn.functional.adaptive_avg_pool2d(self.features(x), 7), 1))


class Unflatten(nn.Module):
    """Features become an image, channels last."""

    def __init__(self, *shape):
        self.shape = shape

    def forward(self, x):
        return x.reshape(x.shape[0], *self.shape)


class Two(nn.Module):
    """Two flattened images side by side, added to what a dense layer makes of the first."""

    def __init__(self):
        self.left, self.right, self.mix = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 4, 2, 2), nn.Linear(3 * 36, 3 * 36)
        self.fc = nn.Linear(3 * 36 + 4 * 16, 3)

    def forward(self, x):
        left, right = (jj.ops.flatten(conv(x)) for conv in (self.left, self.right))
        return self.fc(jj.ops.concat([left + jj.relu(self.mix(left)), right], axis=1))


class TorchTwo(tnn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right, self.mix = tnn.Conv2d(2, 3, 3), tnn.Conv2d(2, 4, 2, 2), tnn.Linear(3 * 36, 3 * 36)
        self.fc = tnn.Linear(3 * 36 + 4 * 16, 3)

    def forward(self, x):
        left, right = (torch.flatten(conv(x), 1) for conv in (self.left, self.right))
        return self.fc(torch.cat([left + torch.relu(self.mix(left)), right], 1))


def both(*pairs):
    """A Sequential there and one here, of layers that are given as (theirs, ours)."""
    theirs, ours = zip(*pairs, strict=True)
    return lambda: (tnn.Sequential(*theirs), nn.Sequential(*copy.deepcopy(ours)))


def made(make, name, **options):
    return lambda: (make(), models.create(name, classes=3, in_channels=2, **options))


ACTIVATIONS = ((tnn.ReLU(), nn.ReLU()), (tnn.PReLU(), nn.PReLU()), (tnn.PReLU(6), nn.PReLU(6)))
# Name: what makes both networks, and the shape (*X, C) of their inputs.
NETWORKS = {
    "lenet": (made(LeNet, "lenet5", input_size=28, hidden=(12, 8)), (28, 28, 2)),
    "resnet18": (
        made(lambda: ResNet((4, 6, 8, 10)), "resnet18", input_size=(40, 33), channels=(4, 6, 8, 10)),
        (40, 33, 2),
    ),
    "vgg": (made(VGG, "vgg11_bn", input_size=32, stages=((4,), (5,), (6,)), hidden=(10, 9)), (32, 32, 2)),
    "alexnet": (
        both(
            (tnn.Conv2d(3, 6, 5, 2, 2), nn.Conv2d(3, 6, 5, 2, 2)),
            ACTIVATIONS[0],
            (tnn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2)),
            (tnn.Conv2d(6, 4, 3), nn.Conv2d(6, 4, 3)),
            (tnn.Flatten(), nn.Flatten()),
            (tnn.Dropout(), nn.Dropout()),
            (tnn.Linear(4 * 4 * 6, 16), nn.Linear(4 * 4 * 6, 16)),
            ACTIVATIONS[1],
            (tnn.Linear(16, 3, bias=False), nn.Linear(16, 3, bias=False)),
        ),
        (27, 35, 3),
    ),
    "mobilenet block": (
        both(
            (tnn.Conv2d(4, 12, 1, bias=False), nn.Conv2d(4, 12, 1, bias=False)),
            (tnn.BatchNorm2d(12), nn.BatchNorm2d(12)),
            (tnn.ReLU6(), nn.ReLU6()),
            (tnn.Conv2d(12, 12, 3, 2, 1, groups=12), nn.Conv2d(12, 12, 3, 2, 1, groups=12)),
            (tnn.BatchNorm2d(12, affine=False), nn.BatchNorm2d(12, affine=False)),
            (tnn.Conv2d(12, 8, (1, 3), groups=4), nn.Conv2d(12, 8, (1, 3), groups=4)),
            (tnn.InstanceNorm2d(8, affine=True), nn.InstanceNorm2d(8, affine=True)),
        ),
        (9, 8, 4),
    ),
    "upwards": (
        both(
            (tnn.ConvTranspose2d(4, 6, 3, 2, groups=2), nn.ConvTranspose2d(4, 6, 3, 2, groups=2)),
            ACTIVATIONS[2],
            (tnn.GroupNorm(3, 6), nn.GroupNorm(3, 6)),
            (tnn.ConvTranspose2d(6, 3, (2, 3)), nn.ConvTranspose2d(6, 3, (2, 3))),
        ),
        (5, 4, 4),
    ),
    "behind flattening": (
        both(
            (tnn.GroupNorm(2, 4), nn.GroupNorm(2, 4)),
            (tnn.Conv2d(4, 5, 3), nn.Conv2d(4, 5, 3)),
            (tnn.LayerNorm((5, 4, 3)), nn.LayerNorm((4, 3, 5))),
            (tnn.Flatten(), nn.Flatten()),
            (tnn.BatchNorm1d(60), nn.BatchNorm1d(60)),
            (tnn.PReLU(60), nn.PReLU(60)),
            (tnn.LayerNorm(60), nn.LayerNorm(60)),
            (tnn.Linear(60, 60), nn.Linear(60, 60)),
            (tnn.BatchNorm1d(60), nn.BatchNorm1d(60)),
            (tnn.GroupNorm(4, 60), nn.GroupNorm(4, 60)),
            (tnn.Linear(60, 3), nn.Linear(60, 3)),
        ),
        (6, 5, 4),
    ),
    "decoder": (
        both(
            (tnn.Linear(7, 120), nn.Linear(7, 120)),
            (tnn.BatchNorm1d(120), nn.BatchNorm1d(120)),
            ACTIVATIONS[0],
            (tnn.Unflatten(1, (6, 4, 5)), Unflatten(4, 5, 6)),
            (tnn.BatchNorm2d(6), nn.BatchNorm2d(6)),
            (tnn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)),
            (tnn.ConvTranspose2d(6, 2, 2, 2), nn.ConvTranspose2d(6, 2, 2, 2)),
        ),
        (7,),
    ),
    "branches": (lambda: (TorchTwo(), Two()), (8, 8, 2)),
    "signals": (
        both(
            (tnn.Conv1d(3, 4, 3, 2), nn.Conv1d(3, 4, 3, 2)),
            (tnn.BatchNorm1d(4), nn.BatchNorm1d(4)),
            (tnn.Flatten(), nn.Flatten()),
            (tnn.Linear(4 * 5, 3), nn.Linear(4 * 5, 3)),
        ),
        (11, 3),
    ),
    "signals made of features": (
        both(
            (tnn.Linear(7, 12), nn.Linear(7, 12)),
            (tnn.Unflatten(1, (3, 4)), Unflatten(4, 3)),
            ACTIVATIONS[0],
            (tnn.ConvTranspose1d(3, 2, 2, 2), nn.ConvTranspose1d(3, 2, 2, 2)),
        ),
        (7,),
    ),
    "volumes": (
        both(
            (tnn.Conv3d(2, 3, (2, 3, 1)), nn.Conv3d(2, 3, (2, 3, 1))),
            (tnn.BatchNorm3d(3), nn.BatchNorm3d(3)),
            (tnn.ConvTranspose3d(3, 2, 2, 2), nn.ConvTranspose3d(3, 2, 2, 2)),
            (tnn.Flatten(), nn.Flatten()),
            (tnn.Linear(2 * 6 * 4 * 8, 3), nn.Linear(2 * 6 * 4 * 8, 3)),
        ),
        (4, 4, 4, 2),
    ),
}
FORMATS = {
    "zip": torch.save,
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, path: save_file(dict(state), path),
}


@pytest.fixture(autouse=True)
def _definitions(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")


def randomised(net):
    """In evaluation mode, with no parameter or statistic left at its beginning."""
    for name, value in net.state_dict().items():
        if value.dtype.is_floating_point and value.ndim > 1:
            value.copy_(torch.randn(value.shape) * (2 / value[0].numel()) ** 0.5)
        elif value.dtype.is_floating_point:
            scale = name.endswith(("var", "weight"))
            value.copy_(torch.rand(value.shape) + 0.5 if scale else torch.randn(value.shape) / 10)
    return net.eval()


def pair(name):
    make, shape = NETWORKS[name]
    theirs, ours = make()
    return randomised(theirs), ours.eval(), shape


def answers(net, model, shape):
    """Of both networks to the same images, ours channels last."""
    x = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    with torch.no_grad():
        expected = net(torch.tensor(np.moveaxis(x, -1, 1))).numpy()
    return np.asarray(model(x)), np.moveaxis(expected, 1, -1)


def agree(net, model, shape):
    ours, theirs = answers(net, model, shape)
    assert theirs.std(0).max() > 1e-2 * np.abs(theirs).max()  # what the images say, not the biases
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_answers(name, format, tmp_path):
    net, model, shape = pair(name)
    FORMATS[format](net.state_dict(), tmp_path / "weights")
    assert load_torch_weights(model, tmp_path / "weights", input_shape=shape).left == ()
    agree(net, model, shape)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("format", FORMATS)
def test_other_precisions(format, dtype, tmp_path):
    """The numbers are exactly those of the file, as float32."""
    net, model, shape = pair("alexnet")
    rounded = net.to(dtype).state_dict()
    FORMATS[format](rounded, tmp_path / "weights")
    load_torch_weights(model, tmp_path / "weights", input_shape=shape)
    agree(net.float(), model, shape)
    written = rounded["8.weight"].float().numpy()
    assert np.array_equal(np.asarray(model.state_dict()["8.weight"]), written)


def some(path, shape):
    rng = np.random.default_rng(len(path))
    if len(shape) > 1:
        return rng.normal(size=shape) * (2 / np.prod(shape) * shape[0 if len(shape) == 2 else -1]) ** 0.5
    return rng.uniform(0.5, 1.5, shape) if path.endswith(("var", "weight")) else rng.normal(0, 0.1, shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_torch_loads_what_is_saved(name, tmp_path):
    net, model, shape = pair(name)
    for value in net.state_dict().values():
        value.fill_(7)
    model.load_state_dict({path: some(path, cell.shape) for path, cell in model.cells("parameter", "buffer").items()})
    save_torch_weights(model, tmp_path / "ours.safetensors", input_shape=shape)
    net.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=True)
    agree(net, model, shape)
    other = NETWORKS[name][0]()[1].eval()
    other.initialise(seed=1)
    load_torch_weights(other, tmp_path / "ours.safetensors", input_shape=shape)
    assert all(np.array_equal(x, other.state_dict()[path]) for path, x in model.state_dict().items())


WRAPPINGS = {
    "training": lambda net: {
        "epoch": 3,
        "best": 0.5,
        "state_dict": net.state_dict(),
        "optimizer": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict(),
    },
    "adam": lambda net: {"optimizer_state_dict": stepped(net), "model_state_dict": net.state_dict(), "note": None},
    "parallel": lambda net: tnn.DataParallel(net).state_dict(),
    "compiled": lambda net: {"model": {f"_orig_mod.module.{key}": value for key, value in net.state_dict().items()}},
    "lightning": lambda net: {"state_dict": {f"model.{key}": value for key, value in net.state_dict().items()}},
    "parameters": lambda net: {**net.state_dict(), **dict(net.named_parameters())},
    "nested": lambda net: {"net": {"state_dict": net.state_dict()}, "size": torch.Size([1, 2])},
}


def stepped(net):
    optimizer = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    net_state = copy.deepcopy(net.state_dict())
    optimizer.step()
    net.load_state_dict(net_state)
    return optimizer.state_dict()


@pytest.mark.parametrize("format", ["zip", "legacy"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings(wrapping, format, tmp_path):
    net, model, shape = pair("mobilenet block")
    FORMATS[format](WRAPPINGS[wrapping](net), tmp_path / "weights.pth")
    load_torch_weights(model, tmp_path / "weights.pth")
    agree(net, model, shape)


@pytest.mark.parametrize("format", ["zip", "legacy"])
def test_views_and_shared_storages(format, tmp_path):
    """Transposed, sliced, expanded, overlapping and tied tensors are what they are in PyTorch."""
    flat = torch.randn(1000)
    wide = torch.randn(7, 12)
    state = {
        "0.weight": wide.T[2:, ::2],
        "0.bias": torch.randn(1).expand(10),
        "1.weight": flat[100:200].view(10, 10).T,
        "1.bias": flat[150:170:2],
        "2.weight": flat.as_strided((3, 10), (5, 2), 7),
        "2.bias": flat[-3:],
    }
    net = tnn.Sequential(tnn.Linear(4, 10), tnn.Linear(10, 10), tnn.Linear(10, 3))
    net.load_state_dict(state)
    FORMATS[format](state, tmp_path / "weights")
    model = nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 10), nn.Linear(10, 3))
    load_torch_weights(model, tmp_path / "weights", input_shape=(4,))
    for path, value in net.state_dict().items():
        assert np.array_equal(model.state_dict()[path], value.numpy()), path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("format", [True, False])
def test_pickle_protocols(protocol, format, tmp_path):
    net, model, shape = pair("upwards")
    torch.save(net.state_dict(), tmp_path / "x", pickle_protocol=protocol, _use_new_zipfile_serialization=format)
    load_torch_weights(model, tmp_path / "x")
    agree(net, model, shape)


def test_an_archive_without_sums(tmp_path):
    net, model, shape = pair("upwards")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(net.state_dict(), tmp_path / "x")
    finally:
        torch.serialization.set_crc32_options(True)
    load_torch_weights(model, tmp_path / "x")
    agree(net, model, shape)


def test_whole_modules_are_refused(tmp_path):
    torch.save(tnn.Linear(2, 3), tmp_path / "module.pth")
    with pytest.raises(jj.errors.WeightsError, match=r"received  torch\.nn\.modules\.linear\.Linear"):
        load_torch_weights(nn.Linear(2, 3), tmp_path / "module.pth", input_shape=(2,))


# Published names that are not torchvision's, given by what the same network's module is called there.


class Unit(tnn.Module):
    """Hugging Face's convolution and normalisation."""

    def __init__(self, conv, norm):
        super().__init__()
        self.convolution, self.normalization = conv, norm


def hugging_face(net):
    """The parts of a ResNet as transformers holds them."""

    class Layer(tnn.Module):
        def __init__(self, block):
            super().__init__()
            self.layer = tnn.Sequential(Unit(block.conv1, block.bn1), Unit(block.conv2, block.bn2))
            if hasattr(block, "downsample"):
                self.shortcut = Unit(*block.downsample)

    holder, holder.resnet = tnn.Module(), tnn.Module()
    holder.resnet.embedder, holder.resnet.encoder = tnn.Module(), tnn.Module()
    holder.resnet.embedder.embedder = Unit(net.conv1, net.bn1)
    holder.resnet.encoder.stages = tnn.ModuleList()
    for blocks in (net.layer1, net.layer2, net.layer3, net.layer4):
        stage = tnn.Module()
        stage.layers = tnn.Sequential(*map(Layer, blocks))
        holder.resnet.encoder.stages.append(stage)
    holder.classifier = tnn.Sequential(tnn.Flatten(), net.fc)
    return holder


def test_hugging_face_resnet(tmp_path):
    net, model, shape = pair("resnet18")
    holder = hugging_face(net)
    assert "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight" in holder.state_dict()
    FORMATS["safetensors"](holder.state_dict(), tmp_path / "model.safetensors")
    load_torch_weights(model, tmp_path / "model.safetensors")
    agree(net, model, shape)


def test_timm_vgg_has_convolutions_for_dense_layers(tmp_path):
    net, model, shape = pair("vgg")
    names = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    state = {}
    for path, value in net.state_dict().items():
        layer, _, part = path.rpartition(".")
        kernel = {"classifier.0.weight": (10, 6, 7, 7), "classifier.3.weight": (9, 10, 1, 1)}.get(path)
        state[f"{names.get(layer, layer)}.{part}"] = value.reshape(kernel) if kernel else value
    FORMATS["safetensors"](state, tmp_path / "model.safetensors")
    load_torch_weights(model, tmp_path / "model.safetensors")
    agree(net, model, shape)
