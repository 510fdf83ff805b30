"""Random programs, compiled, against the definitions.

A program is a list of steps, each an operator with a seed; what a step does to which tensors follows from its seed and
the shapes alone, so the same program runs on values in both precisions and on tensors without values.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import juanji as jj

SHAPES = [(2, 7, 5, 3), (3, 5), (5,), ()]
LIMIT = 1500  # elements of a tensor


class Dice:
    """The choices of one step."""

    def __init__(self, seed, dtype):
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def upto(self, n):
        return int(self.rng.integers(n))

    def one(self, *choices):
        return choices[self.upto(len(choices))]

    def axes(self, x, least=0):
        picked = tuple(a for a in range(x.ndim) if self.upto(2))
        return picked if len(picked) >= least else (self.upto(x.ndim),)

    def constant(self, *shape):
        return jj.Tensor(self.rng.normal(size=shape).astype(self.dtype))

    def image(self, x, sides=(1, 1)):
        """x as images of at least these sizes."""
        shapes = {0: (1, 1, 1, 1), 1: (1, -1, 1, 1), 2: (1, *x.shape, 1), 3: (1, *x.shape)}
        x = x.reshape(shapes.get(x.ndim, (-1, *x.shape[-3:])))
        missing = [(0, 0), *((0, max(0, want - n)) for want, n in zip(sides, x.shape[1:3], strict=True)), (0, 0)]
        return jj.pad(x, missing) if any(map(any, missing)) else x

    def distinct(self, x):
        """x without ties."""
        return x + self.constant(*x.shape)


def floating(pool):
    return [x for x in pool if x.is_floating]


def fitting(pool, x):
    """Tensors that can be broadcast with x."""

    def fits(y):
        return all(a == b or 1 in (a, b) for a, b in zip(x.shape[::-1], y.shape[::-1], strict=False))

    return [y for y in floating(pool) if fits(y)]


def pointwise(d, x, pool):
    f = d.one(jj.tanh, jj.sigmoid, jj.exp, jj.sin, jj.softplus, jj.neg, jj.gelu, jj.silu, jj.erf, jj.square)
    return f(jj.tanh(x) if f is jj.exp else x)


def guarded(d, x, pool):
    return d.one(jj.log, jj.sqrt, jj.rsqrt, jj.log1p)(x * x + 0.5)


def kinked(d, x, pool):
    return d.one(jj.relu, jj.abs, jj.leaky_relu, jj.relu6)(x - 0.3719)


def pair(d, x, pool):
    y = d.one(*fitting(pool, x))
    f = d.one(jj.add, jj.sub, jj.mul, lambda a, b: a / (b * b + 0.7), lambda a, b: jj.maximum(a, b + 0.0173))
    return f(x, y)


def scaled(d, x, pool):
    return d.one(
        lambda: x * 0.7, lambda: 1.3 - x, lambda: x**3 * 0.1, lambda: x + 0, lambda: x * 1, lambda: 2 / (x * x + 1)
    )()


def reshape(d, x, pool):
    if not x.ndim:
        return x.reshape(1, 1)
    return d.one(
        lambda: x.reshape(-1),
        lambda: x.reshape(x.shape[0], -1),
        lambda: x.reshape(*x.shape[::-1]),
        lambda: jj.expand_dims(x, d.upto(x.ndim + 1)),
        lambda: x.reshape(-1, x.shape[-1]),
    )()


def transpose(d, x, pool):
    return x.transpose(*map(int, d.rng.permutation(x.ndim))) if x.ndim else x


def window(d, x, pool):
    def part(n):
        start = d.upto(n)
        step = d.one(1, 1, 2, 3)
        return d.one(slice(start, None, step), slice(start, None, -step), slice(None), slice(start, start + 1))

    return x[tuple(part(n) for n in x.shape)]


def flip(d, x, pool):
    return jj.flip(x, d.axes(x)) if x.ndim else x


def pad(d, x, pool):
    widths = [(d.upto(3), d.upto(3)) for _ in x.shape]
    narrow = any(n <= 2 for n in x.shape)
    return jj.pad(x, widths, d.one("constant", "edge", *([] if narrow else ["reflect"]))) if x.ndim else x


def broadcast(d, x, pool):
    return jj.broadcast_to(x, (d.one(2, 3, 17), *x.shape))


def concat(d, x, pool):
    if not x.ndim:
        return jj.stack([x, x * 2])
    axis = d.upto(x.ndim)
    others = [
        y
        for y in floating(pool)
        if y.ndim == x.ndim and y.shape[:axis] + y.shape[axis + 1 :] == x.shape[:axis] + x.shape[axis + 1 :]
    ]
    return jj.concat([x, d.one(*others), jj.tanh(x)], axis)


def total(d, x, pool):
    return d.one(jj.sum, jj.mean, jj.var, jj.logsumexp)(x, d.axes(x) or None, keepdims=bool(d.upto(2)))


def largest(d, x, pool):
    return d.one(jj.max, jj.min)(d.distinct(x), d.axes(x) or None, keepdims=bool(d.upto(2)))


def places(d, x, pool):
    if not x.ndim:
        return x
    y = d.distinct(x)
    return d.one(jj.argmax, jj.argmin)(y, d.upto(x.ndim)).astype(d.dtype) * 0.1


def running(d, x, pool):
    return jj.cumsum(x, d.upto(x.ndim)) * 0.3 if x.ndim else x


def take(d, x, pool):
    if not x.ndim:
        return x
    axis = d.upto(x.ndim)
    numbers = d.rng.integers(-x.shape[axis], x.shape[axis], size=d.one((4,), (2, 3), (1,)))
    return jj.take(x, numbers.astype(d.one(np.int64, np.int32)), axis)


def found(d, x, pool):
    """Indices that are computed."""
    return jj.take(x, jj.argmax(d.distinct(x), -1), x.ndim - 1) if x.ndim else x


def softmax(d, x, pool):
    return d.one(jj.softmax, jj.log_softmax)(x, d.upto(x.ndim)) if x.ndim else x


def matmul(d, x, pool):
    if x.ndim < 2:
        return x
    partners = [y for y in floating(pool) if y.ndim == 2 and y.shape[0] == x.shape[-1]]
    y = d.one(*partners, d.constant(x.shape[-1], d.one(1, 4, 9, 17)))
    return (
        d.one(
            lambda: x @ y,
            lambda: jj.linear(x, y.T, d.constant(y.shape[1])),
            lambda: x @ jj.flip(x, 0).transpose(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2),
        )()
        * 0.3
    )


def conv(d, x, pool):
    kernel, dilation, stride = (d.one(1, 2, 3), d.one(1, 2, 3, 5)), (d.one(1, 1, 2), 1), (d.one(1, 2, 3), d.one(1, 2))
    x = d.image(x, [1 + (k - 1) * e for k, e in zip(kernel, dilation, strict=True)])
    c = x.shape[-1]
    groups = d.one(1, c) if c <= 8 else 1
    w = d.constant(*kernel, c // groups, groups * d.one(1, 2, 5)) * 0.4
    bias = d.one(None, d.constant(w.shape[-1]))
    padding = d.one(0, 1, 2, ((0, 2), (1, 0)), "same")
    return jj.conv(
        x, w, bias, stride=1 if padding == "same" else stride, padding=padding, dilation=dilation, groups=groups
    )


def own_kernel(d, x, pool):
    """A convolution whose kernel depends on what it convolves."""
    x = d.image(x, (2, 2))
    w = jj.tanh(x[:1, :2, :2, :].reshape(2, 2, x.shape[-1], 1))
    return jj.conv(jj.sin(x), w, padding=d.upto(2), stride=d.one(1, 2))


def conv_transpose(d, x, pool):
    x = d.image(x)
    w = d.constant(d.one(2, 3), d.one(2, 3), d.one(1, 4), x.shape[-1]) * 0.4
    return jj.conv_transpose(
        x, w, stride=(d.one(1, 2, 3), d.one(1, 2)), padding=d.upto(2) if min(x.shape[1:3]) > 2 else 0
    )


def max_pool(d, x, pool):
    size = d.one(2, 3, (3, 1))
    x = d.distinct(d.image(x, (3, 3)))
    return jj.max_pool(x, size, d.one(None, 1, 2), d.one(0, 1) if size != (3, 1) else 0, ceil_mode=bool(d.upto(2)))


def avg_pool(d, x, pool):
    return jj.avg_pool(
        d.image(x, (3, 3)), d.one(2, 3), d.one(None, 1, 2), d.one(0, 1), bool(d.upto(2)), bool(d.upto(2))
    )


def batch_norm(d, x, pool):
    x = d.image(x) + d.constant(*d.image(x).shape)
    if x.size < 2 * x.shape[-1]:
        return x
    c = x.shape[-1]
    y, mean, var = jj.batch_norm(
        x, d.constant(c), d.constant(c), jj.Tensor(np.zeros(c, d.dtype)), jj.Tensor(np.ones(c, d.dtype)), training=True
    )
    pool += [mean, var]
    return y


def dropout(d, x, pool):
    return jj.dropout(x, jj.random.state(d.upto(9)), rate=0.4)


def choose(d, x, pool):
    y = d.one(*fitting(pool, x))
    condition = d.one(jj.greater, jj.less, jj.greater_equal)(x, d.one(0.2113, y + 0.0137))
    return d.one(
        lambda: jj.where(condition, x, y), lambda: jj.where(condition, 1.5, x), lambda: x * condition.astype(d.dtype)
    )()


def integers(d, x, pool):
    """Casts there and back."""
    whole = jj.floor(x * 3 + 0.1237).astype(d.one("int32", "int64", "float64"))
    return whole.astype(d.dtype) * x


def stopped(d, x, pool):
    return jj.stop_gradient(x) * x


STEPS = [
    pointwise, guarded, kinked, pair, scaled, reshape, transpose, window, flip, pad, broadcast, concat, total, largest,
    places, running, take, found, softmax, matmul, conv, own_kernel, conv_transpose, max_pool, avg_pool, batch_norm,
    dropout, choose, integers, stopped,
]  # fmt: skip


AROUND_CONVOLUTIONS = [
    conv, conv, own_kernel, conv_transpose, matmul, batch_norm, max_pool, avg_pool, pointwise, kinked, pair, total,
    broadcast, pad, transpose, window, flip, concat,
]  # fmt: skip


def outcome(steps, dtype, inputs):
    """The tensors that a program makes of its inputs: the last two, and one more."""
    pool = list(inputs)
    for step, seed in steps:
        dice = Dice(seed, dtype)
        # Often the newest tensor, so that programs are deep.
        y = step(dice, dice.one(pool[-1], *pool), pool)
        if y.size > LIMIT:
            y = y[tuple(slice(0, max(1, n * 3 // 5)) for n in y.shape)]
        pool.append(y if y.size <= LIMIT else y.reshape(-1)[:LIMIT])
    return [*pool[-2:], pool[steps[0][1] % len(pool)]]


def program(steps, dtype):
    """The outputs and the gradients of a random weighted sum of them."""

    def loss(*inputs):
        outputs = outcome(steps, dtype, inputs)
        dice = Dice(steps[-1][1], dtype)
        return sum((jj.sin(y) * dice.constant(*y.shape)).sum() for y in outputs), outputs

    def whole(*inputs):
        return jj.value_and_grad(loss, tuple(range(len(inputs))), has_aux=True)(*inputs)

    return whole


def inputs(dtype):
    rng = np.random.default_rng(7)
    return [jj.Tensor(rng.normal(size=shape).astype(np.float32).astype(dtype)) for shape in SHAPES]


def leaves(steps, dtype, compiled):
    function = program(steps, dtype)
    found = (jj.compile(function) if compiled else function)(*inputs(dtype))
    return [x.array for x in jj.tree.leaves(found)]


def error(x, y):
    return np.abs(x.astype(np.float64) - y).max(initial=0)


def programs(steps):
    return st.lists(st.tuples(st.sampled_from(steps), st.integers(0, 1 << 16)), min_size=1, max_size=8)


def check(steps):
    exact = leaves(steps, "float64", False)
    single = leaves(steps, "float32", False)
    for mine, want in zip(leaves(steps, "float64", True), exact, strict=True):
        assert mine.shape == want.shape
        assert error(mine, want) <= 1e-10 * np.abs(want).max(initial=0.1)
    for mine, plain, want in zip(leaves(steps, "float32", True), single, exact, strict=True):
        assert (mine.shape, mine.dtype) == (plain.shape, plain.dtype)
        assert error(mine, want) <= max(1e-5 * np.abs(want).max(initial=1), 4 * error(plain, want))


deterministic = settings(derandomize=True, deadline=None, max_examples=120, database=None)


@deterministic
@given(programs(STEPS))
def test_any_program(steps):
    check(steps)


@deterministic
@given(programs(AROUND_CONVOLUTIONS))
def test_around_convolutions(steps):
    """Borders, ends of contractions, and what is put together with them."""
    check(steps)
