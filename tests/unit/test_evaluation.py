"""What is said of a network's answers: figures on cases small enough to be counted by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from juanji import nn
from juanji.data import Images, Preprocessing
from juanji.errors import ArgumentError, DataError, NonFiniteError, ShapeError
from juanji.nn.module import Module
from juanji.ops.movement import reshape
from juanji.tensor import Tensor
from juanji.train import evaluate, evaluate_images
from juanji.train.evaluation import BATCH, batch_of
from juanji.train.metrics import Calibration, mcnemar, wilson
from juanji.train.views import TTA, averaged


class Said(Module):
    """A network whose logits are its images: (N, 1, 1, classes)."""

    def forward(self, x):
        return reshape(x, (x.shape[0], x.shape[-1]))


def judge(scores, y):
    scores = np.asarray(scores, np.float32)
    return evaluate(Said(), scores[:, None, None, :], np.asarray(y))


SCORES = [[5, 1, 0, 0, 0, 0], [1, 3, 0, 0, 0, 0], [0, 0, 2, 2, 0, 0], [9, 8, 7, 6, 5, 4], [0, 0, 0, 1, 0, 0]]


def test_figures_that_can_be_counted():
    result = judge(SCORES, [0, 0, 3, 5, 3])
    assert result.predicted.tolist() == [0, 1, 2, 0, 3]
    assert result.accuracy == 2 / 5
    assert result.rank.tolist() == [0, 1, 1, 5, 0]  # of equal scores the first is before
    assert (result.top(1), result.top(2), result.top5) == (2 / 5, 4 / 5, 4 / 5)
    assert result.support == [2, 0, 0, 2, 0, 1]
    assert result.recall == [1 / 2, None, None, 1 / 2, None, 0]
    assert result.precision == [1 / 2, 0, 0, 1, None, None]
    assert result.f1 == pytest.approx([1 / 2, 0, 0, 2 / 3, None, 0])
    assert result.balanced_accuracy == pytest.approx(1 / 3)
    assert result.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 5)
    assert result.confusion.sum() == len(result) == 5


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_labels_of_few_bits(dtype):
    labels = np.arange(40) % 20
    result = judge(np.eye(20)[labels], labels.astype(dtype))
    assert (result.accuracy, result.balanced_accuracy, result.macro_f1) == (1, 1, 1)
    for label in (20,) if dtype is np.uint8 else (-100, 20):
        with pytest.raises(ShapeError, match=f"label {label}, 20 classes"):
            judge(np.eye(20)[labels], np.full(40, label, dtype))


def test_top_5_says_nothing_of_five_classes():
    assert judge(np.eye(5), range(5)).top5 is None


def test_the_most_confident_mistakes_come_first():
    result = judge(SCORES, [0, 0, 3, 5, 3])
    assert result.mistakes().tolist() == [1, 3, 2]
    assert result.mistakes(1).tolist() == [1]
    mistake = result.mistake(1, "abcdef")
    assert (mistake["index"], mistake["true"], mistake["predicted"]) == (1, "a", "b")
    total = math.exp(3) + math.exp(1) + 4
    assert mistake["confidence"] == pytest.approx(math.exp(3) / total)
    assert mistake["true_probability"] == pytest.approx(math.exp(1) / total)


def test_all_of_it_is_json():
    values = json.loads(json.dumps(judge(SCORES, [0, 0, 3, 5, 3]).to_dict("abcdef"), allow_nan=False))
    assert values["accuracy"] == 2 / 5
    assert values["classes"]["a"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "images": 2}
    assert values["classes"]["b"] == {"precision": 0, "recall": None, "f1": 0, "images": 0}
    assert sum(b["images"] for b in values["calibration"]["bins"]) == values["images"] == 5
    assert [m["index"] for m in values["mistakes"]] == [1, 3, 2]
    assert list(judge(SCORES, [0, 0, 3, 5, 3]).to_dict()["classes"]) == list("012345")


def test_calibration_of_answers_in_two_bins():
    confidence, right = np.array([0.3, 0.3, 0.8, 0.9, 1.0]), np.array([True, False, True, True, False])
    found = Calibration.of(confidence, right, bins=2)
    assert found.count.tolist() == [2, 3]
    assert found.accuracy == pytest.approx([1 / 2, 2 / 3])
    assert found.confidence == pytest.approx([0.3, 0.9])
    assert found.error == pytest.approx(2 / 5 * 0.2 + 3 / 5 * (0.9 - 2 / 3))
    assert Calibration.of(np.array([0.5, 0.500001]), right[:2], bins=2).count.tolist() == [1, 1]  # ](b − 1)/B, b/B]


def test_an_empty_bin_says_nothing():
    found = Calibration.of(np.array([1.0]), np.array([True]), bins=3)
    assert (found.error, np.isnan(found.accuracy[:2]).all()) == (0, True)
    assert found.to_dict()["bins"] == [
        {"above": pytest.approx(2 / 3), "to": 1, "images": 1, "confidence": 1, "accuracy": 1}
    ]
    with pytest.raises(ArgumentError, match="calibration: bad bins"):
        Calibration.of(np.ones(1), np.ones(1, bool), bins=0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1))
def test_the_calibration_error_is_a_weighted_mean(answers):
    confidence, right = (np.array(column) for column in zip(*answers, strict=True))
    found = Calibration.of(confidence, right)
    assert found.count.sum() == len(answers)
    assert abs(right.mean() - confidence.mean()) - 1e-9 <= found.error <= 1


def test_mcnemar_counts_only_what_one_of_them_missed():
    first, second = np.array([1, 1, 1, 1, 0, 0, 1], bool), np.array([0, 0, 0, 1, 1, 0, 1], bool)
    assert mcnemar(first, second) == pytest.approx(2 * (1 + 4) / 2**4)
    assert mcnemar(second, first) == mcnemar(first, second)
    assert mcnemar(first, first) == 1
    assert mcnemar(np.ones(6, bool), np.zeros(6, bool)) == pytest.approx(2 / 2**6)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="wilson: bad of"):
        wilson(0, 0)
    assert wilson(0, 10)[0] == pytest.approx(0, abs=1e-12)
    assert wilson(10, 10)[1] == 1


@pytest.mark.parametrize(
    ("shape", "batch"),
    [((9, 28, 28, 1), BATCH), ((9, 64, 64, 3), BATCH), ((9, 224, 224, 3), 20), ((1, 4096, 4096, 3), 1)],
)
def test_large_images_are_looked_at_fewer_at_a_time(shape, batch):
    assert batch_of(shape) == batch


class Counted:
    """Images that are read when they are asked for, and remembers how many at a time."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.read = x, x.shape, x.dtype, []

    def __getitem__(self, chosen):
        self.read.append(len(self.x[chosen]))
        return self.x[chosen]


