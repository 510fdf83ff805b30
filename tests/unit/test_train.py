"""The training loop, its rules for stopping, what it says of NaN, and the run folder."""

import copy
import csv
import gc
import json
import os
import pickle
import signal
import subprocess
import sys
import weakref
from dataclasses import replace

import numpy as np
import pytest

from juanji import nn, ops
from juanji.cell import Cell
from juanji.data import PRESETS, Augment, Dataset, Images, Preprocessing
from juanji.engine.compiled import Compiled
from juanji.errors import ArgumentError, DataError, NonFiniteError, ShapeError, UnknownNameError, WeightsError
from juanji.models.network import Network
from juanji.nn import Flatten, Sequential
from juanji.nn.module import Module
from juanji.ops import cross_entropy
from juanji.optim import SGD
from juanji.tensor import Tensor
from juanji.train import Callback, Choices, Recipe, Session, Stepper, evaluate, fit, folder, load_run, predict
from juanji.train.evaluation import inference


def uniform(state, shape, dtype):
    return np.random.default_rng(int(state[0])).uniform(-0.3, 0.3, shape)


class Dense(Module):
    def __init__(self, inputs, outputs):
        self.weight = Cell((inputs, outputs), uniform)
        self.bias = Cell((outputs,), lambda state, shape, dtype: np.zeros(shape))

    def forward(self, x):
        return ops.matmul(x, self.weight) + self.bias


class Scale(Module):
    """Divides by a running size, a buffer that every training call writes."""

    def __init__(self):
        self.size = Cell((), lambda state, shape, dtype: np.ones(shape), kind="buffer")

    def forward(self, x):
        if self.training:
            self.size = self.size * 0.9 + ops.stop_gradient(ops.abs(x).mean()) * 0.1
        return x / self.size


class Net(Network):
    def __init__(self, classes=2):
        self.scale = Scale()
        self.hidden = Dense(16, 32)
        self.out = Dense(32, classes)

    def begin_with(self, images):
        """Its first weights are not taken from images."""

    def forward(self, x):
        return self.out(ops.relu(self.hidden(self.scale(x.reshape(x.shape[0], -1)))))


def bars(n=40):
    """Upright bars against lying ones, 4×4."""
    x, y = np.zeros((n, 4, 4, 1), np.float32), np.arange(n) % 2
    for i in range(n):
        x[i, i // 2 % 4 if y[i] else slice(None), slice(None) if y[i] else i // 2 % 4] = 1
    return Images(x, y)


@pytest.fixture(params=["engine", "numpy"])
def backend(request, monkeypatch):
    """On machine code, and on the definitions."""
    if request.param == "numpy":
        monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    else:
        monkeypatch.delenv("JUANJI_BACKEND", raising=False)
    return request.param


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.delenv("JUANJI_BACKEND", raising=False)


both = pytest.mark.usefixtures("backend")
DATA = Dataset("bars", bars(), bars(13), ("upright", "lying"))


def test_an_augmentation_may_be_given_by_its_name():
    assert Recipe(augment="light,hue=0.1").augment == replace(PRESETS["light"], hue=0.1)
    with pytest.raises(UnknownNameError, match="no augmentation named 'ligth'"):
        Recipe(augment="ligth")


RECIPE = Recipe(epochs=16, batch=4, augment=Augment(), label_smoothing=0.0, lr=0.03)


class On(Callback):
    """Calls functions of what happened."""

    def __init__(self, **functions):
        for name, function in functions.items():
            setattr(self, name, lambda trainer, what, function=function: function(what))


def bits(model):
    return {name: np.asarray(x).tobytes() for name, x in model.state_dict().items()}


@both
def test_the_loss_falls_and_the_bars_are_learnt():
    steps = []
    rows = list(fit(Net(), DATA, RECIPE, callbacks=[On(on_step=steps.append)]))
    assert rows[-1].train_loss < 0.2 * rows[0].train_loss
    assert rows[-1].test_accuracy == 1
    assert [row.epoch for row in rows] == list(range(1, 17))
    assert len(steps) == 160
    assert (steps[-1].epoch, steps[-1].number, steps[-1].of, steps[-1].images) == (16, 10, 10, 4)


@both
def test_the_same_seed_gives_the_same_bits():
    def train(seed):
        model = Net()
        model.initialise(seed)
        recipe = Recipe(epochs=2, batch=7, seed=seed)
        rows = list(fit(model, DATA, recipe))
        return bits(model), [(row.train_loss, row.test_loss) for row in rows]

    assert train(3) == train(3)
    assert train(3) != train(4)


@both
def test_the_model_trains_in_training_mode_and_is_tested_in_the_other():
    seen = []

    class Spy(Net):
        def forward(self, x):
            seen.append((self.training, x.shape[0]))
            return super().forward(x)

    list(fit(Spy(), DATA, Recipe(epochs=1, batch=40)))
    assert seen == [(False, 1), (True, 40), (False, 13)]  # first a look at what comes out


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "rmsprop", "sgd"])
def test_every_optimizer_learns(optimizer):
    rows = list(fit(Net(), DATA, Recipe(epochs=20, batch=8, augment=Augment(), optimizer=optimizer)))
    assert rows[-1].train_loss < rows[0].train_loss


