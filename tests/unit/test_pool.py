"""Pooling: the notes' examples, windows written as loops, which element wins, and what is refused."""

import itertools
import math

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError

RNG = np.random.default_rng(0)


def image(rows):
    return jj.Tensor(np.array(rows, float)[None, :, :, None])


def plane(y):
    return np.asarray(y)[0, :, :, 0].tolist()


def loops(x, size, stride, padding, reduce):
    """One window at a time (000, 004), without its padding."""
    y = [(n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[1:-1], size, strict=True)]
    result = np.empty((x.shape[0], *y, x.shape[-1]))
    for n, place, c in itertools.product(range(x.shape[0]), np.ndindex(*y), range(x.shape[-1])):
        starts = [i * stride - padding for i in place]
        window = tuple(slice(max(a, 0), a + k) for a, k in zip(starts, size, strict=True))
        result[(n, *place, c)] = reduce(x[(n, *window, c)])
    return result


def test_examples_of_the_notes():
    """001: windows of 2 at stride 1; windows of 3 at stride 3, and at stride 2 with padding 1; channel by channel."""
    nine, sixteen = image(np.arange(9).reshape(3, 3)), image(np.arange(16).reshape(4, 4))
    assert plane(jj.max_pool(nine, 2, 1)) == [[4, 5], [7, 8]]
    assert plane(jj.avg_pool(nine, 2, 1)) == [[2, 3], [5, 6]]
    assert plane(jj.max_pool(sixteen, 3)) == [[10]]
    assert plane(jj.max_pool(sixteen, 3, padding=1, stride=2)) == [[5, 7], [13, 15]]
    both = jj.max_pool(jj.concat([sixteen, sixteen + 1], -1), 3, padding=1, stride=2)
    assert np.asarray(both)[0, :, :, 1].tolist() == [[6, 8], [14, 16]]


def test_gradients_of_the_notes():
    """003 eq. 16–17: the gradient goes to the place of the maximum, or is spread evenly."""
    delta = image([[2, 8], [4, 6]])
    places = image([[1, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])
    _, pull = jj.vjp(lambda x: jj.max_pool(x, 2), places)
    assert plane(pull(delta)[0]) == [[2, 0, 0, 0], [0, 0, 0, 8], [0, 4, 0, 0], [0, 0, 6, 0]]
    _, pull = jj.vjp(lambda x: jj.avg_pool(x, 2), places)
    assert plane(pull(delta)[0]) == [[0.5, 0.5, 2, 2], [0.5, 0.5, 2, 2], [1, 1, 1.5, 1.5], [1, 1, 1.5, 1.5]]


@pytest.mark.parametrize("sizes", [(9,), (6, 7), (4, 3, 5)])
@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (1, 3, 0)])
def test_windows_one_at_a_time(sizes, size, stride, padding):
    x = RNG.normal(size=(2, *sizes, 3))
    kernel = (size,) * len(sizes)
    np.testing.assert_array_equal(jj.max_pool(x, size, stride, padding), loops(x, kernel, stride, padding, np.max))
    means = jj.avg_pool(x, size, stride, padding, count_include_pad=False)
    np.testing.assert_allclose(means, loops(x, kernel, stride, padding, np.mean), 1e-12)
    sums = jj.avg_pool(x, size, stride, padding) * math.prod(kernel)
    np.testing.assert_allclose(sums, loops(x, kernel, stride, padding, np.sum), 1e-12, 1e-12)
    norms = jj.lp_pool(x, 2, size, stride, padding=padding)
    np.testing.assert_allclose(norms, loops(x, kernel, stride, padding, np.linalg.norm), 1e-12)


def test_of_equal_elements_the_first_wins():
    """Not all of them, as the mask of 000 has it: the gradient arrives once."""
    x = jj.Tensor(np.zeros((1, 4, 4, 1)))
    _, index = jj.max_pool(x, 2, return_indices=True)
    assert plane(index) == [[0, 2], [8, 10]]
    assert float(jj.grad(lambda x: jj.max_pool(x, 2).sum())(x).sum()) == 4


