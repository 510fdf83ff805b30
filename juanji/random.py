"""Counter-based random numbers: Philox4x32-10, the same in NumPy and in native code.

There is no hidden generator. A *state* is three uint32 words, two of key and one step; the key comes from a
seed and a path in the model, so every layer has its own stream, whatever else the program draws.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
WEYL = np.array([0x9E3779B9, 0xBB67AE85], np.uint32)
ROUNDS = 10


def state(seed: int, path: str = "", step: int = 0) -> Array:
    """The stream of `path` under `seed`: uint32 `(key 0, key 1, step)`."""
    digest = hashlib.blake2b(f"{seed}/{path}".encode(), digest_size=8).digest()
    return np.concatenate([np.frombuffer(digest, "<u4"), [step]]).astype(np.uint32)


def bits(state: Array, size: int) -> Array:
    """`size` words of 32 random bits; word i is lane i mod 4 of block ⌊i/4⌋."""
    return words(state, np.arange(-(-size // 4)))[:size]


def words(state: Array, blocks: Array) -> Array:
    """The random words of those blocks, four for each; `blocks` are whole numbers below 2⁶⁴."""
    counter = np.zeros((4, len(blocks)), np.uint32)
    counter[0] = blocks & 0xFFFFFFFF
    counter[1] = blocks >> 32
    counter[2] = state[2]
    return philox(counter, state[:2].astype(np.uint32)).T.reshape(-1)


def philox(counter: Array, key: Array) -> Array:
    """Ten Philox rounds on uint32 counters `(4, n)` under a uint32 key `(2,)`."""
    key = key.copy()
    for _ in range(ROUNDS):
        product = MULTIPLIERS[:, None] * counter[0::2]
        high, low = (product >> np.uint64(32)).astype(np.uint32), product.astype(np.uint32)
        counter = np.stack([high[1] ^ counter[1] ^ key[0], low[1], high[0] ^ counter[3] ^ key[1], low[0]])
        key += WEYL
    return counter


def uniform(state: Array, shape: tuple[int, ...], dtype: np.dtype[Any] | type | str = "float32") -> Array:
    """Uniform numbers in [0, 1), multiples of 2⁻²⁴ so that they are exact in float32."""
    return unit(bits(state, math.prod(shape)), dtype).reshape(shape)


def uniform_rows(state: Array, rows: Array, width: int) -> Array:
    """The given rows of `uniform(state, (N, width))`, (n, width), without the others; `width` is a multiple of 4.

    So everything that is numbered has random numbers of its own, however many there are and whoever asks first.
    """
    blocks = rows.astype(np.int64)[:, None] * (width // 4) + np.arange(width // 4)
    return unit(words(state, blocks.reshape(-1)), "float32").reshape(len(rows), width)


def unit(words: Array, dtype: np.dtype[Any] | type | str) -> Array:
    """Words of 32 random bits as numbers in [0, 1)."""
    return (words >> np.uint32(8)).astype(dtype) * np.dtype(dtype).type(2.0**-24)


def normal(state: Array, shape: tuple[int, ...], dtype: np.dtype[Any] | type | str = "float32") -> Array:
    """Standard normal numbers by Box and Muller's transform of pairs of uniform ones."""
    size = math.prod(shape)
    pairs = uniform(state, (2, -(-size // 2)), np.float64)
    radius, angle = np.sqrt(-2 * np.log1p(-pairs[0])), 2 * np.pi * pairs[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:size].reshape(shape).astype(dtype)


def permutation(state: Array, size: int) -> Array:
    """A random order of 0 … size − 1: the stable argsort of random words."""
    return np.argsort(bits(state, size), kind="stable")
