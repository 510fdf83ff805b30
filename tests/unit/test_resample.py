"""Padding against NumPy's, resizing and sampling against values worked out by hand, and what is refused."""

import itertools
import math

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def row(values):
    return jj.Tensor(np.array(values, float).reshape(1, -1, 1))


def flat(y):
    return np.asarray(y).ravel().tolist()


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("widths", [2, (1, 2), [(0, 1), (3, 0)], ((1, 1),), 0])
def test_pad_as_numpy(mode, widths):
    x = RNG.normal(size=(4, 5))
    np.testing.assert_array_equal(jj.pad(x, widths, mode), np.pad(x, widths, mode))


def test_pad_further_than_the_image():
    x = RNG.normal(size=(3, 1))
    np.testing.assert_array_equal(jj.pad(x, 7, "reflect"), np.pad(x, 7, "reflect"))
    np.testing.assert_array_equal(jj.pad(x, 7, "edge"), np.pad(x, 7, "edge"))


def test_pad_with_a_value():
    x = np.ones((2, 3, 1), "float32")
    y = jj.pad(x, [(0, 0), (1, 2), (0, 1)], value=-math.inf)
    assert y.dtype == "float32"
    np.testing.assert_array_equal(y, np.pad(x, [(0, 0), (1, 2), (0, 1)], constant_values=-math.inf))
    gradient = jj.grad(lambda x: (jj.pad(x, 1, value=5.0) ** 2).sum())(x)
    np.testing.assert_array_equal(gradient, 2 * x)


def test_gradients_of_padding():
    for mode in ("constant", "reflect", "edge"):
        jj.check_grads(lambda x: jj.pad(x, [(2, 1), (0, 3)], mode) ** 2, [RNG.normal(size=(4, 4))])  # noqa: B023


