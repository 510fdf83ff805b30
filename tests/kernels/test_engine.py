"""`jj.compile`: plans, state, results, the guard, and what it depends on."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from frames import HALVES_HERE

import juanji as jj
from juanji.errors import ArgumentError, NonFiniteError, TraceError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 12, 12, 1)).astype(np.float32)
Y = np.array([0, 1, 2, 3])
X20 = np.zeros((64, 20, 20, 1), np.float32)


def small(seed=0):
    """A network with parameters, statistics and dropout's counter."""
    net = jj.nn.Sequential(
        jj.nn.Conv2d(1, 3, 3), jj.nn.BatchNorm2d(3), jj.nn.ReLU(), jj.nn.MaxPool2d(2), jj.nn.Flatten(),
        jj.nn.Dropout(0.3), jj.nn.Linear(75, 5),
    )  # fmt: skip
    net.initialise(seed)
    return net


def training(net, optimiser):
    def step(x, y):
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(net)
        optimiser.update(net, grads)
        return loss

    return step


def pair():
    """A network, its optimiser and their step: compiled, and the twins on the definitions."""
    net = small()
    optimiser = jj.optim.SGD(net, 0.05, momentum=0.9)
    other, its = copy.deepcopy((net, optimiser))
    return (net, optimiser, jj.compile(training(net, optimiser))), (other, its, training(other, its))


def values(owner):
    return {path: cell.read().array for path, cell in owner.cells().items()}


def assert_same(owner, other, tolerance=1e-5):
    mine, want = values(owner), values(other)
    assert mine.keys() == want.keys()
    for path in want:
        np.testing.assert_allclose(mine[path], want[path], rtol=tolerance, atol=tolerance, err_msg=path)


def plans(compiled):
    return sum(map(len, compiled.plans.values()))


# Functions, and what a plan is for


def test_decorator_keeps_the_name():
    @jj.compile
    def squares(x):
        """Doc."""
        return x * x

    assert (squares.__name__, squares.__doc__) == ("squares", "Doc.")
    assert squares(np.float32([1, 2])).tolist() == [1, 4]


def test_a_plan_for_each_shape_dtype_and_other_argument():
    f = jj.compile(lambda x, how, n: x * n if how == "mul" else x + n)
    for args, want, count in [
        (([1.0, 2.0], "mul", 3), [3, 6], 1),
        (([5.0, 7.0], "mul", 3), [15, 21], 1),
        (([5.0, 7.0], "mul", 4), [20, 28], 2),
        (([5.0, 7.0], "add", 4), [9, 11], 3),
        (([5.0, 7.0, 9.0], "add", 4), [9, 11, 13], 4),
        (([1.0, 2.0], "mul", 3), [3, 6], 4),
        (([1.0, 2.0], "mul", 3.0), [3, 6], 5),
    ]:
        assert f(np.array(args[0]), *args[1:]).tolist() == want
        assert plans(f) == count
    assert f(np.array([1, 2], np.int64), "mul", 3).dtype == np.int64
    assert f(np.array([1, 2], np.float32), "mul", 3).dtype == np.float32


def test_containers_are_part_of_the_key():
    f = jj.compile(lambda tree: tree["a"] - tree["b"])
    one, two = np.float32([1.0]), np.float32([2.0])
    assert f({"a": one, "b": two}).item() == -1
    assert f({"b": two, "a": one}).item() == -1
    g = jj.compile(lambda xs: sum(xs[0]) - sum(xs[1]))
    assert g(([one, two], [two])).item() == 1
    assert g(([one], [two, two])).item() == -3


