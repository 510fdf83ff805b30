"""Every network at an eighth of its width and about its smallest size, for tests of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from juanji import models, nn

STEM = {"input_size": 16, "stem": "small"}
# Fewer layers than published where a network is a long row of equal ones.
SHALLOW = {"blocks": (1, 2, 2, 1)}
GROUPS = [
    (["perceptron", "cnn_small", "batchnorm_net", "lenet5", "highway"], {"width": 1 / 2}),
    (["lenet5_1998"], {}),
    (["alexnet"], {"input_size": 63}),
    (["alexnet_2012"], {"input_size": 67}),
    (["nin"], {"input_size": 12}),
    ([name for name in models.list() if name.startswith("vgg")], {"input_size": 32}),
    (["inception_v1", "googlenet", "inception_v2", "squeezenet1_1", "mobilenet_v2"], STEM),
    (["inception_v3"], {"input_size": 75, "aux": False}),
    (["inception_v4"], {"input_size": 75}),
    (["highway_conv"], {"input_size": 8, "width": 1 / 4}),
    (["resnet18", "resnet34", "resnet50", "preact_resnet18", "deform_resnet18"], STEM),
    (["resnet101", "resnet152"], STEM | SHALLOW),
    (["resnet20", "resnet32", "resnet56"], {"input_size": 12}),
    (["densenet121"], STEM | {"blocks": (2, 3, 3, 2)}),
    (["airbench94"], {"input_size": 12}),
    (["fcn32s", "fcn16s", "fcn8s"], {"input_size": 32}),
    (["fcn_resnet50"], {"input_size": 24, "blocks": (1, 1, 1, 1)}),
]
OPTIONS = {name: options for names, options in GROUPS for name in names}

# For what takes long: the others differ from these in nothing but the number of layers.
ONE_OF_A_KIND = {
    "perceptron", "cnn_small", "batchnorm_net", "lenet5", "lenet5_1998", "alexnet", "alexnet_2012", "nin", "vgg11",
    "vgg11_bn", "inception_v1", "googlenet", "inception_v2", "inception_v3", "highway", "highway_conv", "resnet18",
    "resnet50", "resnet20", "preact_resnet18", "deform_resnet18", "densenet121", "squeezenet1_1", "mobilenet_v2",
    "airbench94", "fcn8s", "fcn_resnet50",
}  # fmt: skip


def slow_but(names):
    """Every network for `parametrize`, all but `names` marked slow."""
    return [pytest.param(name, marks=() if name in names else pytest.mark.slow) for name in models.MODELS]


def make(name, **options):
    """The network, small, with whatever else is asked for."""
    width = {} if name == "lenet5_1998" else {"width": 1 / 8}
    return models.create(name, **{**width, **OPTIONS[name], **options})


def without_dropout(model):
    for module in model.modules().values():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def batch(model, n=8, seed=0):
    """Images and their classes, all different as long as there are; for segmentation one class an image."""
    config = model.config
    x = np.random.default_rng(seed).normal(size=(n, *config["input_size"], config["in_channels"])).astype("float32")
    y = np.arange(n) % config["classes"]
    if model.task == "segmentation":
        y = np.broadcast_to(y[:, None, None], (n, *config["input_size"])).copy()
    return x, y
