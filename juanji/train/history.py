"""What happened in a training: its steps, its epochs, and where it stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any


@dataclass(frozen=True)
class Step:
    """One update: the epoch and the step in it, both from 1, the steps of an epoch, and the batch's results.

    lr       the learning rate of the step
    waited   seconds from the step before until the batch was there
    seconds  of the step itself
    total    steps of the whole training, as far as is known
    """

    epoch: int
    number: int
    of: int
    images: int
    loss: float
    accuracy: float
    lr: float
    waited: float
    seconds: float
    total: int


@dataclass(frozen=True)
class Epoch:
    """A row of the history. Training figures are means over the epoch's batches, changes of the images and smoothing of
    the labels included. Validation and test figures are those after the epoch, without either; None where they were not
    asked for: without a validation part the test part is looked at instead, with one after the last epoch only."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class Best:
    """The best epoch so far, by its accuracy on the validation part and then by its loss there."""

    epoch: int
    accuracy: float
    loss: float

    def beats(self, other: Best | None) -> bool:
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


@dataclass
class Progress:
    """Where a training stands: all that is neither a cell nor a choice.

    epoch, batch                 the epoch that is going on, from 1, and how many of its batches are done
    done, total                  steps done and steps in all; total is 0 before that is known
    images, loss, right          of this epoch: images seen, the sum of their losses, how many were right
    epoch_seconds, seconds       of this epoch and in all, pauses between runs not included
    looking                      seconds that a look at the validation or test part takes, where a time limit asks
    """

    epoch: int = 1
    batch: int = 0
    done: int = 0
    total: int = 0
    images: int = 0
    loss: float = 0.0
    right: int = 0
    epoch_seconds: float = 0.0
    seconds: float = 0.0
    looking: float = 0.0
    best: Best | None = None
    finished: bool = False
    history: tuple[Epoch, ...] = field(default=())

    def next_epoch(self) -> Progress:
        return replace(self, epoch=self.epoch + 1, batch=0, images=0, loss=0.0, right=0, epoch_seconds=0.0)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        values = {"looking": 0.0} | values  # which the first runs did not write
        known = {each.name: values[each.name] for each in fields(cls)}
        best, history = known["best"], tuple(Epoch(**row) for row in known["history"])
        return cls(**{**known, "best": best and Best(**best), "history": history})
