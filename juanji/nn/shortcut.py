"""Shortcuts and branches: sums with the input, gates, and parallel paths joined over channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from juanji.checks import counts
from juanji.nn.activation import ReLU
from juanji.nn.container import Container, Sequential, same_sizes
from juanji.nn.conv import Conv2d
from juanji.nn.module import Module
from juanji.nn.pool import MaxPool2d
from juanji.ops.math import add, sigmoid
from juanji.ops.movement import concat
from juanji.tensor import Tensor


class Residual(Module):
    """y = f(x) + x (002 §4.4.4), so that `body` f learns what is left over of the target.

    body      f
    shortcut  what the input passes on its way to the sum, where f changes its shape: usually a 1×1 convolution

    Raises ShapeError where the two sides differ. Source: He, Zhang, Ren, Sun, "Deep residual learning", CVPR 2016.
    """

    def __init__(self, body: Module, shortcut: Module | None = None) -> None:
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Any) -> Tensor:
        left, right = self.body(x), Tensor.of(x) if self.shortcut is None else self.shortcut(x)
        same_sizes(
            "Residual",
            [left.shape, right.shape],
            "f(x) and the shortcut have one shape",
            "shortcut=Conv2d(in_channels, out_channels, 1, stride=…)",
        )
        return add(left, right)


class Highway(Module):
    """y = T(x) ⊙ H(x) + (1 − T(x)) ⊙ x with T = σ(gate(x)): a learnt mixture of change and shortcut.

    body  H, of the shape of its input
    gate  the gate's net activation, of the same shape; a negative bias begins near the identity

    Raises ShapeError where the shapes differ. Source: Srivastava, Greff, Schmidhuber, "Highway networks", 2015
    (002 §4.4.4).
    """

    def __init__(self, body: Module, gate: Module) -> None:
        self.body, self.gate = body, gate

    def forward(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        change, gate = self.body(x), self.gate(x)
        same_sizes(
            "Highway", [x.shape, change.shape, gate.shape], "input, body and gate have one shape", "padding='same'"
        )
        gate = sigmoid(gate)
        return gate * change + (1 - gate) * x


class Branches(Container):
    """The same input through every branch, outputs joined over channels: (N, …, C₁ + C₂ + …) (002 §4.4.3, 004 §10)."""

    def forward(self, x: Any) -> Tensor:
        outputs = [branch(x) for branch in self]
        same_sizes(
            self.class_name,
            [y.shape[:-1] for y in outputs],
            "all branches agree but for the channels",
            "padding='same' and one stride",
        )
        return concat(outputs, axis=-1)


class InceptionBlock(Branches):
    """The Inception module: 1×1, 3×3 and 5×5 convolutions and max pooling side by side (002 §4.4.3, 004 §10).

    in_channels   of the input
    b1            outputs of the 1×1 branch
    b3_reduce, b3 the 1×1 bottleneck (004 §9) before the 3×3 convolution, and that one's outputs
    b5_reduce, b5 the same for 5×5
    pool          outputs of the 1×1 convolution after 3×3 max pooling

    Gives b1 + b3 + b5 + pool channels, ReLU after every convolution. `normalise`, such as `BatchNorm2d`, is put between
    convolution and ReLU. Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, figure 2b.
    """

    def __init__(
        self,
        in_channels: int,
        b1: int,
        b3_reduce: int,
        b3: int,
        b5_reduce: int,
        b5: int,
        pool: int,
        normalise: Callable[[int], Module] | None = None,
    ) -> None:
        counts("InceptionBlock", b1=b1, b3_reduce=b3_reduce, b3=b3, b5_reduce=b5_reduce, b5=b5, pool=pool)

        def unit(c: int, m: int, size: int) -> list[Module]:
            middle = [normalise(m)] if normalise else []
            return [Conv2d(c, m, size, padding="same", bias=not normalise), *middle, ReLU()]

        c = in_channels
        super().__init__(
            {
                "branch1": Sequential(*unit(c, b1, 1)),
                "branch3": Sequential(*unit(c, b3_reduce, 1), *unit(b3_reduce, b3, 3)),
                "branch5": Sequential(*unit(c, b5_reduce, 1), *unit(b5_reduce, b5, 5)),
                "branch_pool": Sequential(MaxPool2d(3, stride=1, padding=1), *unit(c, pool, 1)),
            }
        )
