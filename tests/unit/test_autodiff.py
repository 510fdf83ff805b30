"""Both modes of differentiation, any order, over containers and modules."""

import gc
import math

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError


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
    assert float(jj.grad(lambda a, b: b * 2, argnums=0)(1.0, 2.0)) == 0
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
        (lambda: jj.jvp(jj.exp, (np.ones(2),), (np.ones(3),)), ShapeError, "must look like the tensor"),
        (lambda: jj.vjp(lambda x: (x, x), 1.0)[1]((1.0,)), ArgumentError, "2 outputs, 1 cotangents"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert len(caught.value.args) == 1


def test_check_grads_finds_a_wrong_rule():
    from juanji.graph import Pointwise, Primitive

    wrong = Primitive("wrong", lambda x: (x.shape, x.dtype), np.sin, Pointwise(lambda y, x: jj.sin(x)), lambda rng: [])
    jj.check_grads(jj.sin, [np.array([0.5, 1.0])])
    with pytest.raises(AssertionError, match="forward derivative"):
        jj.check_grads(wrong, [np.array([0.5, 1.0])])
    with pytest.raises(ArgumentError, match="unknown mode"):
        jj.check_grads(jj.sin, [np.ones(1)], modes=["sideways"])
