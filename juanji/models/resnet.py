"""Residual networks (002 §4.4.4): ResNet-18 to ResNet-152, and the narrow ones for images of 32×32.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, tables 1 and 6. Parameters of
the former have torchvision's names and counts; like there, a bottleneck's stride is that of its 3×3 convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from juanji.checks import counts, one_of
from juanji.errors import ArgumentError
from juanji.models._checks import Size
from juanji.models.network import PooledNetwork
from juanji.nn import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, DeformConv2d, Linear, MaxPool2d, Module, Sequential, init
from juanji.ops.math import add, relu
from juanji.ops.resample import pad
from juanji.tensor import Tensor


def conv3(c: int, m: int, stride: int = 1, dilation: int = 1) -> Conv2d:
    """3×3, padded so that the stride alone changes the size."""
    return Conv2d(c, m, 3, stride, dilation, dilation, bias=False)


class BasicBlock(Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + x), where x passes `downsample` if its size or channels change."""

    expansion = 1
    conv: Any = staticmethod(conv3)

    def __init__(self, c: int, m: int, stride: int = 1, dilation: int = 1) -> None:
        self.conv1 = self.conv(c, m, stride, dilation)
        self.bn1 = BatchNorm2d(m)
        self.conv2 = self.conv(m, m, 1, dilation)
        self.bn2 = BatchNorm2d(m)
        self.downsample = None if c == m and stride == 1 else self.shortcut(c, m, stride)

    def shortcut(self, c: int, m: int, stride: int) -> Module:
        return projection(c, m, stride)

    def forward(self, x: Any) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return relu(add(y, x if self.downsample is None else self.downsample(x)))


class Bottleneck(Module):
    """As `BasicBlock`, with a 3×3 convolution between two of 1×1 that go down to m channels and up to 4·m (004 §9)."""

    expansion = 4

    def __init__(self, c: int, m: int, stride: int = 1, dilation: int = 1) -> None:
        out = m * self.expansion
        self.conv1 = Conv2d(c, m, 1, bias=False)
        self.bn1 = BatchNorm2d(m)
        self.conv2 = conv3(m, m, stride, dilation)
        self.bn2 = BatchNorm2d(m)
        self.conv3 = Conv2d(m, out, 1, bias=False)
        self.bn3 = BatchNorm2d(out)
        self.downsample = None if c == out and stride == 1 else projection(c, out, stride)

    def forward(self, x: Any) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(add(y, x if self.downsample is None else self.downsample(x)))


def projection(c: int, m: int, stride: int) -> Sequential:
    """The shortcut with parameters: a 1×1 convolution (option B of the paper)."""
    return Sequential(Conv2d(c, m, 1, stride, bias=False), BatchNorm2d(m))


class PaddedShortcut(Module):
    """The shortcut without parameters: every `stride`th pixel, and zeros for further channels (option A)."""

    def __init__(self, c: int, m: int, stride: int) -> None:
        self.more, self.stride = m - c, stride

    def forward(self, x: Any) -> Tensor:
        x = Tensor.of(x)[:, :: self.stride, :: self.stride]
        return pad(x, [(0, 0), (0, 0), (0, 0), (0, self.more)])

    def extra(self) -> str:
        return f"stride={self.stride}, {self.more} more channels"


class PaddedBlock(BasicBlock):
    """`BasicBlock` with `PaddedShortcut`."""

    def shortcut(self, c: int, m: int, stride: int) -> Module:
        return PaddedShortcut(c, m, stride)


class Trunk(Module):
    """A stem and the stages `layer1`, `layer2`, …: what residual networks consist of but for the head.

    dilated  how many stages, from the last on, keep the size and dilate their convolutions instead of halving it

    Subclasses name the kind of blocks, and say whether normalisation and ReLU end the stem.
    """

    block: Any = BasicBlock
    normalised = True

    def add_trunk(
        self, in_channels: int, blocks: Sequence[int], channels: Sequence[int], *, small: bool, dilated: int = 0
    ) -> int:
        """Make the layers; the channels of the last."""
        c = channels[0]
        self.stages, dilation = len(blocks), 1
        self.conv1 = Conv2d(in_channels, c, *((3, 1, 1) if small else (7, 2, 3)), bias=False)
        self.bn1 = BatchNorm2d(c) if self.normalised else None
        self.maxpool = None if small else MaxPool2d(3, 2, 1)
        for i, (m, count) in enumerate(zip(channels, blocks, strict=True), 1):
            make, stride, before = self.block_of(i), 1 if i == 1 else 2, dilation
            if i > self.stages - dilated:
                stride, dilation = 1, dilation * stride
            setattr(self, f"layer{i}", stage(make, c, m, count, stride, (before, dilation)))
            c = m * make.expansion
        return c

    def block_of(self, stage: int) -> Any:
        """The kind of blocks of a stage, numbered from 1."""
        return self.block

    def trunk(self, x: Any) -> list[Tensor]:
        """What each stage gives for images x (N, H, W, C)."""
        x = self.conv1(x)
        x = x if self.bn1 is None else relu(self.bn1(x))
        x = x if self.maxpool is None else self.maxpool(x)
        outputs = []
        for i in range(1, self.stages + 1):
            x = getattr(self, f"layer{i}")(x)
            outputs.append(x)
        return outputs


