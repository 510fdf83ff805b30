"""What moves elements, against NumPy: reshaping, joining, indexing; and that gradients find their way back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.testing import check_grads

X = np.arange(24.0).reshape(2, 3, 4)


def index_gradient(x, index):
    """How often each element was taken."""
    counts = np.zeros_like(x)
    np.add.at(counts, index, 1)
    return counts


@st.composite
def basic(draw):
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    index = draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    return np.arange(float(np.prod(shape))).reshape(shape), index


@settings(max_examples=150, deadline=None)
@given(example=basic())
def test_basic_indexing(example):
    x, index = example
    expected = np.asarray(x[index])
    y = jj.Tensor(x)[index]
    assert y.shape == expected.shape
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(jj.grad(lambda x: x[index].sum())(x), index_gradient(x, index))


@st.composite
def integer(draw):
    """An array of indices for the first axes, or with slices before or after."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    count = draw(st.integers(1, len(shape)))
    arrays = draw(hnp.integer_array_indices(shape[:count], result_shape=hnp.array_shapes(max_dims=2, max_side=3)))
    return np.arange(float(np.prod(shape))).reshape(shape), arrays


@settings(max_examples=60, deadline=None)
@given(example=integer())
def test_indexing_by_arrays(example):
    x, arrays = example
    np.testing.assert_array_equal(jj.Tensor(x)[arrays], x[arrays])
    np.testing.assert_array_equal(jj.grad(lambda x: x[arrays].sum())(x), index_gradient(x, arrays))


@pytest.mark.parametrize(
    "index",
    [
        (slice(None), np.array([0, -1, 0])),
        (Ellipsis, np.array([[3, 0], [1, 1]])),
        (slice(None), np.array([0, 2]), np.array([1, -1])),
        (0, np.array([2, 1])),
        (np.array([1, 0]), 2),
        (slice(0, 1), np.array([2, 2]), slice(None, None, -2)),
        (None, np.array([1, 0])),
        (X > 11),
        (slice(None), np.array([True, False, True])),
        [1, 0],
        np.array(1),
        (slice(5, 2),),
        (slice(-1, None, -1), slice(None), slice(3, 0, -2)),
        [],
        ([-1, 0], [-2, 1]),
        (Ellipsis, np.array([True, False, False, True])),
    ],
    ids=str,
)
def test_mixed_indexing(index):
    expected = X[index]
    np.testing.assert_array_equal(jj.Tensor(X)[index], expected)
    assert jj.Tensor(X)[index].shape == expected.shape
    np.testing.assert_array_equal(jj.grad(lambda x: x[index].sum())(X), index_gradient(X, index))
    check_grads(lambda x: x[index] ** 2, [X])


def test_flatten_of_what_is_flat():
    assert jj.flatten(np.ones(3)).shape == (3,)
    assert jj.flatten(np.ones((2, 3))).shape == (2, 3)
    assert jj.flatten(np.ones((2, 3, 4)), 0).shape == (24,)


def test_indexing_by_a_tensor_while_tracing():
    graph = jj.trace(lambda x, i: x[i], jj.Tensor(X), jj.Tensor([1, 0]))
    np.testing.assert_array_equal(graph(X, np.array([0, 0])), X[[0, 0]])


def test_indexing_by_two_tensors_while_tracing():
    i, j = np.array([0, -1]), np.array([-1, -2], np.int32)
    np.testing.assert_array_equal(jj.trace(lambda x, i, j: x[i, j], X, i, j)(X, i, j), X[i, j])


def test_indexing_by_truth_values_inside_a_transform():
    assert jj.grad(lambda x: x[x > 1].sum())(np.arange(4.0)).tolist() == [0, 0, 1, 1]


def test_flatten_counts_beyond_64_bits():
    graph = jj.trace(jj.flatten, jj.Tensor.spec((1, 2**30, 2**30, 2**30)))
    assert graph.outputs.shape == (1, 2**90)