def test_training_and_evaluation_have_plans_of_their_own():
    net = small()
    infer = jj.compile(net)
    net.eval()
    still = infer(X).array
    before = values(net)
    net.train()
    moving = infer(X).array
    assert (moving != still).any()
    assert (values(net)["1.running_mean"] != before["1.running_mean"]).any()
    net.eval()
    twin = copy.deepcopy(net)
    np.testing.assert_allclose(infer(X).array, twin(X).array, atol=1e-5)
    assert plans(infer) == 2


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda x: x, (X,)),
        (lambda x: (x, x, [x, {"a": x * 2}]), (X,)),
        (lambda x: (None, x + 1, None), (X,)),
        (lambda x: (x.T, x[::2, 1:], jj.flip(x, 1), x.reshape(-1), x[..., None]), (X[..., 0],)),
        (lambda x: {"constant": jj.Tensor([1.0, 2.0]), "number": 3, "text": "t", "x": x.sum()}, (X,)),
        (lambda x: jj.broadcast_to(x, (3, *x.shape)), (X,)),
        (lambda x: jj.broadcast_to(jj.Tensor(2.0), (3, 2)), (X,)),
        (lambda x: (x > 0, x.argmax(0), x.astype("int32"), jj.isfinite(x)), (X,)),
        (lambda x, y: (y, x), (X, X[:2] + 1)),
        (lambda x: (x * 2, (x * 2).reshape(-1), (x * 2).T), (X,)),
        (lambda x: x[:0] * 2, (X,)),
        (lambda x: jj.concat([x, x[:0]]), (X,)),
        (lambda x: jj.Tensor(1.0) + x, (np.array(3.0),)),
    ],
)  # fmt: skip
def test_results(function, args):
    """Inputs, constants, views, the same tensor twice, containers and None come back as from the function."""
    mine, want = jj.compile(function)(*args), function(*map(jj.Tensor, args))
    assert repr(jj.tree.map(lambda leaf: type(leaf), mine)) == repr(jj.tree.map(lambda leaf: type(leaf), want))
    for a, b in zip(jj.tree.leaves(mine), jj.tree.leaves(want), strict=True):
        if isinstance(b, jj.Tensor):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a.array, b.array, rtol=1e-6)
        else:
            assert a == b


def test_results_stay_when_the_plan_runs_again():
    f = jj.compile(lambda x: (x, x * 2, jj.flip(x, 0)))
    first = f(np.arange(3.0))
    f(np.zeros(3))
    assert [x.tolist() for x in first] == [[0, 1, 2], [0, 2, 4], [2, 1, 0]]


def test_arguments_of_any_strides_are_taken():
    f = jj.compile(lambda x: x * 2)
    x = RNG.normal(size=(4, 6))
    for view in (x.T, x[::-1, ::2], np.broadcast_to(x[:1], (4, 6)), jj.Tensor(x), np.asfortranarray(x)):
        np.testing.assert_array_equal(f(view).array, np.asarray(view) * 2)


def test_derivatives_of_a_compiled_function_are_those_of_the_function():
    f = jj.compile(lambda x: (x * x * x).sum())
    x = np.array([1.0, 2.0])
    assert f(x).item() == 9
    assert jj.grad(f)(x).tolist() == [3, 12]
    assert jj.jvp(f, (x,), (np.array([1.0, 0.0]),))[1].item() == 3
    assert jj.compile(jj.grad(f))(x).tolist() == [3, 12]


