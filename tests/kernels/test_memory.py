"""The memory of plans: as much as they say, nothing in use overwritten, nothing read before it is written."""

import itertools

import numpy as np
import pytest
from frames import HALVES_HERE

import juanji as jj
from juanji.engine import remake
from juanji.engine.calls import FLAG

RNG = np.random.default_rng(0)


def network(name, precision="float32", **options):
    """A compiled training step, its arguments, and what keeps state."""
    net = jj.models.create(name, seed=1, **options)
    optimiser = jj.optim.SGD(net, 0.01, momentum=0.9)

    def step(x, y):
        (loss, logits), grads = jj.value_and_grad(objective, has_aux=True)(net, x, y)
        optimiser.update(net, grads)
        return loss, logits, grads

    def objective(m, x, y):
        logits = m(x)
        return jj.cross_entropy(logits, y), logits

    x = RNG.normal(size=(5, *net.config["input_size"], net.config["in_channels"])).astype(np.float32)
    return jj.compile(step, precision=precision), (x, np.arange(5)), (net, optimiser)


def pooled():
    """Scatters, running sums, gathers, transposed convolutions, borders of several widths around one image."""
    w = RNG.normal(size=(3, 3, 2, 2)).astype(np.float32)

    def function(x, index):
        y = jj.conv(x, w, padding=2) + jj.conv(x, w, padding=2, dilation=1)
        z = jj.conv(x, w, padding=((0, 3), (1, 0)), stride=2)
        up = jj.conv_transpose(z, w, stride=2, padding=1)
        most, place = jj.max_pool(y, 2, 1, 1, return_indices=True)
        both = jj.conv(x.sum(0, keepdims=True), w, padding=1)
        return up, most, place, jj.cumsum(jj.take(y, index, 1), 2), jj.softmax(z), both

    def loss(x, index):
        return sum(jj.sin(y).sum() for y in function(x, index) if y.is_floating)

    def whole(x, index):
        return function(x, index), jj.grad(loss)(x, index)

    return jj.compile(whole), (RNG.normal(size=(2, 9, 7, 2)).astype(np.float32), np.array([4, 0, 4])), ()


def wide():
    """Images with so many channels that there are gaps between their pixels, read by convolutions and by others."""
    v, w = (RNG.normal(size=(1, 1, *channels)).astype(np.float32) / 20 for channels in ((3, 512), (512, 4)))

    def loss(x, v, w):
        y = jj.relu(jj.conv(x, v))
        z = jj.conv(y, w, padding=1) + jj.conv(jj.flip(y, 1), w, padding=1)
        return (
            (z**2).sum()
            + jj.softmax(jj.reshape(y, (8, 5, -1)), 1).max()
            + jj.max_pool(y, 2).sum()
            + y[:, 1:, ::2, 5:].sum()
        )

    return (
        jj.compile(jj.value_and_grad(loss, argnums=(0, 1, 2))),
        (RNG.normal(size=(2, 4, 5, 3)).astype(np.float32), v, w),
        (),
    )


def evaluation():
    net = jj.models.create("batchnorm_net", seed=1, input_size=18).eval()
    return jj.compile(net), (RNG.normal(size=(3, 18, 18, 1)).astype(np.float32),), (net,)


