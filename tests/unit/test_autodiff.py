"""Both modes of differentiation, any order, over containers and modules."""

import gc
import math

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError, UnknownNameError
from juanji.graph import Linear, Pointwise, Primitive


def sigmoid_of_notes(x, w, b):
    return 1 / (jj.exp(-(w * x + b)) + 1)  # 002 eq. 3.1


def test_example_of_the_notes():
    for mode in (
        jj.grad(sigmoid_of_notes, argnums=(1, 2))(1.0, 0.0, 0.0),
        jj.vjp(sigmoid_of_notes, 1.0, 0.0, 0.0)[1](1.0)[1:],
        [jj.jvp(sigmoid_of_notes, (1.0, 0.0, 0.0), t)[1] for t in [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]],
    ):
        assert [float(g) for g in mode] == [0.25, 0.25]


def test_table_of_the_notes():
    graph = jj.trace(sigmoid_of_notes, *map(jj.Tensor, (1.0, 0.0, 0.0)))
    values = [jj.Tensor(v) for v in (1.0, 0.0, 0.0)]
    forwards = graph.table(*values, tangents=(0, 1, 0)).splitlines()
    assert [line.split()[0] for line in forwards[4:]] == ["h1", "h2", "h3", "h4", "h5", "h6"]
    assert [float(line.split()[-1]) for line in forwards[1:]] == [0, 1, 0, 1, 1, -1, -1, -1, 0.25]
    backwards = graph.table(*values, cotangent=1).splitlines()
    assert [float(line.split()[-1]) for line in backwards[1:]] == [0, 0.25, 0.25, 0.25, 0.25, -0.25, -0.25, -0.25, 1]
    assert [float(line.split()[-1]) for line in graph.table(*values).splitlines()[4:]] == [0, 0, 0, 1, 2, 0.5]


def test_a_table_of_one_tensor_given_twice():
    graph = jj.trace(sigmoid_of_notes, *map(jj.Tensor, (1.0, 0.0, 0.0)))
    one, zero = jj.Tensor(1.0), jj.Tensor(0.0)
    adjoints = [float(line.split()[-1]) for line in graph.table(one, zero, zero, cotangent=1).splitlines()[1:4]]
    assert adjoints == [0, 0.25, 0.25]
    gradient = jj.grad(lambda z: graph(one, z, z))(zero)
    assert float(gradient) == 0.5


def test_no_perturbation_confusion():
    """d/dx [x · d/dy (x + y)] is 1, in every combination of modes (Siskind and Pearlmutter 2005)."""

    def forward(f):
        return lambda x: jj.jvp(f, (x,), (jj.Tensor(1.0),))[1]

    for outer in (jj.grad, forward):
        for inner in (jj.grad, forward):
            assert float(outer(lambda x, inner=inner: x * inner(lambda y: x + y)(jj.Tensor(1.0)))(jj.Tensor(2.0))) == 1
            nested = outer(lambda x, inner=inner: x * inner(lambda y: x * y * y)(jj.Tensor(3.0)))(jj.Tensor(2.0))
            assert float(nested) == 24  # d/dx 6x²


def test_any_order():
    f = jj.sin
    for order in range(6):
        expected = math.sin(0.7 + order * math.pi / 2)
        assert float(f(jj.Tensor(0.7))) == pytest.approx(expected, abs=1e-12)
        f = jj.grad(f)


def test_python_control_flow():
    def collatz_like(x):
        steps = 0
        while x < 100:
            x = x * x if x > 2 else 3 * x + 1
            steps += 1
        return x * steps

    x = 1.5
    value, gradient = jj.value_and_grad(collatz_like)(x)
    step = 1e-6
    assert float(gradient) == pytest.approx((float(collatz_like(jj.Tensor(x + step))) - float(value)) / step, rel=1e-4)


