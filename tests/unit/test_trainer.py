"""The choices of a training: schedules, averages, clipping, parts of a batch, freezing, stopping, limits."""

import itertools
import json
import math
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import juanji as jj
from juanji.data import Augment, Dataset, Images, Jitter, Preprocessing
from juanji.engine.compiled import Compiled
from juanji.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError, UnknownNameError
from juanji.models import create
from juanji.nn import BatchNorm2d, Conv2d, Flatten, Linear, ReLU, Sequential
from juanji.optim import SGD, ExponentialMovingAverage, multiplied
from juanji.tensor import Tensor
from juanji.train import Callback, Recipe, Stepper, Trainer, budget, fit, freezing, limit
from juanji.train.range import RangeTest, range_test
from juanji.train.recalibration import Recalibration
from juanji.train.recipe import SCHEDULES, Objective, balanced
from juanji.train.validation import with_validation

STILL = {"augment": Augment(), "label_smoothing": 0.0}


def images(n, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.uniform(0, 0.5, (n, 6, 6, 1)).astype(np.float32)
    x[np.arange(n), y] += 0.4
    return Images(x, y)


DATA = Dataset("stripes", images(36), images(10, 1), ("a", "b"))


def plain(seed=0):
    model = Sequential(Conv2d(1, 3, 3), ReLU(), Flatten(), Linear(48, 2))
    model.initialise(seed)
    return model


def normalised(seed=0):
    model = Sequential(Conv2d(1, 3, 3), BatchNorm2d(3), ReLU(), Flatten(), Linear(48, 2))
    model.initialise(seed)
    return model


def arrays(model):
    return {path: tensor.array for path, tensor in model.state_dict().items()}


def bits(model):
    return {path: array.tobytes() for path, array in arrays(model).items()}


# Recipes


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_by_name(name):
    schedule = Recipe(lr=0.5, schedule=name, warmup=0.2).make_schedule(90)
    rates = [schedule(step) for step in range(90)]
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    first, last = {
        "cosine": (0.5 / 18, 0.0),
        "one_cycle": (0.5 / 25, 0.0),
        "step": (0.5, 0.005),
        "constant": (0.5, 0.5),
    }[name]
    assert rates[0] == pytest.approx(first, rel=1e-6)
    assert rates[-1] == pytest.approx(last, abs=3e-4)
    if name == "step":
        assert rates[29:31] == [0.5, 0.05]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"schedule": "cosin"}, UnknownNameError, r"no schedule named 'cosin'[\s\S]*did you mean 'cosine'"),
        ({"class_weights": "even"}, ArgumentError, r"unknown class_weights\n  received  class_weights='even'"),
        ({"ema": 1.0}, ArgumentError, r"training: bad ema\n  received  ema=1.0\n  rule      in \[0, 1\)"),
        ({"clip_norm": -1}, ArgumentError, "training: bad clip_norm"),
        ({"accumulate": 0}, ArgumentError, "training: bad accumulate"),
        ({"accumulate": 9, "batch": 8}, ArgumentError, r"a batch has no such parts\n  received  accumulate=9, batch=8"),
        ({"patience": 1.5}, ArgumentError, "training: bad patience"),
        ({"eval_every": 0}, ArgumentError, r"training: bad eval_every\n  received  eval_every=0\n  rule      [\s\S]*1"),
        (
            {"tta": "mirrors"},
            UnknownNameError,
            r"no tta named 'mirrors'\n  rule      one of mirror, none, shifts[\s\S]*'mirror'",
        ),
        ({"time_limit": -1}, ArgumentError, "training: bad time_limit"),
        ({"unfreeze_at": (2,)}, ArgumentError, "there is nothing to unfreeze"),
        ({"unfreeze_at": (0,), "freeze": "1"}, ArgumentError, "bad unfreeze_at"),
    ],
)
def test_bad_choices(options, error, text):
    with pytest.raises(error, match=text):
        Recipe(**options)


