"""Convolution layers over 1, 2 or 3 spatial axes, channels last. Weights are `(*k, in/groups, out)`."""

from __future__ import annotations

import math
from typing import Any

from juanji.cell import Cell
from juanji.checks import counts, dividing, one_of, per_axis
from juanji.errors import ArgumentError
from juanji.nn import init
from juanji.nn._checks import images, padding_of, shown, with_channels
from juanji.nn.module import Module
from juanji.ops.conv import conv, conv_transpose
from juanji.ops.convspec import output_paddings, padding_pairs, plan, span_of
from juanji.ops.deform import deform_conv
from juanji.ops.local import locally_connected
from juanji.ops.math import add
from juanji.ops.movement import concat, take
from juanji.ops.resample import pad
from juanji.tensor import Tensor

PADDING_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}


class ConvNd(Module):
    """Convolution layers y = w ⊗ x + b (002 eq. 4.2.2), with as many axes as `rank` says.

    in_channels, out_channels  C and M
    kernel_size   an integer or one a spatial axis, as are stride and dilation
    padding       an integer, one an axis, (low, high) pairs, or "valid", "same", "same_lower", "full"; see `jj.conv`
    groups        C and M in so many parts, each convolved by itself
    bias          one number an output channel
    padding_mode  what lies outside: "zeros", "reflect" (mirrored) or "replicate" (the last pixel)

    Takes (N, *X, C) and returns (N, *Y, M) with Y = ⌊(X + 2·padding − dilation·(k − 1) − 1)/stride⌋ + 1. Cells: weight
    (*k, C/groups, M) and bias (M,), which begin uniform in ±1/√(taps·C/groups), as PyTorch's. Raises ArgumentError for
    arguments out of range, when made; ShapeError for images that do not fit, when called.
    """

    rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
    ) -> None:
        name = self.class_name
        counts(name, in_channels=in_channels, out_channels=out_channels)
        received = f"groups={groups!r}, in_channels={in_channels}, out_channels={out_channels}"
        dividing(name, groups, in_channels, out_channels, received=received)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, least=1)
        self.stride = per_axis(name, "stride", stride, self.rank, least=1)
        self.dilation = per_axis(name, "dilation", dilation, self.rank, least=1)
        self.padding = padding_of(name, padding, self.rank)
        self.padding_mode = one_of(name, "padding_mode", padding_mode, tuple(PADDING_MODES))
        self._fill((in_channels // groups, out_channels), bias)

    def _fill(self, channels: tuple[int, int], bias: bool) -> None:
        """Make the cells, for weights whose last two axes are `channels`."""
        shape = (*self.kernel_size, *channels)
        self.weight: Any = Cell(shape, init.kaiming_uniform)
        fan_in, _ = init.fans(shape)
        self.bias: Any = Cell((self.out_channels,), init.within(1 / math.sqrt(fan_in))) if bias else None

    def images(self, x: Any) -> Tensor:
        name = self.class_name
        return with_channels(name, images(name, x, self.rank), self.in_channels)

    def bordered(self, x: Tensor) -> tuple[Tensor, Any]:
        """x and the padding that is left to do, zeros."""
        if self.padding_mode == "zeros":
            return x, self.padding
        span = span_of(self.kernel_size, self.dilation)
        widths = padding_pairs(self.class_name, self.padding, x.shape[1:-1], span, self.stride)
        return pad(x, [(0, 0), *widths, (0, 0)], mode=PADDING_MODES[self.padding_mode]), 0

    def forward(self, x: Any) -> Tensor:
        x, padding = self.bordered(self.images(x))
        return conv(
            x,
            self.weight,
            self.bias,
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def extra(self) -> str:
        return shown(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=(self.stride, 1),
            padding=(self.padding, 0),
            dilation=(self.dilation, 1),
            groups=(self.groups, 1),
            bias=(self.bias is not None, True),
            padding_mode=(self.padding_mode, "zeros"),
        )


class Conv1d(ConvNd):
    """Convolution of signals (N, W, C). Arguments as in `ConvNd`."""

    rank = 1


class Conv2d(ConvNd):
    """Convolution of images (N, H, W, C). Arguments as in `ConvNd`."""

    rank = 2


class Conv3d(ConvNd):
    """Convolution of volumes (N, D, H, W, C). Arguments as in `ConvNd`."""

    rank = 3


class ConvTransposeNd(ConvNd):
    """Transposed, or fractionally strided, convolution layers (002 §4.5.1): from M maps back to the size before.

    output_padding  extra outputs at the end, less than stride or dilation, to choose among the sizes that a convolution
                    of that stride takes to the same one

    Takes (N, *X, in_channels) and returns (N, *Y, out_channels) with
    Y = (X − 1)·stride − 2·padding + dilation·(k − 1) + 1 + output_padding. Cells: weight (*k, out/groups, in), that of
    the convolution it transposes, and bias (out,). Everything else as `ConvNd`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = output_paddings(self.class_name, output_padding, self.stride, self.dilation)

    def _fill(self, channels: tuple[int, int], bias: bool) -> None:
        super()._fill((self.out_channels // self.groups, self.in_channels), bias)

    def forward(self, x: Any) -> Tensor:
        return conv_transpose(
            self.images(x),
            self.weight,
            self.bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )

    def extra(self) -> str:
        more = shown(output_padding=(self.output_padding, 0))
        return ", ".join(filter(None, [super().extra(), more]))


class ConvTranspose1d(ConvTransposeNd):
    """Transposed convolution of signals (N, W, C). Arguments as in `ConvTransposeNd`."""

    rank = 1


class ConvTranspose2d(ConvTransposeNd):
    """Transposed convolution of images (N, H, W, C). Arguments as in `ConvTransposeNd`."""

    rank = 2


class ConvTranspose3d(ConvTransposeNd):
    """Transposed convolution of volumes (N, D, H, W, C). Arguments as in `ConvTransposeNd`."""

    rank = 3


class DeformConv2d(ConvNd):
    """Convolution whose taps are moved by offsets, which another layer gives (002 §4.6); see `jj.deform_conv`.

    Called with images (N, H, W, C), offsets (N, *Y, G·K·2) and, for version 2, a mask (N, *Y, G·K). The number G of
    offset groups follows from the offsets. Arguments as in `ConvNd`, cells too.
    """

    rank = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)

    def forward(self, x: Any, offset: Any, mask: Any | None = None) -> Tensor:  # type: ignore[override]
        offset = Tensor.of(offset)
        coordinates = 2 * math.prod(self.kernel_size)
        return deform_conv(
            self.images(x),
            offset,
            self.weight,
            self.bias,
            mask,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            offset_groups=max(offset.shape[-1] // coordinates, 1) if offset.shape else 1,
        )


class LocallyConnectedNd(Module):
    """Windows as in a convolution, each place with weights of its own: no parameter sharing (004 §5.4).

    input_size  the spatial size of the images, which fixes the number of places; the rest as in `ConvNd`

    Cells: weight (*Y, *k, C, M) and bias (*Y, M): 8×8 windows on 3 channels, 14×14 places and 20 outputs have
    (8·8·3 + 1)·14·14·20 = 756,560 parameters, where a convolution has 3,860.
    """

    rank: int

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        input_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        bias: bool = True,
    ) -> None:
        name = self.class_name
        counts(name, in_channels=in_channels, out_channels=out_channels)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, least=1)
        self.input_size = per_axis(name, "input_size", input_size, self.rank, least=1)
        self.stride = per_axis(name, "stride", stride, self.rank, least=1)
        self.padding = padding_of(name, padding, self.rank)
        places = plan(name, self.input_size, self.kernel_size, self.stride, padding, 1).output
        fan_in = math.prod(self.kernel_size) * in_channels
        begin = init.within(1 / math.sqrt(fan_in))
        self.weight = Cell((*places, *self.kernel_size, in_channels, out_channels), begin)
        self.bias = Cell((*places, out_channels), begin) if bias else None

    def forward(self, x: Any) -> Tensor:
        name = self.class_name
        x = with_channels(name, images(name, x, self.rank), self.in_channels)
        return locally_connected(
            x, self.weight, self.bias, size=self.kernel_size, stride=self.stride, padding=self.padding
        )

    def extra(self) -> str:
        return shown(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.input_size,
            stride=(self.stride, 1),
            padding=(self.padding, 0),
            bias=(self.bias is not None, True),
        )


class LocallyConnected1d(LocallyConnectedNd):
    """Unshared windows on signals (N, W, C). Arguments as in `LocallyConnectedNd`."""

    rank = 1


class LocallyConnected2d(LocallyConnectedNd):
    """Unshared windows on images (N, H, W, C). Arguments as in `LocallyConnectedNd`."""

    rank = 2


class PartialConv2d(Module):
    """A convolution in which each output map sees only some of the input maps, as LeNet-5's third layer does.

    in_channels  of the input
    table        for each output map the input maps it sees: ((0, 1, 2), (1, 2, 3), …)
    kernel_size  an integer or (height, width)

    Cells: for each run of maps with equally many inputs, `weight0`, `weight1`, … (*k, inputs, maps); and bias, one an
    output map. A run is a grouped convolution over the maps it picks, so nothing is computed that is not connected.
    Source: LeCun, Bottou, Bengio, Haffner 1998, table I.
    """

    def __init__(self, in_channels: int, table: Any, kernel_size: Any) -> None:
        counts("PartialConv2d", in_channels=in_channels)
        self.in_channels, self.table = in_channels, tuple(tuple(maps) for maps in table)
        seen = [place for maps in self.table for place in maps]
        if not self.table or not all(self.table) or not all(0 <= place < in_channels for place in seen):
            raise ArgumentError(
                "PartialConv2d: bad connection table",
                received=f"table={table!r}",
                rule=f"for each output at least one input from 0 to {in_channels - 1}",
            )
        self.kernel_size = per_axis("PartialConv2d", "kernel_size", kernel_size, 2, least=1)
        self.runs = runs(self.table)
        for i, run in enumerate(self.runs):
            shape = (*self.kernel_size, len(run[0]), len(run))
            setattr(self, f"weight{i}", Cell(shape, init.kaiming_uniform))
        fan_in = math.prod(self.kernel_size) * max(map(len, self.table))
        self.bias: Any = Cell((len(self.table),), init.within(1 / math.sqrt(fan_in)))

    def forward(self, x: Any) -> Tensor:
        x = with_channels("PartialConv2d", images("PartialConv2d", x, 2), self.in_channels)
        maps = []
        for i, run in enumerate(self.runs):
            picked = take(x, Tensor([place for inputs in run for place in inputs], "int64"), -1)
            maps.append(conv(picked, getattr(self, f"weight{i}"), groups=len(run)))
        return add(concat(maps, axis=-1), self.bias)

    def extra(self) -> str:
        connections = sum(map(len, self.table))
        return f"{self.in_channels}, {len(self.table)}, {shown(self.kernel_size)}, {connections} connected pairs"


def runs(table: tuple[tuple[int, ...], ...]) -> list[list[tuple[int, ...]]]:
    """Neighbouring entries of one length, together."""
    found: list[list[tuple[int, ...]]] = []
    for maps in table:
        if found and len(found[-1][0]) == len(maps):
            found[-1].append(maps)
        else:
            found.append([maps])
    return found
