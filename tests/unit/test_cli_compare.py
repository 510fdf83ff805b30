"""juanji compare: figures, what was chosen differently, and which differences are significant."""

import json
import warnings

import numpy as np
import pytest
from PIL import Image

from juanji import nn
from juanji.cli import main
from juanji.data import Dataset, Images, Preprocessing
from juanji.data.builtin import BUILT_IN
from juanji.train import Config, Recipe, evaluate_images, load_run, save_run
from juanji.train.metrics import mcnemar

CLASSES = ("left", "middle", "right")
SIZES = {"small": 4, "large": 8}


def images(size, n=60):
    """The same columns of light in any size, with noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n)
    x = rng.random((n, 4, 4, 1)).astype(np.float32)
    x[np.arange(n), :, y] = 0.9
    return Images(np.repeat(np.repeat(x, size // 4, 1), size // 4, 2), y)


def net(name, noise=0.0, size=4, **options):
    model = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 3))
    weight = np.zeros((3, size, 4, size // 4), np.float32)
    weight[np.arange(3), :, np.arange(3)] = 1
    weight += noise * np.random.default_rng(1).standard_normal(weight.shape).astype(np.float32)
    model[1].weight = weight.reshape(3, -1)
    model.config = {"name": name, "noise": noise, "size": size}
    return model


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes a run folder, `make("a", noise=0.5)`, on data that exist only here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("juanji.models.create", net)
    monkeypatch.setitem(BUILT_IN, "bars", lambda size=4: Dataset("bars", images(size), images(size), CLASSES))
    other = Images(images(4).x[::-1].copy(), images(4).y[::-1].copy())
    monkeypatch.setitem(BUILT_IN, "other", lambda size=4: Dataset("other", images(4), other, CLASSES))

    def make(name, noise=0.0, size=4, data="bars", epochs=3, metrics=None):
        (tmp_path / name).mkdir()
        model = net(name, noise, size)
        config = Config(
            model.config, data, CLASSES, Preprocessing((size, size), 1, (0.5,), (0.25,)), Recipe(epochs=epochs)
        )
        metrics = {"parameters": 51, "epochs": epochs, "train_seconds": 2.5} if metrics is None else metrics
        save_run(tmp_path / name, config, model, (), metrics)
        return name

    return make


def call(capsys, *arguments):
    """Exit code, output and error output of `juanji compare ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, arguments)])
    return (ended.value.code, *capsys.readouterr())


def right(name):
    run = load_run(name)
    return evaluate_images(run.model, images(run.config.preprocessing.size[0]), run.config.preprocessing).right


def test_what_differs_and_which_is_better(make, capsys):
    good, bad, alike = make("good"), make("bad", noise=2.0, epochs=4), make("alike")
    code, output, errors = call(capsys, good, bad, alike, "--json")
    assert (code, errors) == (0, "")
    values = json.loads(output)
    assert [run["run"] for run in values["runs"]] == ["good", "bad", "alike"]
    ours, theirs = right("good"), right("bad")
    assert [run["accuracy"] for run in values["runs"]] == [ours.mean(), theirs.mean(), ours.mean()]
    assert values["runs"][0]["parameters"] == 51
    assert values["runs"][0]["bytes"] == (load_run("good").path / "model.safetensors").stat().st_size
    assert values["differences"] == {
        "model.name": ["good", "bad", "alike"],
        "model.noise": [0.0, 2.0, 0.0],
        "training.epochs": [3, 4, 3],
    }
    first, second = values["tests"]
    assert first == {
        "first": "good",
        "other": "bad",
        "same_images": True,
        "only_first": int((ours & ~theirs).sum()),
        "only_other": int((theirs & ~ours).sum()),
        "p": mcnemar(ours, theirs),
        "significant": True,
    }
    assert (second["p"], second["significant"], second["only_first"]) == (1, False, 0)


def test_in_words(make, capsys):
    code, output, _ = call(capsys, make("good"), make("bad", noise=2.0), make("alike"))
    assert code == 0
    first, second, third = output.strip().split("\n\n")
    assert first.splitlines()[1].split()[:2] == ["good", f"{right('good').mean():.2%}"]
    assert first.splitlines()[1].endswith("51  0.00 MB  2 s, 3 epochs")
    assert "model.noise         0     2    0" in second
    better, chance = third.splitlines()
    assert better.startswith("right where the other is wrong: good on ")
    assert better.endswith(": good is significantly better")
    assert chance.endswith("alike on 0; p = 1: they are right and wrong on the same images")
    _, output, _ = call(capsys, "good", "good")
    assert "everything was chosen alike" in output


def test_the_better_one_may_come_last(make, capsys):
    _, output, _ = call(capsys, make("bad", noise=2.0), make("good"))
    assert output.strip().endswith("good is significantly better")


def test_networks_of_other_sizes_see_the_same_images(make, capsys):
    _, output, _ = call(capsys, make("small"), make("large", size=8), "--json")
    values = json.loads(output)
    assert values["tests"][0]["same_images"]
    assert values["differences"]["preprocessing.size"] == [[4, 4], [8, 8]]


def test_other_test_images_are_not_compared(make, capsys):
    one, two = make("one"), make("two", data="other")
    _, output, _ = call(capsys, one, two)
    assert output.strip().endswith("one and two were not tested on the same images; --data judges both on others")
    assert "p" not in json.loads(call(capsys, one, two, "--json")[1])["tests"][0]
    assert json.loads(call(capsys, one, two, "--data", "bars", "--json")[1])["tests"][0]["p"] == 1
    values = json.loads(call(capsys, one, two, "--data", "bars", "--part", "all", "--json")[1])
    assert values["runs"][0]["images"] == 120


def test_older_and_damaged_metrics(make, capsys):
    code, output, _ = call(capsys, make("new"), make("old", metrics={"parameters": "many"}))
    assert code == 0
    assert output.splitlines()[2].split()[-1] == "–"
    for text, reason in (("{", "Expecting property name"), ("[]", "list instead of an object"), (None, "")):
        path = load_run("old").path / "metrics.json"
        path.unlink() if text is None else path.write_text(text)
        code, _, errors = call(capsys, "new", "old")
        assert code == 2
        assert f"{path}: the file is damaged" in errors
        assert reason in errors


def test_images_that_cannot_be_read(make, capsys, tmp_path):
    """Are passed over where that is asked for, which is no difference between the runs."""
    for i in range(6):
        path = tmp_path / "new" / CLASSES[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 40 * i, np.uint8)).save(path)
    (tmp_path / "new/left/0.png").write_bytes(b"no image")
    make("a")
    make("b", noise=0.5)
    code, _, errors = call(capsys, "a", "b", "--data", "new")
    assert (code, "--skip-unreadable" in errors) == (2, True)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, output, errors = call(capsys, "a", "b", "--data", "new", "--skip-unreadable", "--json")
    assert "1 image that cannot be read, left out" in errors
    assert code == 0, errors
    found = json.loads(output)
    assert [run["images"] for run in found["runs"]] == [5, 5]
    assert "unreadable" not in found["differences"]


def test_one_run_is_not_enough(make, capsys):
    code, _, errors = call(capsys, make("alone"))
    assert code == 2
    assert "compare: there is nothing to compare with\n  received  alone\n  rule      two runs or more" in errors
    code, _, errors = call(capsys, "alone", "gone")
    assert (code, "gone: this is not a run folder" in errors) == (2, True)


def test_folders_without_a_run_are_left_out(make, capsys, tmp_path):
    """As `runs/*` has those of trainings that could not begin."""
    make("a")
    make("b")
    (tmp_path / "empty").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, output, errors = call(capsys, "a", "empty", "b", "--json")
    assert (code, errors) == (0, "juanji: warning: no run in empty: left out\n")
    assert [run["run"] for run in json.loads(output)["runs"]] == ["a", "b"]
    code, _, errors = call(capsys, "a", "empty")
    assert (code, "empty: this is not a run folder\n  received  no config.json in it" in errors) == (2, True)