def test_a_recipe_comes_back_from_json():
    recipe = Recipe(unfreeze_at=(2, 5), freeze="all", lr_multipliers=(("*.bias", 2.0),), ema=0.5, lr=0.1)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe.from_dict({}) == Recipe()
    assert Recipe.from_dict({"jitter": {"shift": 0.5}}).augment == Augment(jitter=Jitter(shift=0.5))  # as it was once
    with pytest.raises(UnknownNameError, match=r"no choice of a training named 'epoch'[\s\S]*did you mean 'epochs'"):
        Recipe.from_dict({"epoch": 3})


def test_class_weights():
    found = balanced([30, 10, 0])
    np.testing.assert_allclose(found, [40 / 60, 40 / 20, 0])
    loss = Objective(weight=found)
    y = np.array([0, 0, 0, 1])
    assert loss.mass(y) == pytest.approx(4.0)
    assert loss.mass(np.eye(3)[y]) == 4
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    each = np.asarray(jj.cross_entropy(Tensor(logits), Tensor(y), reduction="none"))
    expected = (each * found[y]).sum() / found[y].sum()
    assert float(loss(Tensor(logits), Tensor(y))) == pytest.approx(expected, rel=1e-5)


def test_balanced_weights_help_the_small_class():
    data = Dataset("uneven", images(80)[np.r_[0:80:2, 1:9:2]], images(20, 1), ("a", "b"))
    trainer = Trainer(plain(), data, Recipe(epochs=1, class_weights="balanced", **STILL))
    np.testing.assert_allclose(trainer.loss.weight, balanced([40, 4]))


# Averages


def test_averages_are_those_of_the_formula():
    model = plain()
    average = ExponentialMovingAverage(model, 0.5)
    expected, optimizer = arrays(model), SGD(model, 0.1)
    stepper = Stepper(model, optimizer, jj.cross_entropy, average=average)
    for t in range(1, 6):
        stepper.step(DATA.train.x[:8], DATA.train.y[:8])
        decay = min(0.5, (1 + t) / (10 + t))
        expected = {path: decay * expected[path] + (1 - decay) * array for path, array in arrays(model).items()}
    average.copy_to(model)
    for path, array in arrays(model).items():
        np.testing.assert_allclose(array, expected[path], rtol=1e-5, atol=1e-7)


def test_averages_of_another_network_and_of_numbers_that_are_no_share():
    with pytest.raises(ArgumentError, match="not the network that is averaged"):
        ExponentialMovingAverage(plain()).update(normalised())
    with pytest.raises(ArgumentError, match="bad decay"):
        ExponentialMovingAverage(plain(), 1.0)


def test_whole_numbers_are_taken_over():
    model = normalised()
    average = ExponentialMovingAverage(model, 0.9)
    Stepper(model, SGD(model, 0.1), jj.cross_entropy, average=average).step(DATA.train.x[:4], DATA.train.y[:4])
    average.copy_to(model)
    assert int(model[1].num_batches_tracked) == 1


def test_what_is_judged_and_kept_is_the_average():
    seen = {}

    class Look(Callback):
        def on_epoch(self, trainer, row):
            seen[row.epoch] = bits(trainer.model)

    trainer = Trainer(plain(), DATA, Recipe(epochs=2, batch=12, ema=0.9, **STILL), callbacks=[Look()])
    rows = trainer.run()
    row = next(rows)
    raw = bits(trainer.model)
    assert raw != seen[1]  # training goes on with its own weights
    trainer.average.copy_to(trainer.model)
    assert bits(trainer.model) == seen[1]
    assert trainer.evaluate(DATA.test) == (row.test_loss, row.test_accuracy)
    list(rows)
    assert bits(trainer.model) == seen[2]


