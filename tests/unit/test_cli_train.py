"""juanji train: what is chosen, what is told, and configurations that make a run again."""

import csv
import io
import json
import shutil
import struct
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import juanji as jj
from juanji.cli import main
from juanji.cli.options import seconds
from juanji.data import PRESETS
from juanji.errors import ArgumentError, DataError, UnknownNameError
from juanji.interop import save_weights
from juanji.train import Choices, Display, Epoch, Facts, Recipe, Session, Step, TensorBoard, load_run
from juanji.train.beginning import begin
from juanji.train.defaults import choose
from juanji.train.display import line
from juanji.train.folder import place
from juanji.train.tensorboard import append, crc32c, event, masked, scalars, varint


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


def perceptron(capsys, out, *arguments, data="digits"):
    return call(capsys, "train", data, "--model", "perceptron", "--epochs", "1", "--out", out, *arguments)


# Defaults

PHOTOGRAPHS = Facts("", (700, 90), (480, 640), False)
ICONS = Facts("", (500, 500, 500), (32, 32), False)
CIFAR = Facts("", (5000,) * 10, (32, 32), False)
LETTERS = Facts("", (3000,) * 26, (28, 20), True)
DIGITS = Facts("digits", (120,) * 10, (28, 28), True)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (PHOTOGRAPHS, {"size": 96, "model": "resnet18", "options": {"width": 0.5}, "class_weights": "balanced"}),
        (PHOTOGRAPHS, {"batch": 32, "augment": PRESETS["standard"]}),
        (ICONS, {"size": 32, "model": "resnet20", "epochs": 80, "batch": 64, "optimizer": "sgd", "lr": 0.05}),
        (ICONS, {"augment": PRESETS["light"]}),
        (LETTERS, {"size": 28, "model": "lenet5", "epochs": 15, "batch": 128, "augment": PRESETS["handwriting"]}),
        (DIGITS, {"size": 28, "model": "lenet5"}),
        (CIFAR, {"size": 32, "model": "airbench94", "batch": 1024, "freeze": "whiten", "tta": "shifts"}),
    ],
)
def test_defaults_come_from_the_data(facts, expected):
    found = {default.name: default.value for default in choose(facts, {})}
    assert expected.items() <= found.items()
    assert ("class_weights" in found) == (facts is PHOTOGRAPHS)
    assert all(default.reason for default in choose(facts, {}))


def test_the_digits_keep_what_was_found_for_them():
    choices = Choices.of("digits", DIGITS, {})
    assert choices.recipe == Recipe()
    assert (choices.model, choices.size, choices.options) == ("lenet5", 28, {})
    found = Facts.of("digits")
    assert (found.name, found.images, found.size, found.grey) == ("digits", 1201, (28, 28), True)


def test_what_is_given_always_wins():
    given = {"model": "lenet5", "batch": 7, "class_weights": "none", "lr": 0.25, "options": {"width": 2.0}}
    choices = Choices.of("x", PHOTOGRAPHS, given)
    assert (choices.model, choices.size, choices.options) == ("lenet5", 28, {"width": 2.0})
    assert (choices.recipe.batch, choices.recipe.class_weights, choices.recipe.lr) == (7, "none", 0.25)
    assert not {default.name for default in choices.defaults} & given.keys()
    assert Choices.of("x", CIFAR, {"model": "resnet20"}).recipe.batch == 128
    assert Choices.of("x", ICONS, {"model": "airbench94"}).recipe.freeze == ""
    other = Choices.of("x", CIFAR, {"optimizer": "adamw"}).recipe
    assert (other.lr, other.lr_multipliers, other.weight_decay) == (None, (), Recipe.weight_decay)
    assert Choices.of("x", CIFAR, {"batch": 256}).recipe.lr == 0.0625
    published = Choices.of("x", CIFAR, {"optimizer": "sgd"}).recipe
    assert (published.lr, published.warmup, published.lr_multipliers) == (1.0, 0.23, (("*norm?.bias", 64.0),))
    assert Choices.of("x", CIFAR, {"patience": 3}).recipe.eval_every == 1
    assert Choices.of("x", ICONS, {"optimizer": "muon"}).recipe.weight_decay == 5e-4
    assert Choices.of("x", CIFAR, {"size": 64}).recipe.batch == 128
    assert Choices.of("x", LETTERS, {"model": "airbench94"}).recipe.augment == PRESETS["handwriting"]
    assert Choices.of("x", replace(CIFAR, size=(8, 8)), {"size": 8}).model == "resnet20"
    assert Choices.of("x", PHOTOGRAPHS, {"size": 64}).options == {"stem": "small", "width": 0.25}


