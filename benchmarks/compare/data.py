"""The numbers that cases are measured on, the same for every framework; images channels last."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.compare.networks import CLASSES
from benchmarks.compare.problem import Problem

Array = np.ndarray[Any, np.dtype[Any]]
LINE = 64  # bytes of a cache line
# Of the optimiser in every training step.
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4


def batch(case: dict[str, Any]) -> tuple[Array, Array]:
    """Images (N, H, W, C) and labels."""
    rng = np.random.default_rng(0)
    shape = (case["batch"], case["size"], case["size"], case["channels"])
    return aligned(rng.standard_normal(shape, np.float32)), rng.integers(0, CLASSES, case["batch"])


def operands(problem: Problem) -> tuple[Array, Array, Array]:
    """x (N, H, W, C), w (R, S, C/groups, K) and the gradient of the output (N, H', W', K)."""
    rng = np.random.default_rng(0)
    shapes = [
        (problem.images, *problem.size, problem.channels),
        (*problem.taps, problem.channels // problem.groups, problem.kernels),
        (problem.images, *problem.output, problem.kernels),
    ]
    x, w, g = (aligned(rng.standard_normal(shape, np.float32)) for shape in shapes)
    return x, w, g


def aligned(x: Array) -> Array:
    """A copy that begins with a cache line, as all that frameworks allocate does; NumPy's arrays begin anywhere."""
    memory = np.empty(x.nbytes + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    copy = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    copy[...] = x
    return copy