def test_recalibration_takes_the_mean_of_the_statistics():
    model = normalised().train()
    x = [DATA.train.x[:12], DATA.train.x[12:24]]
    means = [np.asarray(model[0](batch)).mean(axis=(0, 1, 2)) for batch in x]
    variances = [np.asarray(model[0](batch)).var(axis=(0, 1, 2), ddof=1) for batch in x]
    recalibrate = Recalibration(model)
    for _ in range(2):
        recalibrate(x)
        np.testing.assert_allclose(model[1].running_mean, np.mean(means, axis=0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model[1].running_var, np.mean(variances, axis=0), rtol=1e-4)
    assert model[1].momentum == 0.1
    assert int(model[1].num_batches_tracked) == 0
    model[1].eval()
    before = bits(model)
    recalibrate(x)
    assert bits(model) == before


# Steps


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [12, 10])
def test_parts_of_a_batch_make_the_same_step(n, weighted):
    weight = np.array([0.3, 2.0]) if weighted else None
    found = []
    for parts in (1, 4):
        model = plain().astype("float64")
        loss = Objective(0.1, weight)
        stepper = Stepper(model, SGD(model, 0.1, 0.9), loss, 12, parts=parts, mass=loss.mass, clip_norm=0.5)
        x = DATA.train.x[:n].astype(np.float64)
        results = [stepper.step(x, DATA.train.y[:n]) for _ in range(3)]
        found.append((results, arrays(model)))
    (one, weights), (other, other_weights) = found
    np.testing.assert_allclose(one, other, rtol=1e-12)
    for path, array in weights.items():
        np.testing.assert_allclose(other_weights[path], array, rtol=1e-11, atol=1e-13)


def test_a_part_that_is_not_finite_undoes_the_others():
    model = normalised()
    stepper = Stepper(model, SGD(model, 0.1), jj.cross_entropy, 8, parts=2)
    x, y = DATA.train.x[:8].copy(), DATA.train.y[:8]
    x[7] = np.nan
    before = bits(model)
    with pytest.raises(NonFiniteError, match="the images have NaN in them"):
        stepper.step(x, y)
    assert bits(model) == before
    assert int(stepper.optimizer.updates) == 0
    stepper.step(DATA.train.x[:8], y)
    assert int(stepper.optimizer.updates) == 1


def test_long_gradients_are_clipped():
    model = plain()
    before = arrays(model)
    Stepper(model, SGD(model, 1.0), jj.cross_entropy, clip_norm=0.01).step(DATA.train.x[:8], DATA.train.y[:8])
    moved = math.sqrt(sum(float(((array - before[path]) ** 2).sum()) for path, array in arrays(model).items()))
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_labels_may_be_shares():
    found = []
    for y in (DATA.train.y[:8], np.eye(2, dtype=np.float32)[DATA.train.y[:8]]):
        model = plain()
        loss, right = Stepper(model, SGD(model, 0.1), jj.cross_entropy).step(DATA.train.x[:8], y)
        found.append((loss, right))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_learning_rates_of_their_own():
    changes = []
    for patterns in ({}, {"*bias": 64.0}):
        model = plain()
        before = arrays(model)
        optimizer = multiplied(SGD(model, 0.001), patterns)
        Stepper(model, optimizer, jj.cross_entropy).step(DATA.train.x[:8], DATA.train.y[:8])
        changes.append({path: array - before[path] for path, array in arrays(model).items()})
    np.testing.assert_allclose(changes[1]["0.bias"], 64 * changes[0]["0.bias"], rtol=1e-3)
    assert (changes[1]["0.weight"] == changes[0]["0.weight"]).all()
    with pytest.raises(ArgumentError, match=r"no parameter matches\n  received  'bn\*'[\s\S]*0\.weight"):
        multiplied(SGD(plain(), 0.1), {"bn*": 2.0})
    with pytest.raises(ArgumentError, match="learning-rate multiplier: bad"):
        multiplied(SGD(plain(), 0.1), {"*": -2.0})


# Freezing


def test_stages_of_networks():
    assert freezing.stages(create("resnet18", width=0.1))[:2] == [("conv1", "bn1"), ("layer1",)]
    assert freezing.stages(create("vgg11_bn", width=0.05))[0] == ("features.0", "features.1")
    assert freezing.stages(plain()) == [("0",)]
    assert freezing.chosen(plain(), "") == []
    assert freezing.chosen(create("resnet20"), "layer1, layer2") == [("layer1",), ("layer2",)]
    for wrong in ("9", "0", "layer9", "relu"):
        with pytest.raises(
            ArgumentError, match=r"no such part to freeze\n  received  freeze='\w+'\n  rule      1 to 4 of"
        ):
            freezing.chosen(create("resnet20"), wrong)


