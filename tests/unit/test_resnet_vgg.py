"""ResNet and VGG have torchvision's parameters, by name and number, and shapes at every stage. No weights are drawn."""

import math

import pytest

import juanji as jj
from juanji import models
from juanji.errors import ArgumentError, ShapeError

# With 1,000 classes, as in torchvision's table of weights.
COUNTS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "vgg11": 132_863_336,
    "vgg11_bn": 132_868_840,
    "vgg16": 138_357_544,
    "vgg16_bn": 138_365_992,
}


def shapes(model):
    return {path: cell.shape for path, cell in model.cells("parameter").items()}


def resnet_names(blocks):
    yield from ("conv1.weight", "bn1.weight", "bn1.bias")
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            parts = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
            if stage > 1 and block == 0:
                parts += ["downsample.0.weight", "downsample.1.weight", "downsample.1.bias"]
            yield from (f"layer{stage}.{block}.{part}" for part in parts)
    yield from ("fc.weight", "fc.bias")


def vgg_names(convolutions, norms=()):
    numbers = sorted([*convolutions, *norms])
    paths = [f"features.{i}" for i in numbers] + [f"classifier.{i}" for i in (0, 3, 6)]
    return [f"{path}.{part}" for path in paths for part in ("weight", "bias")]


# The numbers are those of torchvision's `features`.
NAMES = {
    "resnet18": list(resnet_names((2, 2, 2, 2))),
    "resnet34": list(resnet_names((3, 4, 6, 3))),
    "vgg11": vgg_names([0, 3, 6, 8, 11, 13, 16, 18]),
    "vgg11_bn": vgg_names([0, 4, 8, 11, 15, 18, 22, 25], [1, 5, 9, 12, 16, 19, 23, 26]),
    "vgg16": vgg_names([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]),
    "vgg16_bn": vgg_names(
        [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40], [1, 4, 8, 11, 15, 18, 21, 25, 28, 31, 35, 38, 41]
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_names_and_counts_are_torchvisions(name):
    found = shapes(models.create(name, classes=1000))
    assert list(found) == NAMES[name]
    assert sum(map(math.prod, found.values())) == COUNTS[name]


def test_buffers_are_torchvisions():
    paths = models.create("resnet18").cells("buffer")
    assert list(paths)[:3] == ["bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"]
    assert len(paths) == 3 * 20


def outputs(model, size, batch=2):
    """The shape after each child of the network, traced without values."""
    graph = jj.trace(model.eval(), jj.Tensor.spec((batch, *size, 3), "float32"))
    found = {node.path.split(".")[0]: node.outputs[0].shape for node in graph.nodes if node.path}
    return {**found, "": graph.outputs.shape}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("resnet18", {}, {"conv1": (112, 112, 64), "maxpool": (56, 56, 64), "layer1": (56, 56, 64),
                          "layer2": (28, 28, 128), "layer3": (14, 14, 256), "layer4": (7, 7, 512)}),
        ("resnet34", {"input_size": (33, 65)}, {"conv1": (17, 33, 64), "layer1": (9, 17, 64), "layer4": (2, 3, 512)}),
        ("resnet18", {"stem": "small", "input_size": 32}, {"conv1": (32, 32, 64), "layer1": (32, 32, 64),
                                                           "layer4": (4, 4, 512)}),
        ("resnet18", {"input_size": 1}, {"layer4": (1, 1, 512)}),
        ("vgg11", {}, {"features": (7, 7, 512), "avgpool": (7, 7, 512)}),
        ("vgg16_bn", {"input_size": (64, 96)}, {"features": (2, 3, 512), "avgpool": (7, 7, 512)}),
        ("vgg11_bn", {"input_size": 64, "pooled": 1, "hidden": ()}, {"features": (2, 2, 512), "avgpool": (1, 1, 512)}),
    ],
)  # fmt: skip
def test_shapes(name, options, expected):
    model = models.create(name, classes=7, **options)
    found = outputs(model, model.config["input_size"])
    assert found[""] == (2, 7)
    assert {path: found[path][1:] for path in expected} == expected
    assert ("maxpool" in found) == (name.startswith("resnet") and options.get("stem") != "small")


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"name": "resnet18", "stem": "tiny"}, ArgumentError, "resnet18: unknown stem"),
        ({"name": "resnet18", "blocks": (2, 2)}, ArgumentError, "resnet18: blocks and channels, one a stage"),
        ({"name": "resnet18", "blocks": (), "channels": ()}, ArgumentError, "one a stage"),
        ({"name": "resnet18", "blocks": (2, 0, 2, 2)}, ArgumentError, "resnet18: bad stages"),
        ({"name": "vgg11", "stages": ((8,), ())}, ArgumentError, "vgg11: a stage without convolution"),
        ({"name": "vgg11", "hidden": (0,)}, ArgumentError, "vgg11: bad widths"),
        ({"name": "vgg16", "input_size": 31}, ShapeError, "at least 32×32"),
    ],
)
def test_mistakes(arguments, kind, text):
    with pytest.raises(kind) as error:
        models.create(**arguments)
    assert text in str(error.value)