def test_trace_errors_name_the_line():
    @jj.compile
    def choosy(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(TraceError, match=r"test_engine\.py, line \d+: return x if x\.sum\(\) > 0"):
        choosy(X)


# State


def test_cells_are_read_and_written_from_outside_between_steps():
    (net, optimiser, step), (other, its, defined) = pair()
    rates = (0.05, 0.01, 0.2)
    for i, rate in enumerate(rates):
        for n, o in ((net, optimiser), (other, its)):
            o.lr = rate
            n[6].bias = n[6].bias * 0.5 + i
        assert abs(step(X, Y).item() - defined(X, Y).item()) < 1e-5
        assert_same(net, other)
        assert_same(optimiser, its)
    assert plans(step) == 1
    assert int(optimiser.updates) == len(rates)


def test_loading_saved_values_between_steps():
    (net, optimiser, step), _ = pair()
    saved, before = {k: jj.Tensor(v) for k, v in net.state_dict().items()}, values(net)
    first = step(X, Y).item()
    net.load_state_dict(saved)
    assert all((values(net)[path] == before[path]).all() for path in saved)
    optimiser.initialise()
    net[5].initialise(0)
    assert abs(step(X, Y).item() - first) < 1e-6
    net.initialise(1)
    assert abs(step(X, Y).item() - first) > 1e-3


def test_a_layer_that_is_replaced_is_seen():
    net = jj.models.create("lenet5", classes=3).eval()
    compiled = jj.compile(net)
    x = np.zeros((2, 28, 28, 1), np.float32)
    assert compiled(x).shape == (2, 3)
    net.replace_head(5)
    assert compiled(x).shape == (2, 5)
    np.testing.assert_allclose(np.asarray(compiled(x)), np.asarray(net(x)), rtol=1e-5, atol=1e-6)


class Tempered(jj.nn.Module):
    """Depends on attributes of its own, counts its calls, and leaves a tensor behind."""

    calls = 0

    def __init__(self):
        self.temperature, self.between, self.seen, self.dense = 1.0, jj.relu, None, jj.nn.Linear(4, 3)

    def forward(self, x):
        self.calls += 1
        self.seen = self.dense(x)
        return self.between(self.seen) / self.temperature + self.seen


def test_attributes_that_are_set_are_seen():
    net = Tempered()
    compiled, x = jj.compile(net), RNG.normal(size=(2, 4)).astype(np.float32)

    def same():
        return np.allclose(np.asarray(compiled(x)), np.asarray(net(x)), rtol=1e-5, atol=1e-6)

    assert same()
    net.temperature = 4.0
    assert same()
    net.between = jj.tanh
    assert same()
    assert plans(compiled) == 3
    net.temperature, net.between, net.unrelated = 1.0, jj.relu, object()
    assert same()
    compiled(x[:1])
    net.unrelated = 1
    assert same()
    assert plans(compiled) == 4  # what forward itself sets, and what it does not read, makes no others


def test_options_of_layers_and_optimisers_are_seen():
    dropout = jj.nn.Dropout(0.9)
    dropped = jj.compile(lambda x: dropout(x))
    dropped(np.ones(8))
    dropout.p = 0.0
    assert (np.asarray(dropped(np.ones(8))) == 1).all()
    (net, optimiser, step), (other, its, defined) = pair()
    for decay in (0.0, 0.5):
        optimiser.weight_decay = its.weight_decay = decay
        step(X, Y), defined(X, Y)
    assert_same(net, other)
    assert plans(step) == 2


def test_zeros_have_signs():
    divided = jj.compile(lambda x, by: x / by)
    assert [float(divided(np.ones(()), by)) for by in (0.0, -0.0, 0.0)] == [np.inf, -np.inf, np.inf]
    assert plans(divided) == 2
    signs = np.array([0.0, -0.0])
    assert np.asarray(jj.compile(lambda x: x / signs)(np.ones(2))).tolist() == [np.inf, -np.inf]


def test_arguments_by_name():
    scaled = jj.compile(lambda x, by=1.0: x * by)
    assert float(scaled(np.ones(()), by=3.0)) == 3
    assert float(scaled(x=np.ones(()))) == 1
    with pytest.raises(ArgumentError, match=r"no place\n  received  by\n"):
        jj.compile(lambda x, *, by: x * by)(np.ones(()), by=3.0)


def test_functions_share_cells():
    """Training and evaluation by turns, with a smaller last batch."""
    (net, _, step), (other, _, defined) = pair()
    evaluate = jj.compile(lambda x: net(x))
    for size in (4, 4, 3, 4):
        step(X[:size], Y[:size])
        defined(X[:size], Y[:size])
        net.eval(), other.eval()
        np.testing.assert_allclose(evaluate(X[:2]).array, other(X[:2]).array, atol=1e-4)
        net.train(), other.train()
    assert_same(net, other, 1e-4)
    assert (plans(step), plans(evaluate)) == (2, 1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"])
def test_copies_after_compiled_steps(copied):
    (net, optimiser, step), _ = pair()
    step(X, Y)
    twin, its = copied((net, optimiser))
    assert_same(net, twin, 0)
    after = values(net)
    jj.compile(training(twin, its))(X, Y)
    assert all((values(net)[path] == after[path]).all() for path in after)
    step(X, Y)
    assert_same(net, twin, 0)
    assert_same(optimiser, its, 0)


class Two(jj.nn.Module):
    def __init__(self, *shapes):
        for name, shape in zip("abc", shapes, strict=False):
            setattr(self, name, jj.nn.Buffer(np.arange(np.prod(shape)).reshape(shape) * 0.01 + ord(name)))


def swapped(m):
    m.a, m.b = m.b, m.a


def swapped_and_turned(m):
    m.a, m.b = m.b.T, m.a.T


def shifted(m):
    m.a, m.b = m.b, m.c


def rotated(m):
    m.a, m.b, m.c = m.b, m.c, m.a


def transposed(m):
    m.a = m.a.T * 2


def reversed_(m):
    m.a = jj.flip(m.a, 0) + m.b


def crossed(m):
    m.a, m.b = m.a + m.b.T, m.a.T * m.b


def chained(m):
    new = m.a * 2
    m.a = new
    m.b = new + m.b
    m.c = new


def aliased(m):
    m.a = m.b = m.c = m.a + m.b


def partly(m):
    m.a = jj.concat([m.a[1:], m.a[:1]])
    m.b = jj.cumsum(m.b, 0)


def constant(m):
    m.a = m.a.zeros_like()
    m.b = jj.broadcast_to(jj.Tensor(np.float32(3)), m.b.shape)


def multiplied(m):
    m.a, m.b = m.a @ m.b, m.b @ m.a


def from_itself(m):
    m.a, m.b, m.c = m.a, m.b * 1, m.c + 0


@pytest.mark.parametrize(
    "change",
    [
        swapped,
        swapped_and_turned,
        shifted,
        rotated,
        transposed,
        reversed_,
        crossed,
        chained,
        aliased,
        partly,
        constant,
        multiplied,
        from_itself,
    ],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("size", [3, 40])
def test_cells_written_from_each_other(change, size):
    """All new values come from the old ones, whatever the order in which kernels write."""
    mine, want = Two(*[(size, size)] * 3), Two(*[(size, size)] * 3)

    def step(m):
        change(m)
        return m.a + m.b

    compiled = jj.compile(lambda: step(mine))
    for _ in range(2):
        np.testing.assert_allclose(compiled().array, step(want).array, rtol=1e-5)
        assert_same(mine, want)


def test_a_function_that_only_writes():
    m = Two((3,), (3,))

    @jj.compile
    def put(x):
        m.a = x * 2

    assert put(np.arange(3, dtype=np.float32)) is None
    assert m.a.tolist() == [0, 2, 4]
    m.a = np.zeros(3)
    put(np.ones(3, np.float32))
    assert m.a.tolist() == [2, 2, 2]


def test_threads_may_share_a_compiled_function():
    f = jj.compile(lambda x: (x * 2).sum(1))
    f(np.ones((50, 300)))

    def right(k):
        return all((f(np.full((50, 300), float(k))).array == 600 * k).all() for _ in range(300))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(1, 5)))


def test_fresh_plans_take_the_same_steps():
    """The first runs of a plan, when threads have yet to wake and memory to be mapped, are like all others."""
    found = []
    for _ in range(40):
        (net, optimiser, step), _ = pair()
        losses = [step(X, Y).item() for _ in range(3)]
        found.append((losses, *values(net).values(), *values(optimiser).values()))
    for other in found[1:]:
        for a, b in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("samples", [1, 9, 80])
def test_large_dense_layers_of_few_samples_are_not_copied(samples):
    """Their weights are read as they lie, and so are their gradients written."""
    net = jj.nn.Sequential(jj.nn.Linear(300, 257), jj.nn.ReLU(), jj.nn.Linear(257, 260), jj.nn.Linear(260, 5))
    net.initialise(0)
    optimiser = jj.optim.SGD(net, 0.05, momentum=0.9)
    other, its = copy.deepcopy((net, optimiser))
    step = jj.compile(training(net, optimiser))
    x, y = RNG.normal(size=(samples, 300)).astype(np.float32), RNG.integers(0, 5, samples)
    for _ in range(2):
        np.testing.assert_allclose(np.asarray(step(x, y)), np.asarray(training(other, its)(x, y)), rtol=1e-5)
    assert_same(net, other)
    copied = [size for key, size in step.plan(x, y).draft.sizes.items() if isinstance(key, tuple)]
    assert (max(copied) >= 4 * 257 * 260) == (samples == 80)


@pytest.mark.parametrize(("stride", "kernel", "groups"), [(5, 10, 1), ((5, 4), (7, 3), 1), (6, 5, 1), (5, 10, 2)])
def test_transposed_convolutions_of_large_stride(stride, kernel, groups):
    """Patches added up, unless there are groups; and their gradients."""
    net = jj.nn.ConvTranspose2d(6, 4, kernel, stride, padding=1, groups=groups)
    net.initialise(0)
    x = RNG.normal(size=(3, 5, 4, 6)).astype(np.float32)

    def function(x):
        return net(x), jj.value_and_grad(lambda net, x: (jj.sin(net(x))).sum(), argnums=(0, 1))(net, x)

    compiled = jj.compile(function)
    for mine, want in zip(jj.tree.leaves(compiled(x)), jj.tree.leaves(function(jj.Tensor(x))), strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(want), rtol=1e-4, atol=1e-4)
    assert ("conv_input_grad" in str(compiled.plan(x))) == (groups == 2)


def test_a_product_that_is_wanted_as_it_is_and_transposed():
    x, w = (jj.Tensor(RNG.normal(size=shape).astype(np.float32)) for shape in ((8, 300), (300, 400)))
    function = lambda x, w: (product := x.T @ w, product.T)  # noqa: E731
    for mine, want in zip(jj.compile(function)(x.T, w), function(x.T, w), strict=True):
        np.testing.assert_allclose(np.asarray(mine), np.asarray(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", *["bfloat16"] * bool(HALVES_HERE)])
def test_a_batch_without_samples_changes_nothing_but_by_the_optimiser(precision):
    net = jj.nn.Sequential(jj.nn.Conv2d(1, 3, 3), jj.nn.ReLU(), jj.nn.Flatten(), jj.nn.Linear(300, 257))
    net.initialise(0)
    before = values(net)
    step = lambda x: jj.value_and_grad(lambda net: net(x).sum())(net)  # noqa: E731
    loss, grads = jj.compile(step, precision=precision)(X[:0])
    assert loss.item() == 0
    assert all(not np.asarray(x).any() and x.shape == before[path].shape for path, x in grads.items())


def test_a_smaller_batch_uses_the_convolutions_that_are_there():
    """Their kernels take the size of the batch as an argument."""
    net = jj.models.create("lenet5", input_size=20)
    step = jj.compile(training(net, jj.optim.Adam(net)), batch=64)
    whole, rest = (
        {call.kernel for call in step.plan(X20[:size], np.zeros(size, np.int64)).calls if "conv" in call.what}
        for size in (64, 17)
    )
    assert rest
    assert rest <= whole


# The guard


def assert_untouched(step, owners, *args):
    before = [values(owner) for owner in owners]
    versions = [[cell.version for cell in owner.cells().values()] for owner in owners]
    with pytest.raises(NonFiniteError, match="not finite"):
        step(*args)
    for owner, old in zip(owners, before, strict=True):
        for path, x in values(owner).items():
            np.testing.assert_array_equal(x, old[path], err_msg=path)
    assert versions == [[cell.version for cell in owner.cells().values()] for owner in owners]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(bad):
    (net, optimiser, step), (other, _, defined) = pair()
    step(X, Y), defined(X, Y)
    x = X.copy()
    x[3, 11, 11, 0] = bad
    assert_untouched(step, [net, optimiser], x, Y)
    assert abs(step(X, Y).item() - defined(X, Y).item()) < 1e-5
    assert_same(net, other)


def test_a_gradient_that_is_not_finite():
    """The loss is √0 = 0; its derivative is infinite."""
    net = jj.nn.Linear(3, 2)
    net.weight, net.bias = np.zeros((2, 3), np.float32), np.zeros(2, np.float32)
    optimiser = jj.optim.SGD(net, 0.1)

    @jj.compile
    def step(x):
        loss, grads = jj.value_and_grad(lambda m: jj.sqrt((m(x) * m(x)).sum()))(net)
        optimiser.update(net, grads)
        return loss

    assert_untouched(step, [net, optimiser], np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("bad", "change"),
    [
        (0, lambda m, x: m.a / x),
        (0, lambda m, x: jj.log(x) + m.a),
        (np.inf, lambda m, x: (m.a * x) @ m.a),
        (0, lambda m, x: jj.flip(m.a / x, 0)),
        (np.nan, lambda m, x: jj.broadcast_to(x.sum(), (5, 5))),
    ],
)
def test_a_value_that_would_be_written_is_not_finite(bad, change):
    m = Two((5, 5), (5, 5))

    @jj.compile
    def step(x):
        m.b = m.b + 1
        m.a = change(m, x)

    x = np.ones((5, 5), np.float32)
    x[4, 4] = bad
    assert_untouched(step, [m], x)
    step(np.ones((5, 5), np.float32))
    assert m.b.array[0, 0] == ord("b") + 1


# Settings, in processes of their own

STEP = """
import sys
import numpy as np
import juanji as jj
net = jj.models.create("lenet5", input_size=20, seed=1)
optimiser = jj.optim.Adam(net, 0.001)
@jj.compile(precision=sys.argv[2])
def step(x, y):
    loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(net)
    optimiser.update(net, grads)
    return loss
rng = np.random.default_rng(0)
for size in (9, 9, 5):
    loss = step(rng.normal(size=(size, 20, 20, 1)).astype(np.float32), rng.integers(10, size=size))
cells = {k: cell.read().array for k, cell in {**net.cells(), **optimiser.cells()}.items()}
np.savez(sys.argv[1], loss=loss.array, llvmlite="llvmlite" in sys.modules, **cells)
"""


def in_process(folder, precision="float32", **settings):
    """Everything after three steps in a process with these settings."""
    target = folder / f"{'-'.join(map(str, settings.values()))}.npz"
    environment = {k: v for k, v in os.environ.items() if k not in ("JUANJI_ISA", "JUANJI_BACKEND", "JUANJI_THREADS")}
    command = [sys.executable, "-c", STEP, str(target), precision]
    subprocess.run(command, env=environment | settings, check=True)
    return dict(np.load(target))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return in_process(tmp_path_factory.mktemp("reference"), JUANJI_THREADS="1")


@pytest.mark.parametrize("precision", ["float32", *["bfloat16"] * bool(HALVES_HERE)])
def test_same_bits_for_every_number_of_threads(precision, tmp_path):
    one, *others = (in_process(tmp_path, precision, JUANJI_THREADS=threads) for threads in "1237")
    for found in others:
        for name, want in one.items():
            np.testing.assert_array_equal(found[name], want, err_msg=name)


def runnable():
    from juanji.kernels.isa import ISAS

    return [name for name, isa in ISAS.items() if not isa.missing()]


@pytest.mark.parametrize(
    "settings", [*({"JUANJI_ISA": name} for name in runnable()), {"JUANJI_BACKEND": "numpy"}], ids=str
)
def test_other_instructions_and_the_definitions(settings, reference, tmp_path):
    found = in_process(tmp_path, **settings)
    assert found["llvmlite"] == ("JUANJI_BACKEND" not in settings)
    for name in reference:
        if name != "llvmlite":
            # Adam's steps of 0.001 have the sign of gradients, which rounding decides where they are about 0.
            np.testing.assert_allclose(found[name], reference[name], rtol=1e-3, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    "function", [lambda x: x[9:] * 2, lambda x: jj.prod(x[:, :0], 1), lambda x: (x[9:].T + 1).sum(1)]
)
def test_of_nothing(function):
    """Slices may leave nothing, whose sum is 0 and whose product is 1."""
    x = RNG.normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(jj.compile(function)(x), function(jj.Tensor(x)))