@pytest.mark.parametrize(
    ("unfreeze_at", "frozen"),
    [((), [3, 3, 3, 3, 3]), ((3,), [3, 3, 0, 0, 0]), ((2, 4), [3, 2, 2, 0, 0]), ((2, 3, 4, 5), [3, 2, 1, 0, 0])],
)
def test_stages_thaw_from_the_last_on(unfreeze_at, frozen):
    stages = [("a",), ("b",), ("c",)]
    assert [len(freezing.frozen_in(stages, unfreeze_at, epoch)) for epoch in range(1, 6)] == frozen


def test_what_is_frozen_stays(monkeypatch):
    made = []
    monkeypatch.setattr(Compiled, "make", lambda self, args, make=Compiled.make: made.append(1) or make(self, args))
    model, after = normalised(), {}
    recipe = Recipe(epochs=4, batch=12, freeze="1", unfreeze_at=(3,), weight_decay=0.1, **STILL)
    before = bits(model)
    for row in fit(model, DATA, recipe):
        after[row.epoch] = bits(model)
    stays = {path for path in before if path.startswith(("0.", "1."))}
    assert {path for path in before if before[path] == after[2][path]} == stays
    assert {path for path in before if after[2][path] == after[4][path]} == set()
    assert len(made) == 3  # frozen, thawed, and for judging


def test_all_but_the_head():
    model = create("batchnorm_net", width=0.5, in_channels=1, input_size=16, classes=2)
    data = Dataset(
        "d",
        Images(np.random.default_rng(0).random((8, 16, 16, 1), np.float32), np.arange(8) % 2),
        DATA.test[:0],
        ("a", "b"),
    )
    before = bits(model)
    list(fit(model, data, Recipe(epochs=1, batch=4, freeze="all", **STILL)))
    assert {path for path, value in bits(model).items() if value != before[path]} == {"fc3.weight", "fc3.bias"}


# Stopping


def test_one_may_look_at_the_test_images_seldom():
    rows = list(fit(plain(), DATA, Recipe(epochs=5, batch=12, eval_every=2, **STILL)))
    assert [row.test_accuracy is not None for row in rows] == [False, True, False, True, True]
    every = list(fit(plain(), DATA, Recipe(epochs=5, batch=12, **STILL)))
    assert rows[-1].test_loss == every[-1].test_loss
    assert None not in (rows[-1].test_accuracy, rows[3].test_loss)


def test_patience_counts_looks():
    class Judge(Trainer):
        def evaluate(self, images):
            return float(self.progress.epoch > 4), 0.5

    recipe = Recipe(epochs=20, batch=12, patience=3, eval_every=2, **STILL)
    trainer = Judge(plain(), DATA, recipe)
    rows = list(trainer.run())
    assert [row.epoch for row in rows if row.val_loss is not None] == [2, 4, 6]
    assert (len(rows), trainer.progress.best.epoch) == (6, 2)


def test_the_last_weights_are_judged_wherever_training_ends():
    recipe = Recipe(epochs=50, batch=12, patience=3, eval_every=50, stop_epsilon=1e9, **STILL)
    trainer = Trainer(plain(), DATA, recipe)
    rows = list(trainer.run())
    assert len(rows) < 50
    assert None not in (rows[-1].val_accuracy, rows[-1].test_accuracy)
    assert trainer.progress.best.epoch == len(rows)


def test_a_training_that_stops_by_itself_is_tested():
    rows = list(fit(plain(), DATA, Recipe(epochs=50, batch=12, eval_every=50, stop_epsilon=1e9, **STILL)))
    assert len(rows) < 50
    assert rows[-1].test_accuracy is not None


def test_networks_are_tested_as_they_are_asked():
    one, other = (list(fit(plain(), DATA, Recipe(epochs=2, batch=12, tta=tta, **STILL))) for tta in ("none", "mirror"))
    assert one[-1].train_loss == other[-1].train_loss
    assert one[-1].test_loss != other[-1].test_loss