def test_indexing_refused():
    x = jj.Tensor(X)
    for index in ([0], [3]), [-3], (slice(None), [-4], [0]):
        with pytest.raises(ShapeError, match="an index points outside"):
            x[index]
    for index in (X[0] > 1), (slice(None), np.array([True, False])), np.array([True, False, False]), True:
        with pytest.raises(ShapeError, match="truth values do not fit the axes"):
            x[index]
    with pytest.raises(IndexError, match=r"index 3 is outside axis 1 of shape \(2, 3, 4\)"):
        x[0, 3]
    with pytest.raises(ShapeError, match=r"too many indices[\s\S]*4 indices"):
        x[0, 0, 0, 0]
    with pytest.raises(ShapeError, match=r"take: an index points outside[\s\S]*2 … 7"):
        jj.take(X, np.array([2, 7]), 1)
    with pytest.raises(DTypeError, match="take: indices are whole numbers"):
        jj.take(X, np.array([0.5]))
    with pytest.raises(ArgumentError, match="neighbouring axes"):
        x[np.array([0, 1]), :, np.array([0, 1])]


def test_a_tensor_is_iterable():
    assert [row.tolist() for row in jj.Tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=3))
def test_axes_moved(data, shape):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    axis = st.integers(-x.ndim, x.ndim - 1)
    order = data.draw(st.permutations(range(x.ndim)))
    source, target = data.draw(axis), data.draw(axis)
    np.testing.assert_array_equal(jj.transpose(x, *order), x.transpose(order))
    np.testing.assert_array_equal(jj.moveaxis(x, source, target), np.moveaxis(x, source, target))
    np.testing.assert_array_equal(jj.flip(x, source), np.flip(x, source))
    np.testing.assert_array_equal(jj.flip(x), np.flip(x))
    np.testing.assert_array_equal(jj.expand_dims(x, source), np.expand_dims(x, source))
    np.testing.assert_array_equal(jj.concat([x, x], source), np.concatenate([x, x], source))
    np.testing.assert_array_equal(jj.stack([x, x], source), np.stack([x, x], source))
    np.testing.assert_array_equal(jj.squeeze(x), np.squeeze(x))
    np.testing.assert_array_equal(jj.cumsum(x, source), np.cumsum(x, source))
    check_grads(lambda x: jj.transpose(x, *order) * jj.transpose(jj.flip(x, source), *order), [x])


@settings(max_examples=60, deadline=None)
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
def test_broadcasting(shapes):
    x = np.ones(shapes.input_shapes[0])
    y, pull = jj.vjp(lambda x: jj.broadcast_to(x, shapes.result_shape), x)
    assert y.shape == shapes.result_shape
    (gradient,) = pull(np.ones(y.shape))
    np.testing.assert_array_equal(gradient, np.full(x.shape, y.size / max(x.size, 1)))


def test_shapes_and_axes_as_arrays():
    x = jj.Tensor(X)
    assert x.reshape(np.array([6, 4])).shape == (6, 4)
    assert x.transpose(np.array([0, 2, 1])).shape == (2, 4, 3)
    assert jj.broadcast_to(1.0, np.array([2, 3])).shape == (2, 3)
    assert jj.broadcast_to(1.0, 3).shape == (3,)
    with pytest.raises(TypeError, match="float"):
        x.reshape(6.5, 4)


def test_reshape():
    x = jj.Tensor(X)
    assert x.reshape(4, -1).shape == x.reshape((4, 6)).shape == (4, 6)
    assert x.flatten().shape == (2, 12)
    assert jj.flatten(x, 0).shape == (24,)
    assert jj.reshape(np.ones((0, 3)), 3, 0).shape == (3, 0)
    np.testing.assert_array_equal(x.T, X.T)


def test_refused():
    for sizes in [(5, -1), (-1, -1), (2, 3), (-2, -12)]:
        with pytest.raises(ShapeError, match=r"reshape: the sizes do not fit[\s\S]*24 elements"):
            jj.reshape(X, *sizes)
    with pytest.raises(ShapeError, match="transpose: every axis once"):
        jj.transpose(X, 0, 0, 1)
    with pytest.raises(ShapeError, match="transpose: there is no axis 3"):
        jj.transpose(X, 0, 1, 3)
    with pytest.raises(ShapeError, match="squeeze: axis 1 is not of size 1"):
        jj.squeeze(X, 1)
    with pytest.raises(ShapeError, match=r"concat: the shapes differ off the axis[\s\S]*\(2, 3, 4\), \(2, 2, 4\)"):
        jj.concat([X, X[:, :2]], 0)
    with pytest.raises(ArgumentError, match="concat: nothing to join"):
        jj.concat([])
    with pytest.raises(DTypeError, match="concat: the tensors have different dtypes"):
        jj.concat([X, X.astype("float32")])
