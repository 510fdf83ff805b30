"""Convolution against its definition written as loops, the identities of the notes, and what it refuses."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.ops.conv import conv_input_grad, conv_p, conv_weight_grad
from juanji.ops.convspec import ConvSpec


def trilinear(x, w, g, spec):
    """T(x, w, g) = Σ x·w·g, one product at a time."""
    total = 0.0
    per_group_in, per_group_out = x.shape[-1] // spec.groups, g.shape[-1] // spec.groups
    for n, y, k in itertools.product(range(x.shape[0]), np.ndindex(*spec.output), np.ndindex(*spec.kernel)):
        place = tuple(
            a * s - low + b * d for a, b, s, low, d in zip(y, k, spec.stride, spec.low, spec.dilation, strict=True)
        )
        if all(0 <= p < size for p, size in zip(place, spec.input, strict=True)):
            for m in range(g.shape[-1]):
                group = m // per_group_out
                channels = slice(group * per_group_in, (group + 1) * per_group_in)
                total += (x[(n, *place)][channels] * w[(*k, slice(None), m)]).sum() * g[(n, *y, m)]
    return total


@st.composite
def specs(draw):
    rank = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(rank))

    limit = 5 if rank < 3 else 3
    return ConvSpec(
        input=sizes(1, limit),
        kernel=sizes(1, 3),
        output=sizes(1, limit - 1),
        stride=sizes(1, 3),
        low=sizes(-2, 3),
        dilation=sizes(1, 2),
        groups=draw(st.integers(1, 2)),
    )


@settings(max_examples=60, deadline=None)
@given(spec=specs(), seed=st.integers(0, 2**31))
def test_three_faces_of_one_form(spec, seed):
    """Any extents, any low padding: the three faces are the three derivatives of T."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *spec.input, 2 * spec.groups))
    w = rng.normal(size=(*spec.kernel, 2, spec.groups))
    g = rng.normal(size=(2, *spec.output, spec.groups))
    expected = trilinear(x, w, g, spec)
    faces = {
        "y": (conv_p(jj.Tensor(x), jj.Tensor(w), spec=spec), g),
        "x": (conv_input_grad(jj.Tensor(w), jj.Tensor(g), spec=spec), x),
        "w": (conv_weight_grad(jj.Tensor(x), jj.Tensor(g), spec=spec), w),
    }
    for face, (value, other) in faces.items():
        assert value.shape == other.shape, face
        assert float((value * other).sum()) == pytest.approx(expected, abs=1e-9), face


def test_example_of_the_notes():
    """001: a 3×3 image and a 2×2 kernel."""
    image, kernel = np.arange(9.0).reshape(3, 3), np.arange(4.0).reshape(2, 2)
    assert jj.correlate(image, kernel, "valid").tolist() == [[19, 25], [37, 43]]
    signal, mean, second = np.array([1.0, 1, -1, 1, 1, 1, -1, 1, 1]), np.full(3, 1 / 3), np.array([1.0, -2, 1])
    np.testing.assert_allclose(jj.convolve(signal, mean, "valid"), np.convolve(signal, mean, "valid"))
    np.testing.assert_allclose(jj.convolve(signal, second, "valid"), [-2, 4, -2, 0, -2, 4, -2])


