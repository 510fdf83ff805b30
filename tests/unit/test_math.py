"""Arithmetic, functions of one variable, comparisons and reductions against NumPy; how operands come together."""

import math

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import juanji as jj
from juanji.errors import DTypeError, ShapeError
from juanji.testing import check_grads

DTYPES = st.sampled_from(["float32", "float64", "int64", "uint8", "int32"])


@st.composite
def pairs(draw, dtypes=DTYPES, low=0, high=5):
    """Two arrays of one dtype whose shapes broadcast."""
    shapes = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0)).input_shapes
    dtype = np.dtype(draw(dtypes))
    elements = st.integers(low, high).map(dtype.type)
    return [draw(hnp.arrays(dtype, shape, elements=elements)) for shape in shapes]


def same(mine, theirs):
    assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(mine, theirs, 1e-6)


BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}


@settings(max_examples=60, deadline=None)
@given(pair=pairs(), name=st.sampled_from(sorted(BINARY)))
def test_two_operands(pair, name):
    same(getattr(jj, name)(*pair), np.asarray(BINARY[name](*pair)))


UNARY = {
    "neg": np.negative, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "round": np.round,
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos,
    "tanh": np.tanh, "square": np.square, "isfinite": np.isfinite, "erf": scipy.special.erf,
    "sigmoid": scipy.special.expit, "softplus": lambda x: np.logaddexp(0, x), "relu": lambda x: np.maximum(x, 0),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UNARY)
def test_one_operand(name, dtype):
    x = np.array([-80, -1.5, -0.5, 0, 0.25, 0.5, 1, 2.5, 80], dtype)
    with np.errstate(all="ignore"):
        expected = UNARY[name](x)
    y = getattr(jj, name)(x)
    assert y.dtype == expected.dtype
    np.testing.assert_allclose(y, expected, 1e-6 if dtype == "float32" else 1e-12)


@settings(max_examples=20, deadline=None)
@given(pair=pairs(dtypes=st.just("float64"), low=1), name=st.sampled_from(["add", "sub", "mul", "div", "pow"]))
def test_gradients_of_broadcast_operands(pair, name):
    check_grads(getattr(jj, name), pair)


def test_truth():
    a, b = jj.Tensor([True, True, False]), jj.Tensor([True, False, False])
    assert (a & b).tolist() == [True, False, False]
    assert (a | b).tolist() == [True, True, False]
    assert (~a).tolist() == [False, False, True]
    with pytest.raises(DTypeError, match=r"logical_and: not for this dtype[\s\S]*x > 0"):
        jj.logical_and(np.ones(2), np.ones(2))


# Operands


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", [2, 2.5, True, np.float64(2.5), np.float32(2.5), np.int64(3)])
def test_numbers_take_the_dtype_of_the_rest(number, dtype):
    x = jj.Tensor([1.0, 2.0], dtype)
    for y in (x + number, number + x, jj.where(x > number, x, number), jj.maximum(number, x)):
        assert y.dtype == dtype
    np.testing.assert_allclose(number / x, [number, number / 2])


def test_numbers_among_themselves():
    assert float(jj.add(1, 2.5)) == 3.5
    y = jj.where(np.array([True, False]), 1, 0.5)
    assert (y.dtype, y.tolist()) == ("float64", [1, 0.5])
    assert jj.add(1, 2).dtype == "int64"


def test_arrays_and_tensors_agree_in_dtype():
    x = jj.Tensor([1.0, 2.0], "float32")
    assert (np.ones(2, np.float32) + x).dtype == "float32"
    for other in (np.ones(2), jj.Tensor([1, 2]), np.array(1.0)):
        with pytest.raises(DTypeError, match=r"mul: the tensors have different dtypes[\s\S]*nothing is converted"):
            x * other


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: jj.Tensor([1, 2]) + 0.5, "add: a fraction with whole numbers"),
        (lambda: jj.Tensor([1, 2]) / 2, "div: needs floating-point numbers"),
        (lambda: jj.Tensor(np.uint8([1, 2])) + 300, r"add: 300 does not fit the dtype of the rest[\s\S]*uint8"),
        (lambda: jj.Tensor(np.uint8([1, 2])) - (-1), "sub: -1 does not fit"),
        (lambda: jj.Tensor([1.0]) + 1j, "this element type is not supported"),
        (lambda: jj.Tensor([True]) * 2, "mul: not for this dtype"),
        (lambda: -jj.Tensor(np.uint8([1])), "neg: not for this dtype"),
        (lambda: jj.exp(1), "exp: needs floating-point numbers"),
        (lambda: jj.where(np.ones(2), 1.0, 2.0), "where: the condition must be true or false"),
        (lambda: jj.Tensor([1.0]).astype("float16"), "astype: this element type is not supported"),
    ],
)
def test_dtypes_refused(call, text):
    with pytest.raises(DTypeError, match=text):
        call()


