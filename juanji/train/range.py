"""Which learning rate to train with: the range test."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from juanji.errors import NonFiniteError
from juanji.graph import Array
from juanji.interop import write_atomically
from juanji.train.stepper import restore, snapshot

if TYPE_CHECKING:
    from juanji.train.trainer import Trainer

LOWEST, HIGHEST, STEPS = 1e-6, 10.0, 120  # rates tried, and how many
MEMORY = 0.9  # of the running mean of the losses
TOO_HIGH = 4.0  # times the lowest loss: nothing comes back from there
BEFORE = 10.0  # so many times under the rate with the lowest loss it still falls safely


@dataclass(frozen=True)
class RangeTest:
    """Learning rates that were tried one after the other, and the loss at each: a running mean, without its beginning.

    chosen  half way, in orders of magnitude, between the rate at which the loss fell fastest, the least that pays, and
            a tenth of that at which it was lowest, the most that is safe
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def chosen(self) -> float:
        lowest = self.rates[int(np.argmin(self.losses))] / BEFORE
        falls = np.diff(self.losses)
        fastest = self.rates[int(np.argmin(falls))] if len(falls) else lowest
        return float(f"{math.sqrt(fastest * lowest):.2g}")

    def save(self, path: str | Path) -> None:
        """Write rates and losses as CSV."""
        rows = io.StringIO()
        table = csv.writer(rows, lineterminator="\n")
        table.writerow(("lr", "loss"))
        table.writerows(zip(self.rates, self.losses, strict=True))
        write_atomically(path, rows.getvalue().encode())


def range_test(trainer: Trainer) -> RangeTest:
    """Train with ever higher learning rates, from 1e-6 up to 10 or until the loss runs away; then all is as it was.

    Source: Smith, "Cyclical learning rates for training neural networks", WACV 2017, §3.3.

    Raises NonFiniteError where even the first step gives NaN or infinity.
    """
    before = snapshot(*trainer.stepper.owners())
    found: list[tuple[float, float]] = []
    try:
        trainer.begin_epoch()
        for rate, loss in smoothed(losses(trainer)):
            found.append((rate, loss))
            if loss > TOO_HIGH * min(loss for _, loss in found):
                break
    except NonFiniteError:
        if not found:
            raise
    finally:
        restore(before)
    rates, means = zip(*found, strict=True)
    return RangeTest(rates, means)


def losses(trainer: Trainer) -> Iterator[tuple[float, float]]:
    """Rates, and the loss of a step before the step with that rate is taken."""
    for rate, (x, y) in zip(np.geomspace(LOWEST, HIGHEST, STEPS).tolist(), endless(trainer), strict=False):
        trainer.optimizer.lr = rate
        loss, _ = trainer.stepper.step(x, y)
        yield rate, loss


def endless(trainer: Trainer) -> Iterator[tuple[Array, Array]]:
    return itertools.chain.from_iterable(trainer.batches() for _ in itertools.count())


def smoothed(values: Iterator[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """With a running mean of the losses, corrected for its start at 0."""
    mean = 0.0
    for number, (rate, loss) in enumerate(values, 1):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        yield rate, mean / (1 - MEMORY**number)
