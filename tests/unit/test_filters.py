"""Image filters: hand values of the notes, and the properties a filter must have."""

import numpy as np
import pytest
from scipy import ndimage, signal

from juanji.data import filters
from juanji.errors import ArgumentError, ShapeError, UnknownNameError

IMAGE = np.random.default_rng(0).random((7, 9, 3)).astype(np.float32)


@pytest.mark.parametrize("name", sorted(set(filters.KERNELS) - {"sobel"}))
def test_every_kernel_agrees_with_scipy(name):
    kernel = filters.KERNELS[name]
    expected = ndimage.convolve(IMAGE.astype(np.float64), kernel[:, :, None], mode="nearest")
    result = filters.apply(IMAGE, name)
    assert result.dtype == np.float32
    assert np.allclose(result, expected, atol=1e-5)


def test_large_images_are_filtered_in_strips(monkeypatch):
    image = np.random.default_rng(0).random((37, 11, 3), np.float32)
    whole = {name: filters.apply(image, name) for name in filters.KERNELS}
    monkeypatch.setattr(filters, "STRIP", 1)
    for name, expected in whole.items():
        np.testing.assert_allclose(filters.apply(image, name), expected, rtol=1e-5, atol=1e-6)


def test_sobel_is_the_length_of_the_gradient():
    ramp = np.arange(8.0)[:, None] * 3 + np.arange(9.0)[None] * 4
    inside = filters.apply(ramp, "sobel")[1:-1, 1:-1]
    assert np.allclose(inside, 5)


@pytest.mark.parametrize(
    ("name", "total"),
    [("identity", 1), ("sharpen", 1), ("blur", 1), ("gaussian", 1), ("mean", 1), ("edges", 0)],
)
def test_flat_images_keep_their_value_or_vanish(name, total):
    flat = np.full((6, 5), 0.5)
    assert np.allclose(filters.apply(flat, name), 0.5 * total)


def test_identity_keeps_every_bit():
    assert np.array_equal(filters.apply(IMAGE, "identity"), IMAGE)


def test_signals():
    x = np.array([1.0, 2, 4, 8, 16])
    # 002 eq. 4.1.4: x″(t) = x(t+1) + x(t−1) − 2x(t); at the ends the outermost value is repeated.
    assert filters.apply(x, "second_difference").tolist() == [1, 1, 2, 4, -8]
    assert np.allclose(filters.apply(x, "moving_average"), [4 / 3, 7 / 3, 14 / 3, 28 / 3, 40 / 3])
    assert np.allclose(filters.apply(x, filters.moving_average(1)), x)


def test_own_kernels_of_uneven_size_are_flipped():
    kernel = np.random.default_rng(1).random((3, 2))
    ours = filters.apply(IMAGE[..., 0].astype(np.float64), kernel)
    assert ours.shape == IMAGE.shape[:2]
    valid = signal.convolve2d(IMAGE[..., 0].astype(np.float64), kernel, mode="valid")
    assert np.allclose(ours[1:-1, 1:], valid)


def test_whole_numbers_become_float32():
    assert filters.apply(np.full((3, 3), 7, np.uint8), "mean").dtype == np.float32


def test_errors():
    with pytest.raises(UnknownNameError, match=r"no kernel named 'sharp'[\s\S]*did you mean 'sharpen'"):
        filters.apply(IMAGE, "sharp")
    with pytest.raises(UnknownNameError, match=r"no signal kernel named 'blur'"):
        filters.apply(np.ones(4), "blur")
    with pytest.raises(ShapeError, match=r"filter: not an image[\s\S]*\(2, 2, 2, 2\)"):
        filters.apply(np.ones((2, 2, 2, 2)), "blur")
    with pytest.raises(ShapeError, match=r"filter: not an image"):
        filters.apply(np.ones((0, 3)), "blur")
    with pytest.raises(ShapeError, match="the kernel does not fit"):
        filters.apply(IMAGE, np.ones(3))
    with pytest.raises(ArgumentError, match=r"gaussian: bad sigma[\s\S]*positive"):
        filters.gaussian(0)
    with pytest.raises(ArgumentError, match="moving_average: bad size"):
        filters.moving_average(0)
