"""JAX: a jitted training step over lax.conv, channels last.

It keeps no running statistics and drops nothing out, which favours it a little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from benchmarks.compare import data
from benchmarks.compare.networks import Layers, network

EPSILON = 1e-5  # of batch normalisation


def begin(layers: Layers, rng: np.random.Generator) -> Iterator[Any]:
    """The weights of the layers that have some, in order."""

    def normal(fan: int, *shape: int) -> Any:
        return rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(fan))

    for name, *arguments in layers:
        match name, arguments:
            case "conv", (c, m, size, _, _, bias):
                yield normal(c * size * size, size, size, c, m), np.zeros(m * bias, np.float32)
            case "dense", (n, m):
                yield normal(n, n, m), np.zeros(m, np.float32)
            case "norm", (c,):
                yield np.ones(c, np.float32), np.zeros(c, np.float32)
            case "residual", (body, shortcut):
                yield from begin(body, rng)
                yield from begin(shortcut, rng)


def pool(x: Any, size: int, stride: int, padding: int) -> Any:
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, stride, stride, 1), pads)


def forward(layers: Layers, weights: Iterator[Any], x: Any) -> Any:
    for name, *arguments in layers:
        match name, arguments:
            case "conv", (_, _, _, stride, padding, bias):
                w, b = next(weights)
                numbers = ("NHWC", "HWIO", "NHWC")
                pads = [(padding, padding)] * 2
                x = lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=numbers)
                x = x + b if bias else x
            case "dense", _:
                w, b = next(weights)
                x = x @ w + b
            case "norm", _:
                scale, shift = next(weights)
                mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
                x = (x - mean) * (scale * lax.rsqrt(var + EPSILON)) + shift
            case "relu", _:
                x = jax.nn.relu(x)
            case "gelu", _:
                x = jax.nn.gelu(x, approximate=False)
            case "maxpool", (size, stride, padding):
                x = pool(x, size, stride, padding)
            case "meanpool", _:
                x = x.mean((1, 2))
            case "flatten", _:
                x = x.reshape(len(x), -1)
            case "residual", (body, shortcut):
                y = forward(body, weights, x)
                x = jax.nn.relu(y + forward(shortcut, weights, x))
    return x


def prepare(case: dict[str, Any], settings: dict[str, Any]) -> Callable[[], object]:
    """The case as a function without arguments. NPROC says how many threads."""
    x, y = data.batch(case)
    layers = network(case)
    weights = list(begin(layers, np.random.default_rng(0)))
    state = [weights, jax.tree.map(np.zeros_like, weights)]

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        logits = forward(layers, iter(weights), x)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()

    def step(weights: Any, velocity: Any, x: Any, y: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(weights, x, y)
        velocity = jax.tree.map(lambda v, g, p: data.MOMENTUM * v + g + data.DECAY * p, velocity, grads, weights)
        return loss, jax.tree.map(lambda p, v: p - data.RATE * v, weights, velocity), velocity

    compiled = jax.jit(step, donate_argnums=(0, 1))
    x, y = jax.device_put(x), jax.device_put(y)

    def run() -> None:
        loss, *state[:] = compiled(*state, x, y)
        loss.block_until_ready()

    return run
