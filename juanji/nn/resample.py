"""Layers that change the size of images without weights."""

from __future__ import annotations

from typing import Any

from juanji.checks import one_of, per_axis
from juanji.errors import ArgumentError
from juanji.nn._checks import images, shown
from juanji.nn.module import Module
from juanji.ops.resample import RESIZE, pad, resize
from juanji.tensor import Tensor


class Upsample(Module):
    """Images (N, *X, C) of another size; see `jj.resize`.

    size          the new spatial size, or
    scale_factor  what it is multiplied by
    mode          "nearest", "bilinear" or "bicubic"
    """

    def __init__(
        self, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool = False
    ) -> None:
        if (size is None) == (scale_factor is None):
            raise ArgumentError(
                "Upsample: size or scale_factor, please",
                received=f"size={size!r}, scale_factor={scale_factor!r}",
                rule="exactly one of them",
            )
        self.size, self.scale_factor = size, scale_factor
        self.mode = one_of("Upsample", "mode", mode, RESIZE)
        self.align_corners = bool(align_corners)

    def forward(self, x: Any) -> Tensor:
        return resize(x, self.size, scale=self.scale_factor, mode=self.mode, align_corners=self.align_corners)

    def extra(self) -> str:
        return shown(
            size=(self.size, None),
            scale_factor=(self.scale_factor, None),
            mode=(self.mode, "nearest"),
            align_corners=(self.align_corners, False),
        )


class PadNd(Module):
    """Images (N, H, W, C) with a border of `padding` pixels: a number, or (left, right, top, bottom) as PyTorch."""

    mode: str

    def __init__(self, padding: Any) -> None:
        name = self.class_name
        sides = (padding,) * 4 if hasattr(padding, "__index__") else padding
        self.padding = per_axis(name, "padding", sides, 4, least=0)

    def forward(self, x: Any) -> Tensor:
        left, right, top, bottom = self.padding
        widths = [(0, 0), (top, bottom), (left, right), (0, 0)]
        return pad(images(self.class_name, x, 2), widths, mode=self.mode)

    def extra(self) -> str:
        return shown(self.padding)


class ZeroPad2d(PadNd):
    """A border of zeros (001, 002 §4.1.3). Arguments as in `PadNd`."""

    mode = "constant"


class ReflectionPad2d(PadNd):
    """A border that mirrors the image, without its outermost pixel. Arguments as in `PadNd`."""

    mode = "reflect"


class ReplicationPad2d(PadNd):
    """A border that repeats the outermost pixel. Arguments as in `PadNd`."""

    mode = "edge"