def test_patience_goes_back_to_the_best():
    class Judge(Trainer):
        """Says that it gets better until the third epoch, and keeps what it saw."""

        seen: dict = {}  # noqa: RUF012

        def evaluate(self, images):
            if images is self.dataset.test:
                return 0.0, 0.125
            self.seen[self.progress.epoch] = bits(self.model)
            return abs(self.progress.epoch - 3.0), 0.5

    trainer = Judge(plain(), DATA, Recipe(epochs=20, batch=8, patience=2, **STILL))
    rows = list(trainer.run())
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5]
    assert trainer.progress.best.epoch == 3
    assert bits(trainer.model) == trainer.seen[3]
    assert [row.test_accuracy for row in rows] == [None] * 4 + [0.125]
    assert len(trainer.dataset.val) + len(trainer.dataset.train) == 36


def test_between_looks_the_model_is_still_the_best():
    class Judge(Trainer):
        def evaluate(self, images):
            return float(self.progress.epoch), 0.5

    class Keep(Callback):
        def on_epoch(self, trainer, row):
            seen.append(bits(trainer.model))

    seen = []
    [*Judge(plain(), DATA, Recipe(epochs=5, batch=8, eval_every=2, patience=9, **STILL), callbacks=[Keep()]).run()]
    assert seen[0] != seen[1]
    assert seen[1:] == [seen[1]] * 4


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=4, max_size=60), st.integers(-3, 3), st.randoms()
)
def test_a_tenth_of_each_class_validates(found, seed, shuffled):
    """Whatever the order; equal images stay on one side."""
    found += [(0, 0), (0, 1)]
    x = np.zeros((len(found), 1, 2, 1), np.float32)
    y = np.array([label for label, _ in found])
    x[:, 0, 0, 0], x[:, 0, 1, 0] = y / 4, [value / 8 for _, value in found]
    order = list(range(len(found)))
    shuffled.shuffle(order)
    held = set()
    for some in (np.arange(len(found)), np.array(order)):
        data = with_validation(Dataset("d", Images(x[some], y[some]), Images(x[:0], y[:0]), ("a", "b", "c")), seed)
        train, val = ({part.x[i].tobytes() for i in range(len(part))} for part in (data.train, data.val))
        assert not train & val
        assert {int(label) for label in data.train.y} == set(y.tolist())
        assert len(data.train) + len(data.val) == len(found)
        held.add(frozenset(val))
    assert len(held) == 1


def test_copies_do_not_go_to_validation_with_most_of_a_class():
    x = np.zeros((20, 1, 1, 1), np.uint8)
    x[18:, 0, 0, 0] = 1, 2
    x, y = np.concatenate([x, x + 100]), np.repeat([0, 1], 20)
    x[39] = x[19]  # one that is in both classes
    for seed in range(8):
        data = with_validation(Dataset("d", Images(x, y), Images(x[:0], y[:0]), ("a", "b")), seed)
        val = data.val.x.ravel().tolist()
        assert set(val) <= {1, 2, 101}
        assert val.count(2) in (0, 2)


def test_nothing_to_validate_on():
    lone = Dataset("lone", images(2), images(2), ("a", "b"))
    with pytest.raises(DataError, match="has no images to validate on"):
        with_validation(lone)
    own = Dataset("own", images(20), images(2), ("a", "b"), val=images(4))
    assert with_validation(own) is own


# Limits


def test_a_time_limit_decides_the_number_of_steps(monkeypatch):
    monkeypatch.setattr(limit, "seconds_of_a_step", lambda trainer: 1.0)
    trainer = Trainer(plain(), DATA, Recipe(epochs=100, batch=12, time_limit=10.0, **STILL))
    rows = list(trainer.run())
    assert trainer.progress.done == 9
    assert len(rows) == 3
    assert rows[-1].lr < 0.1 * max(row.lr for row in rows)


def test_a_time_limit_is_kept(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock) / 100)  # whatever else the machine is doing
    trainer = Trainer(normalised(), DATA, Recipe(epochs=100_000, batch=12, time_limit=2.0, ema=0.9, **STILL))
    before = bits(trainer.model)
    assert limit.seconds_of_a_step(trainer) > 0
    assert bits(trainer.model) == before
    assert int(trainer.optimizer.updates) == int(trainer.average.updates) == 0
    list(trainer.run())
    assert trainer.progress.done > 9
    assert 1.5 < trainer.progress.seconds < 2.1
    assert trainer.progress.history[-1].lr < 1e-3