def test_shapes_refused():
    with pytest.raises(ShapeError, match=r"add: the shapes do not broadcast[\s\S]*\(2, 3\) and \(2,\)"):
        jj.add(np.ones((2, 3)), np.ones(2))
    with pytest.raises(ShapeError, match="broadcast_to"):
        jj.broadcast_to(np.ones(2), (3,))


# Derivatives at special places


def test_ties_share_the_gradient():
    x = np.array([1.0, 2.0])
    for function in (jj.maximum, jj.minimum):
        for gradient in jj.grad(lambda a, b, f=function: f(a, b).sum(), (0, 1))(x, x):
            assert gradient.tolist() == [0.5, 0.5]


def test_kinks_at_zero():
    for function in (jj.abs, jj.relu, jj.sign):
        assert float(jj.grad(function)(0.0)) == 0


@pytest.mark.parametrize("exponent", [0, 1, 2, 3])
def test_powers_at_zero(exponent):
    expected = float(exponent == 1)
    assert float(jj.grad(lambda x: x**exponent)(0.0)) == expected
    assert float(jj.grad(lambda x: jj.pow(x, np.array(float(exponent))))(0.0)) == expected


def test_negative_base():
    assert float(jj.grad(lambda x: x**3)(-2.0)) == 12
    assert float(jj.grad(lambda x: x**2)(-2.0)) == -4


def test_the_side_not_taken_spoils_nothing():
    gradient = jj.grad(lambda x: jj.where(x > 0, jj.sqrt(jj.where(x > 0, x, 1.0)), 0.0).sum())(np.array([0.0, 4.0]))
    assert gradient.tolist() == [0, 0.25]
    assert jj.grad(lambda x: jj.where(x > 0, x, 0.0).sum())(np.array([np.nan, 1.0])).tolist() == [0, 1]


def test_clip():
    x = np.array([-2.0, 0.5, 2.0])
    assert jj.clip(x, -1, 1).tolist() == [-1, 0.5, 1]
    assert jj.clip(x, low=0).tolist() == [0, 0.5, 2]
    assert jj.grad(lambda x: jj.clip(x, -1, 1).sum())(x).tolist() == [0, 1, 0]


# Reductions


@st.composite
def arrays_and_axes(draw, dtype="float64"):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, max_side=3))
    x = draw(hnp.arrays(dtype, shape, elements=st.integers(0 if dtype == "uint8" else -3, 3).map(np.dtype(dtype).type)))
    axes = draw(st.lists(st.integers(-len(shape), len(shape) - 1), unique_by=lambda a: a % len(shape))) if shape else []
    return x, draw(st.sampled_from([None, tuple(axes), *axes]))


REDUCTIONS = {name: getattr(np, name) for name in ("sum", "mean", "var", "std", "max", "min", "prod")}
REDUCTIONS["logsumexp"] = lambda x, axis, keepdims: np.log(np.exp(x).sum(axis, keepdims=keepdims))


@settings(max_examples=150, deadline=None)
@given(example=arrays_and_axes(), keepdims=st.booleans(), name=st.sampled_from(sorted(REDUCTIONS)))
def test_reductions(example, keepdims, name):
    x, axis = example
    y = getattr(jj, name)(x, axis, keepdims=keepdims)
    expected = np.asarray(REDUCTIONS[name](x, axis=axis, keepdims=keepdims))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, 1e-12, 1e-12)


