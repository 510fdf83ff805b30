"""Networks as PyTorch exports them: values, derivatives and running statistics against PyTorch's own."""

import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import juanji as jj

onnx = pytest.importorskip("onnx")


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels),
        )  # fmt: skip

    def forward(self, x):
        return torch.relu(x + self.body(x))


class Shuffle(nn.Module):
    """Shapes computed from the input, as detectors and ShuffleNet have them."""

    def forward(self, x):
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = nn.functional.interpolate(x, size=(h * 2, w * 2), mode="bilinear")
        return torch.cat([x[:, ::2], x[:, 1::2].mean(1, keepdim=True)], 1).flatten(2).permute(0, 2, 1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.q, self.k = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.norm(x)
        return torch.softmax(self.q(x) @ self.k(x).transpose(1, 2) / 6**0.5, -1) @ nn.functional.gelu(x)


NETWORKS = {
    "small": (
        nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 5),
        ),
        (2, 3, 8, 8),
    ),
    "residual": (nn.Sequential(nn.Conv2d(3, 6, 1), Residual(6), Residual(6), nn.AdaptiveAvgPool2d(1)), (2, 3, 6, 6)),
    "depthwise": (
        nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.Hardswish(), nn.Conv2d(8, 4, 1), nn.SiLU(), nn.MaxPool2d(2)),
        (1, 4, 8, 8),
    ),
    "upwards": (
        nn.Sequential(
            nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), nn.InstanceNorm2d(6, affine=True),
            nn.PReLU(6), nn.Upsample(scale_factor=2), nn.PixelShuffle(1), nn.Conv2d(6, 3, 3, dilation=2), nn.Tanh(),
        ),
        (2, 4, 4, 4),
    ),
    "norms": (nn.Sequential(nn.GroupNorm(2, 6), nn.LocalResponseNorm(3), nn.ELU(), nn.Softmax(1)), (2, 6, 3, 3)),
    "shuffle": (nn.Sequential(nn.Conv2d(3, 4, 1), Shuffle()), (2, 3, 4, 4)),
    "attention": (Attention(), (2, 4, 6)),
    "volumes": (nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3), nn.MaxPool3d(2)), (2, 2, 5, 5, 5)),
    "signals": (nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.AvgPool1d(2)), (2, 2, 9)),
}  # fmt: skip


def imported(network, x, training=False):
    """`network`, exported by PyTorch as it is and read again."""
    file = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if training else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, that there is a newer exporter, which needs another package
        torch.onnx.export(
            network, (x,), file, dynamo=False, input_names=["image"], output_names=["scores"],
            do_constant_folding=False, training=mode,
        )  # fmt: skip
    return jj.interop.load_onnx(onnx.ModelProto.FromString(file.getvalue()))


def values(network, mine):
    return {key: value.numpy() for key, value in network.state_dict().items() if key in mine.state_dict()}


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    """Values, and derivatives by every parameter and by the image."""
    torch.manual_seed(0)
    network, shape = NETWORKS[name]
    network.eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    mine = imported(network.float(), x.float()).astype("float64")
    network.double()
    expected = network(x)
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    image = x.detach().numpy()
    mine.load_state_dict(values(network, mine))
    np.testing.assert_allclose(mine(image), expected.detach(), 1e-6, 1e-7)
    by_weight, by_image = jj.grad(lambda m, x: (m(x) * weights.numpy()).sum(), (0, 1))(mine, image)
    np.testing.assert_allclose(by_image, x.grad, 1e-6, 1e-7)
    theirs = {key: value.grad for key, value in network.named_parameters()}
    assert set(by_weight) == set(theirs)
    for key, gradient in by_weight.items():
        np.testing.assert_allclose(gradient, theirs[key].reshape(gradient.shape), 1e-6, 1e-7, err_msg=key)


def test_training_mode():
    """A network exported for training moves its statistics as PyTorch does, on the engine too."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU()).train()
    x = torch.randn(2, 3, 6, 6)
    mine = imported(network, x, training=True).train()
    mine.load_state_dict(values(network, mine))
    run = jj.compile(mine)
    for _ in range(2):
        np.testing.assert_allclose(run(x.numpy()), network(x).detach(), 1e-4, 1e-5)
        for key, value in mine.buffers().items():
            np.testing.assert_allclose(value, network.state_dict()[key], 1e-5, 1e-6, err_msg=key)