def test_a_time_that_does_not_do_is_noticed():
    progress = types.SimpleNamespace(total=100, done=10, batch=10, epoch_seconds=20.0, seconds=20.0, history=())
    trainer = types.SimpleNamespace(recipe=Recipe(time_limit=60.0), progress=progress, count=10)
    assert limit.revised(trainer) == 30
    progress.seconds = 100.0
    assert limit.revised(trainer) == 10
    progress.seconds, progress.epoch_seconds = 1.0, 0.1
    assert limit.revised(trainer) == 100


@pytest.mark.parametrize(("seconds", "total"), [((1, 1, 9), 430), ((1, 9), 420), ((9, 1, 9), 74), ((9, 1, 1), 430)])
def test_a_single_epoch_that_was_held_up_does_not_count(seconds, total):
    """Such as by the first learning curve. Epochs have 10 steps, and 40 s are left."""
    *rows, last = (types.SimpleNamespace(seconds=float(each)) for each in seconds)
    progress = types.SimpleNamespace(
        total=500, done=10 * len(seconds), batch=10, epoch_seconds=last.seconds, seconds=20.0, history=tuple(rows)
    )
    trainer = types.SimpleNamespace(recipe=Recipe(time_limit=60.0), progress=progress, count=10)
    assert limit.revised(trainer) == total


def test_a_look_now_and_then_is_shared_by_the_epochs_between():
    """Epochs of 10 steps and 10 s, but 40 s where there is a look: 2 s a step, of which 50 fit the rest of 100 s."""
    rows = tuple(types.SimpleNamespace(seconds=seconds) for seconds in (10.0, 40.0, 10.0, 10.0))
    progress = types.SimpleNamespace(
        total=99, done=60, batch=10, epoch_seconds=40.0, seconds=100.0, history=rows, looking=0.0
    )
    recipe = Recipe(time_limit=200.0, eval_every=3)
    assert limit.revised(types.SimpleNamespace(recipe=recipe, progress=progress, count=10)) == 99
    progress.total = 200
    assert limit.revised(types.SimpleNamespace(recipe=recipe, progress=progress, count=10)) == 110
    progress.looking = 30.0  # of the last look, which is not shared
    assert limit.revised(types.SimpleNamespace(recipe=recipe, progress=progress, count=10)) == 95


def test_the_range_test_leaves_all_as_it_was():
    trainer = Trainer(normalised(), DATA, Recipe(epochs=2, batch=12, ema=0.9, **STILL))
    before = {path: cell.read().array.tobytes() for path, cell in trainer.state().items()}
    found = range_test(trainer)
    assert {path: cell.read().array.tobytes() for path, cell in trainer.state().items()} == before
    assert 1e-4 < found.chosen < 1
    assert list(found.rates) == sorted(found.rates)


def test_the_rate_that_a_range_test_chooses():
    """Half way between 1e-4, from where the loss falls fastest, and a tenth of 1e-1, where it is lowest."""
    rates = tuple(10.0**k for k in range(-5, 2))
    assert RangeTest(rates, (2.3, 2.2, 1.2, 1.0, 0.9, 3.0, 9.0)).chosen == pytest.approx(1e-3)


def test_the_range_test_ends_where_numbers_end(tmp_path):
    trainer = Trainer(plain(), DATA, Recipe(epochs=2, batch=12, optimizer="sgd", **STILL))
    model = trainer.model
    model[3].weight = model[3].weight * 1e6
    found = range_test(trainer)
    assert len(found.rates) < 120
    found.save(tmp_path / "range.csv")
    lines = (tmp_path / "range.csv").read_text().splitlines()
    assert lines[0] == "lr,loss"
    assert len(lines) == len(found.rates) + 1
    broken = Trainer(
        plain(), DATA, Recipe(epochs=2, batch=12, **STILL), preprocessing=Preprocessing((6, 6), 1, (math.nan,), (1.0,))
    )
    with pytest.raises(NonFiniteError):
        range_test(broken)


