"""`juanji profile`, `juanji cache`, and plans as text."""

import json
import os

import numpy as np
import pytest

import juanji as jj
from juanji.cli import main
from juanji.cli.profile import plan_of
from juanji.engine import profile, threads
from juanji.kernels import isa


class Tiny(jj.nn.Module):
    """A convolution, a normalisation and a linear layer."""

    def __init__(self):
        self.conv = jj.nn.Conv2d(1, 8, 3)
        self.norm = jj.nn.BatchNorm2d(8)
        self.head = jj.nn.Linear(8, 4)
        self.config = {"input_size": (9, 9), "in_channels": 1, "classes": 4}

    def forward(self, x):
        return self.head(jj.relu(self.norm(self.conv(x))).mean((1, 2)))


def call(capsys, *arguments):
    """Exit code, output and error output of `juanji ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


@pytest.mark.parametrize("train", [False, True])
def test_rows_add_up_to_the_step_and_name_every_call(train, capsys):
    arguments = ["profile", "lenet5", "--batch", 4, "--repeat", 2, "--json", *["--train"][:train]]
    code, output, _ = call(capsys, *arguments)
    values = json.loads(output)
    rows = values["rows"]
    assert (code, values["model"], values["batch"], values["train"]) == (0, "lenet5", 4, train)
    assert sum(row["seconds"] for row in rows) == pytest.approx(values["sum_seconds"])
    assert list(dict.fromkeys(row["stage"] for row in rows)) == ["forward", "backward", "update"][: 3 if train else 1]
    forward = sum(row["products"] for row in rows if row["stage"] == "forward")
    assert forward == 4 * jj.models.create("lenet5").summary((28, 28, 1)).multiplications
    assert values["memory"]["all"] == values["memory"]["cells"] + values["memory"]["arena"]
    assert values["peak_gflops"] > 0
    updated = {row["layer"] for row in rows if row["kind"] == "update"}
    assert updated >= {"conv1", "conv2", "fc1", "fc2", "fc3"} if train else not updated


def test_options_of_a_network(capsys):
    arguments = ["--option", "channels=2,3", "--option", "hidden=5,", "--repeat", 1, "--json"]
    code, output, _ = call(capsys, "profile", "lenet5", *arguments)
    assert code == 0
    forward = sum(row["products"] for row in json.loads(output)["rows"])
    small = jj.models.create("lenet5", channels=(2, 3), hidden=(5,))
    assert forward == 32 * small.summary((28, 28, 1)).multiplications
    code, _, errors = call(capsys, "profile", "lenet5", "--option", "width")
    assert (code, "profile: bad --option" in errors) == (2, True)


@pytest.mark.parametrize("arguments", [["--size", 8], ["--classes", 3], ["--option", "width=2"]])
def test_run_folders_have_their_own_settings(arguments, capsys, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code, _, errors = call(capsys, "profile", tmp_path, *arguments)
    assert code == 2
    assert "profile: the network of a run folder is measured as it was trained" in errors
    assert "fix       leave out --size, --classes and --option, or give a network's name" in errors


def test_the_table(capsys):
    code, output, _ = call(capsys, "profile", "lenet5", "--size", 32, "--classes", 3, "--repeat", 1)
    assert code == 0
    assert output.split()[:2] == ["layer", "kind"]
    for text in ("conv1", "convolution", "all forward", "whole step", "GFLOP/s", "memory"):
        assert text in output


def test_a_run_folder(capsys, tmp_path):
    assert call(capsys, "train", "digits", "--epochs", 1, "--out", tmp_path / "run", "--quiet")[0] == 0
    code, output, _ = call(capsys, "profile", tmp_path / "run", "--batch", 2, "--repeat", 1, "--json")
    assert (code, json.loads(output)["batch"]) == (0, 2)


def test_an_unknown_network(capsys):
    code, _, errors = call(capsys, "profile", "lenet")
    assert (code, "lenet5" in errors) == (2, True)


def test_profiling_changes_no_cell():
    model = Tiny()
    plan = plan_of(model, 3, train=True)
    cells = plan.draft.homes.values()
    before = [(cell, cell.version, cell.read().array.copy()) for cell in cells]
    assert {cell.kind for cell in cells} == {"parameter", "buffer", "slot"}
    found = profile.profile(plan, 2)
    assert {row.layer for row in found.rows} >= {"conv", "norm", "head"}
    for cell, version, value in before:
        assert cell.version == version
        np.testing.assert_array_equal(plan_home(plan, cell), value)
    # The next step starts from the values there were: it is that of a network that was never profiled.
    other = plan_of(Tiny(), 3, train=True)
    assert plan.run()
    assert other.run()
    assert np.array_equal(np.asarray(plan.results()), np.asarray(other.results()))


def plan_home(plan, cell):
    return next(home.array for key, home in plan.homes.items() if plan.draft.homes[key] is cell)


def test_stages_and_layers():
    plan = plan_of(Tiny(), 3, train=True)
    stages = profile.stages_of(plan)
    named = {(stages[call], profile.layer(plan, call), profile.kind(call)) for call in plan.calls}
    assert named >= {
        ("forward", "conv", "convolution"),
        ("backward", "conv", "weight gradient"),
        ("update", "conv", "update"),
        ("forward", "head", "matrix product"),
        ("update", "head", "check"),
        ("update", "norm", "update"),
    }
    assert all(profile.traffic(plan, call) > 0 for call in plan.calls)


@pytest.mark.parametrize("name", [name for name, each in isa.ISAS.items() if not each.missing()])
def test_the_peak_is_no_more_than_the_machine_can_do(name):
    each = isa.ISAS[name]
    # Each thread two instructions a cycle, at up to 7 GHz.
    assert 0.01 < profile.peak(each) < threads.pool().threads * 7 * 2 * 2 * each.lanes()


def test_explain_plan():
    model = Tiny().eval()
    compiled, x = jj.compile(lambda x: model(x)), np.ones((2, 9, 9, 1), np.float32)
    text = jj.explain_plan(compiled, x)
    assert text == jj.explain_plan(compiled.plan(x))
    plan = compiled.plan(x)
    assert text.startswith(f"{len(plan.calls)} calls for {plan.isa.name}\n")
    for part in ("conv", "cycles", "not tile", "tasks", "activations", f"{plan.memory() / 1e6:.2f} MB"):
        assert part in text


def test_cache(capsys, tmp_path, monkeypatch):
    folder = tmp_path / "code"
    monkeypatch.setenv("JUANJI_CACHE", str(folder))
    assert call(capsys, "cache")[1] == f"{folder}: 0 entries, 0 bytes\n"
    folder.mkdir()
    (folder / ("a" * 64)).write_bytes(b"12345")
    assert call(capsys, "cache")[1] == f"{folder}: 1 entries, 5 bytes\n"
    assert call(capsys, "cache", "--clear")[1] == f"{folder}: 1 entries, 5 bytes removed\n"
    assert os.listdir(folder) == []


def test_clearing_the_cache_leaves_other_files_alone(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("JUANJI_CACHE", str(tmp_path))
    (tmp_path / "thesis.txt").write_text("years of work")
    assert call(capsys, "cache", "--clear")[1] == f"{tmp_path}: 0 entries, 0 bytes removed\n"
    assert os.listdir(tmp_path) == ["thesis.txt"]
