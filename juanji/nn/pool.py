"""Pooling layers over 1, 2 or 3 spatial axes, channels last."""

from __future__ import annotations

import math
from typing import Any

from juanji.cell import Cell
from juanji.checks import counts, per_axis
from juanji.nn import init
from juanji.nn._checks import compact, images, padding_of, shown, with_channels
from juanji.nn.module import Module
from juanji.ops import pool as f
from juanji.ops.activation import scaled_tanh
from juanji.tensor import Tensor


class PoolNd(Module):
    """What pooling layers share: a window of `kernel_size` in steps of `stride`, by default the window's size.

    Both are an integer or one a spatial axis; windows overlap where stride < size (000). `ceil_mode` keeps a last
    window that hangs over the end.
    """

    rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False) -> None:
        name = self.class_name
        self.kernel_size = per_axis(name, "kernel_size", kernel_size, self.rank, least=1)
        self.stride = self.kernel_size if stride is None else per_axis(name, "stride", stride, self.rank, least=1)
        self.padding = padding_of(name, padding, self.rank)
        self.ceil_mode = bool(ceil_mode)

    def images(self, x: Any) -> Tensor:
        return images(self.class_name, x, self.rank)

    def extra(self) -> str:
        return shown(
            self.kernel_size,
            stride=(self.stride, compact(self.kernel_size)),
            padding=(self.padding, 0),
            ceil_mode=(self.ceil_mode, False),
        )


class MaxPoolNd(PoolNd):
    """The largest element of each window, channel by channel (002 eq. 4.2.3); ties go to the first.

    With `return_indices` the result is (y, places), for `MaxUnpool2d`. Padding never wins.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = per_axis(self.class_name, "dilation", dilation, self.rank, least=1)
        self.return_indices = bool(return_indices)

    def forward(self, x: Any) -> Any:
        return f.max_pool(
            self.images(x),
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            self.return_indices,
        )


class MaxPool1d(MaxPoolNd):
    """Max pooling of signals (N, W, C). Arguments as in `MaxPoolNd`."""

    rank = 1


class MaxPool2d(MaxPoolNd):
    """Max pooling of images (N, H, W, C). Arguments as in `MaxPoolNd`."""

    rank = 2


class MaxPool3d(MaxPoolNd):
    """Max pooling of volumes (N, D, H, W, C). Arguments as in `MaxPoolNd`."""

    rank = 3


class AvgPoolNd(PoolNd):
    """The mean of each window, channel by channel (002 eq. 4.2.4).

    `count_include_pad` says whether padding counts as zeros or not at all.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = bool(count_include_pad)

    def forward(self, x: Any) -> Tensor:
        return f.avg_pool(
            self.images(x),
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
        )


class AvgPool1d(AvgPoolNd):
    """Mean pooling of signals (N, W, C). Arguments as in `AvgPoolNd`."""

    rank = 1


class AvgPool2d(AvgPoolNd):
    """Mean pooling of images (N, H, W, C). Arguments as in `AvgPoolNd`."""

    rank = 2


class AvgPool3d(AvgPoolNd):
    """Mean pooling of volumes (N, D, H, W, C). Arguments as in `AvgPoolNd`."""

    rank = 3


