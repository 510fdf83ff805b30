"""Tensors as values: what goes in, what comes out, what cannot be done to them."""

import copy
import pickle

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DTypeError, ShapeError, TraceError
from juanji.graph import PRIMITIVES


@pytest.mark.parametrize("dtype", jj.tensor.DTYPES)
def test_arrays_come_back(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    x = jj.Tensor(array)
    assert (x.shape, x.dtype, x.ndim, x.size) == ((2, 3), array.dtype, 2, 6)
    assert np.asarray(x).dtype == array.dtype
    np.testing.assert_array_equal(x, array)
    assert x.tolist() == array.tolist()


def test_values_do_not_change():
    array = np.ones(3)
    x = jj.Tensor(array)
    array[0] = 7
    assert x.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(x)[0] = 7
    with pytest.raises(TypeError, match="item assignment"):
        x[0] = 7
    assert copy.deepcopy(x) is x
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(x)), x)


def test_scalars_lists_and_conversions():
    assert float(jj.Tensor(2.5)) == 2.5
    assert int(jj.Tensor([3])) == 3
    assert bool(jj.Tensor(0.0)) is False
    assert [10, 20, 30][jj.Tensor(1)] == 20
    assert jj.Tensor([1.0, 2.0]).dtype == np.float64
    assert jj.Tensor([1, 2], dtype="float32").dtype == np.float32
    assert len(jj.Tensor([1, 2])) == 2
    assert [float(x) for x in jj.Tensor([1, 2])] == [1, 2]
    assert np.asarray(jj.Tensor([1.0]), dtype="float32").dtype == np.float32
    assert jj.Tensor(jj.Tensor([1.0])).tolist() == [1]


def test_formatting():
    loss = jj.Tensor(1.23456)
    assert f"{loss:.3f}" == "1.235"
    assert round(loss, 2) == 1.23
    assert f"{jj.Tensor([1.0, 2.0])}" == "Tensor([1., 2.], dtype=float64)"
    assert repr(jj.Tensor.spec((2, 3))) == "Tensor.spec((2, 3), dtype=float32)"


def test_numbers_are_weak_and_tensors_are_not():
    x = jj.Tensor(np.ones(2, np.float32))
    for y in (x + 1, 1 + x, x * 2.5, 2.5 / x, x**2, 2**x, x - np.float64(1), np.float64(3) * x, x > 0.5):
        assert y.dtype in (np.float32, bool)
    for weights in ([1, 2], [1.0, 2.0], (1, 2)):
        assert (x * weights).tolist() == [1, 2]
    assert jj.convolve([1, 2, 3], [0, 1, 0.5]).tolist() == [0, 1, 2.5, 4, 1.5]
    with pytest.raises(DTypeError, match=r"different dtypes[\s\S]*float32 \(2,\), float64 \(2,\)[\s\S]*astype"):
        x + jj.Tensor([1.0, 2.0])
    with pytest.raises(DTypeError, match="a fraction with whole numbers"):
        jj.Tensor([1, 2]) * 0.5


def test_arrays_defer_to_tensors():
    x, array = jj.Tensor([1.0, 2.0]), np.array([3.0, 4.0])
    for y in (array + x, array * x, array @ x, array > x):
        assert isinstance(y, jj.Tensor)
    assert (array - x).tolist() == [2, 2]


def test_numpy_functions_are_the_operators_of_that_name():
    x = jj.Tensor([1.0, 4.0])
    assert np.sqrt(x).tolist() == [1, 2]
    assert np.absolute(-x).tolist() == [1, 4]
    assert float(jj.grad(lambda x: np.exp(x))(0.0)) == 1
    with pytest.raises(DTypeError, match=r"np\.hypot does not take tensors[\s\S]*np\.asarray"):
        np.hypot(x, x)
    with pytest.raises(DTypeError, match=r"np\.add does not take tensors"):
        np.add(x, x, out=np.zeros(2))


def test_the_part_that_is_true():
    right = jj.Tensor([1, 2, 3]) == jj.Tensor([1, 2, 4])
    assert float(right.mean()) == pytest.approx(2 / 3)
    assert right.mean().dtype == np.float32
    assert int(right.sum()) == 2


