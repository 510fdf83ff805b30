"""A run that is killed, at whatever moment, goes on to the bits that it would have ended in."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import juanji as jj
from juanji.cell import Cell
from juanji.cli import main
from juanji.cli.options import seconds
from juanji.data import Dataset, Images
from juanji.errors import ArgumentError, DataError, WeightsError
from juanji.interop import files
from juanji.train import Callback, Choices, Recipe, Saving, Session, Trainer, load_run
from juanji.train.checkpoint import load_checkpoint, save_checkpoint

# Everything a checkpoint has to hold: statistics, random numbers, averages, the best weights, what changed in an epoch.
RECIPE = Recipe(
    epochs=4, batch=8, ema=0.9, clip_norm=1.0, patience=3, stop_epsilon=1e-9, freeze="1", unfreeze_at=(3,), accumulate=2
)


def blots(n, seed=0):
    """Images of 8×8 with a blot on the left or on the right."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 0.4, (n, 8, 8, 1)).astype(np.float32), np.arange(n) % 2
    x[y == 0, 2:5, :3] += 0.5
    x[y == 1, 2:5, 5:] += 0.5
    return Images(x, y)


DATA = Dataset("blots", blots(44), blots(10, 1), ("left", "right"))


def network(seed=0):
    model = jj.nn.Sequential(
        jj.nn.Conv2d(1, 3, 3),
        jj.nn.BatchNorm2d(3),
        jj.nn.ReLU(),
        jj.nn.Flatten(),
        jj.nn.Dropout(0.3),
        jj.nn.Linear(108, 2),
    )
    model.initialise(seed)
    return model


def trainer(recipe=RECIPE, **options):
    return Trainer(network(recipe.seed), DATA, recipe, **options)


def state(trainer):
    """All that has to come out the same: cells, history without times, best weights."""
    rows = [(row.epoch, row.train_loss, row.val_loss, row.test_loss, row.lr) for row in trainer.progress.history]
    cells = {path: cell.read().array.tobytes() for path, cell in trainer.state().items()}
    best = {path: tensor.array.tobytes() for path, tensor in trainer.best.items()}
    return rows, cells, best, trainer.progress.best, trainer.progress.done


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_step(self, trainer, step):
        if trainer.progress.done == self.steps:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def uninterrupted():
    """What the recipe comes to without interruption."""
    whole = trainer()
    list(whole.run())
    return state(whole)


@pytest.mark.parametrize("steps", [1, 3, 5, 7, 10, 13])
def test_a_training_goes_on_from_any_step(uninterrupted, tmp_path, steps):
    path = tmp_path / "checkpoint"
    first = trainer(callbacks=[StopAfter(steps)], saving=Saving(path, steps=1))
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    first.save(path)
    second = trainer(saving=Saving(path))
    second.load(path)
    assert second.progress.done == steps
    rows = list(second.run())
    assert state(second) == uninterrupted
    assert rows == list(second.progress.history)[-len(rows) :]