def test_padding_never_wins():
    for lowest in (-5.0, -math.inf):
        y, index = jj.max_pool(np.full((1, 3, 3, 1), lowest), 3, 2, 1, return_indices=True)
        assert plane(y) == [[lowest] * 2] * 2
        assert plane(index) == [[0, 1], [3, 4]]
    assert plane(jj.max_pool(np.zeros((1, 2, 2, 1), np.uint8), 2, 1, "same")) == [[0, 0], [0, 0]]


def test_nan_comes_out_as_nan():
    x = np.zeros((1, 4, 4, 1))
    x[0, 1, 1] = math.nan
    for y in (jj.max_pool(x, 2), jj.avg_pool(x, 2), jj.lp_pool(x, 2, 2), jj.adaptive_max_pool(x, 3)):
        assert math.isnan(float(y[0, 0, 0, 0]))
        assert np.isfinite(np.asarray(y)[0, -1, -1]).all()


def test_named_and_uneven_padding():
    x = RNG.normal(size=(1, 5, 6, 2))
    assert jj.max_pool(x, 3, 2, "same").shape == (1, 3, 3, 2)
    assert jj.max_pool(x, 3, 1, "full").shape == (1, 7, 8, 2)
    assert jj.avg_pool(x, 2, 1, [(1, 0), (0, 1)]).shape == (1, 5, 6, 2)
    corner = jj.avg_pool(np.ones((1, 2, 2, 1)), 2, 1, [(1, 0), (0, 1)])
    assert plane(corner) == [[0.5, 0.25], [1, 0.5]]


def test_ceil_mode_counts_padding_but_not_what_hangs_over():
    x = image(np.ones((3, 3)))
    assert plane(jj.avg_pool(x, 2, ceil_mode=True)) == [[1, 1], [1, 1]]
    # One row of padding is counted, the row beyond it is not: 3·1/(3·2).
    assert plane(jj.avg_pool(image(np.ones((4, 3))), 3, 3, (1, 0), ceil_mode=True)) == [[2 / 3], [2 / 3]]


def test_unpooling_puts_the_maxima_back():
    x = image([[1, 5, 2, 0], [3, 4, 6, 1], [7, 0, 1, 2], [2, 1, 3, 8]])
    y, index = jj.max_pool(x, 2, return_indices=True)
    back = [[0, 5, 0, 0], [0, 0, 6, 0], [7, 0, 0, 0], [0, 0, 0, 8]]
    assert plane(jj.max_unpool(y, index, 2)) == back
    y, index = jj.max_pool(x, 3, 1, return_indices=True)
    assert plane(y) == [[7, 6], [7, 8]]
    assert plane(jj.max_unpool(y, index, 3, 1)) == [[0] * 4, [0, 0, 6, 0], [7, 0, 0, 0], [0, 0, 0, 8]]


def test_adaptive_bins():
    """5 elements in 3 bins: 0–1, 1–3, 3–4."""
    x = np.array([4.0, 0, 2, 6, 8]).reshape(1, 5, 1)
    assert np.asarray(jj.adaptive_avg_pool(x, 3)).ravel().tolist() == [2, 8 / 3, 7]
    y, index = jj.adaptive_max_pool(x, 3, return_indices=True)
    assert np.asarray(y).ravel().tolist() == [4, 6, 8]
    assert np.asarray(index).ravel().tolist() == [0, 3, 4]
    assert np.asarray(jj.global_avg_pool(x)).tolist() == [[[4]]]
    assert np.asarray(jj.global_max_pool(x)).tolist() == [[[8]]]


def test_where_the_norm_is_zero_so_is_the_gradient():
    gradient = jj.grad(lambda x: jj.lp_pool(x, 2, 2).sum())(np.zeros((1, 2, 2, 1)))
    assert np.asarray(gradient).tolist() == np.zeros((1, 2, 2, 1)).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtype_is_kept(dtype):
    x = RNG.normal(size=(1, 6, 5, 2)).astype(dtype)
    for y in (
        jj.max_pool(x, 2),
        jj.avg_pool(x, 3, 2, 1, count_include_pad=False),
        jj.lp_pool(x, 2, 2),
        jj.adaptive_avg_pool(x, 4),
        jj.adaptive_max_pool(x, 4),
        jj.global_avg_pool(x),
        jj.max_unpool(*jj.max_pool(x, 2, return_indices=True), 2, output_size=(6, 5)),
    ):
        assert y.dtype == dtype


