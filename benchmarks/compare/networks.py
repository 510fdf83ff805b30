"""The networks of the benchmark as lists of layers, which every framework reads in its own way.

They do what juanji's models of those names do, in the same order. A layer is a name and its arguments:

    ("conv", in, out, size, stride, padding, bias)   ("norm", channels)   ("maxpool", size, stride, padding)
    ("relu",)   ("gelu",)   ("meanpool",) over all places   ("flatten",)   ("dense", in, out)   ("dropout", probability)
    ("residual", body, shortcut) and a ReLU
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

Layers = list[tuple[Any, ...]]
CLASSES = 10
VGG = {"vgg11_bn": (1, 1, 2, 2, 2), "vgg16": (2, 2, 3, 3, 3)}
HIDDEN = (4096, 4096)
DROPOUT = 0.5


def convnet(c: int, size: int, channels: Sequence[int], hidden: Sequence[int], same_first: bool) -> Layers:
    layers: Layers = []
    for i, m in enumerate(channels):
        padding = 2 if same_first and not i else 0
        layers += [("conv", c, m, 5, 1, padding, True), ("maxpool", 2, 2, 0), ("relu",)]
        c, size = m, (size + 2 * padding - 4) // 2
    layers.append(("flatten",))
    for n, m in itertools.pairwise([c * size * size, *hidden, CLASSES]):
        layers += [("dense", n, m), ("relu",)]
    return layers[:-1]


def block(c: int, m: int, stride: int) -> tuple[Any, ...]:
    body = [("conv", c, m, 3, stride, 1, False), ("norm", m), ("relu",), ("conv", m, m, 3, 1, 1, False), ("norm", m)]
    return ("residual", body, [] if c == m and stride == 1 else [("conv", c, m, 1, stride, 0, False), ("norm", m)])


def resnet18(c: int, stem: str = "large") -> Layers:
    stride = 1 if stem == "small" else 2
    layers: Layers = [("conv", c, 64, 3 if stem == "small" else 7, stride, 1 if stem == "small" else 3, False)]
    layers += [("norm", 64), ("relu",)] + [("maxpool", 3, 2, 1)] * (stem == "large")
    for n, m, s in [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]:
        layers += [block(n, m, s), block(m, m, 1)]
    return [*layers, ("meanpool",), ("flatten",), ("dense", 512, CLASSES)]


def vgg(name: str, c: int, size: int, pooled: int = 7, hidden: Sequence[int] = HIDDEN) -> Layers:
    """Of the published size, whose pooled features are there already, or pooled to one place."""
    layers: Layers = []
    for m, convolutions in zip((64, 128, 256, 512, 512), VGG[name], strict=True):
        for _ in range(convolutions):
            layers += [("conv", c, m, 3, 1, 1, True), *[("norm", m)] * name.endswith("bn"), ("relu",)]
            c = m
        layers.append(("maxpool", 2, 2, 0))
    assert pooled in (1, size // 32)
    layers += [*[("meanpool",)] * (pooled == 1), ("flatten",)]
    for n, m in itertools.pairwise([c * pooled**2, *hidden]):
        layers += [("dense", n, m), ("relu",), ("dropout", DROPOUT)]
    return [*layers, ("dense", hidden[-1] if hidden else c * pooled**2, CLASSES)]


def airbench(c: int, size: int) -> Layers:
    """With logits that are not divided, and a head with a bias."""
    layers: Layers = [("conv", c, 8 * c, 2, 1, 0, False), ("gelu",)]
    c, size = 8 * c, size - 1
    for m in (64, 256, 256):
        layers += [("conv", c, m, 3, 1, 1, False), ("maxpool", 2, 2, 0), ("norm", m), ("gelu",)]
        layers += [("conv", m, m, 3, 1, 1, False), ("norm", m), ("gelu",)]
        c, size = m, size // 2
    return [*layers, ("maxpool", size, size, 0), ("flatten",), ("dense", c, CLASSES)]


def network(case: dict[str, Any]) -> Layers:
    """The layers of a case's model."""
    c, size, options = case["channels"], case["size"], case["options"]
    if case["model"] == "lenet5":
        return convnet(c, size, (6, 16), (120, 84), same_first=True)
    if case["model"] == "cnn_small":
        return convnet(c, size, (8, 16), (128,), same_first=False)
    if case["model"] == "airbench94":
        return airbench(c, size)
    return resnet18(c, **options) if case["model"] == "resnet18" else vgg(case["model"], c, size, **options)