def test_it_stops_when_the_change_falls_under_epsilon():
    rows = list(fit(Net(), DATA, Recipe(epochs=8, batch=8, stop_epsilon=1e9)))
    assert len(rows) == 2  # the first epoch has nothing to be compared with
    assert len(list(fit(Net(), DATA, Recipe(epochs=8, batch=8, stop_epsilon=1e-12)))) == 8


def test_without_test_images():
    rows = list(fit(Net(), Dataset("bars", bars(), bars()[:0], ("a", "b")), Recipe(epochs=1)))
    assert (rows[0].test_loss, rows[0].test_accuracy) == (None, None)


def test_a_model_with_other_classes_is_refused_before_training():
    with pytest.raises(ShapeError, match=r"does not fit the dataset[\s\S]*output \(1, 3\)[\s\S]*classes=2"):
        fit(Net(classes=3), DATA)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "training: bad epochs\n  received  epochs=0\n  rule      a whole number of at least 1"),
        ({"epochs": 2.5}, "training: bad epochs"),
        ({"batch": 0}, "training: bad batch"),
        ({"lr": -1.0}, "training: bad lr"),
        ({"lr": float("nan")}, "training: bad lr"),
        ({"label_smoothing": 2.0}, "training: bad label_smoothing"),
        ({"warmup": -0.1}, "training: bad warmup"),
        ({"weight_decay": -1.0}, "training: bad weight_decay"),
        ({"stop_epsilon": -1.0}, "training: bad stop_epsilon"),
    ],
)
def test_bad_choices(options, text):
    with pytest.raises(ArgumentError) as caught:
        Recipe(**options)
    assert text in str(caught.value)


def test_unknown_optimizer():
    with pytest.raises(UnknownNameError, match=r"no optimizer named 'adamm'[\s\S]*did you mean 'adam"):
        Recipe(optimizer="adamm")


def test_precisions(session, monkeypatch):
    with pytest.raises(UnknownNameError, match=r"no precision named 'bfloat'[\s\S]*did you mean 'bfloat16'"):
        Recipe(precision="bfloat")
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    run = session(Recipe(epochs=1, precision="auto"))
    assert run.config.recipe.precision == "float32"
    config = json.loads((run.path / "config.json").read_text())
    del config["training"]["precision"]  # as the first runs were written
    (run.path / "config.json").write_text(json.dumps(config))
    assert load_run(run.path).config.recipe.precision == "float32"
    with pytest.raises(ArgumentError, match="definitions do not compute in bfloat16"):
        session(Recipe(precision="bfloat16"))


# What is not finite.


