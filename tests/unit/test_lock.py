"""One process at a time in a run folder."""

import errno
import os
import subprocess
import sys

import pytest

from juanji.cli import main
from juanji.errors import DataError
from juanji.interop import lock as module
from juanji.train import Choices, Recipe, Session
from juanji.train.lock import held

HOLD = """
import pathlib, sys
from juanji.train.lock import held
with held(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_once_and_nothing_is_left(tmp_path):
    for _ in range(2):
        with held(tmp_path):
            text = rf"another process is training in this run folder\n  received  process {os.getpid()}\n"
            with pytest.raises(DataError, match=text), held(tmp_path):
                pass
            assert (tmp_path / ".lock").exists()
        assert not list(tmp_path.iterdir())


def test_whoever_is_killed_keeps_nobody_out(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(DataError, match=f"received  process {process.pid}\n"), held(tmp_path):
            pass
        process.kill()
        process.wait()
        process.stdin.close()
    assert (tmp_path / ".lock").exists()
    with held(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="a file that is open cannot be replaced there")
def test_a_lock_that_its_owner_removed_meanwhile_is_none(tmp_path, monkeypatch):
    taken, calls = module.lock, []

    def lock(file):
        if not calls:
            (tmp_path / ".lock").unlink()
        calls.append(file)
        taken(file)

    monkeypatch.setattr(module, "lock", lock)
    with held(tmp_path), pytest.raises(DataError, match="another process"), held(tmp_path):
        pass
    assert [file.closed for file in calls] == [True] * 3


def test_folders_that_may_not_be_written_into(tmp_path):
    (tmp_path / "file").touch()
    text = r"file: nothing may be written into this run folder\n  received  .*\n  fix       make it writable"
    with pytest.raises(DataError, match=text), held(tmp_path / "file"):
        pass


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch):
    def lock(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(module, "lock", lock)
    with pytest.warns(UserWarning, match="another process is not kept out: No locks available"), held(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_runs_do_not_get_into_each_others_way(tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    choices = Choices("digits", "perceptron", Recipe(epochs=1))
    with held(out), pytest.raises(DataError, match="another process is training in this run folder"):
        Session.start(choices, out)
    session = Session.start(choices, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (out / ".0123456789abcdef.tmp").touch()  # which the other process is writing
    with held(out):
        with pytest.raises(DataError, match="another process"):
            session.train()
        with pytest.raises(SystemExit) as ended:
            main(["train", "--resume", str(out)])
    assert ended.value.code == 2
    assert "run: another process is training in this run folder" in capsys.readouterr().err
    (out / ".0123456789abcdef.tmp").unlink()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "config.json").unlink()  # another one that has not written it yet
    with held(out), pytest.raises(SystemExit):
        main(["train", "digits", "--resume", "--out", str(out)])
    assert (out / "model.safetensors").exists()
