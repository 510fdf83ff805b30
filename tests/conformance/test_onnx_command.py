"""juanji export: the file it writes, what it says, and what it does where the runtime disagrees or is missing."""

import json
import sys

import numpy as np
import onnx
import pytest
from runtimes import checked, close, kinds, settled, with_onnxruntime

import juanji as jj
from juanji.cli import main
from juanji.interop import save_onnx
from juanji.train import Choices, load_run
from juanji.train.run import Session


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that has not begun to train."""
    path = tmp_path_factory.mktemp("export") / "run"
    session = Session.start(Choices("digits", "batchnorm_net"), path)
    settled(session.model)
    session.save()
    return path


def call(capsys, *arguments):
    """Exit code, output and error output of `juanji ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


@pytest.mark.parametrize(
    ("options", "layout", "norms"), [([], "NCHW", 2), (["--layout", "NHWC"], "NHWC", 2), (["--fold"], "NCHW", 0)]
)
def test_export(options, layout, norms, run, capsys, tmp_path):
    out = tmp_path / "model.onnx"
    code, output, errors = call(capsys, "export", run, "-o", out, *options)
    assert (code, errors) == (0, "")
    assert f"{out}: batchnorm_net, " in output
    assert f"images {layout}\ntried with onnxruntime " in output
    assert "on 4 random images: outputs differ by " in output
    proto = checked(onnx.load(out))
    assert kinds(proto)["BatchNormalization"] == norms
    loaded = load_run(run)
    said = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(said["class_names"]) == list("0123456789")
    assert json.loads(said["mean"]) == list(loaded.config.preprocessing.mean)
    assert json.loads(said["std"]) == list(loaded.config.preprocessing.std)
    assert json.loads(said["model"])["name"] == "batchnorm_net"
    assert "data" not in said  # where the images lay stays here
    images = loaded.config.load_data().test.x[:7]
    x = loaded.config.preprocessing(images).astype(np.float32)
    (logits,) = with_onnxruntime(proto, [x], layout)
    close([np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)], loaded.predict(images), 1e-5)


def test_a_disagreement_is_an_error(run, capsys, tmp_path, monkeypatch):
    def another(model, path, **options):
        save_onnx(jj.models.create("batchnorm_net", seed=1), path)

    monkeypatch.setattr(sys.modules["juanji.cli.export"], "save_onnx", another)
    code, output, errors = call(capsys, "export", run, "-o", tmp_path / "model.onnx")
    assert code == 1
    assert "tried with" not in output
    assert "juanji: onnxruntime " in errors
    assert "is allowed" in errors


def test_without_onnxruntime_it_is_not_tried(run, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, output, errors = call(capsys, "export", run, "-o", tmp_path / "model.onnx")
    assert (code, errors) == (0, "")
    assert "not tried: pip install onnxruntime" in output


def test_mistakes(run, capsys, tmp_path):
    for options, text in [(["--layout", "HWC"], "unknown layout"), (["--opset", "9"], "bad opset")]:
        code, _, errors = call(capsys, "export", run, "-o", tmp_path / "model.onnx", *options)
        assert (code, text in errors) == (2, True)
    assert call(capsys, "export", tmp_path, "-o", tmp_path / "model.onnx")[0] == 2
    assert not list(tmp_path.iterdir())


def test_exporting_says_what_it_does_on_a_terminal(run, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, output, errors = call(capsys, "export", run, "-o", tmp_path / "model.onnx")
    assert (code, "…" in output) == (0, False)
    assert "writing batchnorm_net …" in errors
    assert "comparing it with juanji …" in errors