def test_same_argument_twice_and_unused():
    x = jj.Tensor([1.0, 2.0])
    first, second = jj.grad(lambda a, b: (a * b * b).sum(), argnums=(0, 1))(x, x)
    np.testing.assert_array_equal(first, [1, 4])
    np.testing.assert_array_equal(second, [2, 8])
    assert float(jj.grad(lambda a, b: b * 2, argnums=0)(x[0], x[1])) == 0
    np.testing.assert_array_equal(jj.grad(lambda a, b: (a * b).sum(), argnums=-1)(x, x), x)


def test_containers():
    tree = {"a": [1.0, jj.Tensor([2.0, 3.0])], "b": (np.array(4.0),)}
    gradient = jj.grad(lambda t: (t["a"][0] * t["a"][1]).sum() * t["b"][0])(tree)
    assert float(gradient["a"][0]) == 20
    np.testing.assert_array_equal(gradient["a"][1], [4, 4])
    assert float(gradient["b"][0]) == 5
    y, dy = jj.jvp(lambda t: {"y": t["x"] ** 2}, ({"x": 3.0},), ({"x": 1.0},))
    assert (float(y["y"]), float(dy["y"])) == (9, 6)


def test_closures_and_identity():
    x = jj.Tensor(3.0)
    assert float(jj.grad(lambda y: y)(x)) == 1
    assert float(jj.grad(lambda y: x * y)(x)) == 3  # the closed-over x is a constant
    leaked = []
    jj.grad(lambda y: leaked.append(y * y) or y)(x)
    assert float(jj.grad(lambda y: y + leaked[0])(x)) == 1


def test_jacobian_modes_agree_and_the_cheaper_is_taken(monkeypatch):
    a = np.arange(6.0).reshape(3, 2) + 1

    def f(x):
        return jj.matmul(jj.Tensor(a), jj.exp(x)).reshape(3, 1)

    x = np.array([0.1, -0.4])
    expected = (a * np.exp(x)).reshape(3, 1, 2)
    for mode in ("forward", "reverse", "auto"):
        np.testing.assert_allclose(jj.jacobian(f, mode=mode)(x), expected, rtol=1e-12)
    calls = []
    original = jj.autodiff.Recorded.forward
    monkeypatch.setattr(jj.autodiff.Recorded, "forward", lambda self, t: calls.append(1) or original(self, t))
    jj.jacobian(f)(x)
    assert len(calls) == 2  # two inputs against three outputs
    with pytest.raises(ArgumentError, match="unknown mode"):
        jj.jacobian(f, mode="sideways")


def test_hessian_vector_product():
    x, v = np.array([1.0, 2.0, 3.0]), np.array([1.0, 0.5, -1.0])

    def f(x):
        return (x * x * x).sum() + x[0] * x[1]

    hessian = np.diag(6 * x) + np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(jj.hvp(f, (x,), (v,))[0], hessian @ v)
    np.testing.assert_allclose(jj.jacobian(jj.grad(f))(x), hessian)


def test_rules_override_by_name():
    def guided(g, x):
        return jj.where(x > 0, jj.maximum(g, 0.0), 0.0)

    x = jj.Tensor([1.0, -1.0, 2.0])
    _, pull = jj.vjp(lambda x: jj.relu(x) * jj.Tensor([1.0, 1.0, -1.0]), x, rules={"relu": guided})
    np.testing.assert_array_equal(pull(jj.Tensor(np.ones(3)))[0], [1, 0, 0])