def test_an_interrupt_while_an_epoch_is_judged_loses_nothing(uninterrupted, tmp_path):
    class Judge(Trainer):
        calls = 0

        def evaluate(self, images):
            self.calls += 1
            if self.calls == 2:
                raise KeyboardInterrupt
            return super().evaluate(images)

    first = Judge(network(), DATA, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    assert first.settled
    assert first.progress.batch == first.count
    first.save(tmp_path / "checkpoint")
    second = trainer()
    second.load(tmp_path / "checkpoint")
    list(second.run())
    assert state(second) == uninterrupted
    list(first.run())  # and the same in one process
    assert state(first) == uninterrupted


def test_the_time_limit_that_was_decided_is_kept(tmp_path):
    recipe = Recipe(epochs=50, batch=8, time_limit=3600.0)
    first = trainer(recipe, callbacks=[StopAfter(2)])
    first.progress.total = 9  # as if the time were enough for that
    with pytest.raises(KeyboardInterrupt):
        list(first.run())
    first.save(tmp_path / "checkpoint")
    second = trainer(recipe)
    second.load(tmp_path / "checkpoint")
    rows = list(second.run())
    assert second.progress.done == 9
    assert [row.epoch for row in rows] == [1, 2]
    assert rows[-1].lr == pytest.approx(recipe.make_schedule(9)(8))


# Checkpoint files.


@pytest.fixture
def checkpoint(tmp_path):
    some = trainer(callbacks=[StopAfter(3)])
    with pytest.raises(KeyboardInterrupt):
        list(some.run())
    some.save(tmp_path / "c.safetensors")
    return tmp_path / "c.safetensors"


def test_a_checkpoint_of_other_choices_is_refused(checkpoint):
    with pytest.raises(WeightsError, match=r"not one of this training\n[\s\S]*epochs 4, here 5"):
        trainer(Recipe(**{**vars(RECIPE), "epochs": 5})).load(checkpoint)
    with pytest.raises(WeightsError, match=r"not one of this training\n[\s\S]*unknown average/"):
        trainer(Recipe(**{**vars(RECIPE), "ema": 0.0})).load(checkpoint)


def test_a_checkpoint_of_an_older_version_goes_on(checkpoint, monkeypatch):
    """Which did not know every choice: what it did is what they are by default."""
    older, whole = trainer(), Recipe.to_dict
    older.load(checkpoint)
    with monkeypatch.context() as before:
        before.setattr(Recipe, "to_dict", lambda recipe: {k: v for k, v in whole(recipe).items() if k != "tta"})
        older.save(checkpoint)
    newer = trainer()
    newer.load(checkpoint)
    assert state(newer) == state(older)


def test_a_checkpoint_of_other_images_is_refused(checkpoint):
    data = Dataset("blots", blots(44), blots(11, 1), ("left", "right"))
    other = Trainer(network(), data, RECIPE)
    before = state(other)
    with pytest.raises(DataError, match="the images have changed since the run began"):
        other.load(checkpoint)
    assert state(other) == before


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_checkpoint_of_images_with_another_pixel_is_refused(checkpoint, part):
    x = getattr(DATA, part).x.copy()
    x[-1, 3, 3] = 0.125
    other = Trainer(network(), replace(DATA, **{part: Images(x, getattr(DATA, part).y)}), RECIPE)
    with pytest.raises(DataError, match=r"the images have changed since the run began[\s\S]*to the pixel"):
        other.load(checkpoint)


def test_a_checkpoint_of_another_version_is_refused(checkpoint, monkeypatch):
    monkeypatch.setattr("juanji.train.checkpoint.VERSION", 2)
    with pytest.raises(WeightsError, match="written by another version"):
        trainer().load(checkpoint)


def test_damaged_checkpoints(checkpoint):
    whole = checkpoint.read_bytes()
    rng = random.Random(0)
    places = [rng.randrange(len(whole)) for _ in range(25)]
    for place in places:
        checkpoint.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << rng.randrange(8)]) + whole[place + 1 :])
        some = trainer()
        before = state(some)
        with pytest.raises((WeightsError, DataError), match=r"checkpoint|weight file"):
            some.load(checkpoint)
        assert state(some) == before
    checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="cannot be read"):
        trainer().load(checkpoint)
    jj.interop.save_weights(network(), checkpoint)
    with pytest.raises(WeightsError, match="the checkpoint is damaged"):
        trainer().load(checkpoint)
    with pytest.raises(WeightsError, match="no such weight file"):
        trainer().load(checkpoint.with_name("gone"))


def holding(array):
    return Cell(np.shape(array), lambda state, shape, dtype: array, dtype=array.dtype)


def test_numbers_come_back_bit_for_bit(tmp_path):
    contents = {
        "a/x": np.array([np.nan, -0.0, 1e-45], np.float32),
        "a/n": np.int64(7),
        "a/s": np.array([1, 2**32 - 1], np.uint32),
    }
    cells = {name: holding(array) for name, array in contents.items()}
    values = {"last": {"x": jj.Tensor(np.float32(3))}}
    numbers = {"third": 1 / 3, "tiny": 5e-324}
    save_checkpoint(tmp_path / "c", cells, values, numbers)
    found = load_checkpoint(tmp_path / "c", cells, {"last": {"x": holding(np.float32(0))}, "best": cells})
    assert all(found.cells[name].tobytes() == cell.read().array.tobytes() for name, cell in cells.items())
    assert found.groups["last"]["x"].item() == 3
    assert "best" not in found.groups
    assert found.state == numbers


# Disks that are full, and folders that are locked.


