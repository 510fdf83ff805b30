"""Deformable convolution and the locally connected layer against their formulas written as loops."""

import itertools

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def bilinear(image, place):
    """image (H, W) at a fractional place, zero outside (Dai et al. 2017, eq. 3–4)."""
    return sum(
        image[q] * np.prod([max(0, 1 - abs(a - b)) for a, b in zip(q, place, strict=True)])
        for q in np.ndindex(image.shape)
    )


def deform_by_hand(x, offset, w, mask, stride, padding, dilation, groups, offset_groups):
    """y(p) = Σₖ w(k)·x(p + pₖ + Δpₖ)·mₖ (Zhu et al. 2019, eq. 1), one product at a time."""
    n, *y, _ = offset.shape
    taps = list(np.ndindex(w.shape[:2]))
    moves = offset.reshape(n, *y, offset_groups, len(taps), 2)
    factors = mask.reshape(n, *y, offset_groups, len(taps))
    result = np.zeros((n, *y, w.shape[-1]))
    c_in, c_out, c_moved = x.shape[-1] // groups, w.shape[-1] // groups, x.shape[-1] // offset_groups
    for b, i, j, k, c in itertools.product(range(n), *map(range, y), range(len(taps)), range(x.shape[-1])):
        base = np.array([i, j]) * stride - padding + np.array(taps[k]) * dilation
        at = (b, i, j, c // c_moved, k)
        value = bilinear(x[b, ..., c], base + moves[at]) * factors[at]
        out = slice(c // c_in * c_out, (c // c_in + 1) * c_out)
        result[b, i, j, out] += value * w[(*taps[k], c % c_in, out)]
    return result


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "offset_groups"),
    [(1, 0, 1, 1, 1), (2, 1, 1, 2, 1), (1, 1, 2, 1, 2), (2, 0, 1, 2, 4)],
)
def test_deform_conv_by_hand(stride, padding, dilation, groups, offset_groups):
    x, w = RNG.normal(size=(2, 5, 4, 4)), RNG.normal(size=(2, 2, 4 // groups, 2))
    y = [(n + 2 * padding - dilation - 1) // stride + 1 for n in (5, 4)]
    offset, mask = RNG.normal(0, 1.5, (2, *y, offset_groups * 8)), RNG.random((2, *y, offset_groups * 4))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    got = jj.deform_conv(x, offset, w, None, mask, offset_groups=offset_groups, **options)
    expected = deform_by_hand(x, offset, w, mask, offset_groups=offset_groups, **options)
    np.testing.assert_allclose(got, expected, 1e-12, 1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_without_offsets_it_is_convolution(rank):
    x, w, bias = RNG.normal(size=(2, *[6] * rank, 4)), RNG.normal(size=(*[3] * rank, 2, 6)), RNG.normal(size=6)
    options = {"stride": 2, "padding": "same", "dilation": 1, "groups": 2}
    expected = jj.conv(x, w, bias, **options)
    offset = np.zeros((*expected.shape[:-1], 2 * 3**rank * rank))
    got = jj.deform_conv(x, offset, w, bias, offset_groups=2, **options)
    np.testing.assert_allclose(got, expected, 1e-12, 1e-12)


def test_whole_offsets_move_the_image():
    """Every tap one pixel to the right is the convolution of the image moved one pixel to the left."""
    x, w = RNG.normal(size=(1, 5, 5, 2)), RNG.normal(size=(3, 3, 2, 3))
    offset = np.tile([0.0, 1.0], (1, 3, 3, 9))
    moved = np.pad(x[:, :, 1:], [(0, 0), (0, 0), (0, 1), (0, 0)])
    np.testing.assert_allclose(jj.deform_conv(x, offset, w), jj.conv(moved, w), 1e-12, 1e-12)
    half = np.full((1, 3, 3, 9), 0.5)
    np.testing.assert_allclose(jj.deform_conv(x, offset, w, mask=half), jj.conv(moved, w) * 0.5, 1e-12, 1e-12)


def test_float32_and_tracing():
    shapes = [(2, 5, 5, 2), (2, 3, 3, 18), (3, 3, 2, 4), (4,), (2, 3, 3, 9)]
    values = [RNG.normal(size=shape).astype("float32") for shape in shapes]
    graph = jj.trace(jj.deform_conv, *(jj.Tensor.spec(shape) for shape in shapes))
    assert [node.name for node in graph.nodes] == ["deform_conv"]
    y = jj.deform_conv(*values)
    assert y.dtype == "float32"
    np.testing.assert_array_equal(graph(*values), y)


def test_locally_connected_by_hand():
    x, w, bias = RNG.normal(size=(2, 5, 4, 3)), RNG.normal(size=(3, 2, 2, 3, 3, 2)), RNG.normal(size=(3, 2, 2))
    padded = np.pad(x, [(0, 0), (1, 0), (0, 0), (0, 0)])
    expected = np.empty((2, 3, 2, 2))
    for i, j in np.ndindex(3, 2):
        expected[:, i, j] = np.tensordot(padded[:, 2 * i : 2 * i + 2, j : j + 3], w[i, j], 3) + bias[i, j]
    got = jj.locally_connected(x, w, bias, size=(2, 3), stride=(2, 1), padding=((1, 0), (0, 0)))
    np.testing.assert_allclose(got, expected, 1e-12)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_with_the_same_weights_everywhere_it_is_convolution(rank):
    x, kernel, bias = RNG.normal(size=(2, *[5] * rank, 2)), RNG.normal(size=(*[3] * rank, 2, 4)), RNG.normal(size=4)
    y = jj.conv(x, kernel, bias, stride=2, padding=1)
    sizes = y.shape[1:-1]
    w, b = np.broadcast_to(kernel, (*sizes, *kernel.shape)), np.broadcast_to(bias, (*sizes, 4))
    np.testing.assert_allclose(jj.locally_connected(x, w, b, size=3, stride=2, padding=1), y, 1e-12, 1e-12)


def test_weights_with_and_without_sharing():
    """004 §5.4: 8×8×3 windows, 14×14 places, 20 channels."""
    windows = (14, 14, 8, 8, 3, 20)
    assert np.prod(windows) + 14 * 14 * 20 == 756_560
    x, w, b = (jj.Tensor.spec(shape) for shape in [(1, 32, 32, 3), windows, (14, 14, 20)])
    graph = jj.trace(lambda x, w, b: jj.locally_connected(x, w, b, size=8, stride=2, padding=1), x, w, b)
    assert graph.outputs.shape == (1, 14, 14, 20)


def refuses(error, text, function, *args, **options):
    with pytest.raises(error, match=text):
        function(*args, **options)


def test_refusals():
    x, offset, w = np.zeros((1, 5, 5, 4)), np.zeros((1, 3, 3, 18)), np.zeros((3, 3, 4, 2))
    deform = jj.deform_conv
    refuses(ShapeError, "deform_conv: the offset has the wrong shape", deform, x, offset[..., :9], w)
    refuses(ShapeError, r"offset_groups·K·rank\) = \(1, 3, 3, 36\)", deform, x, offset, w, offset_groups=2)
    refuses(ShapeError, "deform_conv: the mask has the wrong shape", deform, x, offset, w, mask=offset)
    refuses(ArgumentError, "the offset groups do not divide the channels", deform, x, offset, w, offset_groups=3)
    refuses(ShapeError, "deform_conv: the channels do not match", deform, x[..., :2], offset, w)
    refuses(ShapeError, "deform_conv: the kernel does not fit the input", deform, x[:, :2], offset, w)
    refuses(DTypeError, "different dtypes", deform, x, offset.astype("float32"), w)
    refuses(ShapeError, "deform_conv: one bias a channel", deform, x, offset, w, np.zeros(3))


def test_refusals_of_locally_connected():
    x, w = np.zeros((1, 5, 5, 4)), np.zeros((3, 3, 3, 3, 4, 2))
    local = jj.locally_connected
    refuses(ShapeError, "locally_connected: the weights have the wrong shape", local, x, w[:2], size=3)
    refuses(ShapeError, r"\(\*Y, \*K, C, M\) = \(4, 4, 2, 2, 4, M\)", local, x, w, size=2)
    refuses(ShapeError, "one bias for each place and channel", local, x, w, np.zeros(2), size=3)
    refuses(ArgumentError, "locally_connected: bad size", local, x, w, size=0)