class LPPoolNd(PoolNd):
    """(Σ xᵖ)^(1/p) over each window, with p = `norm_type`."""

    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__(kernel_size, stride, 0, ceil_mode)
        self.norm_type = norm_type

    def forward(self, x: Any) -> Tensor:
        return f.lp_pool(self.images(x), self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra(self) -> str:
        return f"{self.norm_type:g}, {super().extra()}"


class LPPool1d(LPPoolNd):
    """Power-mean pooling of signals (N, W, C). Arguments as in `LPPoolNd`."""

    rank = 1


class LPPool2d(LPPoolNd):
    """Power-mean pooling of images (N, H, W, C). Arguments as in `LPPoolNd`."""

    rank = 2


class MaxUnpool2d(PoolNd):
    """Undoes `MaxPool2d(…, return_indices=True)` but for what was lost: maxima at their places, zeros elsewhere.

    Called with (y, places) and, where the pooled size is not the smallest that fits, `output_size`.
    """

    rank = 2

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__(kernel_size, stride, padding)

    def forward(self, x: Any, indices: Any, output_size: Any = None) -> Tensor:
        return f.max_unpool(self.images(x), indices, self.kernel_size, self.stride, self.padding, output_size)


class AdaptivePoolNd(Module):
    """Pooling to a given size: output i covers inputs ⌊i·X/Y⌋ to ⌈(i + 1)·X/Y⌉ − 1. None keeps an axis as it is."""

    rank: int

    def __init__(self, output_size: Any) -> None:
        sizes = output_size if isinstance(output_size, tuple | list) else (output_size,) * self.rank
        given = [1 if size is None else size for size in sizes]
        per_axis(self.class_name, "output_size", given, self.rank, least=1)
        self.output_size = tuple(sizes)

    def images(self, x: Any) -> Tensor:
        return images(self.class_name, x, self.rank)

    def extra(self) -> str:
        return shown(self.output_size)


class AdaptiveAvgPoolNd(AdaptivePoolNd):
    """The mean of each part."""

    def forward(self, x: Any) -> Tensor:
        return f.adaptive_avg_pool(self.images(x), self.output_size)


class AdaptiveAvgPool1d(AdaptiveAvgPoolNd):
    """Mean pooling of signals (N, W, C) to `output_size`."""

    rank = 1


class AdaptiveAvgPool2d(AdaptiveAvgPoolNd):
    """Mean pooling of images (N, H, W, C) to `output_size`; 1 is global average pooling."""

    rank = 2


class AdaptiveAvgPool3d(AdaptiveAvgPoolNd):
    """Mean pooling of volumes (N, D, H, W, C) to `output_size`."""

    rank = 3


class AdaptiveMaxPoolNd(AdaptivePoolNd):
    """The largest element of each part; with `return_indices` the result is (y, places)."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = bool(return_indices)

    def forward(self, x: Any) -> Any:
        return f.adaptive_max_pool(self.images(x), self.output_size, self.return_indices)


class AdaptiveMaxPool1d(AdaptiveMaxPoolNd):
    """Max pooling of signals (N, W, C) to `output_size`."""

    rank = 1


class AdaptiveMaxPool2d(AdaptiveMaxPoolNd):
    """Max pooling of images (N, H, W, C) to `output_size`."""

    rank = 2


class AdaptiveMaxPool3d(AdaptiveMaxPoolNd):
    """Max pooling of volumes (N, D, H, W, C) to `output_size`."""

    rank = 3


class TrainablePool2d(PoolNd):
    """LeNet's sub-sampling: f(w·Σ + b), the sum over each window with a learnt scale and bias a channel (002 §4.2.3).

    channels    of the input
    activation  the non-linearity after it, `ScaledTanh`'s by default; None leaves it out

    Cells: weight (channels,), begins at 1/window so that it begins as mean pooling; bias (channels,), begins at 0.
    Source: LeCun, Bottou, Bengio, Haffner 1998, §II.B.
    """

    rank = 2

    def __init__(self, channels: int, kernel_size: Any = 2, stride: Any = None, activation: Any = scaled_tanh) -> None:
        super().__init__(kernel_size, stride)
        counts("TrainablePool2d", channels=channels)
        self.channels, self.activation = channels, activation
        self.taps = math.prod(self.kernel_size)
        self.weight = Cell((channels,), init.constant_of(1 / self.taps))
        self.bias = Cell((channels,), init.zeros)

    def forward(self, x: Any) -> Tensor:
        x = with_channels("TrainablePool2d", self.images(x), self.channels)
        total = f.avg_pool(x, self.kernel_size, self.stride) * self.taps
        z = total * self.weight + self.bias
        return z if self.activation is None else self.activation(z)

    def extra(self) -> str:
        return f"{self.channels}, {super().extra()}"