def test_published_weights_are_those_of_the_whole_network():
    """And are trained at a third of the usual rate, unless a new head is all that is trained."""
    choices = Choices.of("x", PHOTOGRAPHS, {"weights": "hf:timm/resnet18.a1_in1k"})
    assert (choices.model, choices.options, choices.recipe.lr) == ("resnet18", {}, 0.025 / 3)
    assert Choices.of("x", PHOTOGRAPHS, {"weights": "a.pth", "freeze": "all"}).recipe.lr == 0.025
    assert Choices.of("x", PHOTOGRAPHS, {"weights": "a.pth", "model": "vgg16"}).recipe.lr == 0.005 / 3
    assert Choices.of("digits", DIGITS, {"weights": "a.pth"}).recipe.lr == 0.005 / 3
    tuned = Choices.of("x", CIFAR, {"weights": "a.pth"}).recipe
    assert (tuned.lr, tuned.batch, tuned.freeze) == (0.25 / 3, 1024, "whiten")
    assert Choices.of("x", LETTERS, {"weights": "a.pth", "freeze": "all"}).recipe.lr is None
    thawing = {"weights": "a.pth", "freeze": "all", "unfreeze_at": (3,)}
    assert Choices.of("x", PHOTOGRAPHS, thawing).recipe.lr == 0.025 / 3
    digits = {"model": "resnet18", "optimizer": "sgd"}
    assert Choices.of("digits", DIGITS, digits | {"weights": "a.pth"}).recipe.lr == 0.02 / 3
    assert Choices.of("digits", DIGITS, digits).recipe.lr is None


@pytest.mark.parametrize("given", [{}, {"weights": "a.pth"}])
def test_an_optimiser_that_there_is_not(given):
    for name, facts in (("x", PHOTOGRAPHS), ("digits", DIGITS)):
        with pytest.raises(UnknownNameError, match="no optimizer named 'sdg'"):
            Choices.of(name, facts, given | {"optimizer": "sdg"})


def test_a_run_that_begins_with_another_is_the_same_network(capsys, tmp_path, monkeypatch):
    options = ["--option", "hidden=8,4", "--size", "16"]
    code, _, errors = perceptron(capsys, tmp_path / "a", *options)
    assert code == 0, errors
    given = {"weights": str(tmp_path / "a")}
    choices = Choices.of("x", PHOTOGRAPHS, given)
    assert (choices.model, dict(choices.options), choices.size) == ("perceptron", {"hidden": [8, 4]}, 16)
    told = [str(default) for default in choices.defaults if str(tmp_path) in default.reason]
    assert [line.partition(":")[0] for line in told] == [
        "size 16", "model perceptron", "options hidden=[8, 4]", "resize crop",
    ]  # fmt: skip
    assert Choices.of("x", PHOTOGRAPHS, given | {"size": 32}).size == 32
    assert Choices.of("x", PHOTOGRAPHS, given | {"model": "lenet5"}).size == 28
    code, output, errors = call(
        capsys, "train", "digits", "--init", tmp_path / "a", "--epochs", "1", "--out", tmp_path / "b"
    )
    assert code == 0, errors
    assert f"model perceptron: that of {tmp_path / 'a'}" in output
    file = tmp_path / "a" / "model.safetensors"
    assert Choices.of("x", PHOTOGRAPHS, {"weights": str(file)}).model == "perceptron"
    # Only where it is asked for, whatever lies here.
    monkeypatch.chdir(tmp_path / "a")
    assert Choices.of("x", PHOTOGRAPHS, {}).model == "resnet18"
    # A folder of somebody else's, with a configuration of its own.
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{}")
    assert Choices.of("x", PHOTOGRAPHS, {"weights": str(tmp_path / "c")}).model == "resnet18"
    shutil.copy(file, tmp_path / "c")
    with pytest.raises(DataError, match="the file is damaged"):
        Choices.of("x", PHOTOGRAPHS, {"weights": str(tmp_path / "c")})


