"""How parameters begin. An initialiser takes `(state, shape, dtype)`, where `state` is a stream of random numbers.

Initialisers are plain functions, and `functools.partial` of them where they have options, so that models pickle.
Convolution weights are `(*k, in/groups, out)`, dense weights `(out, in)`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from juanji import random
from juanji.cell import Initialiser
from juanji.graph import Array

Shape = tuple[int, ...]
DType = np.dtype[Any]


def fans(shape: Shape) -> tuple[int, int]:
    """How many inputs an output is summed over (fan in), and how many outputs an input goes to (fan out)."""
    if len(shape) == 2:
        return shape[1], shape[0]
    taps = math.prod(shape[:-2])
    return taps * shape[-2], taps * shape[-1]


def zeros(state: Array, shape: Shape, dtype: DType) -> Array:
    return np.zeros(shape, dtype)


def ones(state: Array, shape: Shape, dtype: DType) -> Array:
    return np.ones(shape, dtype)


def constant(state: Array, shape: Shape, dtype: DType, *, value: Any = 0.0) -> Array:
    """`value` everywhere; an array of that shape is taken as it is."""
    return np.array(np.broadcast_to(np.asarray(value, dtype), shape))


def uniform(state: Array, shape: Shape, dtype: DType, *, low: float = -1.0, high: float = 1.0) -> Array:
    """Uniform in [low, high)."""
    return random.uniform(state, shape, dtype) * dtype.type(high - low) + dtype.type(low)


def normal(state: Array, shape: Shape, dtype: DType, *, mean: float = 0.0, std: float = 1.0) -> Array:
    return random.normal(state, shape, dtype) * dtype.type(std) + dtype.type(mean)


def kaiming_uniform(state: Array, shape: Shape, dtype: DType, *, gain: float = 1 / math.sqrt(3)) -> Array:
    """Uniform in ±gain·√(3/fan in), which has standard deviation gain/√(fan in).

    The default gain gives ±1/√(fan in), PyTorch's for dense layers and convolutions; √2 is for ReLU. Source: He, Zhang,
    Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
    """
    return symmetric(state, shape, dtype, gain * math.sqrt(3 / fans(shape)[0]))


def kaiming_normal(state: Array, shape: Shape, dtype: DType, *, gain: float = math.sqrt(2)) -> Array:
    """Normal with standard deviation gain/√(fan in); the source as for `kaiming_uniform`."""
    return normal(state, shape, dtype, std=gain / math.sqrt(fans(shape)[0]))


def xavier_uniform(state: Array, shape: Shape, dtype: DType, *, gain: float = 1.0) -> Array:
    """Uniform in ±gain·√(6/(fan in + fan out)). Source: Glorot and Bengio, AISTATS 2010."""
    return symmetric(state, shape, dtype, gain * math.sqrt(6 / sum(fans(shape))))


def xavier_normal(state: Array, shape: Shape, dtype: DType, *, gain: float = 1.0) -> Array:
    """Normal with standard deviation gain·√(2/(fan in + fan out)); the source as for `xavier_uniform`."""
    return normal(state, shape, dtype, std=gain * math.sqrt(2 / sum(fans(shape))))


def symmetric(state: Array, shape: Shape, dtype: DType, bound: float) -> Array:
    return uniform(state, shape, dtype, low=-bound, high=bound)


def constant_of(value: Any) -> Initialiser:
    return partial(constant, value=value)


def within(bound: float) -> Initialiser:
    """Uniform in ±bound."""
    return partial(uniform, low=-bound, high=bound)
