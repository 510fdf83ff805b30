"""Using a network: class probabilities, how often it is right, and how far it can be believed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from juanji.data import Images, Preprocessing
from juanji.engine.compiled import Compiled
from juanji.errors import DataError, NonFiniteError, ShapeError
from juanji.graph import Array
from juanji.nn.module import Module
from juanji.ops import cross_entropy, softmax
from juanji.ops.loss import check_labels
from juanji.tensor import Tensor
from juanji.train.metrics import Calibration, confusion_matrix, mean, ratios, wilson
from juanji.train.threads import one_thread

BATCH = 256  # images at a time, and fewer of large ones:
PIXELS = BATCH * 64 * 64
TOP = 5


def batch_of(shape: Sequence[int]) -> int:
    """How many images of `shape` (N, H, W, C) are looked at together, so that memory stays bounded."""
    return max(1, min(BATCH, PIXELS // math.prod(shape[1:3])))


def slices(shape: Sequence[int]) -> list[slice]:
    """Images of `shape` (N, H, W, C) a batch at a time. Raises DataError for none."""
    if not shape[0]:
        raise DataError("there is nothing to predict", received=f"images of shape {tuple(shape)}", rule="at least one")
    size = batch_of(shape)
    return [slice(start, start + size) for start in range(0, shape[0], size)]


def inference(model: Module, batch: int = BATCH) -> Compiled:
    """The model compiled for a batch. It is kept with the model, so that its plans serve every evaluation, and go when
    it goes, or when layers have been replaced."""
    wanted = [batch, *model.cells().values()]
    before, compiled = model.__dict__.get("_inference", ((), None))
    if compiled is None or before != wanted:
        compiled = Compiled(model, batch=batch)
        object.__setattr__(model, "_inference", (wanted, compiled))
    return compiled


def logits(model: Module, x: Array, batch: int) -> Array:
    """What the network says of images x (n, H, W, C), n ≤ batch, in the mode it is in: (n, classes)."""
    return np.asarray(inference(model, batch)(x))


def predict(model: Module, x: Array) -> Array:
    """The probabilities of the classes, (N, classes), of images x (N, H, W, C). Raises DataError for no images.

    The images are given to the network as they are: use `Preprocessing` first, as `Run.predict` does, where it was
    trained on standardised ones.
    """
    parts, batch = slices(x.shape), batch_of(x.shape)
    with model.evaluating(), one_thread():
        return np.concatenate([np.asarray(softmax(Tensor(logits(model, x[part], batch)))) for part in parts])


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a network answered to labelled images, and every figure that follows from it.

    classes     how many there are
    labels      (N,), the true classes
    predicted   (N,), the likeliest classes
    confidence  (N,), the probabilities of the predicted classes
    rank        (N,), how many classes were thought likelier than the true one
    losses      (N,), −ln of the probability of the true class
    names       of a number below N: what people call that image; None where nothing but the number is known
    """

    classes: int
    labels: Array
    predicted: Array
    confidence: Array
    rank: Array
    losses: Array
    names: Callable[[int], str] | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, which is the log loss."""
        return float(self.losses.mean())

    @property
    def right(self) -> Array:
        """(N,), True where the answer is right."""
        return self.predicted == self.labels

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """From where to where the accuracy on all such images may lie, with 95 % probability (`metrics.wilson`)."""
        return wilson(int(self.right.sum()), len(self))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images: each class counts the same, however many images it has."""
        return mean(self.recall)

    def top(self, count: int) -> float:
        """How often the true class is among the `count` likeliest."""
        return float((self.rank < count).mean())

    @property
    def top5(self) -> float | None:
        """`top(5)`; None where there are only five classes or fewer, because it is always 1."""
        return self.top(TOP) if self.classes > TOP else None

    @cached_property
    def confusion(self) -> Array:
        """(classes, classes): row the true class, column the predicted one."""
        return confusion_matrix(self.labels, self.predicted, self.classes)

    @property
    def support(self) -> list[int]:
        """The number of images of each class."""
        return list(map(int, self.confusion.sum(axis=1)))

    @property
    def recall(self) -> list[float | None]:
        """The part of each class that was recognised; None for a class without images."""
        return ratios(np.diag(self.confusion), self.confusion.sum(axis=1))

    @property
    def precision(self) -> list[float | None]:
        """The part of the answers naming each class that is right; None for a class that no answer names."""
        return ratios(np.diag(self.confusion), self.confusion.sum(axis=0))

    @property
    def f1(self) -> list[float | None]:
        """The harmonic mean of precision and recall, 2·right / (images + answers); None for a class with neither."""
        return ratios(2 * np.diag(self.confusion), self.confusion.sum(axis=0) + self.confusion.sum(axis=1))

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have images or answers."""
        return mean(self.f1)

    @cached_property
    def calibration(self) -> Calibration:
        return Calibration.of(self.confidence, self.right)

    def mistakes(self, count: int | None = None) -> Array:
        """The indices of the images that were answered wrongly, all or the first `count`, the most confident first."""
        wrong = np.flatnonzero(~self.right)
        return wrong[np.argsort(-self.confidence[wrong], kind="stable")][:count]

    def to_dict(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """As JSON has it; classes by their `names`, by default "0", "1", …"""
        names = [str(number) for number in range(self.classes)] if names is None else names
        figures: dict[str, list[Any]] = {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "images": self.support,
        }
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "balanced_accuracy": self.balanced_accuracy,
            "top5": self.top5,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "images": len(self),
            "classes": {name: {key: of[i] for key, of in figures.items()} for i, name in enumerate(names)},
            "confusion": self.confusion.tolist(),
            "calibration": self.calibration.to_dict(),
            "mistakes": [self.mistake(i, names) for i in self.mistakes()],
        }

    def mistake(self, index: int, names: Sequence[str]) -> dict[str, Any]:
        return {
            "index": int(index),
            "image": f"image {index}" if self.names is None else self.names(int(index)),
            "true": names[self.labels[index]],
            "predicted": names[self.predicted[index]],
            "confidence": float(self.confidence[index]),
            "true_probability": math.exp(-self.losses[index]),
        }


def evaluate(model: Module, x: Array, y: Array) -> Evaluation:
    """Compare what the network says of images x (N, H, W, C), given to it as they are, with labels y (N,).

    Raises DataError for no images, ShapeError for labels that do not fit or are no classes, NonFiniteError for a loss
    that is no number.
    """
    if len(y) != len(x):
        raise ShapeError(
            "evaluation: there must be one label for each image",
            received=f"{len(x)} images, labels of shape {y.shape}",
            rule="x (N, H, W, C), y (N,)",
        )
    return judged(model, ((x[part], y[part]) for part in slices(x.shape)), batch_of(x.shape))


def evaluate_images(model: Module, images: Images, preprocessing: Preprocessing) -> Evaluation:
    """Compare what the network says of images with their labels. They are read, and standardised, a batch at a time.

    Raises DataError for no images, or images of another size than the network's; ShapeError for labels that are not
    among its classes; NonFiniteError for a loss that is no number.
    """
    expected = (*preprocessing.size, preprocessing.channels)
    if images.x.shape[1:] != expected:
        raise DataError(
            "evaluation: these images are not of the size that the network was trained with",
            received=f"(H, W, C) = {images.x.shape[1:]}",
            rule=str(expected),
            fix=f"jj.data.load(data, size={expected[0]})",
        )
    shape = images.x.shape
    batches = ((preprocessing(images.read(part)), images.y[part]) for part in slices(shape))
    return replace(judged(model, batches, batch_of(shape)), names=images.names)


def judged(model: Module, batches: Iterable[tuple[Array, Array]], batch: int) -> Evaluation:
    """The evaluation of images (n, H, W, C) and labels (n,), n ≤ batch at a time."""
    classes, columns = 0, []
    with model.evaluating(), one_thread():
        for x, y in batches:
            scores = logits(model, x, batch)
            classes = scores.shape[1]
            columns.append(answers(scores, y))
    result = Evaluation(classes, *map(np.concatenate, zip(*columns, strict=True)))
    if not math.isfinite(result.loss):
        raise NonFiniteError(
            "evaluation: the loss is not finite",
            received=f"loss {result.loss} on {len(result)} images",
            fix="train with a smaller learning rate; the weights, or the images, are out of all bounds",
        )
    return result


def answers(scores: Array, labels: Array) -> tuple[Array, ...]:
    """What an evaluation keeps of each image, from logits (n, classes) and labels (n,)."""
    exact = Tensor(scores.astype(np.float64))
    labels = labels.astype(np.int64) if labels.dtype.kind in "iu" else labels  # small ones would overflow
    check_labels("evaluation", Tensor(labels), scores.shape[1])
    losses, probabilities = (
        np.asarray(x) for x in (cross_entropy(exact, Tensor(labels), reduction="none"), softmax(exact))
    )
    predicted = scores.argmax(axis=1)
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    rank = ((scores > true) | ((scores == true) & before)).sum(axis=1)  # of equals the first, as argmax has it
    confidence = np.take_along_axis(probabilities, predicted[:, None], axis=1)[:, 0]
    return labels, predicted, confidence, rank, losses