@pytest.mark.parametrize("facts", [PHOTOGRAPHS, ICONS, CIFAR, LETTERS, DIGITS])
def test_defaults_make_networks(facts):
    choices = Choices.of("x", facts, {})
    jj.models.create(choices.model, classes=len(facts.counts), input_size=choices.size, **choices.options)


# Your own images


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of two classes, unequal ones: images that are brighter on the left, or on the right."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for side, count in (("left", 40), ("right", 16)):
        (folder / side).mkdir()
        for i in range(count):
            x = rng.integers(0, 90, (40, 48, 3), np.uint8)
            x[:, : 24 if side == "left" else None][:, -24:] += 120
            Image.fromarray(x).save(folder / side / f"{i}.png")
    return folder


def test_a_folder_is_trained_on(photographs, capsys, tmp_path):
    options = ["--size", "16", "--model", "batchnorm_net", "--epochs", "3", "--patience", "2", "--out", tmp_path / "r"]
    code, output, errors = call(capsys, "train", photographs, *options, "--augment", "light,flip=none,mixup=0.2")
    assert code == 0, errors
    assert "class_weights balanced: the largest class has 32 images, the smallest 13" in output
    assert "batch 8: at most 6 steps an epoch" in output  # of 45 images, some of which validate
    config = load_run(tmp_path / "r").config
    assert config.data == str(photographs)
    assert config.preprocessing.size == (16, 16)
    assert config.preprocessing.resize == "crop"
    assert (config.recipe.augment.mixup, config.recipe.class_weights) == (0.2, "balanced")
    assert {path.name for path in (tmp_path / "r").iterdir()} >= {"curve.png", "metrics.json"}
    code, output, _ = call(capsys, "evaluate", tmp_path / "r", "--json")
    values, metrics = json.loads(output), json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert values["accuracy"] == metrics["test_accuracy"]
    code, _, _ = call(capsys, "train", "--config", tmp_path / "r" / "config.json", "--out", tmp_path / "s", "--quiet")
    assert code == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "rs")
    assert one == other


def test_a_name_stays_a_name_whatever_lies_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert place("digits") == "digits"
    assert place("./digits") == str((tmp_path / "digits").resolve())
    assert place("gone") == "gone"


