"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from juanji.cell import Cell
from juanji.checks import counts, dividing, positive, share
from juanji.errors import ShapeError
from juanji.nn import init
from juanji.nn._checks import images, shown, with_channels
from juanji.nn.module import Module
from juanji.ops import norm as f
from juanji.tensor import Tensor


class BatchNormNd(Module):
    """γ·(x − μ)/√(σ² + ε) + β for each channel (003 eq. 29–33).

    num_features         channels
    eps                  ε
    momentum             1 − κ of 003 eq. 32: running ← (1 − momentum)·running + momentum·batch
    affine               learn γ (`weight`) and β (`bias`)
    track_running_stats  keep running statistics and use them in `eval()`; without, the batch's own are always used
    unbiased             the running variance from Σ(x − μ)²/(m − 1), as in PyTorch; False is 003's and ONNX's 1/m

    In training mode μ and σ² are the batch's and the running ones move towards them. Cells: weight, bias, parameters;
    running_mean, running_var and num_batches_tracked, buffers. Source: Ioffe and Szegedy, ICML 2015.
    """

    rank: int

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        unbiased: bool = True,
    ) -> None:
        name = self.class_name
        counts(name, num_features=num_features)
        share(name, momentum=momentum)
        positive(name, eps=eps)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats, self.unbiased = affine, track_running_stats, unbiased
        shape = (num_features,)
        self.weight = Cell(shape, init.ones) if affine else None
        self.bias = Cell(shape, init.zeros) if affine else None
        self.running_mean = Cell(shape, init.zeros, kind="buffer") if track_running_stats else None
        self.running_var = Cell(shape, init.ones, kind="buffer") if track_running_stats else None
        if track_running_stats:
            self.num_batches_tracked: Any = Cell((), init.zeros, kind="buffer", dtype="int64")

    def forward(self, x: Any) -> Tensor:
        x = with_channels(self.class_name, self.checked(x), self.num_features)
        statistics = self.running_mean, self.running_var
        training = self.training or not self.track_running_stats
        result = f.batch_norm(
            x,
            self.weight,
            self.bias,
            *statistics,
            training=training,
            momentum=self.momentum,
            epsilon=self.eps,
            unbiased=self.unbiased,
        )
        if not training:
            return result
        y, mean, var = result
        if self.track_running_stats:
            self.running_mean, self.running_var = mean, var
            self.num_batches_tracked = self.num_batches_tracked + 1
        return y

    def checked(self, x: Any) -> Tensor:
        return images(self.class_name, x, self.rank)

    def extra(self) -> str:
        return shown(
            self.num_features,
            eps=(self.eps, 1e-5),
            momentum=(self.momentum, 0.1),
            affine=(self.affine, True),
            track_running_stats=(self.track_running_stats, True),
            unbiased=(self.unbiased, True),
        )


class BatchNorm1d(BatchNormNd):
    """Batch normalisation of features (N, C) or signals (N, W, C). Arguments as in `BatchNormNd`."""

    rank = 1

    def checked(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        return x if x.ndim == 2 else super().checked(x)


class BatchNorm2d(BatchNormNd):
    """Batch normalisation of images (N, H, W, C). Arguments as in `BatchNormNd`."""

    rank = 2


class BatchNorm3d(BatchNormNd):
    """Batch normalisation of volumes (N, D, H, W, C). Arguments as in `BatchNormNd`."""

    rank = 3


class LayerNorm(Module):
    """γ·(x − μ)/√(σ² + ε) + β with the statistics of each sample over its last axes.

    normalized_shape  the sizes of those axes: C for the channels at each place, (H, W, C) for a whole image

    Cells: weight and bias of that shape. Source: Ba, Kiros, Hinton, 2016.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        sizes = tuple(normalized_shape) if isinstance(normalized_shape, Sequence) else (normalized_shape,)
        for size in sizes:
            counts("LayerNorm", normalized_shape=size)
        positive("LayerNorm", eps=eps)
        self.normalized_shape, self.eps = sizes, eps
        self.weight = Cell(sizes, init.ones) if elementwise_affine else None
        self.bias = Cell(sizes, init.zeros) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        x = Tensor.of(x)
        rank = len(self.normalized_shape)
        if x.shape[-rank:] != self.normalized_shape:
            raise ShapeError(
                "LayerNorm: the last axes do not match",
                received=f"input of shape {x.shape}",
                rule=f"they have the sizes {self.normalized_shape}",
            )
        return f.layer_norm(x, self.weight, self.bias, axes=range(-rank, 0), epsilon=self.eps)

    def extra(self) -> str:
        return shown(self.normalized_shape, eps=(self.eps, 1e-5))


class GroupNorm(Module):
    """γ·(x − μ)/√(σ² + ε) + β with the statistics of each sample over all places and groups of channels.

    Takes (N, …, num_channels). Cells: weight and bias (num_channels,). Source: Wu and He, ECCV 2018.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        counts("GroupNorm", num_channels=num_channels)
        received = f"num_groups={num_groups!r}, num_channels={num_channels}"
        dividing("GroupNorm", num_groups, num_channels, received=received)
        positive("GroupNorm", eps=eps)
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Cell((num_channels,), init.ones) if affine else None
        self.bias = Cell((num_channels,), init.zeros) if affine else None

    def forward(self, x: Any) -> Tensor:
        x = with_channels("GroupNorm", Tensor.of(x), self.num_channels)
        return f.group_norm(x, self.num_groups, self.weight, self.bias, epsilon=self.eps)

    def extra(self) -> str:
        return shown(self.num_groups, self.num_channels, eps=(self.eps, 1e-5))


class InstanceNorm2d(Module):
    """γ·(x − μ)/√(σ² + ε) + β with the statistics of each channel of each image (N, H, W, num_features).

    Without γ and β unless `affine`, as in PyTorch. Source: Ulyanov, Vedaldi, Lempitsky, 2016.
    """

    def __init__(self, num_features: int, eps: float = 1e-5, *, affine: bool = False) -> None:
        counts("InstanceNorm2d", num_features=num_features)
        positive("InstanceNorm2d", eps=eps)
        self.num_features, self.eps = num_features, eps
        self.weight = Cell((num_features,), init.ones) if affine else None
        self.bias = Cell((num_features,), init.zeros) if affine else None

    def forward(self, x: Any) -> Tensor:
        x = with_channels("InstanceNorm2d", images("InstanceNorm2d", x, 2), self.num_features)
        return f.instance_norm(x, self.weight, self.bias, epsilon=self.eps)

    def extra(self) -> str:
        return shown(self.num_features, eps=(self.eps, 1e-5), affine=(self.weight is not None, False))


class LocalResponseNorm(Module):
    """x/(k + α/size·Σx²)^β with the sum over `size` neighbouring channels (AlexNet: Krizhevsky et al. 2012, §3.3)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        counts("LocalResponseNorm", size=size)
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Any) -> Tensor:
        return f.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra(self) -> str:
        return shown(self.size, alpha=(self.alpha, 1e-4), beta=(self.beta, 0.75), k=(self.k, 1.0))
