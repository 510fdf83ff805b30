"""ResNet and VGG against PyTorch's functions with the same weights, named as torchvision names them, in float64."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 (as everybody calls it)

import juanji as jj
from juanji import models


class Net:
    """A forward pass of PyTorch's functions over named weights; `train` takes batch statistics."""

    def __init__(self, model, train):
        self.train, self.weights = train, {}
        for path, value in model.state_dict().items():
            a = torch.tensor(np.asarray(value))
            self.weights[path] = a.permute(3, 2, 0, 1) if a.ndim == 4 else a

    def conv(self, x, path, stride=1):
        w = self.weights[f"{path}.weight"]
        return F.conv2d(x, w, self.weights.get(f"{path}.bias"), stride, w.shape[-1] // 2)

    def norm(self, x, path):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.weights[f"{path}.{part}"] for part in parts), training=self.train)

    def dense(self, x, path):
        return F.linear(x, self.weights[f"{path}.weight"], self.weights[f"{path}.bias"])

    def block(self, x, path, stride):
        y = F.relu(self.norm(self.conv(x, f"{path}.conv1", stride), f"{path}.bn1"))
        y = self.norm(self.conv(y, f"{path}.conv2"), f"{path}.bn2")
        if f"{path}.downsample.0.weight" in self.weights:
            x = self.norm(self.conv(x, f"{path}.downsample.0", stride), f"{path}.downsample.1")
        return F.relu(x + y)

    def resnet(self, x, blocks=(2, 2, 2, 2), stem="large", **_):
        x = F.relu(self.norm(self.conv(x, "conv1", 2 if stem == "large" else 1), "bn1"))
        x = F.max_pool2d(x, 3, 2, 1) if stem == "large" else x
        for stage, count in enumerate(blocks, 1):
            for i in range(count):
                x = self.block(x, f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1)
        return self.dense(x.mean((2, 3)), "fc")

    def vgg(self, x, stages, batch_norm, pooled=7, hidden=(1, 1), **_):
        place = 0
        for convolutions in stages:
            for _ in convolutions:
                x = self.conv(x, f"features.{place}")
                x = F.relu(self.norm(x, f"features.{place + 1}") if batch_norm else x)
                place += 3 if batch_norm else 2
            x = F.max_pool2d(x, 2)
            place += 1
        x = F.adaptive_avg_pool2d(x, pooled).permute(0, 2, 3, 1).flatten(1)  # flattened channels last, as ours
        for i in range(len(hidden)):
            x = F.relu(self.dense(x, f"classifier.{3 * i}"))
        return self.dense(x, f"classifier.{3 * len(hidden)}")


# Fewer channels than published, for time; everything else as it is.
THIN = {"channels": (8, 12, 16, 20)}
CASES = [
    ("resnet18", {**THIN, "input_size": (33, 46)}),
    ("resnet18", {**THIN, "input_size": 16, "stem": "small"}),
    ("resnet34", {**THIN, "input_size": 32}),
    ("vgg11", {"input_size": 40, "hidden": (24, 16)}),
    ("vgg11_bn", {"input_size": 32, "pooled": 1, "hidden": ()}),
    ("vgg16_bn", {"input_size": 32, "stages": ((4, 4), (6, 6), (8, 8, 8), (8,), (8,)), "hidden": (9, 7)}),
]


def some_value(rng, path, shape):
    """Of about the size that keeps activations as large as they are; positive where it is a variance or a scale."""
    if len(shape) > 1:
        return rng.normal(size=shape) * math.sqrt(2 * shape[0 if len(shape) == 2 else -1] / math.prod(shape))
    return rng.uniform(0.5, 1.5, shape) if path.endswith(("var", "weight")) else rng.normal(0, 0.1, shape)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_logits(name, options, train):
    model = models.create(name, in_channels=2, classes=5, **options).astype("float64")
    rng = np.random.default_rng(0)
    state = {path: some_value(rng, path, cell.shape) for path, cell in model.cells("parameter", "buffer").items()}
    model.load_state_dict(state)
    net = Net(model, train)
    model.train(train)
    for module in model.modules().values():  # the random numbers of dropout are ours alone
        module.p = 0
    x = rng.normal(size=(3, *model.config["input_size"], 2))
    settings = {**models.MODELS[name], **options}
    forward = net.vgg if name.startswith("vgg") else net.resnet
    expected = forward(torch.tensor(x).permute(0, 3, 1, 2), **settings)
    logits = np.asarray(model(jj.Tensor(x)))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-9, atol=1e-9)
    assert logits.std() > 0.1