def stepped(model, x, y=(0, 1)):
    """The error of one step, which must leave the model as it was."""
    before = bits(model)
    stepper = Stepper(model, SGD(model, lr=0.5), cross_entropy)
    with pytest.raises(NonFiniteError) as caught:
        stepper.step(np.asarray(x, np.float32), np.array(y), "step 7 (epoch 2, batch 3 of 4)")
    assert bits(model) == before
    assert int(stepper.optimizer.updates) == 0
    return str(caught.value)


@both
def test_an_infinite_input_of_a_layer_is_laid_to_the_layer_before():
    """Before the first parameter too, and in a network that is a part of another."""
    whole = Module()
    whole.net = Net()
    whole.net.scale.size = Tensor(np.zeros((), np.float32))
    whole.net.scale.eval()
    text = stepped(whole.net, np.ones((2, 4, 4, 1)))
    assert "an infinite value came out of the operator 'div'\n  at        net.scale (Scale" in text


@both
@pytest.mark.parametrize(("lr", "scale"), [(1e39, 1), (3e38, 1e3)])
def test_an_update_out_of_range_is_refused(lr, scale):
    """Where the learning rate is, and where it is finite, like the gradient, and their product is not."""
    model = Net()
    model.out.weight = model.out.weight * scale
    before = bits(model)
    stepper = Stepper(model, SGD(model, lr=lr), cross_entropy)
    with pytest.raises(NonFiniteError, match=r"came out of the update of hidden\.weight\n  at        hidden\.weight"):
        stepper.step(np.ones((2, 4, 4, 1), np.float32), np.array((0, 1)), "step 1")
    assert bits(model) == before
    assert int(stepper.optimizer.updates) == 0


@both
def test_an_overflow_names_the_layer_and_the_step():
    model = Net()
    model.hidden.weight = Tensor(np.full((16, 32), 3e38, np.float32))
    text = stepped(model, np.full((2, 4, 4, 1), 100))
    assert "training: an infinite value came out of the operator 'matmul'" in text
    assert "at        hidden (Dense" in text
    assert "received  step 7 (epoch 2, batch 3 of 4)" in text
    assert "rule      the network and the optimiser are still those before this step" in text
    assert "fix       a smaller learning rate (now 0.5), or scale the inputs to about −1…1 (now up to 100)" in text


@both
def test_images_with_nan_are_told_as_such():
    x = np.zeros((2, 4, 4, 1))
    x[1, 2, 2] = np.nan
    assert "the images have NaN in them\n  at        the input" in stepped(Net(), x)


@both
def test_a_parameter_with_nan_is_named():
    model = Net()
    model.out.bias = Tensor(np.array([0, np.nan], np.float32))
    assert "NaN was before this step in out.bias\n  at        out.bias" in stepped(model, np.ones((2, 4, 4, 1)))


@both
def test_a_gradient_that_is_not_finite_is_named():
    class Root(Net):
        def forward(self, x):
            # √0 is 0, its derivative infinite, and 0·∞ is NaN.
            y = super().forward(x)
            return y + ops.sqrt(ops.square(y * 0))

    text = stepped(Root(), np.ones((2, 4, 4, 1)))
    assert "NaN came out of the derivative by out.bias" in text
    assert "at        out.bias" in text


@both
def test_a_whole_training_says_where_it_went_wrong():
    recipe = Recipe(epochs=3, batch=8, augment=Augment(), optimizer="sgd", lr=1e12, warmup=0)
    with pytest.raises(NonFiniteError, match=r"step \d+ \(epoch 1, batch \d of 5\)"):
        list(fit(Net(), DATA, recipe))


@both
def test_a_statistic_that_is_not_finite_is_found_in_the_layer():
    model = Net()
    model.scale.size = Tensor(np.float32(np.inf))
    assert "an infinite value was before this step in scale.size" in stepped(model, np.ones((2, 4, 4, 1)))


def test_training_goes_on_after_a_step_that_was_refused(backend):
    model = Net()
    stepper = Stepper(model, SGD(model, lr=0.5), cross_entropy)
    x, y = DATA.train.x[:4], DATA.train.y[:4]
    first, _ = stepper.step(x, y)
    with pytest.raises(NonFiniteError):
        stepper.step(np.full_like(x, np.inf), y)
    second, _ = stepper.step(x, y)
    assert second < first
    assert int(stepper.optimizer.updates) == 2


