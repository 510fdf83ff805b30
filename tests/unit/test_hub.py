"""Where weights come from: files, the Hugging Face hub (a stand-in for its library), and `juanji train --weights`."""

import json
import sys
import types

import numpy as np
import pytest

from juanji import models
from juanji.cli import main
from juanji.errors import WeightsError
from juanji.interop import load_torch_weights, load_weights, save_torch_weights
from juanji.interop.hub import weight_file


class EntryNotFoundError(Exception):
    pass


class LocalEntryNotFoundError(EntryNotFoundError, FileNotFoundError):
    pass


class HfHubHTTPError(OSError):
    pass


class HFValidationError(ValueError):
    pass


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for huggingface_hub: `hub.files` by (repository, file, revision); an exception there is raised."""
    module = types.ModuleType("huggingface_hub")
    kinds = (EntryNotFoundError, LocalEntryNotFoundError)
    module.errors = types.SimpleNamespace(**{kind.__name__: kind for kind in kinds})
    module.files = {}

    def hf_hub_download(repository, name, revision=None):
        found = module.files.get((repository, name, revision), EntryNotFoundError("404"))
        if isinstance(found, Exception):
            raise found
        return str(found)

    module.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


def test_a_path_is_itself(tmp_path):
    assert weight_file(tmp_path / "x") == weight_file(str(tmp_path / "x")) == tmp_path / "x"


def test_the_files_of_a_repository(hub, tmp_path):
    hub.files = {
        ("a/b", "pytorch_model.bin", None): tmp_path / "old",
        ("a/c", "model.safetensors", None): tmp_path / "new",
        ("a/c", "pytorch_model.bin", None): tmp_path / "old",
        ("a/c", "model.safetensors", "v1"): tmp_path / "first",
    }
    assert weight_file("hf:a/b") == tmp_path / "old"
    assert weight_file("hf:a/c") == tmp_path / "new"
    assert weight_file("hf:a/c@v1") == tmp_path / "first"
    with pytest.raises(WeightsError) as caught:
        weight_file("hf:a/d")
    assert str(caught.value).startswith("hf:a/d: there are no weights in the repository\n")
    assert "rule      a file model.safetensors or pytorch_model.bin" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("Cannot find the requested files\nin the disk cache"),
        HfHubHTTPError("401 Client Error"),
        HFValidationError("Repo id must be in the form"),
        ConnectionError("offline mode"),
    ],
)
def test_a_hub_that_gives_nothing(hub, error):
    hub.files["a/b", "model.safetensors", None] = error
    with pytest.raises(WeightsError) as caught:
        weight_file("hf:a/b")
    assert str(caught.value).startswith("hf:a/b: the weights cannot be downloaded\n")
    assert f"received  {type(error).__name__}: {' '.join(str(error).split())}\n" in str(caught.value)
    assert "fix       check the name and the connection" in str(caught.value)


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError) as caught:
        weight_file("hf:a/b")
    assert "hf:a/b: huggingface_hub is needed to download weights" in str(caught.value)
    assert "fix       pip install huggingface_hub, or download the file" in str(caught.value)


def test_weights_are_loaded_from_a_repository(hub, published):
    hub.files["a/b", "model.safetensors", "v2"] = published / "10.safetensors"
    model = models.create("perceptron", in_channels=1, input_size=8)
    load_torch_weights(model, "hf:a/b@v2")
    expected = models.create("perceptron", in_channels=1, input_size=8, seed=3)
    assert np.array_equal(model.layers[0].weight, expected.layers[0].weight)


# From the command line


@pytest.fixture
def published(tmp_path):
    """A perceptron for ten classes, and one for seven, as PyTorch has them."""
    for classes in (10, 7):
        model = models.create("perceptron", classes=classes, in_channels=1, input_size=8, seed=3)
        save_torch_weights(model, tmp_path / f"{classes}.safetensors")
    return tmp_path


def train(capsys, weights, out, *more):
    arguments = ["train", "digits", "--model", "perceptron", "--size", "8", "--epochs", "1", "--lr", "1e-12"]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--weights", str(weights), "--out", str(out), *more])
    return (ended.value.code, *capsys.readouterr())


def first_layer(path):
    model = models.create("perceptron", in_channels=1, input_size=8)
    load_weights(model, path / "model.safetensors")
    return np.asarray(model.layers[0].weight)


def test_training_begins_with_weights(published, capsys):
    code, output, _ = train(capsys, published / "10.safetensors", published / "run")
    assert code == 0
    assert f"weights of {published / '10.safetensors'}\n" in output
    expected = np.asarray(models.create("perceptron", in_channels=1, input_size=8, seed=3).layers[0].weight)
    assert np.allclose(first_layer(published / "run"), expected, atol=1e-6)
    config = json.loads((published / "run" / "config.json").read_text())
    assert config["weights"] == str(published / "10.safetensors")
    code, output, _ = train(capsys, published / "run" / "model.safetensors", published / "again", "--quiet")
    assert (code, output.count("\n")) == (0, 1)
    assert np.allclose(first_layer(published / "again"), expected, atol=1e-6)


def test_a_classifier_for_other_classes_begins_anew(published, capsys):
    code, output, _ = train(capsys, published / "7.safetensors", published / "run")
    assert code == 0
    assert f"weights of {published / '7.safetensors'}; layers.3.weight, layers.3.bias begin anew" in output


def test_weights_for_colour_images_are_adapted(capsys, tmp_path):
    options = {"input_size": 8, "channels": (2, 2, 2)}
    colour = models.create("resnet20", classes=7, **options)
    save_torch_weights(colour, tmp_path / "x.safetensors")
    arguments = ["--model", "resnet20", "--option", "channels=2,2,2"]
    code, output, _ = train(capsys, tmp_path / "x.safetensors", tmp_path / "run", *arguments)
    assert code == 0
    told = "conv1.weight summed over the channels, for grey images; fc.weight, fc.bias begin anew"
    assert f"weights of {tmp_path / 'x.safetensors'}; {told}\n" in output
    grey = models.create("resnet20", in_channels=1, **options)
    load_weights(grey, tmp_path / "run" / "model.safetensors")
    assert np.allclose(grey.conv1.weight, np.asarray(colour.conv1.weight).sum(2, keepdims=True), atol=1e-5)


def test_weights_of_another_network(published, capsys, tmp_path):
    save_torch_weights(models.create("lenet5"), tmp_path / "x.safetensors")
    code, _, errors = train(capsys, tmp_path / "x.safetensors", published / "run")
    assert code == 2
    assert "fix       this is a file of lenet5: models.create('lenet5'), or --model lenet5" in errors


def test_training_begins_with_weights_of_the_hub(hub, published, capsys):
    hub.files["a/b", "model.safetensors", None] = published / "10.safetensors"
    code, output, _ = train(capsys, "hf:a/b", published / "run")
    assert code == 0
    assert "weights of hf:a/b\n" in output


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ("gone.pth", "there is no such weight file"),
        ("hf:a/b", "hf:a/b: huggingface_hub is needed to download weights"),
        (__file__, "the weight file cannot be read"),
    ],
)
def test_mistakes_are_told_before_a_folder_is_made(weights, text, published, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    code, _, errors = train(capsys, weights, published / "run")
    assert code == 2
    assert f"juanji: {text}" in errors
    assert not (published / "run").exists()