def remade():
    """A network small as it is whose activations are computed again on the way back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remake, "LARGE", 1)
        patch.setattr(remake, "LONG", 2)
        function, args, owners = network("resnet18", stem="small", channels=(4, 8), blocks=(2, 1), input_size=9)
        assert any(key[0] == "again" for key in function.plan(*args).draft.sizes if isinstance(key, tuple))
    return function, args, owners


def halves():
    return network("resnet18", "bfloat16", stem="small", channels=(16, 64), blocks=(1, 1), input_size=17)


CASES = {
    "evaluation": evaluation,
    "lenet5": lambda: network("lenet5", input_size=20),
    "batchnorm_net": lambda: network("batchnorm_net", input_size=18),
    "resnet18": lambda: network("resnet18", stem="small", channels=(4, 8), blocks=(1, 1), input_size=9),
    "vgg11_bn": lambda: network("vgg11_bn", stages=((4,), (8,)), pooled=3, hidden=(6,), input_size=11),
    "remade": remade,
    **({"bfloat16": halves} if HALVES_HERE else {}),
    "pooled": pooled,
    "wide": wide,
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    function, args, owners = CASES[request.param]()
    return function.plan(*args), args, owners


def extent(plan, key):
    """The bytes of a buffer in the arena."""
    start = plan.offsets[key]
    return start, start + plan.draft.sizes[key]


def lives(plan):
    """The levels between which each buffer of the arena is in use; what lasts is in use at all of them."""
    used = {}
    for call in plan.calls:
        for key in call.reads | call.writes:
            used.setdefault(key, set()).add(call.level)
    last = max(call.level for call in plan.calls)
    lasting = plan.lasting()
    spans = {key: (min(levels), max(levels)) for key, levels in used.items() if key in plan.offsets}
    return spans | {key: (0, last) for key in plan.offsets if key in lasting}


def test_what_is_computed_again_is_the_same():
    (step, args, owners), (other, _, others) = (
        make()
        for make in (remade, lambda: network("resnet18", stem="small", channels=(4, 8), blocks=(2, 1), input_size=9))
    )
    assert step.plan(*args).peak < other.plan(*args).peak
    for _ in range(2):
        for mine, want in zip(jj.tree.leaves(step(*args)), jj.tree.leaves(other(*args)), strict=True):
            np.testing.assert_array_equal(mine.array, want.array)
    for owner, twin in zip(owners, others, strict=True):
        for path, cell in owner.cells().items():
            np.testing.assert_array_equal(cell.read().array, twin.cells()[path].read().array)


def test_gaps_between_pixels_change_nothing():
    function, args, _ = wide()
    layouts = function.plan(*args).draft.layouts.values()
    assert any(layout.extents[-1] > layout.shape[-1] for layout in layouts if layout.border)
    for mine, want in zip(jj.tree.leaves(function(*args)), jj.tree.leaves(function.function(*args)), strict=True):
        np.testing.assert_allclose(mine.array, want.array, rtol=1e-4, atol=1e-4)


def test_memory_is_what_is_allocated(case):
    plan, _, _ = case
    homes = sum(home.array.nbytes for home in plan.homes.values())
    assert plan.memory() == plan.arena.size + homes
    assert all(start >= 0 and end + 64 <= plan.arena.size for start, end in (extent(plan, key) for key in plan.offsets))
    assert plan.peak < sum(plan.draft.sizes.values())


def test_buffers_in_use_at_the_same_time_lie_apart(case):
    plan, _, _ = case
    places = {key: (*extent(plan, key), *span) for key, span in lives(plan).items()}
    for (one, a), (other, b) in itertools.combinations(places.items(), 2):
        apart = a[1] <= b[0] or b[1] <= a[0] or a[3] < b[2] or b[3] < a[2]
        assert apart, (one, a, other, b)


def test_calls_come_after_what_they_need(case):
    """What a call reads is written at an earlier level; what it overwrites is read at an earlier one."""
    plan, _, _ = case
    inputs = {plan.draft.places[id(x)].key for x in plan.draft.program.inputs}
    given = inputs | set(plan.draft.constants) | set(plan.homes)
    for call in plan.calls:
        for key in call.reads - given - {FLAG}:
            writers = [other for other in plan.calls if key in other.writes]
            assert writers
            assert all(other.level < call.level for other in writers)
        for key in call.writes & set(plan.homes):
            assert call.commits
            assert all(other.level < call.level for other in plan.calls if key in other.reads and other is not call)
        for other in plan.calls:
            if other is not call and other.level == call.level and call.writes & (other.reads | other.writes) - {FLAG}:
                # Different places of one tensor: its border and its inside, the parts of a strided gradient.
                parts = call.what == other.what and call.what.startswith("conv_input_grad")
                assert parts or "border" in (call.what, other.what)


def test_slots_name_what_is_read_and_written(case):
    """Every buffer among a kernel's arguments is known as read or written."""
    plan, _, _ = case
    for call in plan.calls:
        keys = set(call.slots)
        buffers = {key for key in keys if not (isinstance(key, tuple) and key[0] in ("number", "count"))}
        assert buffers - {FLAG} <= call.reads | call.writes


@pytest.mark.parametrize("canary", [np.nan, 1e30])
def test_no_memory_is_read_before_it_is_written(case, canary):
    """A plan computes the same whatever lay in its memory, inputs and constants apart."""
    plan, args, owners = case
    arrays = [x for x in args if isinstance(x, np.ndarray)]
    cells = [cell for owner in owners for cell in owner.cells().values()]
    saved = [cell.read() for cell in cells]

    def run(fill):
        for cell, value in zip(cells, saved, strict=True):
            cell.write(value)
        plan.arena.view[:] = np.frombuffer(np.float32(fill).tobytes(), np.uint8)[np.arange(plan.arena.size) % 4]
        plan.fill_constants()
        plan.versions = None  # what is computed ahead of all steps is gone too
        plan.bind(arrays)
        assert plan.run()
        found = [x.array for x in jj.tree.leaves(plan.results())]
        return found + [cell.read().array for cell in cells]

    for mine, want in zip(run(canary), run(0.0), strict=True):
        np.testing.assert_array_equal(mine, want)