# Plans.


def plans(compiled):
    return [plan for entries in compiled.plans.values() for _, _, plan in entries]


def test_plans_are_made_once(engine, monkeypatch):
    """Two for training, as the last batch is smaller, and one for testing, whatever the learning rate and the epoch."""
    made = []
    monkeypatch.setattr(Compiled, "make", lambda self, args, make=Compiled.make: made.append(1) or make(self, args))
    model = Net()
    rows = list(fit(model, DATA, Recipe(epochs=3, batch=16)))
    assert len({row.lr for row in rows}) == 3
    assert len(made) == 3
    evaluate(model, DATA.test.x, DATA.test.y)
    predict(model, DATA.test.x)
    assert len(made) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_the_plans_of_a_network_go_with_it(engine, copied):
    model = Sequential(Flatten(), nn.Linear(16, 2))
    before = predict(model, DATA.test.x)
    plan = weakref.ref(plans(inference(model))[0])
    other = copied(model)
    assert not plans(inference(other))
    other[1].bias = other[1].bias + np.array([1, 0], np.float32)
    assert (predict(other, DATA.test.x)[:, 0] > before[:, 0]).all()
    assert (predict(model, DATA.test.x) == before).all()
    del model
    gc.collect()
    assert plan() is None


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_engine_trains_as_the_definitions_do(engine, optimizer, monkeypatch):
    recipe = Recipe(epochs=2, batch=16, augment=Augment(), optimizer=optimizer)
    one, other = Net(), Net()
    rows = list(fit(one, DATA, recipe))
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    for row, want in zip(rows, fit(other, DATA, recipe), strict=True):
        assert (row.train_loss, row.test_loss) == pytest.approx((want.train_loss, want.test_loss), rel=1e-4)
    for name, x in one.state_dict().items():
        np.testing.assert_allclose(x, other.state_dict()[name], rtol=1e-3, atol=1e-4)


# Evaluation.


