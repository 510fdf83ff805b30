"""Jitter against PyTorch's grid_sample, and the loss of mixed labels against its cross-entropy."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import juanji as jj
from juanji.data import Augment, Images, Jitter, batches
from juanji.data.jitter import sample


def grid_sample(x, rows, columns):
    """`sample` in float64 by PyTorch: places from −1 to 1 over the edges of the image, zeros beyond."""
    height, width = x.shape[1:3]
    grid = np.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], axis=-1)
    images = torch.from_numpy(x.astype(np.float64).transpose(0, 3, 1, 2))
    seen = F.grid_sample(images, torch.from_numpy(grid), "bilinear", "zeros", align_corners=False)
    return seen.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("shape", [(3, 7, 5, 1), (2, 1, 6, 3), (2, 9, 9, 2)])
def test_sampling(shape):
    rng = np.random.default_rng(0)
    x = rng.random(shape, np.float32)
    rows, columns = (rng.uniform(-3, n + 2, (shape[0], 4, 6)) for n in shape[1:3])
    assert np.allclose(sample(x, rows, columns), grid_sample(x, rows, columns), atol=1e-6)


def test_a_jitter_is_pytorchs_affine_grid():
    rng = np.random.default_rng(1)
    x = rng.random((4, 10, 12, 1), np.float32)
    draws = rng.random((4, 8)).astype(np.float32)
    jitter = Jitter(shift=0.2, turn=30, zoom=0.3, slant=0.25)
    shift_y, shift_x, turn, zoom_y, zoom_x, slant = (2 * draws[:, :6].astype(np.float64) - 1).T
    angle, k = np.deg2rad(30 * turn), 0.25 * slant
    fy, fx = 1 + 0.3 * zoom_y, 1 + 0.3 * zoom_x
    # Rows (x, y) of the map in pixels from the centre; PyTorch's are in halves of the width and height.
    maps = np.array(
        [
            [fx * np.cos(angle), fx * (k * np.cos(angle) - np.sin(angle)) * 10 / 12, 2 * 0.2 * shift_x],
            [fy * np.sin(angle) * 12 / 10, fy * (np.cos(angle) + k * np.sin(angle)), 2 * 0.2 * shift_y],
        ]
    ).transpose(2, 0, 1)
    grid = F.affine_grid(torch.from_numpy(maps), [4, 1, 10, 12], align_corners=False)
    images = torch.from_numpy(x.astype(np.float64).transpose(0, 3, 1, 2))
    seen = F.grid_sample(images, grid, "bilinear", "zeros", align_corners=False).numpy().transpose(0, 2, 3, 1)
    assert np.allclose(jitter(x, draws), seen, atol=1e-5)


def test_the_loss_of_mixed_labels():
    x = np.random.default_rng(2).random((12, 4, 4, 3), np.float32)
    images = Images(x, np.arange(12) % 5)
    ((_, y),) = batches(images, 12, change=Augment(mixup=0.4, cutmix=1.0), classes=5)
    logits = np.random.default_rng(3).normal(size=(12, 5)).astype(np.float32)
    for smoothing in (0.0, 0.1):
        loss = float(jj.cross_entropy(logits, y, label_smoothing=smoothing))
        theirs = F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(y), label_smoothing=smoothing)
        assert loss == pytest.approx(float(theirs), rel=1e-5)