@settings(max_examples=30, deadline=None)
@given(example=arrays_and_axes(), name=st.sampled_from(["sum", "mean", "var", "logsumexp"]))
def test_gradients_of_reductions(example, name):
    x, axis = example
    check_grads(lambda x: getattr(jj, name)(x, axis), [x])


@pytest.mark.parametrize("factors", [[], [0.0], [2.0, 0.0, 3.0], [0.0, 2.0, 0.0, 3.0], [0.0, 0.0, 0.0], [1.5, -2, 3]])
def test_gradient_of_a_product_with_zeros(factors):
    x = np.array(factors)
    expected = [np.prod(np.delete(x, i)) for i in range(len(x))]
    assert jj.grad(jj.prod)(x).tolist() == expected
    check_grads(jj.prod, [x])


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int64", "uint32"])
def test_extremes_of_every_dtype(dtype):
    x = np.array([[3, 1, 2], [1, 3, 3]], dtype)
    for name in ("max", "min", "argmax", "argmin"):
        for axis in (None, 0, 1):
            y, expected = getattr(jj, name)(x, axis), np.asarray(getattr(np, name)(x, axis))
            assert y.dtype == expected.dtype
            np.testing.assert_array_equal(y, expected)


def test_extremes_at_the_end_of_the_range():
    x = np.array([-128, 127, 0], np.int8)
    assert (int(jj.min(x)), int(jj.argmin(x))) == (-128, 0)


def test_ties_go_to_the_first():
    x = np.array([[2.0, 5.0, 5.0], [5.0, 1.0, 1.0]])
    assert jj.grad(lambda x: jj.max(x, 1).sum())(x).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert jj.grad(lambda x: jj.min(x, 1).sum())(x).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert jj.grad(jj.max)(x).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert jj.argmax(x, 1).tolist() == [1, 0]


def test_nothing_to_reduce():
    x = np.ones((0, 3))
    assert jj.sum(x, 0).tolist() == [0, 0, 0]
    assert jj.prod(x, 0).tolist() == [1, 1, 1]
    for name in ("mean", "var", "max", "argmax", "min", "argmin"):
        with pytest.raises(ShapeError, match=f"{name}: nothing to reduce"):
            getattr(jj, name)(x, 0)
    with pytest.raises(ShapeError, match="sum: there is no axis 2"):
        jj.sum(x, 2)
    with pytest.raises(DTypeError, match="mean: needs floating-point"):
        jj.mean(np.arange(3))
    with pytest.raises(DTypeError, match="min: not for this dtype"):
        jj.min(np.array([True]))


def test_logsumexp_does_not_overflow():
    assert float(jj.logsumexp(np.array([1e4, 1e4]))) == 1e4 + math.log(2)
    np.testing.assert_allclose(jj.grad(jj.logsumexp)(np.array([1e4, 1e4])), [0.5, 0.5])


def test_where_refuses_shapes_that_do_not_broadcast():
    with pytest.raises(ShapeError, match=r"where: the shapes do not broadcast[\s\S]*\(3,\) and \(2,\)"):
        jj.where(np.ones(3, bool), np.ones(2), 0.0)


def test_logsumexp_of_infinities():
    rows = np.array([[np.inf, 0], [np.inf, np.inf], [-np.inf, 0], [-np.inf, -np.inf]])
    assert jj.logsumexp(rows, 1).tolist() == [np.inf, np.inf, 0, -np.inf]


def test_counting_truth():
    assert int(jj.sum(np.array([True, False, True]))) == 2


def test_sums_of_whole_numbers_do_not_overflow():
    x = np.full(10, 200, np.uint8)
    assert int(jj.sum(x)) == 2000
    assert jj.cumsum(x).tolist() == np.cumsum(x).tolist()
    assert int(jj.prod(x[:4])) == 200**4


def test_std_of_equal_numbers_has_derivative_zero():
    assert jj.grad(lambda x: jj.std(x, 1).sum())(np.ones((2, 3))).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_axes_may_be_numpy_integers_but_not_twice_the_same():
    x = np.ones((2, 3))
    assert jj.sum(x, np.int64(0)).shape == (3,)
    assert jj.max(x, np.array([0, 1])).shape == ()
    with pytest.raises(ShapeError, match=r"sum: every axis once[\s\S]*\(0, -2\)"):
        jj.sum(x, (0, -2))
