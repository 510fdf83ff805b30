"""Using a network: class probabilities, and how often it is right."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from juanji.engine.compiled import Compiled
from juanji.errors import DataError, NonFiniteError
from juanji.graph import Array
from juanji.nn.module import Module
from juanji.ops import cross_entropy, softmax
from juanji.tensor import Tensor
from juanji.train.threads import one_thread

BATCH = 256


def logits(model: Module, x: Array) -> Array:
    """What the network says of images x (N, H, W, C), (N, classes), a batch at a time and in evaluation mode."""
    if not len(x):
        raise DataError("there is nothing to predict", received=f"images of shape {x.shape}", rule="at least one")
    with model.evaluating(), one_thread():
        run = inference(model)
        return np.concatenate([np.asarray(run(x[i : i + BATCH])) for i in range(0, len(x), BATCH)])


def inference(model: Module) -> Compiled:
    """The model compiled. It is kept with the model, so that its plans serve every evaluation, and go when it goes, or
    when layers have been replaced."""
    cells = [*model.cells().values()]
    before, compiled = model.__dict__.get("_inference", ((), None))
    if compiled is None or before != cells:
        compiled = Compiled(model, batch=BATCH)
        object.__setattr__(model, "_inference", (cells, compiled))
    return compiled


def predict(model: Module, x: Array) -> Array:
    """The probabilities of the classes, (N, classes), of images x (N, H, W, C). Raises DataError for no images.

    The images are given to the network as they are: use `Preprocessing` first, as `Run.predict` does, where it was
    trained on standardised ones.
    """
    return np.asarray(softmax(Tensor(logits(model, x))))


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Mean cross-entropy and the confusion matrix: row the true class, column the predicted one."""

    loss: float
    confusion: Array

    @property
    def accuracy(self) -> float:
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def class_accuracy(self) -> list[float | None]:
        """The part of each class that was recognised; None for a class without images."""
        counts = self.confusion.sum(axis=1)
        right = np.diag(self.confusion)
        return [float(r / n) if n else None for r, n in zip(right, counts, strict=True)]


def evaluate(model: Module, x: Array, y: Array) -> Evaluation:
    """Compare what the network says of images x (N, H, W, C) with labels y (N,).

    Raises DataError for no images, ShapeError for labels that do not fit, NonFiniteError for a loss that is no number.
    """
    scores = logits(model, x)
    loss = float(cross_entropy(Tensor(scores), Tensor(y)))
    if not math.isfinite(loss):
        raise NonFiniteError(
            "evaluation: the loss is not finite",
            received=f"loss {loss} on {len(x)} images",
            fix="train with a smaller learning rate; the weights, or the images, are out of all bounds",
        )
    confusion = np.zeros((scores.shape[1], scores.shape[1]), np.int64)
    np.add.at(confusion, (y, scores.argmax(axis=1)), 1)
    return Evaluation(loss, confusion)