@pytest.mark.parametrize(("n", "size"), [(18, 66), (26, 46), (30, 22)])
def test_nearest_is_exact_where_a_place_is_whole(n, size):
    assert flat(jj.resize(row(range(n)), size)) == [i * n // size for i in range(size)]


def test_nearest():
    assert flat(jj.resize(row([1, 2]), 4)) == [1, 1, 2, 2]
    assert flat(jj.resize(row([1, 2, 3, 4]), 2)) == [1, 3]
    assert flat(jj.resize(row([1, 2, 3]), scale=2)) == [1, 1, 2, 2, 3, 3]
    assert jj.resize(np.zeros((1, 2, 2, 1), np.uint8), 3).dtype == "uint8"


def test_linear():
    """Pixel centres at (i + ½)/n of the width, or the outermost ones in place."""
    assert flat(jj.resize(row([0, 4]), 4, mode="bilinear")) == [0, 1, 3, 4]
    assert flat(jj.resize(row([0, 3]), 4, mode="bilinear", align_corners=True)) == [0, 1, 2, 3]
    square = np.arange(4.0).reshape(1, 2, 2, 1)
    corners = jj.resize(square, 3, mode="bilinear", align_corners=True)
    assert flat(corners) == [0, 0.5, 1, 1, 1.5, 2, 2, 2.5, 3]
    assert jj.resize(np.zeros((2, 4, 6, 3), "float32"), scale=(0.5, 1.5), mode="bilinear").shape == (2, 2, 9, 3)


def test_cubic():
    """Half-way the weights are −3/32, 19/32, 19/32, −3/32 (Keys 1981, eq. 15, with a = −¾); the ends stand for more."""
    middle = jj.resize(row([1, 10, 100, 1000]), 7, mode="bicubic", align_corners=True)
    weights = np.array([-3, 19, 19, -3]) / 32
    np.testing.assert_allclose(flat(middle)[3], weights @ [1, 10, 100, 1000])
    np.testing.assert_allclose(flat(middle)[1], weights @ [1, 1, 10, 100])
    np.testing.assert_allclose(flat(middle)[::2], [1, 10, 100, 1000])
    np.testing.assert_allclose(flat(jj.resize(row([7, 7, 7]), 5, mode="bicubic")), [7] * 5)


def sampled_by_hand(x, place):
    """x (*X) at a fractional place: Σ x[q]·Π max(0, 1 − |q − p|) over all pixels (Dai et al. 2017, eq. 3–4)."""
    weights = (
        np.prod([max(0, 1 - abs(q - p)) for q, p in zip(index, place, strict=True)]) for index in np.ndindex(x.shape)
    )
    return sum(w * x[index] for w, index in zip(weights, np.ndindex(x.shape), strict=True))


@pytest.mark.parametrize("sizes", [(5,), (3, 4), (2, 3, 4)])
def test_bilinear_samples_by_hand(sizes):
    x = RNG.normal(size=(2, *sizes, 2))
    grid = RNG.uniform(-1.5, 1.5, (2, *[3] * len(sizes), len(sizes)))
    y = np.asarray(jj.grid_sample(x, grid))
    for n, *where in np.ndindex(y.shape[:-1]):
        place = [((g + 1) * size - 1) / 2 for g, size in zip(grid[(n, *where)][::-1], sizes, strict=True)]
        for c in range(2):
            assert y[(n, *where, c)] == pytest.approx(sampled_by_hand(x[n, ..., c], place), abs=1e-12)


def test_what_lies_outside():
    x = row([1, 2, 3])
    grid = np.array([-5 / 3, 0, 1, 5 / 3, 7 / 3]).reshape(1, 5, 1)  # places −1½, 1, 2½, 3½, 4½
    assert flat(jj.grid_sample(x, grid)) == pytest.approx([0, 2, 1.5, 0, 0])
    assert flat(jj.grid_sample(x, grid, padding_mode="border")) == pytest.approx([1, 2, 3, 3, 3])
    assert flat(jj.grid_sample(x, grid, padding_mode="reflection")) == pytest.approx([1.5, 2, 3, 2.5, 1.5])
    assert flat(jj.grid_sample(x, grid * 0.9, mode="nearest")) == [0, 2, 3, 0, 0]


def test_nothing_leaks_in_from_outside():
    """A NaN at the border stays there; places far outside are zero, not NaN times zero."""
    x = row([math.nan, 2, 3])
    y = flat(jj.grid_sample(x, np.array([-9.0, 0, 9]).reshape(1, 3, 1)))
    assert y == [0, 2, 0]


def test_translation_of_an_image():
    x = RNG.normal(size=(1, 4, 5, 2))
    columns, rows = np.meshgrid(2 * np.arange(5) / 4 - 1 + 0.5, 2 * np.arange(4) / 3 - 1)
    y = jj.grid_sample(x, np.stack([columns, rows], -1)[None], align_corners=True)
    np.testing.assert_allclose(y, np.pad(x[:, :, 1:], [(0, 0), (0, 0), (0, 1), (0, 0)]), 1e-12, 1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("border", ["zeros", "border", "reflection"])
def test_dtype_is_kept(dtype, border):
    x, grid = RNG.normal(size=(1, 4, 4, 2)).astype(dtype), RNG.uniform(-2, 2, (1, 3, 2)).astype(dtype)[:, :, None]
    for mode, aligned in itertools.product(["bilinear", "nearest"], [False, True]):
        y = jj.grid_sample(x, grid, mode, border, aligned)
        assert (y.shape, y.dtype) == ((1, 3, 1, 2), dtype)
    assert jj.resize(x, 7, mode="bilinear").dtype == dtype


def test_sampling_can_be_traced():
    x, grid = jj.Tensor.spec((2, 5, 4, 3)), jj.Tensor.spec((2, 6, 7, 2))
    graph = jj.trace(lambda x, g: jj.resize(jj.grid_sample(x, g), scale=2, mode="bilinear"), x, grid)
    assert [node.name for node in graph.nodes] == ["grid_sample", "resize"]
    assert graph.outputs.shape == (2, 12, 14, 3)
    values = RNG.normal(size=(2, 5, 4, 3)).astype("float32"), RNG.uniform(-1, 1, (2, 6, 7, 2)).astype("float32")
    eager = jj.resize(jj.grid_sample(*values), scale=2, mode="bilinear")
    np.testing.assert_array_equal(graph(*values), eager)


def refuses(error, text, function, *args, **options):
    with pytest.raises(error, match=text):
        function(*args, **options)


def test_refusals():
    x = np.zeros((1, 4, 4, 2))
    refuses(ArgumentError, "pad: bad widths", jj.pad, x, -1)
    refuses(ArgumentError, "pad: bad widths", jj.pad, x, 1.5)
    refuses(ArgumentError, "or 4 pairs", jj.pad, x, [(1, 1), (2, 2)])
    refuses(ArgumentError, "pad: unknown mode", jj.pad, x, 1, "wrap")
    refuses(ShapeError, "pad: axis 0 has no element to repeat", jj.pad, np.zeros((0, 2)), 1, "edge")
    refuses(ArgumentError, "resize: size or scale, one of them", jj.resize, x)
    refuses(ArgumentError, "resize: size or scale, one of them", jj.resize, x, 2, scale=2)
    refuses(ArgumentError, "resize: unknown mode", jj.resize, x, 2, mode="cubic")
    refuses(ArgumentError, "resize: bad size", jj.resize, x, 0)
    refuses(ArgumentError, "resize: bad size", jj.resize, x, scale=0.1)
    refuses(ArgumentError, "resize: bad scale", jj.resize, x, scale=-1)
    refuses(ArgumentError, "resize: bad scale", jj.resize, x, scale=(1, 2, 3))
    refuses(ShapeError, "resize: nothing to resize", jj.resize, np.zeros((1, 0, 4, 2)), 2)
    refuses(ShapeError, "resize: wrong rank", jj.resize, np.zeros((4, 4)), 2)
    refuses(DTypeError, "needs floating-point numbers", jj.resize, x.astype(int), 2, mode="bilinear")


def test_refusals_of_sampling():
    x, grid = np.zeros((1, 4, 4, 2)), np.zeros((1, 3, 3, 2))
    refuses(ArgumentError, "grid_sample: unknown mode", jj.grid_sample, x, grid, "cubic")
    refuses(ArgumentError, "grid_sample: unknown padding_mode", jj.grid_sample, x, grid, padding_mode="wrap")
    refuses(DTypeError, "different dtypes", jj.grid_sample, x, grid.astype("float32"))
    for bad in (grid[..., :1], grid[0], np.zeros((2, 3, 3, 2))):
        refuses(ShapeError, "the grid does not belong to the images", jj.grid_sample, x, bad)