def test_images_that_cannot_be_read(photographs, capsys, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    (data / "left" / "0.png").write_bytes(b"no image")
    options = ["--size", "16", "--model", "batchnorm_net", "--epochs", "1", "--out", tmp_path / "r"]
    code, _, errors = call(capsys, "train", data, *options)
    assert (code, "0.png" in errors, "--skip-unreadable" in errors) == (2, True, True)
    assert not (tmp_path / "r").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, errors = call(capsys, "train", data, *options, "--skip-unreadable")
    assert "1 image that cannot be read, left out" in errors
    assert code == 0
    with pytest.warns(UserWarning, match="left out"):
        assert load_run(tmp_path / "r").config.load_data().train.y.sum() > 0


# Configurations


def test_a_configuration_makes_the_run_again(capsys, tmp_path):
    options = [
        "--ema",
        "0.5",
        "--clip-norm",
        "1",
        "--schedule",
        "one_cycle",
        "--seed",
        "3",
        "--lr-multiplier",
        "*bias=2",
        "--tta",
        "shifts",
        "--eval-every",
        "2",
    ]
    perceptron(capsys, tmp_path / "a", *options)
    code, _, _ = call(capsys, "train", "--config", tmp_path / "a" / "config.json", "--out", tmp_path / "b", "--quiet")
    assert code == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
    code, _, _ = call(
        capsys, "train", "digits", "--config", tmp_path / "a" / "config.json", "--seed", "4", "--out", tmp_path / "c"
    )
    assert code == 0
    recipe = load_run(tmp_path / "c").config.recipe
    assert (recipe.seed, recipe.ema, recipe.lr_multipliers) == (4, 0.5, (("*bias", 2.0),))
    assert (recipe.tta, recipe.eval_every) == ("shifts", 2)


def test_what_is_measured_is_told_and_kept(capsys, tmp_path):
    code, output, _ = perceptron(capsys, tmp_path / "r", "--lr", "auto", "--batch", "auto", "--time-limit", "1h")
    assert code == 0
    assert "batch 64: 1201 images make 19 steps an epoch" in output
    assert [line.split(" ")[0] for line in output.splitlines()].count("batch") == 1
    assert "where the loss falls fast and safely; see lr-range.csv" in output
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r" / "lr-range.csv").read_text())))
    assert list(rows[0]) == ["lr", "loss"]
    recipe = load_run(tmp_path / "r").config.recipe
    assert f"lr {recipe.lr:g}: " in output
    assert (recipe.batch, recipe.time_limit) == (64, 3600.0)


def test_a_part_that_validates_is_told(capsys, tmp_path):
    code, output, _ = perceptron(capsys, tmp_path / "r", "--patience", "1")
    assert code == 0
    assert "1081 images to train on, 120 to validate, 596 to test on" in output
    assert "of epoch 1, the best on the validation part," in output
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["best_epoch"] == 1
    assert 0 < metrics["val_accuracy"] <= 1
    assert 0 < metrics["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "train: which images?"),
        (["digits", "--batch", "many"], "training: bad batch\n  received  batch=many\n  rule      a number, or auto"),
        (["digits", "--lr", "high"], "training: bad lr\n  received  lr=high"),
        (["digits", "--time-limit", "10"], "train: bad --time-limit\n  received  '10'"),
        (["digits", "--time-limit", "infs"], "train: bad --time-limit"),
        (["digits", "--unfreeze-at", "soon", "--freeze", "1"], "train: bad --unfreeze-at\n  received  'soon'"),
        (["digits", "--lr-multiplier", "bias"], "train: bad --lr-multiplier"),
        (["digits", "--lr-multiplier", "conv9=2"], "learning-rate multiplier: no parameter matches"),
        (["digits", "--schedule", "linear"], "there is no schedule named 'linear'"),
        (["digits", "--freeze", "7"], "there is no such part to freeze\n  received  freeze='7'\n  rule      1 to 4 of"),
        (["--config", "gone.json"], "this is not a run folder"),
        (["digits", "--init", "gone.safetensors"], "gone.safetensors"),
    ],
)
def test_mistakes_leave_nothing_behind(arguments, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = call(capsys, "train", *arguments)
    assert (code, text in errors) == (2, True), errors
    assert not list(tmp_path.iterdir())


def test_times():
    assert [seconds("x", "--y", text) for text in ("90s", "10m", "1.5h")] == [90, 600, 5400]
    for text in ("", "m", "-3s", "0s", "nans", "5d"):
        with pytest.raises(ArgumentError, match="x: bad --y"):
            seconds("x", "--y", text)


# What a run begins with


def test_a_run_begins_with_another(capsys, tmp_path):
    perceptron(capsys, tmp_path / "a")
    trained = load_run(tmp_path / "a").model.state_dict()
    model = jj.models.create("perceptron", in_channels=1)
    assert begin(model, str(tmp_path / "a"), tuple("0123456789")) == ((), ())
    for path, tensor in model.state_dict().items():
        assert (tensor.array == trained[path].array).all()
    # As many classes, but others: the head begins anew.
    other = jj.models.create("perceptron", in_channels=1, seed=5)
    head = set(begin(other, str(tmp_path / "a"), tuple("abcdefghij")).left)
    assert head == {path for path in trained if path.startswith("layers.3")}
    assert (other.state_dict()["layers.1.weight"].array == trained["layers.1.weight"].array).all()
    code, output, _ = perceptron(capsys, tmp_path / "b", "--init", tmp_path / "a", "--lr", "1e-9")
    assert code == 0
    assert f"weights of {tmp_path / 'a'}" in output
    assert load_run(tmp_path / "b").config.weights == str(tmp_path / "a")


def test_weights_of_another_network_are_refused(capsys, tmp_path):
    perceptron(capsys, tmp_path / "a")
    code, _, errors = call(capsys, "train", "digits", "--init", tmp_path / "a", "--model", "lenet5")
    assert code == 2
    assert f"{tmp_path / 'a'}: this run is of another network\n  received  perceptron, where lenet5 is" in errors


def test_a_run_that_is_not_whole_says_what_to_do(capsys, tmp_path, photographs):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    options = ["--size", "16", "--model", "perceptron", "--epochs", "1"]
    code, _, errors = call(capsys, "train", data, *options, "--out", tmp_path / "r")
    assert code == 0, errors
    data.rename(tmp_path / "elsewhere")
    moved = (
        f"juanji: {data}: the images of this run do not lie there any more\n  received  no such file or folder\n"
        "  rule      the images that it was trained and tested on\n  fix       name their place: juanji evaluate RUN"
    )
    for arguments in (["evaluate", tmp_path / "r"], ["train", "--resume", tmp_path / "r"]):
        code, _, errors = call(capsys, *arguments)
        assert (code, errors.startswith(moved)) == (2, True)
    assert call(capsys, "evaluate", tmp_path / "r", tmp_path / "elsewhere")[0] == 0
    (tmp_path / "elsewhere").rename(data)
    checkpoint = tmp_path / "r" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert "juanji train DATA --init RUN" in call(capsys, "train", "--resume", tmp_path / "r")[2]
    (tmp_path / "r" / "model.safetensors").unlink()
    errors = call(capsys, "evaluate", tmp_path / "r")[2]
    assert f"{tmp_path / 'r'}: this run is not whole\n  received  no model.safetensors in it\n  rule" in errors


def test_a_time_limit_that_was_too_short_is_told(capsys, tmp_path):
    _, output, _ = perceptron(capsys, tmp_path / "r", "--time-limit", "0.01s", "--quiet")
    told, last = output.splitlines()
    assert told.startswith("time limit of 0.01 s: 0.0526 of 1 epochs, too few to learn much: give it more time")
    assert "; with getting ready it took " in told
    assert last.startswith("test accuracy")
    _, output, _ = perceptron(capsys, tmp_path / "s", "--time-limit", "1h", "--quiet")
    assert output.count("\n") == 1


def test_a_warning_is_told_without_its_place(capsys, tmp_path, photographs):
    data = tmp_path / "data"
    for part in ("train", "test"):
        shutil.copytree(photographs, data / part)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, errors = perceptron(capsys, tmp_path / "r", data=data)
    assert code == 0
    told = "copies of 56 images in several parts, which test nothing"
    assert errors == f"juanji: warning: {data}: {told} (juanji check {data})\n"


def test_a_handful_of_images_is_not_given_the_weight_of_a_class():
    for few, expected in ((9, "none"), (10, "balanced")):
        found = {default.name: default.value for default in choose(Facts("", (90, few), (96, 96), False), {})}
        assert found["class_weights"] == expected


def test_the_learning_rate_is_for_a_step_that_there_is():
    found = {default.name: default.value for default in choose(Facts("", (23, 23), (48, 48), False), {"batch": 500})}
    assert found["lr"] == pytest.approx(0.1 * 46 / 128)


def test_quiet_tells_what_did_not_fit(capsys, tmp_path):
    model = jj.models.create("perceptron", in_channels=1)
    for classes, told in (("0123456789", []), ("abcdefghij", ["layers.3.weight, layers.3.bias begin anew"])):
        file = tmp_path / f"{classes}.safetensors"
        save_weights(model, file, {"model": "perceptron", "classes": list(classes)})
        code, output, _ = perceptron(capsys, tmp_path / classes, "--init", file, "--quiet")
        first, *rest = [f"weights of {file}; {text}" for text in told] + ["test accuracy"]
        assert code == 0
        assert output.startswith(first)
        assert output.count("\n") == 1 + len(rest)


# What is shown

ROW = Epoch(3, 1.0, 0.5, 0.9, 0.625, None, None, 0.01, 2.0)
STEP = Step(1, 2, 10, 64, 0.5, 0.75, 0.01, 0.25, 0.75, 40)


def test_the_line_of_an_epoch():
    assert line(ROW, 10) == "epoch  3/10  train loss 1.0000 accuracy 50.00%  val loss 0.9000 accuracy 62.50%  2.0 s"


def test_the_bar_tells_rate_and_waiting(capsys, monkeypatch):
    class Trainer:
        count = 10
        progress = type("Progress", (), {"done": 2, "total": 40})

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "140")
    display = Display()
    with display.running():
        display.on_step(Trainer, STEP)
        display.on_epoch(Trainer, ROW)
    output = capsys.readouterr().out
    assert "loss 0.500  accuracy 75.0%  64 images/s  waiting 25%" in output
    assert "epoch 1/4  step 2/10" in output
    assert "epoch 3/4  train loss" in output


