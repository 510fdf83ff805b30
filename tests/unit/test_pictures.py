"""Pictures: that they are written, what stands in them, and that names from outside do them no harm."""

import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from juanji.errors import ArgumentError, DataError
from juanji.train import pictures
from juanji.train.evaluation import Evaluation, answers

NAMES = ("猫", "$x_1$", "a_b^", "plain", "two\nlines", "a name that is longer than anybody would like to read")


@dataclass
class Row:
    epoch: int
    train_loss: float
    train_accuracy: float
    val_accuracy: float | None
    test_accuracy: float | None
    lr: float


def evaluation(classes, n=200):
    rng = np.random.default_rng(0)
    return Evaluation(classes, *answers(rng.standard_normal((n, classes)), rng.integers(0, classes, n)))


@pytest.fixture
def drawn(monkeypatch):
    """Every figure that is saved, to be looked at."""
    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self) or savefig(self, *a, **k))
    return figures


def texts(figure):
    """All that is written in a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def is_png(path):
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG"


def test_learning_curve(drawn, tmp_path):
    rows = [Row(i, 1 / i, 1 - 1 / i, None if i < 3 else 0.5, None, 0.01) for i in range(1, 6)]
    pictures.learning_curve(rows, tmp_path / "curve.png")
    assert is_png(tmp_path / "curve.png")
    loss, accuracy, rate = drawn[0].axes
    assert [line.get_label() for line in loss.lines] == ["train 0.2"]
    assert [line.get_label() for line in accuracy.lines] == ["train 80.0%", "val 50.0%"]
    assert accuracy.lines[1].get_xdata().tolist() == [3, 4, 5]
    assert rate.lines[0].get_ydata().tolist() == [0.01] * 5
    pictures.learning_curve(rows[:1], tmp_path / "one.png")
    assert drawn[1].axes[0].lines[0].get_marker() == "o"


def test_range_test(drawn, tmp_path):
    rates = np.geomspace(1e-6, 1, 30)
    losses = np.where(rates < 0.1, 2 - 4 * rates, 1e30)
    losses[-1] = np.nan
    pictures.range_test(rates, losses, tmp_path / "range.png", chosen=0.03)
    assert is_png(tmp_path / "range.png")
    (axes,) = drawn[0].axes
    assert axes.get_xscale() == "log"
    assert axes.get_ylim()[1] < 3
    assert "chosen: 0.03" in texts(drawn[0])


@pytest.mark.parametrize("classes", [2, 21, 60])
def test_confusion(classes, drawn, tmp_path):
    result = evaluation(classes)
    names = [f"class-{i}" for i in range(classes)]
    pictures.confusion(result, names, tmp_path / "confusion.png")
    assert is_png(tmp_path / "confusion.png")
    found = texts(drawn[0])
    assert ("class-1" in found) == (classes <= 50)
    counts = [str(count) for count in result.confusion.ravel() if count]
    assert (sorted(counts) == sorted(t for t in found if t.isdecimal())) == (classes <= 20)
    assert f"accuracy {result.accuracy:.2%} on 200 images" in found


def test_reliability(drawn, tmp_path):
    result = evaluation(3)
    pictures.reliability(result, tmp_path / "reliability.png")
    assert is_png(tmp_path / "reliability.png")
    assert f"expected calibration error {result.calibration.error:.2%}" in texts(drawn[0])
    points = drawn[0].axes[0].lines[1]
    np.testing.assert_array_equal(points.get_ydata(), result.calibration.accuracy)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_mistakes(channels, drawn, tmp_path):
    result = evaluation(3)
    chosen = result.mistakes(7)
    images = np.random.default_rng(0).random((7, 6, 9, channels)).astype(np.float32)
    pictures.mistakes(images, result, chosen, ("a", "b", "c"), tmp_path / "mistakes.png")
    assert is_png(tmp_path / "mistakes.png")
    captions = [axes.get_title() for axes in drawn[0].axes if axes.get_title()]
    assert len(captions) == 7
    first = result.mistake(chosen[0], "abc")
    assert captions[0].splitlines() == [
        f"{first['predicted']} {first['confidence']:.0%}",
        f"true: {first['true']} {first['true_probability']:.0%}",
        f"image {chosen[0]}",
    ]


def test_names_from_outside(drawn, tmp_path):
    """Chinese without a Chinese font, signs of formulas, line breaks: nothing fails, nothing warns."""
    result = evaluation(len(NAMES))
    images = np.zeros((2, 4, 4, 1), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures.confusion(result, NAMES, tmp_path / "c.png")
        pictures.mistakes(images, result, result.mistakes(2), NAMES, tmp_path / "m.png")
    found = texts(drawn[0])
    chinese = pictures.labels(NAMES)[0]
    assert chinese == ("猫" if len(pictures.families()) > 1 else "class 0")
    assert {chinese, "$x_1$", "a_b^", "plain", "class 4", "a name that is longer t…"} <= set(found)
    missing = {"class 0": NAMES[0]} if chinese == "class 0" else {}
    assert pictures.renamed(NAMES) == {**missing, "class 4": NAMES[4]}


def test_a_chinese_font_is_used_where_there_is_one(monkeypatch, tmp_path):
    from matplotlib import font_manager

    monkeypatch.setattr(pictures, "FONTS", ("No Such Font", "STIXGeneral"))
    assert pictures.families.__wrapped__() == ["DejaVu Sans", "STIXGeneral"]
    assert "No Such Font" not in font_manager.get_font_names()


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(ArgumentError, match=r"the history is empty\n  received  no epoch"):
        pictures.learning_curve([], tmp_path / "x.png")
    with pytest.raises(ArgumentError, match=r"a loss for each learning rate\n  received  2 rates, 1 losses"):
        pictures.range_test([1, 2], [1], tmp_path / "x.png")
    with pytest.raises(ArgumentError, match=r"a caption for each image\n  received  1 images, 0 captions"):
        pictures.contact_sheet(np.zeros((1, 2, 2, 1)), [], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"gone.x\.png: the file cannot be written"):
        pictures.reliability(evaluation(3), tmp_path / "gone" / "x.png")


def test_pyplot_stays_out(tmp_path):
    code = (
        "import sys, numpy as np; from juanji.train import pictures;"
        "assert 'matplotlib' not in sys.modules;"
        "pictures.contact_sheet(np.zeros((1, 2, 2, 1)), ['x'], 'x.png');"
        "print('matplotlib.pyplot' in sys.modules, 'tkinter' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.strip() == "False False"


def test_a_mistake_is_told_by_the_end_of_its_name():
    told = {"index": 3, "true": "cat", "predicted": "dog", "confidence": 0.9, "true_probability": 0.1}
    for name, shown in [
        ("photos/cat/猫.png" if pictures.legible("猫") else "photos/cat/1.png", None),
        ("photos/a very long name of a photograph.png", "…ame of a photograph.png"),
        ("photos/\udcff.png", "image 3"),
    ]:
        caption = pictures.mistake({**told, "image": name})
        assert caption == f"dog 90%\ntrue: cat 10%\n{shown or name.rpartition('/')[2]}"
