"""Pooling against PyTorch with all its options: value and gradient in float64, in both memory orders."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
LP = {1: F.lp_pool1d, 2: F.lp_pool2d, 3: F.lp_pool3d}
UNPOOL = {1: F.max_unpool1d, 2: F.max_unpool2d, 3: F.max_unpool3d}
ADAPTIVE_MAX = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}
ADAPTIVE_MEAN = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
SIZES = {1: (11,), 2: (8, 9), 3: (5, 6, 7)}
SHAPES = [(1, (3,)), (2, (2, 3)), (3, (2, 3, 2))]
STRIDES = [None, 1, 2, 3]


def image(rank, *, first=False):
    """Numbers of both signs, no two of them near each other."""
    shape = (2, 3, *SIZES[rank]) if first else (2, *SIZES[rank], 3)
    size = math.prod(shape)
    return (np.random.default_rng(rank).permutation(size).reshape(shape) - size / 2) / size


def channels_first(function):
    return lambda x: function(x.movedim(-1, 1)).movedim(1, -1)


@pytest.mark.parametrize(("rank", "size"), SHAPES)
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "ceil_mode"), list(itertools.product(STRIDES, [0, 1], [1, 2], [False, True]))
)
def test_max_pool(compare, rank, size, stride, padding, dilation, ceil_mode):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    x = image(rank)
    compare(lambda x: jj.max_pool(x, size, **options), channels_first(lambda x: MAX[rank](x, size, **options)), x)
    _, index = jj.max_pool(x, size, return_indices=True, **options)
    _, expected = MAX[rank](torch.tensor(x).movedim(-1, 1), size, return_indices=True, **options)
    np.testing.assert_array_equal(index, expected.movedim(1, -1))


@pytest.mark.parametrize(("rank", "size"), SHAPES)
@pytest.mark.parametrize(
    ("stride", "padding", "ceil_mode", "include"),
    list(itertools.product(STRIDES, [0, 1], [False, True], [False, True])),
)
def test_avg_pool(compare, rank, size, stride, padding, ceil_mode, include):
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": include}
    ours = lambda x: jj.avg_pool(x, size, **options)  # noqa: E731
    compare(ours, channels_first(lambda x: MEAN[rank](x, size, **options)), image(rank))


@pytest.mark.parametrize(("rank", "size"), SHAPES)
@pytest.mark.parametrize(
    ("norm", "stride", "ceil_mode"), list(itertools.product([1, 2, 3.5, math.inf, -math.inf], [None, 2], [False, True]))
)
def test_lp_pool(compare, rank, size, norm, stride, ceil_mode):
    size = size if rank > 1 else size[0]  # PyTorch's lp_pool1d takes no tuple
    x = image(rank) if norm != 3.5 else abs(image(rank)) + 0.1
    ours = lambda x: jj.ops.lp_pool(x, norm, size, stride, ceil_mode)  # noqa: E731
    compare(ours, channels_first(lambda x: LP[rank](x, norm, size, stride, ceil_mode)), x)


def test_lp_pool_of_zeros(compare):
    x = image(2)
    x[:, :4, :4] = 0
    compare(lambda x: jj.ops.lp_pool(x, 2, 2), channels_first(lambda x: F.lp_pool2d(x, 2, 2)), x)


@pytest.mark.parametrize(("rank", "size"), SHAPES)
@pytest.mark.parametrize("given", [False, True])
def test_max_unpool(compare, rank, size, given):
    x, places = jj.max_pool(image(rank), size, return_indices=True)
    output_size = SIZES[rank] if given else None
    if output_size is None:
        # The default extent is smaller than the image: only places inside it belong to it.
        small = tuple(n // k * k for n, k in zip(SIZES[rank], size, strict=True))
        x, places = jj.max_pool(image(rank)[(slice(None), *map(slice, small))], size, return_indices=True)
    index = torch.tensor(np.asarray(places)).movedim(-1, 1)
    compare(
        lambda x: jj.ops.max_unpool(x, places, size, output_size=output_size),
        channels_first(lambda x: UNPOOL[rank](x, index, size, output_size=output_size)),
        np.asarray(x),
    )


def test_max_unpool_where_windows_overlap():
    x = torch.tensor(image(2, first=True))
    y, index = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    expected = F.max_unpool2d(y, index, 3, 2, 1, output_size=SIZES[2])
    got = jj.ops.max_unpool(y.numpy(), index.numpy(), 3, 2, 1, SIZES[2], layout="NCHW")
    np.testing.assert_allclose(got, expected, 1e-15)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("output_size", [1, 2, 3, 4, 7, 13])
def test_adaptive_pools(compare, rank, output_size):
    x = image(rank)
    ours, theirs = jj.ops.adaptive_avg_pool, ADAPTIVE_MEAN[rank]
    compare(lambda x: ours(x, output_size), channels_first(lambda x: theirs(x, output_size)), x)
    ours, theirs = jj.ops.adaptive_max_pool, ADAPTIVE_MAX[rank]
    compare(lambda x: ours(x, output_size), channels_first(lambda x: theirs(x, output_size)), x)
    _, index = ours(x, output_size, return_indices=True)
    _, expected = theirs(torch.tensor(x).movedim(-1, 1), output_size, return_indices=True)
    np.testing.assert_array_equal(index, expected.movedim(1, -1))


def test_adaptive_pools_keep_the_size_of_an_axis(compare):
    for ours, theirs in [
        (jj.ops.adaptive_avg_pool, F.adaptive_avg_pool2d),
        (jj.ops.adaptive_max_pool, F.adaptive_max_pool2d),
    ]:
        compare(lambda x: ours(x, (None, 4)), channels_first(lambda x: theirs(x, (None, 4))), image(2))  # noqa: B023


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_other_layout(compare, rank):
    """The same images with their channels in front, everywhere."""
    x = image(rank, first=True)
    pairs = [
        (
            lambda x: jj.max_pool(x, 3, 2, 1, layout="NCHW"),
            lambda x: MAX[rank](x, 3, 2, 1),
        ),
        (
            lambda x: jj.avg_pool(x, 3, 2, 1, layout="NCHW"),
            lambda x: MEAN[rank](x, 3, 2, 1),
        ),
        (
            lambda x: jj.ops.lp_pool(x, 2, 3, 2, layout="NCHW"),
            lambda x: LP[rank](x, 2, 3, 2),
        ),
        (
            lambda x: jj.ops.adaptive_avg_pool(x, 4, layout="NCHW"),
            lambda x: ADAPTIVE_MEAN[rank](x, 4),
        ),
        (
            lambda x: jj.ops.adaptive_max_pool(x, 4, layout="NCHW"),
            lambda x: ADAPTIVE_MAX[rank](x, 4),
        ),
        (
            lambda x: jj.ops.global_avg_pool(x, layout="NCHW"),
            lambda x: ADAPTIVE_MEAN[rank](x, 1),
        ),
        (
            lambda x: jj.ops.global_max_pool(x, layout="NCHW"),
            lambda x: ADAPTIVE_MAX[rank](x, 1),
        ),
    ]
    for ours, theirs in pairs:
        compare(ours, theirs, x)


def test_infinities_and_nan():
    x = image(2, first=True)
    x[0, 0, :3, :3] = -math.inf
    x[1, 1, 4, 4] = math.nan
    y, index = jj.max_pool(x, 3, 2, 1, layout="NCHW", return_indices=True)
    expected, place = F.max_pool2d(torch.tensor(x), 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(index, place)
    mean = jj.avg_pool(x, 3, 2, 1, layout="NCHW")
    np.testing.assert_allclose(mean, F.avg_pool2d(torch.tensor(x), 3, 2, 1), 1e-12)
