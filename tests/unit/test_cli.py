"""The command line: every command, what it prints, and how it fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import juanji as jj
from juanji.cli import COMMANDS, app, main
from juanji.cli.options import settings
from juanji.cli.predict import warn
from juanji.data import digits
from juanji.errors import UnknownNameError
from juanji.interop.export.model import OLDEST
from juanji.interop.packages import NEWEST
from juanji.train import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training run: its folder, and what the command printed."""
    path = tmp_path_factory.mktemp("cli") / "run"
    result = CliRunner().invoke(app, ["train", "digits", "--epochs", "2", "--out", str(path)])
    assert result.exit_code == 0, result.output
    return path, result.output


@pytest.fixture
def digit(tmp_path):
    """An image file of a test digit, 90×60 and in colour, and which it is."""
    test = digits().test
    pixels = (test.x[0, ..., 0] * 255).astype(np.uint8)
    Image.fromarray(pixels).resize((60, 90)).convert("RGB").save(tmp_path / "digit.png")
    return tmp_path / "digit.png", int(test.y[0])


def call(capsys, *arguments):
    """Exit code, output and error output of `juanji ARGUMENTS`."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return (ended.value.code, *capsys.readouterr())


def test_training_prints_summary_epochs_and_result(run):
    path, output = run
    assert "conv1" in output
    assert "61,706" in output
    assert "1201 images to train on, 596 to test on" in output
    assert "epoch 1/2  train loss" in output
    assert f"after epoch 2, {load(path)['train_seconds']:.1f} s; saved in {path}" in output
    assert f"test accuracy {load(path)['test_accuracy']:.2%}" in output
    assert load(path)["parameters"] == 61706
    assert load(path)["test_accuracy"] > 0.6


def load(path):
    return json.loads((path / "metrics.json").read_text())


def test_quiet_prints_one_line(capsys, tmp_path):
    arguments = ["train", "digits", "--model", "perceptron", "--epochs", "1", "--seed", "2", "--quiet"]
    code, output, _ = call(capsys, *arguments, "--out", tmp_path / "quiet")
    assert code == 0
    assert output.startswith("test accuracy")
    assert output.count("\n") == 1


def test_the_same_seed_gives_the_same_file(capsys, tmp_path):
    for name in "ab":
        arguments = ["train", "digits", "--epochs", "1", "--seed", "5", "--quiet", "--out", tmp_path / name]
        assert call(capsys, *arguments)[0] == 0
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize("model", ["batchnorm_net", "cnn_small", "highway", "lenet5", "lenet5_1998", "perceptron"])
def test_every_model_trains_on_images_of_its_own_size(model, capsys, tmp_path):
    code, output, _ = call(capsys, "train", "digits", "--model", model, "--epochs", "1", "--out", tmp_path / "r")
    assert code == 0
    height, width = jj.models.create(model).config["input_size"]
    assert re.search(rf"^input +\({height}, {width}, 1\)", output, re.MULTILINE)
    code, output, _ = call(capsys, "evaluate", tmp_path / "r", "--json")
    assert json.loads(output)["accuracy"] == load(tmp_path / "r")["test_accuracy"]


def test_a_size_that_the_network_does_not_take(capsys, tmp_path):
    arguments = ["train", "digits", "--model", "lenet5_1998", "--size", "28", "--out", tmp_path / "r"]
    code, _, errors = call(capsys, *arguments)
    assert (code, "32×32" in errors) == (2, True)
    assert not (tmp_path / "r").exists()


def test_evaluate(run, capsys):
    code, output, _ = call(capsys, "evaluate", run[0])
    assert code == 0
    assert output.startswith(f"accuracy {load(run[0])['test_accuracy']:.2%}")
    assert "true \\ predicted" in output
    code, output, _ = call(capsys, "evaluate", run[0], "--json")
    values = json.loads(output)
    assert values["accuracy"] == load(run[0])["test_accuracy"]
    assert values["loss"] == load(run[0])["test_loss"]
    assert np.sum(values["confusion"]) == values["images"] == 596
    assert list(values["classes"]) == list("0123456789")


def test_predict(run, digit, capsys):
    path, truth = digit
    code, output, errors = call(capsys, "predict", run[0], path, path, "--top", "2")
    assert (code, errors) == (0, "")
    assert output.count(f"{path}: ") == 2
    assert output.count("%") == 4
    code, output, _ = call(capsys, "predict", run[0], path, "--json")
    (result,) = json.loads(output)
    assert result["image"] == str(path)
    assert len(result["predictions"]) == 3
    best = result["predictions"][0]
    assert (best["class"], 0 < best["probability"] <= 1) == (str(truth), True)


def test_dark_on_light_is_told_and_can_be_inverted(run, digit, capsys, tmp_path):
    path, truth = digit
    paper = tmp_path / "paper.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(paper)
    code, _, errors = call(capsys, "predict", run[0], paper)
    assert code == 0
    assert "paper.png: this image is mostly light" in errors
    assert "--invert swaps dark and light" in errors
    _, output, errors = call(capsys, "predict", run[0], paper, "--invert", "--json")
    assert errors == ""
    light = Image.new("RGB", (30, 30), "white")
    light.putpixel((3, 3), (0, 0, 0))
    config = load_run(run[0]).config
    colour = replace(config.preprocessing, channels=3, mean=(0.2, 0.2, 0.2), std=(0.2, 0.2, 0.2))
    warn(replace(load_run(run[0]), config=replace(config, preprocessing=colour)), "light.png", np.asarray(light) / 255)
    assert capsys.readouterr().err == ""  # photographs may be light
    assert json.loads(output)[0]["predictions"][0]["class"] == str(truth)


def test_one_bad_file_does_not_cost_the_others(run, digit, capsys, tmp_path):
    (tmp_path / "bad.png").write_text("not an image")
    code, output, errors = call(capsys, "predict", run[0], tmp_path / "bad.png", digit[0], "--json")
    assert code == 2
    assert [result["image"] for result in json.loads(output)] == [str(digit[0])]
    assert "bad.png: the image cannot be read" in errors


def test_blank_images_are_told(run, capsys, tmp_path):
    Image.new("L", (28, 28), 0).save(tmp_path / "black.png")
    _, _, errors = call(capsys, "predict", run[0], tmp_path / "black.png")
    assert "black.png: this image is blank; what follows means nothing." in errors


def test_filter_does_not_overwrite_its_image(capsys, tmp_path):
    Image.new("L", (8, 8), 9).save(tmp_path / "x.png")
    code, _, errors = call(capsys, "filter", tmp_path / "x.png", "--kernel", "blur", "-o", tmp_path / "x.png")
    assert code == 2
    assert "this would overwrite the image that is filtered" in errors


def test_summary(capsys):
    code, output, _ = call(capsys, "summary", "lenet5", "--input", "32,32,3", "--classes", "7")
    assert code == 0
    assert "conv1" in output
    assert "fc3" in output
    code, output, _ = call(capsys, "summary", "cnn_small", "--input", "32,32,3", "--json")
    assert code == 0
    assert "56442" in json.dumps(json.loads(output))


@pytest.mark.parametrize("model", jj.models.list())
def test_a_summary_is_of_the_networks_own_size(model, capsys):
    config = jj.models.create(model).config
    _, output, _ = call(capsys, "summary", model)
    assert re.search(rf"^input +\({config['input_size'][0]}, .*, {config['in_channels']}\)", output, re.MULTILINE)


def test_models(capsys):
    code, output, _ = call(capsys, "models")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == ["name", *jj.models.MODELS]
    assert all(entry["about"] in output for entry in jj.models.MODELS.values())
    assert re.search(r"^lenet5 +28×28×1 +61,706 ", output, re.MULTILINE)
    _, output, _ = call(capsys, "models", "--task", "segmentation", "--classes", "21", "--json")
    rows = json.loads(output)
    assert [row["name"] for row in rows] == ["fcn32s", "fcn16s", "fcn8s", "fcn_resnet50"]
    assert rows[-1] | {"about": ""} == {
        "name": "fcn_resnet50",
        "task": "segmentation",
        "images": [224, 224, 3],
        "parameters": 32_957_013,
        "about": "",
    }


def test_one_network_with_its_options(capsys):
    code, output, _ = call(capsys, "models", "resnet18", "--classes", 1000)
    assert code == 0
    lines = output.splitlines()
    assert lines[0] == f"resnet18: {jj.models.MODELS['resnet18']['about']}"
    assert lines[1] == "classification of images 224×224×3, 11,689,512 parameters"
    assert [line.split()[:2] for line in lines[4:]] == [
        ["blocks", "2,2,2,2"],
        ["channels", "64,128,256,512"],
        ["stem", "large"],
        ["width", "1.0"],
    ]
    assert all(line.endswith(jj.models.OPTIONS[line.split()[0]]) for line in lines[4:])
    _, output, _ = call(capsys, "models", "lenet5", "--json")
    assert json.loads(output)["options"]["hidden"] == [120, 84]
    _, output, _ = call(capsys, "models", "lenet5_1998")
    assert output.endswith("\nno options\n")
    code, _, error = call(capsys, "models", "resnet18", "--task", "segmentation")
    assert code == 2
    assert error.startswith("juanji: there is no model for segmentation named 'resnet18'\n")
    assert "'fcn_resnet50'" in error


def test_options_of_a_network(capsys, tmp_path):
    options = ["--option", "width=0.125", "--option", "stem=small"]
    _, output, _ = call(capsys, "summary", "resnet18", "--input", "32,32,3", *options)
    assert re.search(r"^conv1 +Conv2d\(3, 8, 3, padding=1, bias=False\) +\(32, 32, 8\)", output, re.MULTILINE)
    arguments = ["train", "digits", "--model", "highway_conv", "--size", "16", "--epochs", "1", "--option", "layers=1"]
    code, _, _ = call(capsys, *arguments, *options[:2], "--out", tmp_path / "r")
    config = json.loads((tmp_path / "r" / "config.json").read_text())["model"]
    assert (code, config["layers"], config["width"]) == (0, 1, 0.125)


@pytest.mark.slow
def test_training_with_auxiliary_heads(capsys, tmp_path):
    arguments = ["train", "digits", "--model", "googlenet", "--size", "16", "--epochs", "4", "--out", tmp_path / "r"]
    code, output, _ = call(capsys, *arguments, "--option", "width=0.125", "--option", "stem=small")
    assert code == 0
    assert load(tmp_path / "r")["test_accuracy"] > 0.8
    code, output, _ = call(capsys, "evaluate", tmp_path / "r", "--json")
    assert json.loads(output)["accuracy"] == load(tmp_path / "r")["test_accuracy"]


def test_filter(capsys, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (8, 6, 4), np.uint8)
    Image.fromarray(x).save(tmp_path / "x.png")
    for kernel in ("identity", "sharpen", "blur", "gaussian", "mean", "edges", "sobel"):
        out = tmp_path / f"{kernel}.png"
        code, output, _ = call(capsys, "filter", tmp_path / "x.png", "--kernel", kernel, "-o", out)
        assert code == 0
        assert f"{kernel} of" in output
        written = np.asarray(Image.open(out))
        assert written.shape == x.shape
        assert (written[..., 3] == x[..., 3]).all()
        assert (written == x).all() == (kernel == "identity")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["train", "digit"], r"juanji: there is no dataset named 'digit'"),
        (["train", "digits", "--model", "lenet"], r"did you mean 'lenet5'"),
        (["train", "digits", "--optimizer", "sdg"], r"did you mean 'sgd'"),
        (["train", "digits", "--epochs", "0"], r"training: bad epochs"),
        (["train", "digits", "--size", "3"], r"digits: bad size"),
        (["train", "digits", "--size", "9999"], r"from 8, the file's own, to 512"),
        (["evaluate", "nowhere"], r"nowhere: this is not a run folder"),
        (["predict", "nowhere", "x.png"], r"nowhere: this is not a run folder"),
        (["summary", "lenet6"], r"did you mean 'lenet5'"),
        (["summary", "lenet5", "--input", "32,32"], r"summary: bad --input"),
        (["summary", "lenet5", "--option", "width"], r"summary: bad --option"),
        (["summary", "lenet5", "--option", "width=1", "--option", "width=2"], r"NAME=VALUE, each name once"),
        (["summary", "lenet5", "--option", "classes=3"], r"of what only some networks have"),
        (["summary", "lenet5", "--option", "depth=3"], r"lenet5 has no such option"),
        (["models", "resnet1"], r"did you mean 'resnet18'"),
        (["models", "--task", "detection"], r"there is no task named 'detection'"),
        (["train", "digits", "--model", "fcn8s", "--size", "8", "--option", "width=0.01"], r"one answer an image"),
        (["summary", "lenet5", "--input", "2,2,1"], r"lenet5"),
        (["filter", "gone.png", "--kernel", "blur", "-o", "x.png"], r"gone.png: there is no such image file"),
    ],
)
def test_mistakes_are_told_plainly(arguments, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, errors = call(capsys, *arguments)
    assert code == 2
    assert text in errors
    assert "Traceback" not in errors + output
    assert not list(tmp_path.iterdir())


def test_a_truncated_image_is_named(run, digit, capsys):
    path, _ = digit
    path.write_bytes(path.read_bytes()[:200])
    code, _, errors = call(capsys, "predict", run[0], path)
    assert code == 2
    assert f"juanji: {path}: the image cannot be read" in errors
    code, _, errors = call(capsys, "filter", path, "--kernel", "blr", "-o", path)
    assert code == 2


def test_unknown_kernels_give_the_nearest(digit, capsys, tmp_path):
    code, _, errors = call(capsys, "filter", digit[0], "--kernel", "sharp", "-o", tmp_path / "o.png")
    assert (code, "did you mean 'sharpen'" in errors) == (2, True)


def test_debug_shows_where(capsys):
    with pytest.raises(jj.errors.UnknownNameError):
        main(["--debug", "train", "digit"])


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_worth_reading(command, capsys):
    code, output, _ = call(capsys, *command, "--help")
    assert code == 0
    if not command:
        assert all(name in output for name in COMMANDS)
    elif command != ["models"]:
        assert "Example" in output
        assert "Options:" in output


def test_help_says_what_exit_codes_and_versions_there_are(capsys):
    _, output, _ = call(capsys, "predict", "--help")
    assert "the exit code is 2 then, and 0 where all could be read" in " ".join(output.split())
    _, output, _ = call(capsys, "export", "--help")
    assert f"{OLDEST} to {NEWEST}. [default: {NEWEST}]" in " ".join(output.split())


def test_version_and_module():
    result = subprocess.run(
        [sys.executable, "-m", "juanji", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert re.fullmatch(r"juanji \d+\.\d+\S*\n", result.stdout)


def test_progress_is_shown_on_a_terminal(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    code, output, _ = call(capsys, "train", "digits", "--model", "perceptron", "--epochs", "2", "--out", tmp_path / "r")
    assert code == 0
    assert "epoch 2/2  step 19/19" in output
    assert output.count("train loss") == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process")
def test_ctrl_c_ends_cleanly_with_what_is_saved(tmp_path):
    # Shells have background jobs ignore Ctrl-C, and the tests may run in one.
    listening = "import signal, juanji.cli; signal.signal(signal.SIGINT, signal.default_int_handler); juanji.cli.main()"
    command = [sys.executable, "-c", listening, "train", "digits", "--model", "perceptron", "--epochs", "1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, text=True)
    path, limit = tmp_path / "runs" / "digits-perceptron-1", time.monotonic() + 60
    while not (path / "history.csv").exists() or len((path / "history.csv").read_text().splitlines()) < 3:
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == ""
    metrics = load(path)
    assert output.splitlines()[-1].startswith(f"interrupted: the network after epoch {metrics['epochs']} is saved in")
    assert metrics["interrupted"]
    assert load_run(path).predict(digits().test.x[:1]).shape == (1, 10)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("true", True),
        ("False", False),
        ("None", None),
        ("small", "small"),
        ("4,8", (4, 8)),
        ("[4, 8]", [4, 8]),
    ],
)
def test_values_of_options(text, value):
    assert settings("train", [f"name={text}"]) == {"name": value}


def test_options_that_are_no_truth_values(capsys):
    code, _, told = call(capsys, "summary", "googlenet", "--option", "aux=no")
    assert code == 2
    assert "aux" in told
    assert "'no'" in told


def test_unknown_backends(monkeypatch):
    monkeypatch.setenv("JUANJI_BACKEND", "nunpy")
    with pytest.raises(UnknownNameError, match=r"no backend named 'nunpy'[\s\S]*did you mean 'numpy'"):
        jj.compile(lambda x: x + 1)(np.ones(2))


def test_training_tells_what_auto_means(tmp_path):
    arguments = ["train", "digits", "--epochs", "1", "--precision", "auto", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert f"precision: {load_run(tmp_path).config.recipe.precision}\n" in result.output


def test_what_takes_seconds_says_so_on_a_terminal(run, digit, capsys, monkeypatch, tmp_path):
    commands = {
        "compiling lenet5 …": [["evaluate", run[0]], ["predict", run[0], digit[0]], ["profile", "lenet5"]],
        "measuring lenet5 …": [["profile", "lenet5", "--repeat", "1"]],
    }
    for text, calls in commands.items():
        for arguments in calls:
            assert call(capsys, *arguments)[2] == ""
            with monkeypatch.context() as patch:
                patch.setenv("FORCE_COLOR", "1")
                code, output, errors = call(capsys, *arguments)
            assert (code, text in errors, "…" in output) == (0, True, False)
            assert errors.endswith("\x1b[2K")  # the line is erased
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    assert "running lenet5 …" in call(capsys, "evaluate", run[0])[2]
    _, output, _ = call(capsys, "train", "digits", "--model", "perceptron", "--epochs", "1", "--out", tmp_path / "r")
    assert "running perceptron" in output


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no full device here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_that_is_printed_to(unbuffered):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "juanji", "models"],
            stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    told = (
        "juanji: what was to be printed cannot be written\n  received  No space left on device\n"
        "  rule      room where the output is sent to\n  fix       make room, or send it elsewhere: > FILE\n"
    )
    assert (result.returncode, result.stderr) == (2, told)