def test_comparison_with_what_is_no_array():
    x = jj.Tensor([1.0])
    assert (x == None) is False  # noqa: E711
    assert x != "text"
    assert (x == 1.0).tolist() == [True]
    assert {x: 1}[x] == 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: jj.Tensor([[1, 2], [3]]), ShapeError, "not a regular array"),
        (lambda x: jj.Tensor("text"), DTypeError, "element type is not supported"),
        (lambda x: jj.Tensor(np.ones(2, complex)), DTypeError, "one of float32, float64"),
        (lambda x: jj.Tensor([1], "flaot32"), DTypeError, "a dtype is one of float32"),
        (lambda x: x.astype("float16"), DTypeError, "element type is not supported"),
        (lambda x: x + np.ones((2, 2)), ShapeError, r"do not broadcast[\s\S]*\(3,\) and \(2, 2\)"),
        (lambda x: float(x), ShapeError, "only a tensor of one element"),
        (lambda x: len(jj.Tensor(1.0)), DTypeError, "no length"),
        (lambda x: x[3], IndexError, r"index 3 is outside axis 0 of shape \(3,\)"),
        (lambda x: x[0, 0], ShapeError, "too many indices"),
        (lambda x: x.reshape(2, 2), ShapeError, "sizes do not fit"),
        (lambda x: x.transpose(0, 1), ShapeError, "there is no axis 1"),
        (lambda x: x.reshape(1, 3).transpose(0, 0), ShapeError, "every axis once"),
        (lambda x: x.sum(axis=1), ShapeError, "there is no axis 1"),
        (lambda x: x.reshape(1, 3)[:, :0].max(axis=1), ShapeError, "nothing to reduce"),
        (lambda x: jj.matmul(x, np.ones(2)), ShapeError, "matrices do not fit"),
        (lambda x: jj.matmul(x, 2.0), ShapeError, "a scalar is no matrix"),
        (lambda x: jj.matmul(np.ones((2, 1, 3)), np.ones((3, 3, 1))), ShapeError, "batches do not broadcast"),
        (lambda x: PRIMITIVES["add"](x, jj.Tensor([1.0])), ShapeError, "add: shapes differ"),
        (lambda x: PRIMITIVES["add"](x, x.astype("float32")), DTypeError, "add: the tensors have different dtypes"),
        (lambda x: PRIMITIVES["where"](x > 0, x[:1], x[:1]), ShapeError, "where: shapes differ"),
        (lambda x: PRIMITIVES["pad"](x, low=(-1,), high=(0,), interior=(0,)), ArgumentError, "pad: bad widths"),
        (lambda x: jj.linear(x, np.ones((2, 3), np.float32)), DTypeError, "linear: the tensors have different dtypes"),
        (lambda x: jj.exp(jj.Tensor([1])), DTypeError, r"exp: needs floating-point[\s\S]*astype"),
        (lambda x: jj.where(x, x, x), DTypeError, "condition must be true or false"),
        (lambda x: jj.logical_and(x, x), DTypeError, "compare first"),
        (lambda x: jj.take(x, [0.5]), DTypeError, "indices are whole numbers"),
        (lambda x: jj.take(x, [3]), ShapeError, "an index points outside"),
        (lambda x: jj.concat([x, np.ones((1, 3))]), ShapeError, "the shapes differ off the axis"),
        (lambda x: jj.concat([]), ArgumentError, "nothing to join"),
        (lambda x: jj.squeeze(x, 0), ShapeError, "not of size 1"),
        (lambda x: jj.broadcast_to(x, (3, 2)), ShapeError, "does not stretch"),
        (lambda x: jj.linear(x, np.ones((2, 4))), ShapeError, r"linear: the inputs do not match[\s\S]*4 features"),
    ],
)
def test_errors(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call(jj.Tensor([1.0, 2.0, 3.0]))
    assert len(caught.value.args) == 1


class TestTracing:
    def test_no_values(self):
        graph = jj.trace(lambda x, w: (jj.relu(x @ w), x.sum()), jj.Tensor.spec((2, 3)), jj.Tensor.spec((3, 4)))
        assert [node.name for node in graph.nodes] == ["matmul", "relu", "sum"]
        assert [y.shape for y in graph.outputs] == [(2, 4), ()]
        assert not any(y.has_value for y in graph.outputs)
        x, w = np.ones((2, 3), np.float32), -np.ones((3, 4), np.float32)
        y, total = graph(x, w)
        assert float(total) == 6
        assert not np.asarray(y).any()

    @pytest.mark.parametrize("ask", [bool, float, np.asarray, jj.Tensor.item, jj.Tensor.tolist])
    def test_asking_for_a_value_names_the_line(self, ask):
        def look(x):
            return ask(x.sum())  # the line

        with pytest.raises(TraceError, match=r"has no value[\s\S]*test_tensor\.py, line \d+: .*ask"):
            jj.trace(look, jj.Tensor.spec((2,)))

    def test_constants_and_static_arguments(self):
        def function(x, n, flag):
            return x * (n if flag else 1) + jj.exp(0.0)

        graph = jj.trace(function, jj.Tensor.spec((2,), "float64"), 3, True)
        assert graph(np.array([1.0, 2.0])).tolist() == [4, 7]
        assert "mul(x, " in str(graph)

    def test_graphs_are_differentiable_functions(self):
        graph = jj.trace(lambda x: jj.exp(x).sum(), jj.Tensor.spec((3,), "float64"))
        np.testing.assert_allclose(jj.grad(graph)(np.arange(3.0)), np.exp(np.arange(3.0)))
        step = jj.trace(jj.grad(lambda x: (x**3).sum()), jj.Tensor.spec((2,), "float64"))
        np.testing.assert_allclose(step(np.array([1.0, 2.0])), [3, 12])
        np.testing.assert_allclose(jj.jvp(step, (np.array([1.0, 2.0]),), (np.ones(2),))[1], [6, 12])

    def test_graphs_keep_composites_and_paths_when_traced_again(self):
        model = jj.nn.Sequential(jj.nn.Linear(3, 2), jj.nn.Softmax())
        once = jj.trace(model, jj.Tensor.spec((1, 3)))
        twice = jj.trace(once, jj.Tensor.spec((1, 3)))
        described = [[(node.name, node.path) for node in graph.nodes] for graph in (once, twice)]
        assert described[0] == described[1]
        assert ("softmax", "1") in described[1]
        assert list(twice.cells) == list(once.cells)

    def test_derivatives_stand_where_their_operators_do(self):
        model = jj.nn.Sequential(jj.nn.Linear(3, 2), jj.nn.ReLU(), jj.nn.Linear(2, 1))
        step = jj.trace(lambda x: jj.grad(lambda m: m(x).sum())(model), jj.Tensor.spec((4, 3)))
        assert {node.path for node in step.flat() if node.name == "matmul"} == {"0", "2"}
        assert all(node.path or node.name in ("identity", "sum", "broadcast_to", "reshape") for node in step.flat())

    def test_nothing_to_trace(self):
        with pytest.raises(ArgumentError, match=r"nothing to trace[\s\S]*jj\.Tensor\(1\.0\)"):
            jj.trace(jj.exp, 1.0)

    def test_containers(self):
        graph = jj.trace(lambda t: {"sum": t["a"] + t["b"][0]}, {"a": np.ones(2), "b": [np.ones(2)]})
        assert graph({"a": np.ones(2), "b": [np.ones(2)]})["sum"].tolist() == [2, 2]
        assert graph.names == ("t0", "t1")

    def test_other_shapes_are_refused(self):
        graph = jj.trace(jj.exp, jj.Tensor.spec((2,)))
        with pytest.raises(ShapeError, match=r"traced with[\s\S]*\(3,\) float32[\s\S]*\(2,\) float32"):
            graph(np.ones(3, np.float32))

    def test_composites_are_one_node(self):
        graph = jj.trace(lambda x: jj.exp(jj.ops.softmax(x)), jj.Tensor.spec((2, 3)))
        assert [node.name for node in graph.nodes] == ["softmax", "exp"]
        assert len(graph.flat()) > 2
        assert all(not node.body for node in graph.flat())


class TestCells:
    @pytest.fixture
    def counter(self):
        class Counter(jj.cell.Stateful):
            def __init__(self):
                self.count = jj.Cell((), lambda state, shape, dtype: np.zeros(shape, dtype), kind="buffer")
                self.scale = jj.Cell((2,), lambda state, shape, dtype: jj.random.normal(state, shape, dtype))

            def step(self, x):
                self.count = self.count + 1
                return x * self.scale * self.count

        return Counter()

    def test_reading_writing_versions(self, counter):
        cell = counter.cells()["count"]
        assert (cell.path, cell.kind, float(cell.read())) == ("count", "buffer", 0)
        version = cell.version
        counter.count = 3.0
        assert (float(counter.count), cell.version) == (3, version + 1)
        with pytest.raises(ShapeError, match=r"count: the shape of what a cell holds cannot change"):
            counter.count = np.ones(2)
        with pytest.raises(DTypeError, match=r"scale: the dtype of what a cell holds cannot change"):
            counter.scale = jj.Tensor([1.0, 2.0])

    def test_a_trace_finds_state_by_touch(self, counter):
        x = jj.Tensor.spec((2,))
        graph = jj.trace(counter.step, x)
        assert [cell.path for cell in graph.cells] == ["count", "scale"]
        assert [cell.path for cell in graph.writes] == ["count"]
        assert float(counter.count) == 0  # tracing changes nothing
        ones = np.ones(2, np.float32)
        first, second = graph(ones), graph(ones)
        assert float(counter.count) == 2
        np.testing.assert_allclose(second, 2 * np.asarray(first))

    def test_gradients_by_name_and_writes_inside(self, counter):
        ones = jj.Tensor(np.ones(2, np.float32))
        gradient = jj.grad(lambda c: c.step(ones).sum())(counter)
        assert list(gradient) == ["scale"]
        assert gradient["scale"].tolist() == [1, 1]
        assert float(counter.count) == 1
        _, dy = jj.jvp(lambda c: c.step(ones).sum(), (counter,), ({"scale": ones},))
        assert float(dy) == 4

    def test_a_parameter_written_inside_keeps_its_value(self, counter):
        before = np.asarray(counter.scale)

        def halve(c):
            c.scale = c.scale * 0.5
            return c.scale.sum()

        gradient = jj.grad(halve)(counter)
        assert gradient["scale"].tolist() == [0.5, 0.5]
        np.testing.assert_allclose(counter.scale, before / 2)

    def test_lists_of_modules_are_refused(self):
        class Bad(jj.cell.Stateful):
            def __init__(self):
                self.items = [jj.Cell((), lambda *_: np.zeros(()))]

        with pytest.raises(ArgumentError, match=r"Bad\.items: a list hides the modules in it"):
            Bad()

    def test_attributes_go_away(self, counter):
        del counter.count
        assert list(counter.cells()) == ["scale"]
        with pytest.raises(AttributeError, match="no attribute 'count'"):
            _ = counter.count
        with pytest.raises(AttributeError):
            del counter.count

    def test_different_places_different_numbers(self):
        class Leaf(jj.cell.Stateful):
            def __init__(self):
                self.w = jj.Cell((4,), lambda state, shape, dtype: jj.random.normal(state, shape, dtype))

        class Pair(jj.cell.Stateful):
            def __init__(self):
                self.a, self.b = Leaf(), Leaf()

        pair, other = Pair(), Pair()
        cells = pair.cells()
        assert list(cells) == ["a.w", "b.w"]
        assert cells["a.w"].read().tolist() != cells["b.w"].read().tolist()
        assert cells["a.w"].read().tolist() == other.cells()["a.w"].read().tolist()
        other.initialise(seed=1)
        assert cells["a.w"].read().tolist() != other.cells()["a.w"].read().tolist()
        shared = Pair()
        shared.b = shared.a
        assert list(shared.cells()) == ["a.w"]
        copied = copy.deepcopy(pair)
        copied.a.w = np.zeros(4)
        assert pair.a.w.tolist() != copied.a.w.tolist()