# TensorBoard


def test_the_checksum_is_castagnolis():
    """The test vectors of RFC 3720, B.4."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert [varint(n) for n in (0, 127, 128, 300)] == [b"\0", b"\x7f", b"\x80\x01", b"\xac\x02"]


def records(data):
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
        content = data[12 : 12 + length]
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(content),)
        yield content
        data = data[16 + length :]


def fields(data):
    """A message as {field: values}, decoded by the rules of protobuf's encoding."""
    found = {}
    while data:
        key, data = number(data)
        kind = key & 7
        if kind == 0:
            value, data = number(data)
        else:
            size, data = number(data) if kind == 2 else ({1: 8, 5: 4}[kind], data)
            value, data = data[:size], data[size:]
        found.setdefault(key >> 3, []).append(value)
    return found


def number(data):
    for i, byte in enumerate(data):
        if byte < 128:
            return sum((b & 127) << 7 * k for k, b in enumerate(data[: i + 1])), data[i + 1 :]
    raise AssertionError("no end")


def test_events_are_what_protobuf_says(capsys, tmp_path):
    code, _, _ = perceptron(capsys, tmp_path / "r", "--tensorboard")
    assert code == 0
    (path,) = (tmp_path / "r").glob("events.out.tfevents.*")
    first, *rest = map(fields, records(path.read_bytes()))
    assert first[3] == [b"brain.Event:2"]
    values = {}
    for found in rest:
        for value in fields(found[5][0])[1]:
            decoded = fields(value)
            values[decoded[1][0].decode(), found[2][0]] = struct.unpack("<f", decoded[2][0])[0]
    row = load_run(tmp_path / "r").path / "history.csv"
    history = next(csv.DictReader(io.StringIO(row.read_text())))
    assert values["epoch/train_loss", 1] == pytest.approx(float(history["train_loss"]), rel=1e-6)
    assert ("epoch/val_loss", 1) not in values
    assert ("step/loss", 10) in values
    assert ("step/loss", 11) not in values


def test_events_that_cannot_be_written(tmp_path):
    board = TensorBoard(tmp_path / "gone")
    with pytest.raises(DataError, match=r"events\.out\.tfevents\S*: the file cannot be written"):
        board.on_start(None)
    data = io.BytesIO()
    append(data, event(scalars({"a": 1.5}), 300))
    (content,) = records(data.getvalue())
    assert fields(content)[2] == [300]


def test_sessions_are_told_of_epochs(tmp_path):
    session = Session.start(Choices("digits", "perceptron", Recipe(epochs=1)), tmp_path / "r")
    session.train([TensorBoard(session.path)])
    assert len(list(session.path.glob("events*"))) == 1
    assert np.isfinite(session.history[0].train_loss)
