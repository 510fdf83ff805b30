"""A schedule laid over a time: how many steps a training has."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from juanji.train.stepper import restore, snapshot

if TYPE_CHECKING:
    from juanji.train.trainer import Trainer

MEASURED = 8  # steps
SPARE = 0.05  # of the time, for what takes longer than it did when it was measured
LOOKED_AT = 256  # images that are judged to know how long all of them take


def steps(trainer: Trainer) -> int:
    """The steps of a training: those of its epochs, or as many of them as fit its time limit.

    For the latter some steps are taken and undone. The number is decided once, and goes into the checkpoint; only where
    an epoch shows that the time will not do, `revised` makes it smaller.
    """
    wanted = trainer.recipe.epochs * trainer.count
    if not trainer.recipe.time_limit:
        return wanted
    each = seconds_of_a_step(trainer)
    trainer.lap()
    trainer.progress.epoch_seconds = 0.0  # of the first epoch, which has not begun
    return max(1, min(wanted, int((1 - SPARE) * left(trainer) / each)))


def revised(trainer: Trainer) -> int:
    """The steps of the training after an epoch: fewer where it took longer than the time allows."""
    progress = trainer.progress
    if not trainer.recipe.time_limit:
        return progress.total
    each = progress.epoch_seconds / max(progress.batch, 1)
    return min(progress.total, progress.done + max(0, int(left(trainer) / each)))


def left(trainer: Trainer) -> float:
    return trainer.recipe.time_limit - trainer.progress.seconds


def seconds_of_a_step(trainer: Trainer) -> float:
    """Seconds of a step with its share of what comes after an epoch. All is as it was then."""
    before = snapshot(*trainer.stepper.owners())
    try:
        trainer.begin_epoch()
        taken = list(itertools.islice(seconds_of_steps(trainer), MEASURED))
    finally:
        restore(before)
    return median(taken[1:] or taken) + seconds_of_looking(trainer) / trainer.count


def seconds_of_steps(trainer: Trainer) -> Iterator[float]:
    since = time.perf_counter()
    for x, y in trainer.batches():
        trainer.stepper.step(trainer.preprocessing(x), y)
        now = time.perf_counter()
        yield now - since
        since = now


def seconds_of_looking(trainer: Trainer) -> float:
    images = trainer.dataset.test if trainer.dataset.val is None else trainer.dataset.val
    some = images[:LOOKED_AT]
    if not len(some):
        return 0.0
    trainer.evaluate(some)  # which makes the plan
    since = time.perf_counter()
    trainer.evaluate(some)
    return (time.perf_counter() - since) * len(images) / len(some)