def stage(block: Any, c: int, m: int, count: int, stride: int, dilation: tuple[int, int] = (1, 1)) -> Sequential:
    """So many blocks, of which the first goes from c channels to m·expansion with that stride.

    dilation  of the first block, and of the others
    """
    first, rest = dilation
    others = (block(m * block.expansion, m, 1, rest) for _ in range(count - 1))
    return Sequential(block(c, m, stride, first), *others)


class ResNet(PooledNetwork, Trunk):
    """A stem, stages `layer1`, `layer2`, … of basic blocks, global mean pooling and a dense layer `fc`.

    blocks    how many a stage
    channels  of each stage; every stage but the first halves the size
    stem      "large": 7×7 convolution with stride 2 and 3×3 max pooling with stride 2, as published; "small", for
              images of about 32×32: 3×3 convolution with stride 1 and no pooling
    """

    def __init__(
        self,
        name: str,
        classes: int,
        in_channels: int,
        input_size: Size,
        *,
        blocks: Sequence[int] = (2, 2, 2, 2),
        channels: Sequence[int] = (64, 128, 256, 512),
        stem: str = "large",
        width: float = 1.0,
    ) -> None:
        super().__init__(name, classes, in_channels, input_size, width)
        check_stages(name, blocks, channels)
        small = one_of(name, "stem", stem, ("large", "small")) == "small"
        c = self.add_trunk(in_channels, blocks, [self.wide(m) for m in channels], small=small)
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(c, classes)
        self.begin()

    def begin(self) -> None:
        begin_for_relu(self)

    def forward_features(self, x: Any) -> Tensor:
        return self.trunk(self.images(x))[-1]


class BottleneckResNet(ResNet):
    """`ResNet` of bottleneck blocks: a stage gives four times its channels."""

    block = Bottleneck


class PaddedResNet(ResNet):
    """`ResNet` whose shortcuts have no parameters, as published for CIFAR-10."""

    block = PaddedBlock


def check_stages(name: str, blocks: Sequence[int], channels: Sequence[int]) -> None:
    """Raise ArgumentError unless blocks and channels are as many counts."""
    for number in (*blocks, *channels):
        counts(name, stages=number)
    if not channels or len(blocks) != len(channels):
        received = f"blocks={tuple(blocks)}, channels={tuple(channels)}"
        raise ArgumentError(f"{name}: blocks and channels, one a stage", received=received, rule="as many, not none")


def begin_for_relu(model: Module) -> None:
    """Let the convolutions of `model` begin normal with variance 2/fan in (He et al., ICCV 2015)."""
    for module in model.modules().values():
        if isinstance(module, Conv2d | DeformConv2d):
            module.cells("parameter")["weight"].init = init.kaiming_normal


def begin_dense(model: Module, path: str = "") -> None:
    """Let the dense layers of `model` below `path` begin normal with standard deviation 0.01, and all biases at 0."""
    for place, module in model.modules().items():
        cells = module.cells("parameter") if isinstance(module, Linear | Conv2d) else {}
        if isinstance(module, Linear) and place.startswith(path):
            cells["weight"].init = functools.partial(init.normal, std=0.01)
        if "bias" in cells:
            cells["bias"].init = init.zeros


MODELS: dict[str, dict[str, Any]] = {
    f"resnet{layers}": {
        "about": f"residual network of {layers} layers; stem='small' for 32×32 images",
        "make": make,
        "in_channels": 3,
        "input_size": 224,
        "blocks": blocks,
    }
    for layers, make, blocks in [
        (18, ResNet, (2, 2, 2, 2)),
        (34, ResNet, (3, 4, 6, 3)),
        (50, BottleneckResNet, (3, 4, 6, 3)),
        (101, BottleneckResNet, (3, 4, 23, 3)),
        (152, BottleneckResNet, (3, 8, 36, 3)),
    ]
} | {
    f"resnet{6 * n + 2}": {
        "about": f"residual network of {6 * n + 2} layers as published for 32×32 images",
        "make": PaddedResNet,
        "in_channels": 3,
        "input_size": 32,
        "blocks": (n, n, n),
        "channels": (16, 32, 64),
        "stem": "small",
    }
    for n in (3, 5, 9)
}
