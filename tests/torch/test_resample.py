"""Padding, resizing and grid sampling against PyTorch: value and gradients in float64."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

RNG = np.random.default_rng(0)
SIZES = {1: (7,), 2: (5, 4), 3: (3, 4, 2)}
TARGETS = {1: [(3,), (7,), (12,), (1,)], 2: [(3, 9), (10, 2), (5, 1)], 3: [(2, 7, 5), (6, 4, 1)]}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def channels_first(function):
    return lambda x, *rest: function(x.movedim(-1, 1), *rest).movedim(1, -1)


def image(rank):
    return RNG.normal(size=(2, *SIZES[rank], 3))


@pytest.mark.parametrize(("rank", "size"), [(rank, size) for rank in TARGETS for size in TARGETS[rank]])
@pytest.mark.parametrize(("mode", "aligned"), [("nearest", False), ("bilinear", False), ("bilinear", True)])
def test_resize(compare, rank, size, mode, aligned):
    name, corners = ("nearest", None) if mode == "nearest" else (LINEAR[rank], aligned)
    theirs = channels_first(lambda x: F.interpolate(x, size, mode=name, align_corners=corners))
    compare(lambda x: jj.ops.resize(x, size, mode=mode, align_corners=aligned), theirs, image(rank))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.5, 0.7, 1.0, 1.6, 2.0, 3.0])
@pytest.mark.parametrize(("mode", "aligned"), [("nearest", False), ("bilinear", False), ("bilinear", True)])
def test_resize_by_a_factor(compare, rank, scale, mode, aligned):
    name, corners = ("nearest", None) if mode == "nearest" else (LINEAR[rank], aligned)
    theirs = channels_first(lambda x: F.interpolate(x, scale_factor=scale, mode=name, align_corners=corners))
    compare(lambda x: jj.ops.resize(x, scale=scale, mode=mode, align_corners=aligned), theirs, image(rank))


@pytest.mark.parametrize(("n", "size"), list(itertools.product([1, 2, 3, 5, 8, 28, 37], [1, 2, 3, 7, 10, 28, 41])))
def test_nearest_takes_the_same_elements(n, size):
    x = np.arange(float(n)).reshape(1, n, 1)
    expected = F.interpolate(torch.tensor(x).movedim(-1, 1), size).movedim(1, -1)
    np.testing.assert_array_equal(jj.ops.resize(x, size), expected)


@pytest.mark.parametrize("size", TARGETS[2])
@pytest.mark.parametrize("aligned", [False, True])
def test_resize_cubic(compare, size, aligned):
    theirs = channels_first(lambda x: F.interpolate(x, size, mode="bicubic", align_corners=aligned))
    compare(lambda x: jj.ops.resize(x, size, mode="bicubic", align_corners=aligned), theirs, image(2))


BORDERS = ["zeros", "border", "reflection"]


@pytest.mark.parametrize(
    ("rank", "mode", "border", "aligned"),
    [
        *itertools.product([2, 3], ["bilinear", "nearest"], BORDERS, [False, True]),
        *itertools.product([2], ["bicubic"], BORDERS, [False, True]),
    ],
)
def test_grid_sample(compare, rank, mode, border, aligned):
    """Far outside too: ±3 is a whole image beyond the edge."""
    grid = RNG.uniform(-3, 3, (2, *[3, 5, 2][:rank], rank))
    options = {"mode": mode, "padding_mode": border, "align_corners": aligned}
    theirs = lambda x, grid: F.grid_sample(x.movedim(-1, 1), grid, **options).movedim(1, -1)  # noqa: E731
    compare(lambda x, grid: jj.ops.grid_sample(x, grid, **options), theirs, image(rank), grid)


@pytest.mark.parametrize(("border", "aligned"), list(itertools.product(["border", "reflection"], [False, True])))
def test_grid_sample_of_the_image_itself(compare, border, aligned):
    """The identity lies on the edges exactly, where PyTorch's derivative is 0 too."""
    theta = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]] * 2, dtype=torch.float64)
    grid = F.affine_grid(theta, [2, 3, 5, 4], align_corners=aligned).numpy()
    x = image(2)
    options = {"padding_mode": border, "align_corners": aligned}
    np.testing.assert_allclose(jj.ops.grid_sample(x, grid, **options), x, 1e-12, 1e-12)
    shifted = grid + np.array([0.13, 0.07]) * (grid != grid.min()) * (grid != grid.max())
    theirs = lambda x, grid: F.grid_sample(x.movedim(-1, 1), grid, **options).movedim(1, -1)  # noqa: E731
    compare(lambda x, grid: jj.ops.grid_sample(x, grid, **options), theirs, x, shifted)


def test_grid_sample_of_one_pixel(compare):
    grid = RNG.uniform(-2, 2, (1, 3, 3, 2))
    for border, aligned in itertools.product(BORDERS, [False, True]):
        options = {"padding_mode": border, "align_corners": aligned}
        theirs = lambda x, grid: F.grid_sample(x.movedim(-1, 1), grid, **options).movedim(1, -1)  # noqa: B023, E731
        ours = lambda x, grid: jj.ops.grid_sample(x, grid, **options)  # noqa: B023, E731
        compare(ours, theirs, RNG.normal(size=(1, 1, 1, 2)), grid)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("mode", "name"), [("constant", "constant"), ("reflect", "reflect"), ("edge", "replicate")])
def test_pad(compare, rank, mode, name):
    widths = [(1, 0), (0, 2), (1, 1)][:rank]
    flat = [w for pair in reversed(widths) for w in pair]
    theirs = channels_first(lambda x: F.pad(x, flat, name))
    compare(lambda x: jj.ops.pad(x, [(0, 0), *widths, (0, 0)], mode), theirs, RNG.normal(size=(2, *[4] * rank, 3)))