def test_derivatives_are_not_lost_without_a_word():
    x = np.array([1.0, 2.0])
    assert jj.grad(lambda x: jj.sum([x[0], x[1] * 3]))(x).tolist() == [1, 3]
    assert jj.grad(lambda x: (jj.Tensor([x[0], [x[1]]][0]) * jj.Tensor(x)[1]).sum())(x).tolist() == [2, 1]
    assert jj.grad(lambda x: jj.sum([[x[0], 5.0], [x[1], 0.0]]))(x).tolist() == [1, 1]
    assert jj.grad(lambda x: jj.Tensor(x, "float32").sum())(x).dtype == np.float64
    for lost in (lambda x: np.where(x > 0, x, 0), lambda x: np.dot(x, x), lambda x: np.concatenate([x, x]), np.sum):
        with pytest.raises(DTypeError, match=r"would lose the derivative[\s\S]*jj\."):
            jj.grad(lambda x, lost=lost: jj.sum(lost(x)))(x)
    with pytest.warns(UserWarning, match="depends on nothing"):
        jj.grad(lambda x: math.sin(x))(1.0)
    assert np.sum(jj.Tensor(x)) == 3
    assert np.allclose(jj.Tensor(x), x)
    assert np.concatenate([jj.Tensor(x), x]).tolist() == [1, 2, 1, 2]


def test_has_aux():
    (value, aux), gradient = jj.value_and_grad(lambda x: (x * x, {"twice": x * 2}), has_aux=True)(3.0)
    assert (float(value), float(aux["twice"]), float(gradient)) == (9, 6, 6)
    gradient, aux = jj.grad(lambda x: (x * x, "note"), has_aux=True)(3.0)
    assert (float(gradient), aux) == (6, "note")
    _, pull, aux = jj.vjp(lambda x: (x * x, 7), jj.Tensor(2.0), has_aux=True)
    assert (float(pull(1.0)[0]), aux) == (4, 7)


def test_nothing_is_kept():
    frames = lambda: [o for o in gc.get_objects() if type(o) is jj.recording.Frame]  # noqa: E731
    before = len(frames())
    y, g = jj.value_and_grad(lambda x: (x * x).sum())(jj.Tensor(np.ones(3)))
    gc.collect()
    assert len(frames()) == before
    assert float(y) == 3
    np.testing.assert_array_equal(g, 2 * np.ones(3))