def test_pooling_is_one_named_node():
    x = jj.Tensor.spec((1, 8, 8, 3))
    graph = jj.trace(lambda x: jj.avg_pool(jj.max_pool(x, 3, 2, 1), 2), x)
    assert [node.name for node in graph.nodes] == ["max_pool", "avg_pool"]
    assert graph.outputs.shape == (1, 2, 2, 3)
    indices = jj.trace(lambda x: jj.adaptive_max_pool(x, 3, return_indices=True), x).outputs[1]
    assert (indices.shape, indices.dtype) == ((1, 3, 3, 3), "int64")


def test_derivatives_of_order_two():
    x = RNG.permutation(60).reshape(1, 5, 6, 2) / 10 + 0.1
    jj.check_grads(lambda x: jj.max_pool(x, 3, 2, 1) ** 2, [x])
    jj.check_grads(lambda x: jj.avg_pool(x * x, 3, 2, 1, ceil_mode=True, count_include_pad=False), [x])
    jj.check_grads(lambda x: jj.lp_pool(x, 3, 2), [x])
    jj.check_grads(lambda x: jj.adaptive_max_pool(x * x, 4), [x])
    jj.check_grads(lambda x: jj.adaptive_avg_pool(x * x, 4), [x])


def refuses(error, text, function, *args, **options):
    with pytest.raises(error, match=text):
        function(*args, **options)


def test_refusals():
    x = jj.Tensor(np.zeros((1, 4, 4, 2)))
    refuses(ShapeError, "max_pool: the kernel does not fit the input", jj.max_pool, x, 5)
    refuses(ShapeError, "avg_pool: a window lies in the padding alone", jj.avg_pool, x, 2, padding=2)
    refuses(ShapeError, "every window covers at least one input", jj.max_pool, x, 2, 1, ((0, 3), (0, 0)))
    refuses(ShapeError, "max_pool: wrong rank", jj.max_pool, np.zeros((4, 4)), 2)
    refuses(ArgumentError, "max_pool: bad size", jj.max_pool, x, 0)
    refuses(ArgumentError, "avg_pool: bad size", jj.avg_pool, x, (2, 2, 2))
    refuses(ArgumentError, "max_pool: bad stride", jj.max_pool, x, 2, 0)
    refuses(ArgumentError, "max_pool: unknown layout", jj.max_pool, x, 2, layout="CHWN")
    refuses(ArgumentError, "max_pool: unknown padding", jj.max_pool, x, 2, 1, "some")
    refuses(ArgumentError, "lp_pool: there is no norm 0", jj.lp_pool, x, 0, 2)
    refuses(ArgumentError, "adaptive_avg_pool: bad output_size", jj.adaptive_avg_pool, x, 0)
    refuses(ShapeError, "adaptive_max_pool: nothing to pool", jj.adaptive_max_pool, np.zeros((1, 0, 4, 2)), 1)
    refuses(DTypeError, "max_pool: needs numbers", jj.max_pool, np.zeros((1, 4, 4, 1), bool), 2)
    refuses(DTypeError, "needs floating-point numbers", jj.avg_pool, np.zeros((1, 4, 4, 1), int), 2)


def test_refusals_of_unpooling():
    y, index = jj.max_pool(np.zeros((1, 4, 4, 2)), 2, return_indices=True)
    refuses(ShapeError, "an index for each element", jj.max_unpool, y, index[:, :1], 2)
    refuses(ShapeError, "an index points outside the output", jj.max_unpool, y, index, 2, output_size=3)
    refuses(DTypeError, "indices are whole numbers", jj.max_unpool, y, y, 2)
    gather = jj.ops.pool.window_gather
    refuses(ShapeError, "the indices belong to other images", gather, y, index[..., :1])


def test_errors_name_the_pooling():
    with pytest.raises(DTypeError, match="avg_pool: needs floating-point"):
        jj.avg_pool(np.ones((1, 4, 1), int), 2)