def test_commutativity_of_wide_convolution():
    """002 eq. 4.1.10: rot180(W) ⊗̃ X = rot180(X) ⊗̃ W."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(5, 4)), rng.normal(size=(2, 3))
    np.testing.assert_allclose(jj.correlate(x, jj.flip(w)), jj.correlate(w, jj.flip(x)))
    np.testing.assert_allclose(jj.convolve(x, w), jj.convolve(w, x))


def test_derivatives_in_the_readings_of_the_notes():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(5, 6)), rng.normal(size=(3, 2))
    y, pull = jj.vjp(lambda x, w: jj.correlate(x, w, "valid"), x, w)
    g = rng.normal(size=y.shape)
    dx, dw = pull(g)
    np.testing.assert_allclose(dw, jj.correlate(x, g, "valid"))  # eq. 4.1.12: ∂f/∂Y ⊗ X
    np.testing.assert_allclose(dx, jj.correlate(g, jj.flip(w), "full"))  # eq. 4.1.14: rot180(W) ⊗̃ ∂f/∂Y


def test_matrix_of_the_notes():
    """002 §4.5.1: C for five inputs and a kernel of three, and its transpose as transposed convolution."""
    w = np.array([1.0, 2.0, 3.0])
    c = np.asarray(jj.conv_matrix(w, (5,)))
    assert c.tolist() == [[1, 2, 3, 0, 0], [0, 1, 2, 3, 0], [0, 0, 1, 2, 3]]
    z = np.array([1.0, -1.0, 2.0])
    up = jj.conv_transpose(z.reshape(1, 3, 1), w.reshape(3, 1, 1)).reshape(-1)
    np.testing.assert_allclose(up, c.T @ z)
    np.testing.assert_allclose(up, jj.correlate(z, jj.flip(w), "full"))
    rng = np.random.default_rng(0)
    image, kernel = rng.normal(size=(4, 5)), rng.normal(size=(2, 3))
    c = np.asarray(jj.conv_matrix(kernel, (4, 5), stride=2, padding=1))
    expected = jj.conv(image.reshape(1, 4, 5, 1), kernel.reshape(2, 3, 1, 1), stride=2, padding=1)
    np.testing.assert_allclose(c @ image.reshape(-1), np.asarray(expected).reshape(-1))


@pytest.mark.parametrize(("m", "k", "d"), [(3, 3, 0), (4, 3, 1), (2, 5, 2)])
def test_length_of_fractionally_strided_convolution(m, k, d):
    """002 §4.5.1: (D + 1)(M − 1) + K, by D zeros between the inputs."""
    z, w = np.arange(1.0, m + 1), np.arange(1.0, k + 1)
    up = jj.conv_transpose(z.reshape(1, m, 1), w.reshape(k, 1, 1), stride=d + 1)
    assert up.shape == (1, (d + 1) * (m - 1) + k, 1)
    spread = np.zeros((d + 1) * (m - 1) + 1)
    spread[:: d + 1] = z
    np.testing.assert_allclose(np.asarray(up).reshape(-1), np.convolve(spread, w))


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("stride", range(1, 4))
def test_sizes(size, kernel, stride):
    x, w = np.ones((1, size, 1)), np.ones((kernel, 1, 1))
    for padding in ("same", "same_lower"):
        y = jj.conv(x, w, stride=stride, padding=padding)
        assert y.shape[1] == -(-size // stride)  # 004 §5.3
    wide = jj.conv(x, w, stride=stride, padding="full")
    assert wide.shape[1] == (size + kernel - 2) // stride + 1  # 002 §4.1.3
    if kernel <= size:
        assert jj.conv(x, w, stride=stride, padding="valid").shape[1] == -(-(size - kernel + 1) // stride)
        assert jj.conv(x, w, stride=stride).shape[1] == (size - kernel) // stride + 1
    up = jj.conv_transpose(x, w, stride=stride, padding="same")
    assert up.shape[1] == size * stride


def test_same_pads_at_the_end():
    x, w = np.ones((1, 2, 1)), np.array([1.0, 10.0]).reshape(2, 1, 1)
    assert np.asarray(jj.conv(x, w, padding="same")).ravel().tolist() == [11, 1]
    assert np.asarray(jj.conv(x, w, padding="same_lower")).ravel().tolist() == [10, 11]
    assert np.asarray(jj.conv(x, w, padding=[(1, 0)])).ravel().tolist() == [10, 11]


def test_one_by_one_is_a_dense_layer():
    """001: a 1×1 convolution is a dense layer at every pixel."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(5, 6)), rng.normal(size=6)
    np.testing.assert_allclose(jj.conv(x, w.reshape(1, 1, 5, 6), b), jj.linear(x, w.T, b))