def test_no_step_is_left_with_a_single_image():
    flat = Sequential(Conv2d(1, 3, 6), BatchNorm2d(3), ReLU(), Flatten(), Linear(3, 2))  # maps of 1×1
    flat.initialise(0)
    data = Dataset("stripes", images(17), images(4, 1), ("a", "b"))
    for parts in (1, 2):
        trainer = Trainer(flat, data, Recipe(epochs=2, batch=8, accumulate=parts, **STILL))
        *_, last = trainer.run()
        assert (last.epoch, trainer.progress.done, trainer.count) == (2, 4, 2)
    assert Trainer(plain(), data, Recipe(batch=1)).count == 17  # unless that is what was asked for


def test_parts_of_a_small_last_batch_are_no_smaller_than_the_others():
    taken = []
    trainer = Trainer(plain(), DATA, Recipe(epochs=1, batch=32, accumulate=4, **STILL))
    gather = trainer.stepper.part
    trainer.stepper.part = lambda x, *rest: taken.append(len(x)) or gather(x, *rest)
    [*trainer.run()]
    assert taken == [8, 8, 8, 8, 4]  # 36 images


def test_a_step_that_was_not_taken_is_forgotten_on_the_definitions(monkeypatch):
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    model = plain()
    stepper = Stepper(model, SGD(model, 0.1), jj.cross_entropy, 8, parts=2)
    x, y = DATA.train.x[:8], DATA.train.y[:8]
    with pytest.raises(NonFiniteError):
        stepper.step(x * np.nan, y)
    assert math.isfinite(stepper.step(x, y)[0])
    assert math.isfinite(stepper.step(x, y)[0])


