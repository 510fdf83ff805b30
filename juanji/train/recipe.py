"""How to train: everything that can be chosen, and what it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from juanji import optim
from juanji.checks import counts, nonnegative, positive, share
from juanji.data import Jitter
from juanji.engine.compiled import PRECISIONS
from juanji.errors import unknown_name
from juanji.nn.module import Module
from juanji.ops import cross_entropy
from juanji.tensor import Tensor

# By name: how the optimiser is made, and a learning rate that suits it.
OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], float]] = {
    "adamw": (optim.AdamW, 5e-3),
    "adam": (optim.Adam, 5e-3),
    "rmsprop": (optim.RMSprop, 1e-3),
    "sgd": (functools.partial(optim.SGD, momentum=0.9, nesterov=True), 2e-2),
}
JITTER = Jitter(shift=0.1, turn=12, zoom=0.12, slant=0.12)


@dataclass(frozen=True)
class Recipe:
    """The choices of a training run. The defaults train LeNet-5 on the digits.

    They were found by three-fold cross-validation inside the training part of the digits; no test image was looked at.

    epochs           times through the training images
    batch            images a step
    optimizer        "adamw", "adam", "rmsprop" or "sgd" (Nesterov momentum 0.9)
    lr               the highest learning rate; None for the optimiser's own
    warmup           part of all steps in which the learning rate rises, before it falls along half a cosine
    weight_decay     λ of the optimiser
    label_smoothing  part of the target that is shared among all classes
    jitter           random changes of the training images
    stop_epsilon     stop when the parameters change by less than this in an epoch (003, ε); 0 never stops
    precision        of activations, gradients and products: "float32", "bfloat16", or "auto", `juanji.compile`
    seed             fixes initial weights, order and changes of the images, dropout: the same seed, the same bits,
                     with the same NumPy on the same kind of processor, however many cores it has

    Raises ArgumentError or UnknownNameError for a choice out of range.
    """

    epochs: int = 25
    batch: int = 64
    optimizer: str = "adamw"
    lr: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    jitter: Jitter = JITTER
    stop_epsilon: float = 0.0
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        counts("training", epochs=self.epochs, batch=self.batch)
        positive("training", lr=self.rate)
        nonnegative("training", weight_decay=self.weight_decay, stop_epsilon=self.stop_epsilon)
        share("training", warmup=self.warmup, label_smoothing=self.label_smoothing)

    @property
    def rate(self) -> float:
        """The highest learning rate: `lr`, or the optimiser's own."""
        return OPTIMIZERS[self.optimizer][1] if self.lr is None else self.lr

    def make_optimizer(self, model: Module) -> optim.Optimizer:
        make, _ = OPTIMIZERS[self.optimizer]
        return make(model, lr=self.rate, weight_decay=self.weight_decay)

    def make_schedule(self, steps: int) -> Callable[[int], float]:
        """The learning rate of each of `steps` steps."""
        return optim.schedules.cosine(self.rate, steps, warmup=min(int(self.warmup * steps), steps - 1))

    def make_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        return functools.partial(cross_entropy, label_smoothing=self.label_smoothing)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the learning rate that is meant by None."""
        return {**asdict(self), "lr": self.rate}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        values = {"precision": "float32", **values}  # which the first runs did not write
        known = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**known, "jitter": Jitter(**values["jitter"])})