def test_translation_equivariance():
    rng = np.random.default_rng(0)
    image = np.zeros((1, 12, 12, 1))
    image[0, 3:6, 2:5, 0] = rng.normal(size=(3, 3))
    w = rng.normal(size=(3, 3, 1, 2))
    shifted = np.roll(image, (4, 3), (1, 2))
    y, moved = (np.asarray(jj.conv(x, w, padding="same")) for x in (image, shifted))
    np.testing.assert_allclose(np.roll(y, (4, 3), (1, 2)), moved)


def test_layouts_agree():
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(2, 5, 6, 4)), rng.normal(size=(3, 2, 2, 6)), rng.normal(size=6)
    last = jj.conv(x, w, b, groups=2, stride=2, padding=1)
    first = jj.conv(x.transpose(0, 3, 1, 2), w.transpose(3, 2, 0, 1), b, groups=2, stride=2, padding=1, layout="NCHW")
    np.testing.assert_allclose(np.asarray(first).transpose(0, 2, 3, 1), last)
    z, v = rng.normal(size=(2, 3, 3, 6)), rng.normal(size=(3, 2, 2, 6))
    last = jj.conv_transpose(z, v, groups=2, stride=2, output_padding=1)
    options = {"groups": 2, "stride": 2, "output_padding": 1, "layout": "NCHW"}
    first = jj.conv_transpose(z.transpose(0, 3, 1, 2), v.transpose(3, 2, 0, 1), **options)
    np.testing.assert_allclose(np.asarray(first).transpose(0, 2, 3, 1), last)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
)
def test_fold_is_the_transpose_of_unfold(size, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3))
    patches = jj.unfold(x, kernel, stride=stride, padding=padding)
    other = rng.normal(size=patches.shape)
    back = jj.fold(other, size, stride=stride, padding=padding)
    assert float((patches * other).sum()) == pytest.approx(float((back * x).sum()))


