"""What the networks share: images in, features, heads that can be replaced, channels in proportion to a width."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from juanji.checks import counts, positive
from juanji.graph import Array
from juanji.models._checks import Size, expect
from juanji.nn import Conv2d, ConvTranspose2d, Linear, Module
from juanji.ops.movement import flatten
from juanji.tensor import Tensor

Self = TypeVar("Self", bound="Network")


class Network(Module):
    """Images (N, H, W, C) to logits, by way of features.

    width  every number of channels, or of units, times that, and at least 1

    A family defines `forward_features` and `forward_head`, and names in `heads` the layers whose outputs are classes.
    Raises ArgumentError for a width that is not above 0.
    """

    task = "classification"
    heads: tuple[str, ...] = ("fc",)
    config: dict[str, Any]

    def __init__(self, name: str, classes: int, in_channels: int, input_size: Size, width: float = 1.0) -> None:
        positive(name, width=width)
        self.name, self.in_channels, self.input_size, self.width = name, in_channels, input_size, width
        self.config = {"name": name, "classes": classes, "in_channels": in_channels, "input_size": input_size}

    def wide(self, channels: int, groups: int = 1) -> int:
        """That many channels times the width, at least one a group."""
        return max(round(channels * self.width / groups), 1) * groups

    def images(self, x: Any) -> Tensor:
        """x as a tensor (N, H, W, C) of the size that the network was made for; ShapeError for another."""
        return expect(self.name, x, self.input_size, self.in_channels)

    def forward_features(self, x: Any) -> Tensor:
        """The last feature map before pooling, (N, H', W', C'), of images x (N, H, W, C).

        Of a network without feature maps: what its last layer sees, (N, units).
        """
        raise NotImplementedError(f"{self.class_name} has no forward_features")

    def forward_head(self, features: Tensor) -> Tensor:
        """Logits from what `forward_features` gives."""
        raise NotImplementedError(f"{self.class_name} has no forward_head")

    def forward(self, x: Any) -> Any:
        return self.forward_head(self.forward_features(x))

    def begin_with(self, images: Callable[[int], Array]) -> None:
        """Take from training images what the first weights depend on, mostly nothing: `images(n)` reads n of them, or
        all there are, (n, H, W, C), standardised."""

    def replace_head(self: Self, classes: int) -> Self:
        """Tell apart another number of classes: new layers in place of those that give logits, everything else kept.

        The new ones begin as those of a network that is created with so many classes. Optimisers made before do not
        know them. Returns the network; `config` says `classes`. Raises ArgumentError for no whole number of at least 1.
        """
        counts(self.name, classes=classes)
        modules = self.modules()
        for path in self.heads:
            parent, _, name = path.rpartition(".")
            setattr(modules[parent], name, renewed(modules[path], classes))
        for cell in [cell for path in self.heads for cell in self.modules()[path].cells().values()]:
            cell.initialise(self.config.get("seed", 0))
        self.config = {**self.config, "classes": classes}
        return self


def renewed(old: Module, classes: int) -> Module:
    """A layer like `old` that gives so many classes: not yet filled, of the same dtype, with the same beginning."""
    new = with_classes(old, classes).train(old.training)
    for name, cell in new.cells().items():
        before = old.cells()[name]
        cell.dtype = before.dtype
        if cell.kind == "parameter":
            cell.init = before.init
    return new


@functools.singledispatch
def with_classes(layer: Any, classes: int) -> Module:
    """A layer of the kind of `layer` that gives so many classes. Registered for every kind that heads have."""
    raise NotImplementedError(f"no head can be a {type(layer).__name__}")


@with_classes.register
def dense(layer: Linear, classes: int) -> Module:
    return Linear(layer.in_features, classes, layer.bias is not None)


@with_classes.register
def convolution(layer: Conv2d, classes: int) -> Module:
    return Conv2d(
        layer.in_channels, classes, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias is not None
    )


@with_classes.register
def upsampling(layer: ConvTranspose2d, classes: int) -> Module:
    """From classes to classes."""
    return ConvTranspose2d(
        classes, classes, layer.kernel_size, layer.stride, layer.padding, bias=layer.bias is not None
    )


class PooledNetwork(Network):
    """A network whose head is global mean pooling, dropout if it has a child `dropout`, and a dense layer `fc`."""

    def forward_head(self, features: Tensor) -> Tensor:
        x = flatten(self.avgpool(features))
        return self.fc(x if getattr(self, "dropout", None) is None else self.dropout(x))
