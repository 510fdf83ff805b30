"""Learning rates as functions of the step: `opt.lr = schedule(step)` before each update, steps counted from 0."""

from __future__ import annotations

import math
from collections.abc import Callable

from juanji.checks import nonnegative, positive
from juanji.errors import ArgumentError

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Always `lr`."""
    positive("constant", lr=lr)
    return lambda step: lr


def stepwise(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """`lr` multiplied by `factor` after every `every` steps."""
    positive("stepwise", lr=lr, every=every, factor=factor)
    return lambda step: lr * factor ** (step // every)


def cosine(lr: float, total: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Up to `lr` in a straight line over `warmup` steps, then down to `final` along half a cosine until step `total`.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, without restarts.
    """
    positive("cosine", lr=lr, total=total)
    nonnegative("cosine", warmup=warmup, final=final)
    if warmup >= total:
        raise ArgumentError("cosine: warm-up takes all steps", received=f"warmup={warmup}, total={total}")

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        return between(lr, final, (step - warmup) / (total - warmup))

    return schedule


def one_cycle(lr: float, total: int, rise: float = 0.3, start: float = 1 / 25, final: float = 1e-4) -> Schedule:
    """From `lr`·start up to `lr` in the share `rise` of the steps, then down to `lr`·start·final, along half cosines.

    As PyTorch's OneCycleLR. Source: Smith and Topin, "Super-convergence", 2017.
    """
    positive("one_cycle", lr=lr, total=total, start=start, final=final)
    peak = rise * total - 1
    if not 0 < rise < 1 or peak <= 0 or peak >= total - 1:
        raise ArgumentError(
            "one_cycle: no room to rise and fall",
            received=f"rise={rise}, total={total}",
            rule="0 < rise·total − 1 < total − 1",
            fix="more epochs, smaller batches, a longer rise (--warmup), or another schedule, such as cosine",
        )

    def schedule(step: int) -> float:
        if step <= peak:
            return between(lr * start, lr, step / peak)
        return between(lr, lr * start * final, (step - peak) / (total - 1 - peak))

    return schedule


def between(first: float, last: float, share: float) -> float:
    """From `first` to `last` along half a cosine; `share` of the way, held to [0, 1]."""
    return last + (first - last) * (1 + math.cos(math.pi * min(max(share, 0.0), 1.0))) / 2