def test_a_full_disk_leaves_the_last_checkpoint(checkpoint, monkeypatch):
    before = checkpoint.read_bytes()

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    some = trainer(saving=Saving(checkpoint, steps=1))
    with pytest.raises(DataError, match=r"c\.safetensors: the file cannot be written\n[\s\S]*No space left"):
        list(some.run())
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["c.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_file_that_may_not_grow_leaves_the_last_checkpoint(tmp_path):
    """The system itself stops the writing in its midst."""
    code = """
import resource, signal, sys
from juanji.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
main(sys.argv[1:])
"""
    arguments = ["digits", "--model", "lenet5", "--epochs", "1", "--out", str(tmp_path / "run"), "--quiet"]
    found = subprocess.run([sys.executable, "-c", code, "train", *arguments], capture_output=True, text=True)
    assert found.returncode == 2
    assert "checkpoint.safetensors: the file cannot be written" in found.stderr
    assert "File too large" in found.stderr
    assert not list((tmp_path / "run").glob("*"))


def test_a_folder_that_may_not_be_written_to(checkpoint, monkeypatch):
    before, opened = checkpoint.read_bytes(), files.Path.open

    def locked(path, *mode, **options):
        if path.parent == checkpoint.parent:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *mode, **options)

    told = r"cannot be written\n[\s\S]*Permission denied[\s\S]*may be written to"
    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "open", locked)  # as tests may be run by root, whom nothing is forbidden
        with pytest.raises(DataError, match=told):
            list(trainer(saving=Saving(checkpoint)).run())
    assert checkpoint.read_bytes() == before


# Runs that are killed.

ARGUMENTS = ["train", "digits", "--model", "perceptron", "--epochs", "2", "--ema", "0.9", "--patience", "2"]
# Kills itself at the Nth time that a file is being written: its bytes are, or its name is not yet, on the disk.
SUICIDE = """
import os, signal, sys
from juanji.cli import main
number, fsync = int(sys.argv[1]), os.fsync
def counted(descriptor):
    global number
    number -= 1
    if not number:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(descriptor)
os.fsync = counted
main(sys.argv[2:])
"""


def results(folder):
    """What has to be the same to the bit: all but times."""
    rows = [line.rpartition(",")[0] for line in (folder / "history.csv").read_text().splitlines()]
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["train_seconds"]
    return (folder / "model.safetensors").read_bytes(), rows, metrics


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "run"
    subprocess.run([sys.executable, "-m", "juanji", *ARGUMENTS, "--quiet", "--out", str(out)], check=True)
    return results(out)


def resumed(out, *options):
    return [*ARGUMENTS, "--quiet", "--out", str(out), "--resume", "--checkpoint-every", "1", *options]


def killed_while_writing(out, number):
    """Whether the run ended before it could be killed."""
    code = subprocess.run([sys.executable, "-c", SUICIDE, str(number), *resumed(out)]).returncode
    assert code in (0, -signal.SIGKILL)
    return code == 0


def killed_after(out, seconds):
    """Whether the run ended before it could be killed, so many seconds after it began to write."""
    process = subprocess.Popen([sys.executable, "-m", "juanji", *resumed(out)])
    before = max((path.stat().st_mtime for path in out.glob("*.safetensors")), default=0)
    limit = time.monotonic() + 60
    while process.poll() is None and max((p.stat().st_mtime for p in safely(out)), default=0) <= before:
        assert time.monotonic() < limit
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    code = process.wait()
    assert code in (0, -signal.SIGKILL)
    return code == 0


def safely(out):
    return [path for path in out.glob("*.safetensors") if path.exists()]


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_while_files_are_written(reference, tmp_path):
    """Before the run has begun, in the midst of a checkpoint, between the files of an epoch."""
    for number in (3, 40, 41):
        killed_while_writing(tmp_path / "run", number)
    subprocess.run([sys.executable, "-m", "juanji", *resumed(tmp_path / "run")], check=True)
    assert results(tmp_path / "run") == reference
    assert not list((tmp_path / "run").glob(".*"))


@pytest.mark.parametrize(
    "names",
    [
        {"checkpoint.safetensors": "precious", "notes.txt": "keep"},
        {"model.safetensors": "precious"},
        {"checkpoint.safetensors": "precious"},
        {".draft.tmp": "precious"},
    ],
)
def test_files_of_others_are_left_alone(names, capsys, tmp_path):
    for name, text in names.items():
        (tmp_path / name).write_text(text)
    code, _, error = call(capsys, *ARGUMENTS, "--out", tmp_path, "--resume")
    assert code == 2
    assert "there is something already" in error
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == names


