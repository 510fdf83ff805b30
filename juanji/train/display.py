"""What a training prints: a bar with figures on a terminal, and a line for each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from juanji.train.callback import Callback
from juanji.train.history import Epoch, Step
from juanji.train.trainer import Trainer

BAR = 12  # columns
RECENT = 0.9  # of the running means of what is shown


class Display(Callback):
    """Shows how a training goes, while it is `running`: step, images a second, loss, accuracy, share of the time spent
    waiting for images, and time left, on a terminal; elsewhere a line for each epoch. Nothing where `quiet`.

    beginning  what a terminal shows until the first step is done
    """

    def __init__(self, quiet: bool = False, beginning: str = "") -> None:
        from rich.console import Console

        self.console = Console(quiet=quiet)
        self.quiet, self.beginning = quiet, beginning
        self.bar: Any = None
        self.task: Any = None
        self.means: dict[str, float] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        figures = TextColumn("{task.fields[result]}")  # which come last, as the end is cut where the terminal is narrow
        shown = TextColumn("{task.description}"), BarColumn(BAR), TimeRemainingColumn(), figures
        off = self.quiet or not self.console.is_terminal
        with Progress(*shown, console=self.console, disable=off) as self.bar:
            self.task = self.bar.add_task(self.beginning, total=None, result="")
            yield

    def on_step(self, trainer: Trainer, step: Step) -> None:
        waited, spent = self.mean("waited", step.waited), self.mean("seconds", step.seconds)
        images, loss, accuracy = (self.mean(name, getattr(step, name)) for name in ("images", "loss", "accuracy"))
        every = waited + spent
        self.bar.update(
            self.task,
            total=step.total,
            completed=trainer.progress.done,
            description=f"epoch {step.epoch}/{epochs(trainer)}  step {step.number}/{step.of}",
            result=f"loss {loss:.3f}  accuracy {accuracy:.1%}  {images / every:,.0f} images/s  "
            f"waiting {waited / every:.0%}",
        )

    def mean(self, name: str, value: float) -> float:
        """A running mean that begins with the first value."""
        self.means[name] = RECENT * self.means.get(name, value) + (1 - RECENT) * value
        return self.means[name]

    def on_epoch(self, trainer: Trainer, row: Epoch) -> None:
        self.console.print(line(row, epochs(trainer)), highlight=False, soft_wrap=True)


def epochs(trainer: Trainer) -> int:
    """How many there will be, as far as is known."""
    return -(-trainer.progress.total // trainer.count)


def line(row: Epoch, epochs: int) -> str:
    """An epoch's figures in one line."""
    figures = ""
    for part in ("train", "val", "test"):
        loss, accuracy = getattr(row, f"{part}_loss"), getattr(row, f"{part}_accuracy")
        figures += "" if loss is None else f"{part} loss {loss:.4f} accuracy {accuracy:.2%}  "
    return f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  {figures}{row.seconds:.1f} s"