def test_a_loss_that_changes_with_the_epochs():
    class Annealed(Trainer):
        def objective(self, logits, labels):
            return super().objective(logits, labels) + 100 * self.model.price

    model = plain()
    model.price, losses = 0.0, []
    for row in Annealed(model, DATA, Recipe(epochs=3, batch=12, **STILL)).run():
        losses.append(row.train_loss)
        model.price += 1
    assert [int(loss // 100) for loss in losses] == [0, 1, 2]


def test_an_epoch_has_batches():
    class Empty(Trainer):
        def batches(self, start=0):
            return iter(())

    with pytest.raises(DataError, match="there are no batches in this epoch"):
        next(Empty(plain(), DATA, Recipe(**STILL)).run())


def test_models_that_cannot_be_trained_are_told():
    class Pair(Sequential):
        def forward(self, x):
            return super().forward(x), x

    with pytest.raises(ShapeError, match=r"output is not a tensor\n  received  a tuple"):
        Trainer(Pair(Flatten(), Linear(36, 2)), DATA)
    with pytest.raises(DTypeError, match=r"not float32[\s\S]*0\.weight float64[\s\S]*model\.astype"):
        Trainer(plain().astype("float64"), DATA)


def test_memory_is_known_before_the_first_step():
    trainer = Trainer(plain(), DATA, Recipe(batch=12, **STILL))
    x, y = Tensor(np.zeros((16, 6, 6, 1), np.float32)), Tensor(np.zeros(16, np.int64))
    asked = budget.memory(trainer, 16)
    assert asked == trainer.stepper.whole.plan(x, y).memory()
    apart = Trainer(plain(), DATA, Recipe(batch=12, accumulate=3, **STILL))
    assert budget.memory(apart, 48) == apart.stepper.part.plan(x, y, Tensor(1.0), Tensor(0.0)).memory()


def test_the_batch_is_the_largest_that_fits(monkeypatch):
    many = Dataset("many", images(4000), images(10, 1), ("a", "b"))
    trainer = Trainer(plain(), many, Recipe(**STILL))
    monkeypatch.setattr(budget, "free_memory", lambda: 10**12)
    assert budget.largest_batch(trainer)[0] == 128  # sixteen steps an epoch, not fewer
    apart = Trainer(plain(), DATA, Recipe(batch=24, accumulate=20, **STILL))
    assert budget.largest_batch(apart)[0] == 32  # an image for each part
    room = budget.memory(trainer, 64)
    monkeypatch.setattr(budget, "free_memory", lambda: 2 * room + 2)
    batch, why = budget.largest_batch(trainer)
    assert batch == 64
    assert why.startswith("the most that fits: ")
    monkeypatch.setattr(budget, "free_memory", lambda: 1000)
    with pytest.raises(ArgumentError, match=r"not enough memory\n  received  \S+ MB for a step of 8 images"):
        budget.largest_batch(trainer)
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    with pytest.raises(ArgumentError, match=r"the batch cannot be chosen\n  received  JUANJI_BACKEND=numpy"):
        budget.largest_batch(trainer)


def test_free_memory(tmp_path, monkeypatch):
    assert 10**7 < budget.free_memory() < 10**14
    lines, inner, old = tmp_path / "cgroup", tmp_path / "above" / "inner", tmp_path / "memory"
    lines.write_text("0::/above/inner\n5:memory:/\n3:cpu:/\n")
    for folder, most, used in ((tmp_path, "max", 0), (inner.parent, 1000, 400), (inner, 3000, 300)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    assert budget.free_in_groups(tmp_path, lines) == 600
    (inner.parent / "memory.max").write_text("max\n")
    assert budget.free_in_groups(tmp_path, lines) == 2700
    old.mkdir()
    (old / "memory.limit_in_bytes").write_text("50\n")
    (old / "memory.usage_in_bytes").write_text("70\n")
    assert budget.free_in_groups(tmp_path, lines) == 0
    assert budget.free_in_groups(tmp_path, tmp_path / "none") > 10**15
    monkeypatch.setattr(budget, "MEMINFO", tmp_path / "none")
    assert budget.free_on_machine() > 10**7


# Callbacks


def test_callbacks_are_told_in_order(tmp_path):
    told = []

    class Listener(Callback):
        def on_start(self, trainer):
            told.append("start")

        def on_step(self, trainer, step):
            told.append((step.epoch, step.number, step.of, step.total))
            assert step.waited >= 0
            assert step.seconds > 0

        def on_epoch(self, trainer, row):
            told.append(row.epoch)

        def on_checkpoint(self, trainer, path):
            told.append(path.name)

        def on_end(self, trainer):
            told.append("end")

    saving = jj.train.Saving(tmp_path / "c", steps=3, seconds=0)
    trainer = Trainer(plain(), DATA, Recipe(epochs=2, batch=18, **STILL), callbacks=[Listener()], saving=saving)
    list(trainer.run())
    steps = [(1, 1, 2, 4), (1, 2, 2, 4), (2, 1, 2, 4), (2, 2, 2, 4)]
    assert told == ["start", "c", *steps[:2], 1, "c", steps[2], "c", steps[3], 2, "c", "end"]


def test_steps_may_be_overridden():
    class Squared(Trainer):
        def objective(self, logits, labels):
            return (logits * logits).mean()

        def evaluate(self, images):
            return 0.0, 1.0

    def size():
        return np.square(np.asarray(trainer.model(trainer.preprocessing(DATA.test.x)))).mean()

    trainer = Squared(plain(), DATA, Recipe(epochs=8, batch=12, lr=0.1, **STILL))
    first = size()
    rows = list(trainer.run())
    assert size() < 0.1 * first
    assert (rows[0].test_loss, rows[0].test_accuracy) == (0.0, 1.0)


MEMORY = """
import gc, sys
import numpy as np
import juanji as jj
from juanji.data import Dataset, Images
from juanji.train import Callback, Recipe, Saving, Trainer

def resident():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1])

class Watch(Callback):
    def on_epoch(self, trainer, row):
        if row.epoch in (2, 50):  # the test part is looked at after the last, by a plan of its own
            print(resident())

x = np.random.default_rng(0).random((256, 32, 32, 3), np.float32)
data = Dataset("noise", Images(x, np.arange(256) % 2), Images(x[:64], np.arange(64) % 2), ("a", "b"))
model = jj.models.create("resnet20", classes=2)
recipe = Recipe(epochs=51, batch=48, ema=0.99, patience=60, accumulate=2, optimizer="sgd")
list(Trainer(model, data, recipe, callbacks=[Watch()], saving=Saving(sys.argv[1], steps=5)).run())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how much memory is resident")
def test_memory_stays_flat_over_epochs(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "checkpoint.safetensors")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last = map(int, found.stdout.split())
    assert last <= 1.02 * first, f"{first} pages after 2 epochs, {last} after 50"