IMAGE, WEIGHTS = np.ones((4, 28, 28, 3)), np.ones((3, 3, 3, 8))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: jj.conv(np.ones((4, 2, 28, 3)), WEIGHTS),
            ShapeError,
            r"conv: the kernel does not fit the input[\s\S]*H=2, W=28[\s\S]*⌊\(2 \+ 0 − 1·2 − 1\)/1⌋ \+ 1 = 0",
        ),
        (lambda: jj.conv(np.ones((1, 0, 5, 3)), WEIGHTS, padding=3), ShapeError, "the input is empty"),
        (lambda: jj.conv(np.ones((4, 3, 28, 28)), WEIGHTS), ShapeError, r"channels do not match[\s\S]*layout=\"NCHW\""),
        (lambda: jj.conv(IMAGE, np.ones((3, 3, 5, 8))), ShapeError, "channels do not match"),
        (lambda: jj.conv(IMAGE, WEIGHTS, groups=2), ArgumentError, r"groups do not divide[\s\S]*3 channels in, 8 out"),
        (lambda: jj.conv(IMAGE, WEIGHTS, groups=0), ArgumentError, "groups do not divide"),
        (lambda: jj.conv(IMAGE, WEIGHTS, stride=0), ArgumentError, r"bad stride[\s\S]*at least 1"),
        (lambda: jj.conv(IMAGE, WEIGHTS, dilation=-1), ArgumentError, "bad dilation"),
        (lambda: jj.conv(IMAGE, WEIGHTS, stride=(1, 2, 3)), ArgumentError, r"bad stride[\s\S]*or 2 of them"),
        (lambda: jj.conv(IMAGE, WEIGHTS, stride=1.5), ArgumentError, "bad stride"),
        (lambda: jj.conv(IMAGE, WEIGHTS, padding=-1), ArgumentError, r"bad padding[\s\S]*at least 0"),
        (lambda: jj.max_pool(IMAGE, 2, padding=-1), ArgumentError, "max_pool: bad padding"),
        (lambda: jj.convolve([1, 2, 3], [1, 2]), DTypeError, "convolve: needs floating-point"),
        (lambda: jj.conv(IMAGE, WEIGHTS, padding="middle"), ArgumentError, "unknown padding"),
        (lambda: jj.conv(IMAGE, WEIGHTS, padding=[(1, 2)]), ArgumentError, r"bad padding[\s\S]*2 pairs"),
        (lambda: jj.conv(IMAGE, WEIGHTS, padding=[(1.5, 1), (1, 1)]), ArgumentError, "bad padding"),
        (lambda: jj.conv(IMAGE, WEIGHTS, groups=1.0), ArgumentError, "groups do not divide"),
        (lambda: jj.conv(IMAGE, WEIGHTS[..., :0]), ShapeError, "there are no channels"),
        (lambda: jj.conv_transpose(IMAGE[:, :0], WEIGHTS.swapaxes(2, 3)), ShapeError, "leaves nothing"),
        (lambda: jj.conv(IMAGE, WEIGHTS, layout="CHWN"), ArgumentError, "unknown layout"),
        (lambda: jj.conv(IMAGE[0], WEIGHTS), ShapeError, "wrong rank"),
        (lambda: jj.conv(IMAGE[0, 0], WEIGHTS), ShapeError, r"wrong rank[\s\S]*axis of size 1"),
        (lambda: jj.conv(IMAGE, np.ones((0, 3, 3, 8))), ArgumentError, "bad kernel size"),
        (lambda: jj.conv(IMAGE.astype("float32"), WEIGHTS), DTypeError, r"different dtypes[\s\S]*astype"),
        (lambda: jj.conv(IMAGE.astype(int), WEIGHTS.astype(int)), DTypeError, "needs floating-point"),
        (lambda: jj.conv(IMAGE, WEIGHTS, np.ones(3)), ShapeError, r"one bias a channel[\s\S]*\(8,\)"),
        (lambda: jj.conv_transpose(IMAGE, WEIGHTS), ShapeError, r"the input has 8 channels"),
        (
            lambda: jj.conv_transpose(IMAGE, WEIGHTS.swapaxes(2, 3), stride=2, output_padding=2),
            ArgumentError,
            "bad output_padding",
        ),
        (
            lambda: jj.conv_transpose(IMAGE, WEIGHTS.swapaxes(2, 3), padding=20),
            ShapeError,
            "the padding leaves nothing",
        ),
        (lambda: jj.correlate(np.ones(3), np.ones(2), "wide"), ArgumentError, "unknown mode"),
        (lambda: jj.correlate(np.ones(3), np.ones((2, 2))), ShapeError, "wrong rank"),
        (lambda: jj.convolve(np.ones((2, 5)), np.ones((5, 2)), "valid"), ShapeError, "does not fit"),
        (lambda: jj.fold(np.ones((1, 3, 3, 2, 2, 1)), 5), ShapeError, "do not belong to this size"),
        (lambda: jj.fold(np.ones((1, 3, 3)), 5), ShapeError, "fold: wrong rank"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert len(caught.value.args) == 1


def test_errors_come_before_anything_runs():
    with pytest.raises(ShapeError, match="does not fit"):
        jj.trace(jj.conv, jj.Tensor.spec((1, 2, 2, 3)), jj.Tensor.spec((3, 3, 3, 8)))


def test_spec_as_a_string():
    spec = ConvSpec((56, 56), (3, 3), (56, 56), (1, 1), (1, 1), (1, 1), 2)
    assert str(spec) == "x56,56 k3,3 y56,56 s1,1 p1,1 d1,1 g2"


def test_options_as_arrays():
    for options in ({"stride": [2, 1]}, {"padding": [1, 0]}, {"padding": [[1, 2], [0, 1]]}, {"dilation": [1, 2]}):
        arrays = {key: np.array(value) for key, value in options.items()}
        np.testing.assert_array_equal(jj.conv(IMAGE, WEIGHTS, **arrays), jj.conv(IMAGE, WEIGHTS, **options))


def test_conv_matrix_takes_one_size_an_axis():
    assert jj.conv_matrix(np.ones(2), 4).shape == (3, 4)
    with pytest.raises(ArgumentError, match="conv_matrix: bad input_shape"):
        jj.conv_matrix(np.ones((2, 2)), (3,))