def test_a_failing_function_closes_its_frame():
    with pytest.raises(ZeroDivisionError):
        jj.grad(lambda x: x * (1 / 0))(1.0)
    assert not jj.recording.CURRENT.frames


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: jj.grad(lambda x: x)(np.ones(2)), ShapeError, r"must return a scalar[\s\S]*received  shape \(2,\)"),
        (lambda: jj.grad(lambda x: [x, x])(1.0), ShapeError, r"must return a scalar[\s\S]*list"),
        (lambda: jj.grad(lambda x: x.sum())(np.arange(3)), DTypeError, "only floating-point tensors"),
        (lambda: jj.grad(lambda x: x, argnums=2)(1.0), ArgumentError, "argnums points past"),
        (lambda: jj.jvp(jj.exp, (1.0,), ()), ArgumentError, "1 primals, 0 tangents"),
        (lambda: jj.jvp(jj.exp, 1.0, (1.0,)), ArgumentError, r"primals come in a tuple[\s\S]*\(x,\)"),
        (lambda: jj.hvp(jj.exp, (1.0,), 1.0), ArgumentError, "tangents come in a tuple"),
        (lambda: jj.jvp(jj.exp, (np.ones(2),), (np.ones(3),)), ShapeError, "must look like the tensor"),
        (lambda: jj.vjp(lambda x: (x, x), 1.0)[1]((1.0,)), ArgumentError, "2 outputs, 1 cotangents"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert len(caught.value.args) == 1


def test_check_op_finds_records_that_contradict_themselves():
    def record(define, examples):
        return Primitive("wrong", lambda x: (x.shape, x.dtype), define, Linear(lambda g, x: g), lambda rng: examples)

    jj.testing.check_op(record(lambda x: x, [((np.ones(2),), {})]))
    with pytest.raises(AssertionError, match="wrong has no examples"):
        jj.testing.check_op(record(lambda x: x, []))
    with pytest.raises(AssertionError, match="wrong: geometry says"):
        jj.testing.check_op(record(lambda x: x[:1], [((np.ones(2),), {})]))
    with pytest.raises(AssertionError, match="reverse derivative"):
        jj.testing.check_op(record(lambda x: 2 * x, [((np.ones(2),), {})]))


def test_check_grads_finds_a_wrong_rule():
    wrong = Primitive("wrong", lambda x: (x.shape, x.dtype), np.sin, Pointwise(lambda y, x: jj.sin(x)), lambda rng: [])
    jj.check_grads(jj.sin, [np.array([0.5, 1.0])])
    with pytest.raises(AssertionError, match="forward derivative"):
        jj.check_grads(wrong, [np.array([0.5, 1.0])])
    with pytest.raises(ArgumentError, match="unknown mode"):
        jj.check_grads(jj.sin, [np.ones(1)], modes=["sideways"])


def test_tangents_and_cotangents_as_lists():
    x = np.array([[1.0, 2.0]])
    assert jj.jvp(jj.square, (x,), ([[1, 1]],))[1].tolist() == [[2, 4]]
    assert jj.vjp(jj.square, x)[1]([[1, 1]])[0].tolist() == [[2, 4]]
    _, dy = jj.jvp(lambda d: d["a"] * d["b"], ({"a": 2.0, "b": 3.0},), ({"b": 1.0, "a": 0.0},))
    assert float(dy) == 2


def test_numpy_integers_as_arguments_and_argnums():
    assert float(jj.grad(lambda a, b: a * b, argnums=np.int64(1))(2.0, np.int32(3))) == 2


def test_jacobians_of_nothing():
    assert jj.jacobian(jj.exp)(np.zeros(0)).shape == (0, 0)
    assert jj.jacobian(lambda x: x[:0])(np.zeros(3)).shape == (0, 3)
    assert jj.jacobian(lambda x: jj.sum(x) * np.ones(2))(np.zeros(0)).shape == (2, 0)


def test_jacobian_refuses_containers():
    for call in (lambda: jj.jacobian(lambda x: (x, x))(np.ones(2)), lambda: jj.jacobian(jj.sum)([1.0, 2.0])):
        with pytest.raises(ArgumentError, match="from one tensor to one tensor"):
            call()


def test_rules_have_known_names_and_may_return_nothing():
    with pytest.raises(UnknownNameError, match="no operator named 'ReLU'"):
        jj.vjp(jj.relu, 1.0, rules={"ReLU": lambda g, x: g})
    rules = {"mul": lambda g, a, b: (g, None)}
    assert [float(g) for g in jj.vjp(lambda a, b: a * b, 2.0, 3.0, rules=rules)[1](1.0)] == [1, 0]


def test_rules_give_what_belongs_to_the_inputs():
    for rule, error, text in (
        (lambda c, x: np.ones(3), ShapeError, r"float64\[3\] for float64\[2\]"),
        (lambda c, x: (c, c), ArgumentError, r"relu: its rule gives more cotangents[\s\S]*2 for 1"),
    ):
        _, pull = jj.vjp(jj.relu, np.ones(2), rules={"relu": rule})
        with pytest.raises(error, match=text):
            pull(np.ones(2))
    _, pull = jj.vjp(jj.relu, np.ones(2), rules={"relu": lambda c, x: np.full(2, 3.0)})
    assert isinstance(pull(np.ones(2))[0], jj.Tensor)


def test_tangents_of_a_module_are_those_of_its_parameters():
    dense = jj.nn.Linear(2, 2)
    with pytest.raises(ArgumentError, match=r"jvp: the tangents[\s\S]*missing bias \(2,\); unknown slope"):
        jj.jvp(lambda m: m(np.ones(2, np.float32)), (dense,), ({"weight": np.zeros((2, 2)), "slope": 0.0},))


def test_table_of_an_empty_batch():
    assert "float64[0, 2]" in jj.trace(jj.exp, np.ones((0, 2))).table(np.ones((0, 2)))