def test_a_checkpoint_with_steps_is_left_alone(run, capsys, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes((run / "checkpoint.safetensors").read_bytes())
    assert call(capsys, *ARGUMENTS, "--out", tmp_path, "--resume")[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_session_that_goes_on_was_not_interrupted(tmp_path):
    session = Session.start(Choices("digits", "perceptron", Recipe(epochs=1)), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        session.train([StopAfter(5)])
    session.train()
    assert not json.loads((tmp_path / "run" / "metrics.json").read_text())["interrupted"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_at_twenty_random_moments(reference, tmp_path):
    rng, kills, out = random.Random(7), 0, tmp_path / "run"
    while kills < 20:
        if kills % 2:
            finished = killed_while_writing(out, rng.randrange(1, 60))
        else:
            finished = killed_after(out, rng.uniform(0, 0.3))
        if finished:
            assert results(out) == reference
            for path in out.iterdir():
                path.unlink()
        kills += not finished
    subprocess.run([sys.executable, "-m", "juanji", *resumed(out)], check=True)
    assert results(out) == reference


# The command.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was interrupted in its second epoch."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    session = Session.start(Choices("digits", "perceptron", Recipe(epochs=2)), out)
    with pytest.raises(KeyboardInterrupt):
        session.train([StopAfter(25)])
    return out


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


def test_resume_by_the_name_of_the_run(run, capsys):
    assert json.loads((run / "metrics.json").read_text())["interrupted"]
    code, output, _ = call(capsys, "train", "--resume", run)
    assert code == 0
    assert "going on after step 25" in output
    assert "epoch 2/2" in output
    assert "epoch 1/2" not in output
    assert not json.loads((run / "metrics.json").read_text())["interrupted"]
    weights = (run / "model.safetensors").read_bytes()
    code, output, _ = call(capsys, "train", "--resume", run)
    assert code == 0
    assert "finished already" in output
    assert output.splitlines()[-1].startswith("test accuracy")
    assert (run / "model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--resume"], "train: which run?"),
        (["--resume", "nowhere"], "nowhere: this is not a run folder"),
        (["--resume", "RUN", "--epochs", "9"], "epochs 9, where the run has 2"),
        (["--resume", "RUN", "--model", "lenet5"], "model 'lenet5', where the run has 'perceptron'"),
        (["--resume", "mnist", "--out", "RUN"], "data 'mnist', where the run has 'digits'"),
    ],
)
def test_what_cannot_be_resumed(run, arguments, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = call(capsys, "train", *[str(run) if word == "RUN" else word for word in arguments])
    assert (code, text in errors) == (2, True), errors


def test_a_configuration_begins_a_run_or_goes_on_with_it(run, capsys, tmp_path):
    config, out = run / "config.json", tmp_path / "out"
    arguments = ["train", "--config", config, "--out", out, "--resume", "--quiet"]
    for _ in range(2):
        assert call(capsys, *arguments)[0] == 0
        assert load_run(out).config == load_run(run).config
    (tmp_path / "config.json").write_text(config.read_text().replace('"epochs": 2', '"epochs": 3'))
    arguments[2] = tmp_path / "config.json"
    code, _, errors = call(capsys, *arguments)
    assert (code, "which is not that of" in errors) == (2, True)


def test_relative_paths_are_the_same_when_a_run_goes_on(capsys, tmp_path, monkeypatch):
    """Of images, of what it begins with, and in a configuration."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(8):
        (tmp_path / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.png")
    common = ["--model", "perceptron", "--size", "8", "--epochs", "1", "--quiet"]
    assert call(capsys, "train", "photos", "--out", "first", *common)[0] == 0
    again = ["--out", "second", "--init", "first", "--resume"]
    for arguments in (["photos", *common], ["photos", *common], ["--config", "second"]):
        code, _, errors = call(capsys, "train", *arguments, *again)
        assert code == 0, errors
    config = load_run("second").config
    assert (config.data, config.weights) == (str((tmp_path / "photos").resolve()), str((tmp_path / "first").resolve()))


def test_a_run_without_checkpoint(run, tmp_path, capsys):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    code, _, errors = call(capsys, "train", "--resume", tmp_path)
    assert code == 2
    assert "this run cannot be resumed\n  received  no checkpoint.safetensors in it" in errors
    assert load_run(tmp_path).predict(np.zeros((1, 28, 28, 1), np.float32)).shape == (1, 10)


def test_bad_intervals(capsys):
    code, _, errors = call(capsys, "train", "digits", "--checkpoint-every", "often")
    assert (code, "train: bad --checkpoint-every" in errors) == (2, True)
    with pytest.raises(ArgumentError, match=r"a number above 0 and a unit: s, m or h"):
        seconds("train", "--time-limit", "10")
