"""What a plan looks at when it is called: values that the definitions check, shapes, dtypes, containers, modes."""

import numpy as np
import pytest

import juanji as jj
from juanji import nn, ops
from juanji.engine import compile
from juanji.errors import ArgumentError, DTypeError, JuanjiError, TraceError
from juanji.optim import SGD
from juanji.tensor import Tensor

RNG = np.random.default_rng(0)
X, IMAGES = (RNG.random(shape).astype(np.float32) for shape in ((3, 4), (2, 3, 3, 1)))


class Rows(nn.Module):
    def forward(self, x, index):
        return ops.take(x, index)


class Net(nn.Module):
    def __init__(self):
        self.rows = Rows()

    def forward(self, x, index):
        return self.rows(x, index) * 2


def graded(x, labels):
    return jj.grad(lambda x: ops.cross_entropy(x, labels, label_smoothing=0.1))(x)


# A function, arguments that go in, and others of the same shapes that do not.
VALUES = {
    "take": (ops.take, (X, np.array([0, 2])), (X, np.array([0, 3]))),
    "take, from the end": (ops.take, (X, np.array([-3, 2])), (X, np.array([-4, 2]))),
    "take, along the other axis": (lambda x, i: ops.take(x, i, 1), (X, np.array([3])), (X, np.array([4]))),
    "getitem": (lambda x, i: x[i], (X, np.array([2], np.uint8)), (X, np.array([3], np.uint8))),
    "reshaped and cast": (
        lambda x, i: x[i.reshape(-1).astype("int32")],
        (X, np.array([[2, 1]])),
        (X, np.array([[2, 9]])),
    ),
    "cross_entropy": (ops.cross_entropy, (X, np.array([0, 3, -100])), (X, np.array([0, 4, 1]))),
    "cross_entropy, differentiated": (graded, (X, np.array([0, 3, 2])), (X, np.array([0, -1, 1]))),
    "nll_loss": (
        lambda x, y: ops.nll_loss(x, y, ignore_index=7),
        (X, np.array([0, 3, 7], np.int32)),
        (X, np.array([0, 3, 8], np.int32)),
    ),
    "max_unpool": (
        lambda x, i: ops.max_unpool(x, i, 2, output_size=(5, 5)),
        (IMAGES, np.arange(18).reshape(IMAGES.shape)),
        (IMAGES, np.arange(18).reshape(IMAGES.shape) + 8),
    ),
    "in a layer": (Net(), (X, np.array([1, 2])), (X, np.array([1, 5]))),
}


@pytest.mark.parametrize("name", VALUES)
def test_the_door_asks_for_what_the_definitions_ask_for(name):
    function, good, bad = VALUES[name]
    fast = compile(function)
    with pytest.raises(JuanjiError) as wanted:
        function(*map(Tensor, bad))
    for _ in range(2):  # when the plan is made, and when it is there
        with pytest.raises(type(wanted.value)) as caught:
            fast(*bad)
        assert str(caught.value) == str(wanted.value)
        np.testing.assert_allclose(fast(*good), function(*map(Tensor, good)), rtol=1e-5, atol=1e-6)


def test_a_refused_step_writes_nothing():
    model = nn.Linear(4, 3)
    optimizer = SGD(model, lr=0.1)

    @compile
    def step(x, y):
        optimizer.update(model, jj.grad(lambda m: ops.cross_entropy(m(x), y))(model))
        return y

    step(X, np.array([0, 1, 2]))
    before = np.asarray(model.weight)
    with pytest.raises(JuanjiError, match="label 3, 3 classes"):
        step(X, np.array([0, 1, 3]))
    assert int(optimizer.updates) == 1
    assert (np.asarray(model.weight) == before).all()


def test_probabilities_are_not_labels():
    target = np.full((3, 4), 0.25, np.float32)
    np.testing.assert_allclose(
        compile(ops.cross_entropy)(X, target), ops.cross_entropy(Tensor(X), Tensor(target)), rtol=1e-6
    )


def test_there_is_a_plan_for_each_set_of_shapes_dtypes_and_other_arguments():
    traces = []

    @compile
    def function(x, power):
        traces.append((x.shape, x.dtype.name, power))
        return x**power

    calls = [(X, 2), (X.T, 2), (X.astype("float64"), 2), (X, 3), (X, 2.0)]
    for x, power in calls * 2:
        np.testing.assert_allclose(function(x, power), x**power, rtol=1e-6)
    assert traces == [(x.shape, x.dtype.name, power) for x, power in calls]


CONTAINERS = [
    (lambda xs: xs[0] - xs[1], ([X, 2 * X],), ((X, 2 * X),)),
    (lambda xs: sum(x * 0.5 for x in xs), ([X],), ([X, X],), ((X, (X + 1)),)),
    (lambda d: d["a"] - d["b"], ({"a": X, "b": 2 * X},), ({"b": X, "a": 2 * X},)),
    (lambda x, y: {"x": x, "y": [y]}, (X, None), (None, X), (X, X + 1)),
    (lambda x, part: x[part] * 2, (X, slice(0, 2)), (X, slice(1, 3)), (X, slice(None, None, -1))),
    (lambda x: x * 2, (X[::-1, ::2],), (np.asfortranarray(X),), (np.broadcast_to(X[:1], (5, 4)),), (X[1:],)),
]


@pytest.mark.parametrize("function_and_calls", CONTAINERS)
def test_containers_and_views(function_and_calls):
    """Each has a plan of its own where the same tensors stand in other places."""
    function, *calls = function_and_calls
    fast = compile(function)
    for args in calls * 2:
        want = function(*jj.tree.map(lambda leaf: Tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, args))
        got, want = (list(jj.tree.leaves(result)) for result in (fast(*args), want))
        for x, y in zip(got, want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.parametrize(
    ("argument", "error", "text"),
    [
        (Tensor.spec((3, 4)), TraceError, "has no value"),
        (X.astype(np.complex64), DTypeError, "element type is not supported\n  received  complex64"),
        (np.array(["a"]), DTypeError, "element type is not supported"),
        ({1, 2}, ArgumentError, "compile: an argument cannot be told from others of its kind\n  received  a set"),
    ],
)
def test_arguments_that_cannot_come_in(argument, error, text):
    fast = compile(lambda x, y: y * 2)
    for _ in range(2):
        with pytest.raises(error, match=text):
            fast(argument, X)
    np.testing.assert_allclose(fast(X, X), 2 * X)


def test_another_mode_is_another_plan():
    layer = nn.Dropout(0.5)
    fast = compile(layer)
    assert (np.asarray(fast(X)) == 0).any()
    layer.eval()
    assert (np.asarray(fast(X)) == X).all()
    layer.train()
    assert (np.asarray(fast(X)) == 0).any()


def test_another_precision_is_another_plan():
    model = nn.Linear(4, 2)
    fast = compile(lambda x: ops.matmul(x.astype(model.weight.dtype), model.weight.T))
    for dtype in ("float32", "float64", "float32"):
        model.astype(dtype)
        result = fast(X)
        assert result.dtype == dtype
        np.testing.assert_allclose(result, X @ np.asarray(model.weight).T, rtol=1e-5)