@both
def test_evaluation():
    class Constant(Module):
        def forward(self, x):
            return Tensor(np.tile(np.array([[1, 0, 0]], np.float32), (x.shape[0], 1)))

    y = np.array([0, 0, 1, 0])
    result = evaluate(Constant(), np.zeros((4, 1, 1, 1), np.float32), y)
    assert result.accuracy == 0.75
    assert result.confusion.tolist() == [[3, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert result.recall == [1, 0, None]
    assert result.loss == pytest.approx(np.log(np.e + 2) - 0.75, rel=1e-5)


@both
def test_a_loss_that_is_no_number_is_not_reported_as_one():
    model = Net()
    model.out.bias = Tensor(np.array([0, np.nan], np.float32))
    with pytest.raises(NonFiniteError, match=r"evaluation: the loss is not finite\n  received  loss nan on 13 images"):
        evaluate(model, DATA.test.x, DATA.test.y)


@both
def test_labels_must_fit():
    with pytest.raises(ShapeError, match="label 7, 2 classes"):
        evaluate(Net(), DATA.test.x, np.full(13, 7))


@both
def test_prediction_goes_by_batches_and_keeps_the_mode():
    model, x = Net(), np.random.default_rng(0).random((300, 4, 4, 1)).astype(np.float32)
    model.hidden.eval()
    whole = predict(model, x)
    assert whole.shape == (300, 2)
    assert np.allclose(whole.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(whole[280:], predict(model, x[280:]), atol=1e-6)
    assert (model.training, model.hidden.training, model.out.training) == (True, False, True)
    with pytest.raises(DataError, match="there is nothing to predict"):
        predict(model, x[:0])


# Run folders.


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A run on the bars, by the names of a dataset and a model that exist only here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("juanji.data").data.builtin.BUILT_IN, "bars", lambda size=4: DATA)

    def create(name, *, seed=0, classes=10, in_channels=1, input_size=28):
        model = Net(classes)
        model.initialise(seed)
        model.config = {"name": name, "classes": classes, "in_channels": in_channels, "input_size": input_size}
        return model

    monkeypatch.setattr("juanji.models.create", create)
    monkeypatch.setitem(__import__("juanji.models").models.MODELS, "net", {"input_size": 4})
    return lambda recipe=RECIPE, out=None: Session.start(Choices("bars", "net", recipe), out)


def test_a_run_leaves_everything_in_its_folder(session):
    run = session()
    run.train()
    assert run.path.as_posix() == "runs/bars-net-1"
    assert {p.name for p in run.path.iterdir()} == {
        "model.safetensors",
        "checkpoint.safetensors",
        "config.json",
        "curve.png",
        "history.csv",
        "metrics.json",
    }
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["test_accuracy"] == 1
    assert metrics["parameters"] == 17 * 32 + 33 * 2
    assert metrics["epochs"] == 16
    assert metrics["train_seconds"] > 0
    assert not metrics["interrupted"]
    rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
    assert list(rows[0]) == [
        "epoch",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "test_loss",
        "test_accuracy",
        "lr",
        "seconds",
    ]
    assert float(rows[-1]["test_accuracy"]) == 1
    config = json.loads((run.path / "config.json").read_text())
    assert config["model"] == {"name": "net", "classes": 2, "in_channels": 1, "input_size": [4, 4]}
    assert config["training"]["lr"] == 0.03
    assert config["classes"] == ["upright", "lying"]
    assert set(config["versions"]) == {"juanji", "numpy", "python"}


def test_a_saved_run_predicts_and_can_be_made_again(session):
    run = session()
    run.train()
    loaded = load_run(run.path)
    assert bits(loaded.model) == bits(run.model)
    assert not loaded.model.training
    assert (loaded.predict(DATA.test.x).argmax(axis=1) == DATA.test.y).all()
    again = session(loaded.config.recipe)
    again.train()
    assert again.path.name == "bars-net-2"
    assert (again.path / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()


def test_runs_are_never_overwritten(session, tmp_path):
    out = tmp_path / "mine"
    session(out=out).train()
    with pytest.raises(DataError, match=r"mine: there is something already[\s\S]*never overwrites"):
        session(out=out)


def test_folders_that_cannot_be_made_are_named(session, tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(DataError, match=r"runs: the folder cannot be made[\s\S]*--out FOLDER"):
        session()
    with pytest.raises(DataError, match=r"mine: the folder cannot be made"):
        session(out=tmp_path / "runs" / "mine")


def test_nothing_is_made_for_a_run_that_cannot_begin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError):
        Session.start(Choices("digitz", "lenet5"))
    assert not list(tmp_path.iterdir())


def interrupt_at(epoch, number):
    def on_step(step):
        if (step.epoch, step.number) == (epoch, number):
            raise KeyboardInterrupt

    return on_step


@both
def test_an_interrupted_run_keeps_its_last_whole_epoch(session):
    run, whole = session(), []
    with pytest.raises(KeyboardInterrupt):
        run.train([On(on_step=interrupt_at(3, 2), on_epoch=lambda epoch: whole.append(bits(run.model)))])
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["interrupted"]
    assert metrics["epochs"] == 2
    assert len((run.path / "history.csv").read_text().splitlines()) == 3
    loaded = load_run(run.path)
    assert bits(loaded.model) == whole[-1]
    test = evaluate(loaded.model, loaded.config.preprocessing(DATA.test.x), DATA.test.y)
    assert test.accuracy == metrics["test_accuracy"]


@both
def test_a_run_interrupted_in_its_first_epoch_is_readable(session):
    run = session()
    before = bits(run.model)
    with pytest.raises(KeyboardInterrupt):
        run.train([On(on_step=interrupt_at(1, 2))])
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert (metrics["epochs"], metrics["test_accuracy"], metrics["interrupted"]) == (0, None, True)
    assert bits(load_run(run.path).model) == before


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
@pytest.mark.parametrize("function", ["save_weights", "write_json"])
def test_an_interrupt_between_files_leaves_files_that_belong_together(session, monkeypatch, function):
    run, write, calls = session(), getattr(folder, function), []

    def interrupted(*args):
        write(*args)
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(folder, function, interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs of shells ignore
    try:
        with pytest.raises(KeyboardInterrupt):
            run.train()
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(run.history) == len(calls) // (1 if function == "save_weights" else 2)
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert len((run.path / "history.csv").read_text().splitlines()) == metrics["epochs"] + 1
    loaded = load_run(run.path)
    test = evaluate(loaded.model, loaded.config.preprocessing(DATA.test.x), DATA.test.y)
    assert (test.accuracy, test.loss) == (metrics["test_accuracy"], metrics["test_loss"])


def test_damaged_run_folders(session, tmp_path, monkeypatch):
    run = session()
    run.train()
    (tmp_path / "half").mkdir()
    (tmp_path / "half/checkpoint.safetensors").touch()
    half = (
        r"half: this is not a run folder\n  received  no config.json in it\n  rule  .*\n  fix       begin it .*--resume"
    )
    with pytest.raises(DataError, match=half):
        load_run(tmp_path / "half")
    nowhere = r"nowhere: this is not a run folder\n  received  no such folder\n  rule  .*juanji train.*\n  fix .*: "
    with pytest.raises(DataError, match=nowhere + "runs.bars-net-1"):
        load_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as elsewhere:
        elsewhere.chdir(tmp_path / "empty")
        with pytest.raises(DataError, match=nowhere + "there is none in .*runs"):
            load_run("nowhere")
    config = run.path / "config.json"
    good = json.loads(config.read_text())
    bad = [
        "{",
        "[]",
        "{}",
        json.dumps({**good, "training": {**good["training"], "epochs": "x"}}),
        json.dumps({**good, "preprocessing": {}}),
        json.dumps({**good, "preprocessing": {**good["preprocessing"], "size": [1]}}),
        json.dumps({**good, "model": {"name": "net", "strange": 1}}),
        json.dumps({**good, "model": "net"}),
        "[" * 100_000,
        json.dumps({**good, "more": " " * 10**7}),
        json.dumps({**good, "training": {**good["training"], "optimizer": "strange"}}),
    ]
    for text in bad:
        config.write_text(text)
        with pytest.raises(DataError, match=r"config\.json: the file is damaged"):
            load_run(run.path)
    config.write_text(json.dumps({**good, "model": {"name": "net", "classes": 10**30}}))
    with pytest.raises(WeightsError, match=r"do not fit[\s\S]*out\.bias"):  # before any memory is taken
        load_run(run.path)
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"config\.json: the file is damaged"):
        load_run(run.path)
    config.write_text(json.dumps(good))
    (run.path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(WeightsError, match=r"cannot be read[\s\S]*model\.safetensors"):
        load_run(run.path)


def test_preprocessing_comes_from_the_training_part(session):
    run = session()
    assert run.config.preprocessing == Preprocessing.of(DATA.train, resize="crop")


NUMPY = {"JUANJI_BACKEND": "numpy"}


@pytest.mark.parametrize(
    "settings",
    [
        [{"JUANJI_THREADS": "1"}, {"JUANJI_THREADS": "2"}, {"JUANJI_THREADS": "3"}],
        [{**NUMPY, "OPENBLAS_NUM_THREADS": "1"}, {**NUMPY, "OPENBLAS_NUM_THREADS": "2"}],
    ],
    ids=["engine", "numpy"],
)
def test_the_same_bits_for_any_number_of_threads(tmp_path, settings):
    found = set()
    for place, setting in enumerate(settings):
        out = tmp_path / str(place)
        command = [sys.executable, "-m", "juanji", "train", "digits", "--epochs", "1", "--quiet", "--out", str(out)]
        subprocess.run(command, env={**os.environ, **setting}, check=True, stdout=subprocess.DEVNULL)
        found.add((out / "model.safetensors").read_bytes())
    assert len(found) == 1
