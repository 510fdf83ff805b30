"""Convolutions as strings: `n32h56w56c64k64r3s3` and options."""

from __future__ import annotations

import re
from dataclasses import dataclass

FORM = re.compile(r"n(\d+)h(\d+)w(\d+)c(\d+)k(\d+)r(\d+)s(\d+)((?:[uvpqdg]\d+)*)")


@dataclass(frozen=True)
class Problem:
    """n images of h×w with c channels and k kernels of r×s taps, in as many groups as `g` says.

    `u2` is the stride, `u2v1` where it differs between the axes; so `p1` and `p0q3` for the padding. `d2` is the
    dilation. What is left out is 1, for the padding 0.
    """

    text: str
    images: int
    size: tuple[int, int]
    channels: int
    kernels: int
    taps: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: int
    groups: int

    @classmethod
    def parse(cls, text: str) -> Problem:
        match = FORM.fullmatch(text)
        if match is None:
            raise ValueError(f"not a convolution: {text!r}; for example n32h56w56c64k64r3s3p1")
        n, h, w, c, k, r, s = map(int, match.groups()[:-1])
        options = {letter: int(number) for letter, number in re.findall(r"(\D)(\d+)", match[8])}
        u, p = options.get("u", 1), options.get("p", 0)
        stride, padding = (u, options.get("v", u)), (p, options.get("q", p))
        return cls(text, n, (h, w), c, k, (r, s), stride, padding, options.get("d", 1), options.get("g", 1))

    @property
    def output(self) -> tuple[int, int]:
        """The size of the result's images."""
        axes = zip(self.size, self.taps, self.stride, self.padding, strict=True)
        h, w = ((x + 2 * p - self.dilation * (k - 1) - 1) // u + 1 for x, k, u, p in axes)
        return h, w

    @property
    def operations(self) -> int:
        """Multiplications and additions, as many for each of the three faces."""
        h, w = self.output
        r, s = self.taps
        return 2 * self.images * h * w * self.kernels * r * s * self.channels // self.groups