def test_images_are_read_a_batch_at_a_time(monkeypatch):
    rng = np.random.default_rng(0)
    pixels = Counted(rng.integers(0, 256, (BATCH + 5, 4, 4, 1), np.uint8))
    images = Images(pixels, rng.integers(0, 3, BATCH + 5))
    preprocessing = Preprocessing((4, 4), 1, (0.4,), (0.2,))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    result = evaluate_images(model, images, preprocessing)
    assert pixels.read == [BATCH, 5]
    whole = evaluate(model, preprocessing(images.read()), images.y)
    assert result.to_dict() == whole.to_dict()
    assert model.training
    assert (result.labels == images.y).all()


@pytest.mark.parametrize("tta", TTA)
def test_answers_are_the_mean_over_views(tta):
    """Against NumPy: reflected borders of one pixel, from which moved images are cut."""
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 2)).astype(np.float32)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(18, 4))
    model.initialise(0)

    def logits(x):
        return np.asarray(model(Tensor(x)))

    def both(x):
        return (logits(x) + logits(np.ascontiguousarray(x[:, :, ::-1]))) / 2

    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    moved = (both(padded[:, :-2, :-2]) + both(padded[:, 2:, 2:])) / 2
    expected = {"none": logits(x), "mirror": both(x), "shifts": (both(x) + moved) / 2}
    np.testing.assert_allclose(np.asarray(averaged(model, tta)(x)), expected[tta], rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_refused():
    images = Images(np.zeros((2, 4, 4, 1), np.uint8), np.zeros(2, np.int64))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(DataError, match=r"not of the size[\s\S]*\(4, 4, 1\)[\s\S]*\(5, 4, 1\)[\s\S]*size=5"):
        evaluate_images(model, images, Preprocessing((5, 4), 1, (0.0,), (1.0,)))
    fitting = Preprocessing((4, 4), 1, (0.0,), (1.0,))
    with pytest.raises(DataError, match=r"nothing to predict[\s\S]*\(0, 4, 4, 1\)"):
        evaluate_images(model, images[:0], fitting)
    with pytest.raises(ShapeError, match="label 3, 3 classes"):
        evaluate_images(model, Images(images.x, images.y + 3), fitting)
    assert model.training
    with pytest.raises(ShapeError, match=r"one label for each image[\s\S]*2 images, labels of shape \(1,\)"):
        evaluate(model, images.read(), images.y[:1])
    model[1].bias = Tensor(np.array([0, np.nan, 0], np.float32))
    with pytest.raises(NonFiniteError, match="loss nan on 2 images"):
        evaluate_images(model, images, fitting)
