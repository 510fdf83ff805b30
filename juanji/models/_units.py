"""The unit that Inception networks are made of, and chains and branches of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from juanji.nn import AvgPool2d, BatchNorm2d, Branches, Conv2d, MaxPool2d, Module, Sequential
from juanji.ops.math import relu
from juanji.ops.movement import concat
from juanji.tensor import Tensor

Wide = Callable[[int], int]
# Layers by name, side by side: the arguments of `unit` from `m` on, or what makes a module of (c, wide).
Step = dict[str, Any]
EPSILON = 1e-3  # of batch normalisation, here and in torchvision's networks


class BasicConv2d(Module):
    """relu(bn(conv(x))), or without batch normalisation relu(conv(x)) with a bias. The names are torchvision's."""

    def __init__(
        self, c: int, m: int, kernel: Any, stride: int = 1, padding: Any = 0, *, batch_norm: bool = True
    ) -> None:
        self.conv = Conv2d(c, m, kernel, stride, padding, bias=not batch_norm)
        self.bn = BatchNorm2d(m, EPSILON) if batch_norm else None
        self.out_channels = m

    def forward(self, x: Any) -> Tensor:
        x = self.conv(x)
        return relu(x if self.bn is None else self.bn(x))


def kept(kernel: Any) -> Any:
    """The padding with which a kernel of odd size keeps the size of images."""
    return tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2


def unit(c: int, wide: Wide, m: int, kernel: Any, stride: int = 1, padding: Any = None) -> BasicConv2d:
    """From c to wide(m) channels. Padding keeps the size where the stride is 1, and is none where it is not."""
    padding = (kept(kernel) if stride == 1 else 0) if padding is None else padding
    return BasicConv2d(c, wide(m), kernel, stride, padding)


def module_of(layer: Any, c: int, wide: Wide) -> Module:
    """A layer of a `Step`."""
    return layer(c, wide) if callable(layer) else unit(c, wide, *layer)


def chain(c: int, wide: Wide, *parts: Any) -> Sequential:
    """Modules, and layers as in a `Step`, one after the other: numbered."""
    modules: list[Module] = []
    for part in parts:
        modules.append(part if isinstance(part, Module) else module_of(part, c, wide))
        c = out_channels(modules[-1], c)
    return Sequential(*modules)


def out_channels(module: Any, c: int) -> int:
    """How many channels a unit, a pooling, or a container of them makes of c."""
    if isinstance(module, Branches):
        return sum(out_channels(branch, c) for branch in module)
    if isinstance(module, Sequential):
        for part in module:
            c = out_channels(part, c)
        return c
    return getattr(module, "out_channels", c)


class Mixed(Module):
    """Branches side by side, whose last steps are joined over channels. All their layers are children by name.

    A branch is a list of steps; of one with several layers, which can only be the last, each sees the same input.
    """

    def __init__(self, c: int, wide: Wide, branches: Sequence[Sequence[Step]]) -> None:
        self.branches = [[tuple(step) for step in branch] for branch in branches]
        self.out_channels = 0
        for branch in branches:
            inside = c
            for step in branch:
                outputs = [self.add(name, inside, wide, layer) for name, layer in step.items()]
                inside = outputs[0]
            self.out_channels += sum(outputs)

    def add(self, name: str, c: int, wide: Wide, layer: Any) -> int:
        """Make one layer; the channels it gives."""
        setattr(self, name, module_of(layer, c, wide))
        return out_channels(getattr(self, name), c)

    def forward(self, x: Any) -> Tensor:
        outputs: list[Tensor] = []
        for branch in self.branches:
            y = [x]
            for step in branch:
                y = [getattr(self, name)(y[0]) for name in step]
            outputs += y
        return concat(outputs, axis=-1)


def mean_pool(c: int = 0, wide: Wide = int) -> AvgPool2d:
    """3×3 in steps of 1; padding counts."""
    return AvgPool2d(3, 1, 1)


def halving_pool(c: int = 0, wide: Wide = int) -> MaxPool2d:
    """3×3 in steps of 2, without padding."""
    return MaxPool2d(3, 2)
