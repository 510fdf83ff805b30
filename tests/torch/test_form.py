"""Images brought to a form, against PyTorch's antialiased interpolation in float64."""

import numpy as np
import pytest
import torch

from juanji.data import Form


def interpolated(x, size):
    """x (H, W, C) stretched to a size, as PyTorch does it."""
    planes = torch.from_numpy(np.moveaxis(x.astype(np.float64), -1, 0))[None]
    made = torch.nn.functional.interpolate(planes, size, mode="bilinear", align_corners=False, antialias=True)
    return np.moveaxis(made[0].numpy(), 0, -1)


@pytest.mark.parametrize("size", [(8, 8), (7, 13), (20, 30), (40, 50)])
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_stretching(size, dtype):
    x = np.random.default_rng(0).random((20, 30, 3), np.float32)
    x = x if dtype == np.float32 else (x * 255).astype(np.uint8)
    made = Form(size, 3, "stretch").of(x)
    assert np.abs(made - interpolated(x, size)).max() <= (1e-5 if dtype == np.float32 else 1.01)


@pytest.mark.parametrize(("own", "size"), [((20, 30), (10, 10)), ((30, 20), (10, 10)), ((24, 24), (9, 18))])
def test_cutting_is_stretching_of_the_middle(own, size):
    x = np.random.default_rng(1).random((*own, 3), np.float32)
    scale = min(own[0] / size[0], own[1] / size[1])
    height, width = round(size[0] * scale), round(size[1] * scale)
    top, left = (own[0] - height) // 2, (own[1] - width) // 2
    made = Form(size, 3, "crop").of(x)
    # Pillow averages beyond the edges of the cut where there is something; only the outermost pixels see it.
    inside = interpolated(x[top : top + height, left : left + width], size)
    assert np.abs(made - inside)[2:-2, 2:-2].max() < 1e-5


@pytest.mark.parametrize("own", [(20, 30), (30, 12), (13, 13)])
def test_padding_is_stretching_within_a_border(own):
    x = np.random.default_rng(2).random((*own, 1), np.float32)
    made = Form((16, 16), 1, "pad").of(x)
    height, width = (round(n * 16 / max(own)) for n in own)
    top, left = (16 - height) // 2, (16 - width) // 2
    inside = made[top : top + height, left : left + width]
    assert np.abs(inside - interpolated(x, (height, width))).max() < 1e-5
    assert made.sum() == pytest.approx(inside.sum())
