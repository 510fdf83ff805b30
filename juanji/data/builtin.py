"""The datasets that come with juanji."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import numpy as np

from juanji.data.dataset import Dataset, Images, stratified
from juanji.errors import ArgumentError
from juanji.graph import Array


def digits(size: int = 28) -> Dataset:
    """1,797 handwritten digits (UCI, CC BY 4.0; see DIGITS.md): size×size pixels, grey, ink 1 on paper 0.

    The file holds 8×8 pixels of 0 to 16; they are enlarged bilinearly. Every third image of each class is held out:
    1,201 images to train on and 596 to test. Raises ArgumentError for less than 8 pixels or more than 512.
    """
    if not 8 <= size <= 512:
        raise ArgumentError("digits: bad size", received=f"size={size}", rule="from 8, the file's own, to 512")
    with (
        resources.files("juanji.data").joinpath("digits.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        x, y = arrays["images"].astype(np.float32) / 16, arrays["labels"].astype(np.int64)
    images = Images(enlarge(x, size)[..., None], y)
    held = stratified(y)
    return Dataset("digits", images[~held], images[held], tuple("0123456789"))


def enlarge(x: Array, size: int) -> Array:
    """Square images (N, n, n) enlarged to (N, size, size) bilinearly: A·x·Aᵀ with two weights in each row of A."""
    n = x.shape[-1]
    places = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(n))).astype(x.dtype)
    enlarged: Array = weights @ x @ weights.T
    return enlarged


BUILT_IN: dict[str, Callable[..., Dataset]] = {"digits": digits}
