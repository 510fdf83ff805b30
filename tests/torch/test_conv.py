"""Convolution, its transpose and patches against PyTorch: value and all gradients in float64, in both memory orders."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
SIZES = {1: (9,), 2: (8, 7), 3: (5, 6, 5)}
KERNELS = {1: (3,), 2: (3, 2), 3: (2, 1, 3)}
GRID = list(itertools.product([1, 2, 3], [1, 2], [0, 1], [1, 2], [1, 2]))
PER_AXIS = [
    (2, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 3)}),
    (3, {"stride": (1, 2, 3), "padding": (1, 0, 2), "dilation": (2, 1, 1)}),
]


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def channels_first(function, rank):
    """PyTorch's function of an image and weights that are channels last."""
    order = (rank + 1, rank, *range(rank))

    def call(x, w, *bias):
        return function(x.movedim(-1, 1), w.permute(order), *bias).movedim(1, -1)

    return call


@pytest.mark.parametrize(("rank", "stride", "padding", "dilation", "groups"), GRID)
def test_conv(compare, rank, stride, padding, dilation, groups):
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x, w, bias = normal(2, *SIZES[rank], 4), normal(*KERNELS[rank], 4 // groups, 6), normal(6)
    theirs = lambda x, w, b: CONV[rank](x, w, b, **options)  # noqa: E731
    compare(lambda x, w, b: jj.conv(x, w, b, **options), channels_first(theirs, rank), x, w, bias)


@pytest.mark.parametrize(("rank", "options"), PER_AXIS)
def test_conv_with_options_per_axis(compare, rank, options):
    x, w = normal(1, *[9] * rank, 2), normal(*KERNELS[rank], 2, 3)
    theirs = lambda x, w: CONV[rank](x, w, **options)  # noqa: E731
    compare(lambda x, w: jj.conv(x, w, **options), channels_first(theirs, rank), x, w)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_in_the_other_layout(compare, rank, groups):
    options = {"stride": 2, "padding": 1, "groups": groups}
    compare(
        lambda x, w, b: jj.conv(x, w, b, layout="NCHW", **options),
        lambda x, w, b: CONV[rank](x, w, b, **options),
        normal(2, 4, *SIZES[rank]),
        normal(6, 4 // groups, *KERNELS[rank]),
        normal(6),
    )


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_same_padding(compare, rank, kernel):
    x, w = normal(1, *SIZES[rank], 2), normal(*[kernel] * rank, 2, 2)
    theirs = lambda x, w: CONV[rank](x, w, padding="same", dilation=2)  # noqa: E731
    compare(lambda x, w: jj.conv(x, w, padding="same", dilation=2), channels_first(theirs, rank), x, w)


@pytest.mark.parametrize(("rank", "stride", "padding", "dilation", "groups"), GRID)
def test_conv_transpose(compare, rank, stride, padding, dilation, groups):
    extra = max(stride, dilation) - 1
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "output_padding": extra}
    sizes = tuple(min(n, 4) for n in SIZES[rank])
    x, w, bias = normal(2, *sizes, 4), normal(*KERNELS[rank], 6 // groups, 4), normal(6)
    theirs = lambda x, w, b: TRANSPOSE[rank](x, w, b, **options)  # noqa: E731
    compare(lambda x, w, b: jj.conv_transpose(x, w, b, **options), channels_first(theirs, rank), x, w, bias)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_conv_transpose_in_the_other_layout(compare, rank, groups):
    options = {"stride": 2, "padding": 1, "output_padding": 1, "groups": groups}
    compare(
        lambda x, w, b: jj.conv_transpose(x, w, b, layout="NCHW", **options),
        lambda x, w, b: TRANSPOSE[rank](x, w, b, **options),
        normal(2, 4, *[3] * rank),
        normal(4, 6 // groups, *KERNELS[rank]),
        normal(6),
    )


PATCHES = list(itertools.product([1, 2], [0, 1], [1, 2]))


@pytest.mark.parametrize(("stride", "padding", "dilation"), PATCHES)
def test_unfold(compare, stride, padding, dilation):
    options = {"stride": stride, "padding": padding, "dilation": dilation}

    def theirs(x):
        columns = F.unfold(x.movedim(-1, 1), (3, 2), **options)  # (N, C·K, Y)
        y = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in [(8, 3), (7, 2)]]
        return columns.reshape(2, 3, 3, 2, *y).permute(0, 4, 5, 2, 3, 1)

    compare(lambda x: jj.unfold(x, (3, 2), **options), theirs, normal(2, 8, 7, 3))


@pytest.mark.parametrize(("stride", "padding", "dilation"), PATCHES)
def test_fold(compare, stride, padding, dilation):
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    patches = jj.unfold(normal(2, 8, 7, 3), (3, 2), **options)

    def theirs(p):
        columns = p.permute(0, 5, 3, 4, 1, 2).reshape(2, 18, -1)
        return F.fold(columns, (8, 7), (3, 2), **options).movedim(1, -1)

    compare(lambda p: jj.fold(p, (8, 7), **options), theirs, np.asarray(patches))


def test_float32_stays_float32():
    x, w = normal(2, 8, 7, 3).astype("float32"), normal(3, 3, 3, 4).astype("float32")
    expected = F.conv2d(torch.tensor(x).movedim(-1, 1), torch.tensor(w).permute(3, 2, 0, 1)).movedim(1, -1)
    y = jj.conv(x, w)
    assert y.dtype == "float32"
    np.testing.assert_allclose(y, expected, 1e-4, 1e-4)
