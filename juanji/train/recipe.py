"""How to train: everything that can be chosen, and what it makes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from juanji import optim
from juanji.checks import counts, fraction, is_whole, nonnegative, one_of, positive, share, whole
from juanji.data import PRESETS, Augment, Jitter
from juanji.engine.compiled import PRECISIONS
from juanji.errors import ArgumentError, unknown_name
from juanji.graph import Array
from juanji.nn.module import Module
from juanji.ops import cross_entropy
from juanji.optim import schedules
from juanji.tensor import Tensor
from juanji.train.views import TTA

# By name: how the optimiser is made, and a learning rate that suits it.
OPTIMIZERS: dict[str, tuple[Callable[..., optim.Optimizer], float]] = {
    "adamw": (optim.AdamW, 5e-3),
    "adam": (optim.Adam, 5e-3),
    "rmsprop": (optim.RMSprop, 1e-3),
    "muon": (optim.Muon, 0.24),
    "sgd": (functools.partial(optim.SGD, momentum=0.9, nesterov=True), 2e-2),
}
# By name: the learning rates of so many steps, of which a share is for warming up.
SCHEDULES: dict[str, Callable[[float, int, float], schedules.Schedule]] = {
    "cosine": lambda lr, steps, warmup: schedules.cosine(lr, steps, warmup=min(int(warmup * steps), steps - 1)),
    "one_cycle": lambda lr, steps, warmup: schedules.one_cycle(lr, steps, rise=warmup),
    "step": lambda lr, steps, warmup: schedules.stepwise(lr, every=-(-steps // 3)),
    "constant": lambda lr, steps, warmup: schedules.constant(lr),
}
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True)
class Recipe:
    """The choices of a training run. The defaults train LeNet-5 on the digits.

    They were found by three-fold cross-validation inside the training part of the digits; no test image was looked at.

    epochs           times through the training images
    batch            images a step
    accumulate       parts of a batch whose gradients are added up before the step, each a share of its memory; the same
                     step but for batch normalisation, which sees the parts, and dropout
    optimizer        "adamw", "adam", "rmsprop", "muon" or "sgd" (Nesterov momentum 0.9)
    lr               the highest learning rate; None for the optimiser's own
    lr_multipliers   ((pattern, factor), …): parameters with a learning rate of their own, `optim.multiplied`
    schedule         "cosine" rises and falls along half a cosine, "one_cycle" starts and ends lower, "step" falls to a
                     tenth after each third of the steps, "constant"
    warmup           part of all steps in which the learning rate of "cosine" and "one_cycle" rises
    weight_decay     λ of the optimiser
    clip_norm        longest gradient, over all parameters; longer ones are scaled to it; 0 for any
    ema              decay of a running mean of the weights, which is what is tested and saved; 0 for none
    label_smoothing  part of the target that is shared among all classes
    class_weights    "balanced": every class counts the same in the loss, however many images it has; "none"
    augment          random changes of the training images, an `Augment` or what `Augment.of` reads
    freeze           what is not trained: a number of stages from the input on, paths with commas between, or "all" but
                     the head; see `freezing.stages`
    unfreeze_at      epochs before which frozen stages begin to be trained, one at each from the last on, and at the
                     last epoch all that are left
    patience         epochs without progress on the validation part after which to stop and go back to the best; 0
                     never stops
    stop_epsilon     stop when the parameters change by less than this in an epoch (003, ε); 0 never stops
    time_limit       seconds after which training has to be over, its schedule with it, however many epochs that
                     makes, at most `epochs`; 0 for any
    tta              how images are looked at to test, evaluate and predict: "none", as they are; "mirror", mirrored
                     too; "shifts", moved by a pixel too, six views; logits are averaged, at so many times the cost
    eval_every       epochs from one look at the validation or test part to the next; there is one after the last
    precision        of activations, gradients and products: "float32", "bfloat16", or "auto", `juanji.compile`
    seed             fixes initial weights, order and changes of the images, dropout: the same seed, the same bits,
                     with the same NumPy on the same kind of processor, however many cores it has

    Raises ArgumentError or UnknownNameError for a choice out of range.
    """

    epochs: int = 25
    batch: int = 64
    accumulate: int = 1
    optimizer: str = "adamw"
    lr: float | None = None
    lr_multipliers: tuple[tuple[str, float], ...] = ()
    schedule: str = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip_norm: float = 0.0
    ema: float = 0.0
    label_smoothing: float = 0.1
    class_weights: str = "none"
    augment: Augment = PRESETS["handwriting"]
    freeze: str = ""
    unfreeze_at: tuple[int, ...] = ()
    patience: int = 0
    stop_epsilon: float = 0.0
    time_limit: float = 0.0
    tta: str = "none"
    eval_every: int = 1
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, name, table in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SCHEDULES),
            ("tta", self.tta, TTA),
            ("precision", self.precision, PRECISIONS),
        ):
            if name not in table:
                raise unknown_name(kind, name, table)
        counts("training", epochs=self.epochs, batch=self.batch, accumulate=self.accumulate, eval_every=self.eval_every)
        positive("training", lr=self.rate)
        nonnegative("training", weight_decay=self.weight_decay, stop_epsilon=self.stop_epsilon)
        nonnegative("training", clip_norm=self.clip_norm, patience=self.patience, time_limit=self.time_limit)
        whole("training", patience=self.patience, seed=self.seed)
        share("training", warmup=self.warmup, label_smoothing=self.label_smoothing)
        fraction("training", ema=self.ema)
        one_of("training", "class_weights", self.class_weights, CLASS_WEIGHTS)
        self.settle()

    def settle(self) -> None:
        """Take over what JSON has as lists, and an augmentation by its name, and check it."""
        if isinstance(self.augment, str):
            object.__setattr__(self, "augment", Augment.of(self.augment))
        epochs = (self.unfreeze_at,) if is_whole(self.unfreeze_at) else tuple(self.unfreeze_at)
        object.__setattr__(self, "unfreeze_at", epochs)
        object.__setattr__(self, "lr_multipliers", tuple((str(p), float(factor)) for p, factor in self.lr_multipliers))
        for epoch in self.unfreeze_at:
            counts("training", unfreeze_at=epoch)
        if self.unfreeze_at and not self.freeze:
            raise ArgumentError(
                "training: there is nothing to unfreeze",
                received=f"unfreeze_at={self.unfreeze_at}, freeze=''",
                fix='freeze="all", or leave unfreeze_at out',
            )
        if self.accumulate > self.batch:
            raise ArgumentError(
                "training: a batch has no such parts",
                received=f"accumulate={self.accumulate}, batch={self.batch}",
                rule="at least one image in each part",
            )

    @property
    def rate(self) -> float:
        """The highest learning rate: `lr`, or the optimiser's own."""
        return OPTIMIZERS[self.optimizer][1] if self.lr is None else self.lr

    def make_optimizer(self, model: Module) -> optim.Optimizer:
        make, _ = OPTIMIZERS[self.optimizer]
        return optim.multiplied(make(model, lr=self.rate, weight_decay=self.weight_decay), dict(self.lr_multipliers))

    def make_schedule(self, steps: int) -> schedules.Schedule:
        """The learning rate of each of `steps` steps."""
        return SCHEDULES[self.schedule](self.rate, steps, self.warmup)

    def make_loss(self, images: Sequence[int] = ()) -> Objective:
        """The loss. `images`, how many each class has, is needed where class_weights is "balanced"."""
        weight = balanced(images) if self.class_weights == "balanced" else None
        return Objective(self.label_smoothing, weight)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, with the learning rate that is meant by None."""
        return {**asdict(self), "lr": self.rate}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """From what `to_dict` gave, in this version or an older one; what is left out has its default.

        Raises UnknownNameError for anything that is no choice.
        """
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known | {"jitter"}:
                raise unknown_name("choice of a training", name, known)
        values = dict(values)
        if "augment" in values:
            values["augment"] = Augment.from_dict(values["augment"])
        if "jitter" in values:  # which was all that the first runs had
            values["augment"] = Augment(jitter=Jitter(**values.pop("jitter")))
        return cls(**values)


def balanced(images: Sequence[int]) -> Array:
    """A weight for each class: N/(classes·n) with n of all N images, so that every class counts the same; float32.

    A class without images has weight 0. As scikit-learn's class_weight="balanced" (King and Zeng, 2001).
    """
    n = np.asarray(images, np.float64)
    weights: Array = np.divide(n.sum(), n * (n > 0).sum(), out=np.zeros_like(n), where=n > 0).astype(np.float32)
    return weights


@dataclass(frozen=True, eq=False)
class Objective:
    """Cross-entropy of logits (n, classes) with labels (n,), or with shares of the classes (n, classes).

    weight  (classes,): how much each class counts
    """

    label_smoothing: float = 0.0
    weight: Array | None = None

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, weight=self.weight, label_smoothing=self.label_smoothing)

    def mass(self, labels: Array) -> float:
        """What the mean over a batch is divided by: images, or their weights."""
        return float(len(labels) if self.weight is None or labels.ndim > 1 else self.weight[labels].sum(dtype=float))
