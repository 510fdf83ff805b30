"""A schedule laid over a time: how many steps a training has."""

from __future__ import annotations

import itertools
import time
from statistics import median, median_low
from typing import TYPE_CHECKING

from juanji.train.stepper import restore, snapshot

if TYPE_CHECKING:
    from juanji.train.trainer import Trainer

MEASURED = 8  # steps
WINDOWS = 3  # epochs, or as many from one look to the next, by which the rest is judged
SPARE = 0.05  # of the time, for what takes longer than it did when it was measured


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
    """The steps of the training, judged by those that were taken last: fewer where the time will not do."""
    progress = trainer.progress
    if not trainer.recipe.time_limit:
        return progress.total
    return min(progress.total, progress.done + max(0, int(left(trainer) / pace(trainer))))


def pace(trainer: Trainer) -> float:
    """Seconds of a step with its share of looks: the median of the last epochs, or stretches from one look to the next.
    What holds up a single one, such as the first learning curve, is not expected of the others."""
    progress, every = trainer.progress, trainer.recipe.eval_every
    rows = [(row.seconds, trainer.count) for row in progress.history[-WINDOWS * every :]]
    rows.append((progress.epoch_seconds, progress.batch))
    ends = [*range(len(rows), every - 1, -every)][:WINDOWS] or [len(rows)]
    windows = (zip(*rows[max(0, end - every) : end], strict=True) for end in ends)
    return median_low(sum(seconds) / max(sum(steps), 1) for seconds, steps in windows)


def left(trainer: Trainer) -> float:
    """Seconds for steps, and for looks in between: the last look comes whenever the training ends."""
    last = trainer.progress.looking if trainer.recipe.eval_every > 1 else 0.0
    return trainer.recipe.time_limit - trainer.progress.seconds - last


def seconds_of_a_step(trainer: Trainer) -> float:
    """Seconds of a step with its share of what comes after an epoch, once all plans are made. All is as it was then."""
    before = snapshot(*trainer.stepper.owners())
    try:
        trainer.begin_epoch()
        seconds_of_steps(trainer, trainer.count - 1, 1)  # the last of an epoch has a plan of its own
        taken = seconds_of_steps(trainer, 0, MEASURED)
        trainer.progress.looking = seconds_of_looking(trainer)
    finally:
        restore(before)
    looking = trainer.progress.looking / (trainer.count * trainer.recipe.eval_every)
    return median(taken[1:] or taken) + looking


def seconds_of_steps(trainer: Trainer, start: int, count: int) -> list[float]:
    seconds, since = [], time.perf_counter()
    for x, y in itertools.islice(trainer.batches(start), count):
        trainer.stepper.step(x, y)
        now = time.perf_counter()
        seconds.append(now - since)
        since = now
    return seconds


def seconds_of_looking(trainer: Trainer) -> float:
    """Seconds that it takes to judge what has been learnt, after an epoch."""
    for images in filter(None, (trainer.dataset.val, trainer.dataset.test)):
        trainer.looked(images)  # which makes the plans
    since = time.perf_counter()
    with trainer.deployed():
        trainer.judged()
    return time.perf_counter() - since
