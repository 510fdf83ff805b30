"""juanji train"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from juanji.train import Epoch, Session, Step

OUT_HELP = "Folder for the run, new or empty; else the first free runs/DATA-MODEL-NUMBER."


def train(
    data: Annotated[str, typer.Argument(help="A built-in dataset: digits.")],
    model: Annotated[str, typer.Option(help="A network, by a name from `juanji models`.")] = "lenet5",
    epochs: Annotated[int | None, typer.Option(help="Times through the training images.  [default: 25]")] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step.  [default: 64]")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate.  [default: 0.005, sgd 0.05, rmsprop 0.001]")
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="adamw, adam, rmsprop or sgd (momentum 0.9).  [default: adamw]")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Pull of the weights to 0.  [default: 0.01]")] = None,
    stop_epsilon: Annotated[
        float | None,
        typer.Option(help="Stop when the parameters change by less in an epoch.  [default: 0, never]"),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Height and width of the images, in pixels.  [default: 28]")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = 0,
    out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the last line only.")] = False,
) -> None:
    """Train a network and save it in a run folder.

    The folder holds model.safetensors (the weights), config.json (all that was chosen), history.csv (a row for each
    epoch) and metrics.json. It is usable after every epoch; Ctrl-C stops the run and keeps what is saved. A part of
    the images is held out for testing; nothing is chosen by it.

    Examples:

      juanji train digits

      juanji train digits --model lenet5 --epochs 5 --seed 1 --out runs/mine
    """
    from juanji.train import Recipe, Session

    given: dict[str, Any] = {
        "epochs": epochs, "batch": batch, "lr": lr, "optimizer": optimizer,
        "weight_decay": weight_decay, "stop_epsilon": stop_epsilon, "seed": seed,
    }  # fmt: skip
    recipe = dataclasses.replace(Recipe(), **{key: v for key, v in given.items() if v is not None})
    session = Session.start(data, model, recipe, out, size)
    if not quiet:
        session.model.summary(session.dataset.shape)
        print(f"\n{len(session.dataset.train)} images to train on, {len(session.dataset.test)} to test on\n")
    try:
        with Reporter.choose(quiet, recipe.epochs) as reporter:
            session.train(reporter.step, reporter.epoch)
    except KeyboardInterrupt:
        print(f"interrupted: {kept(session)} in {session.path}")
        raise typer.Exit(130) from None
    conclude(session)


def kept(session: Session) -> str:
    done = len(session.history)
    return f"the network after epoch {done} is saved" if done else "no epoch was finished; the untrained network is"


def conclude(session: Session) -> None:
    metrics = session.metrics()
    accuracy = metrics["test_accuracy"]
    print(
        f"test accuracy {accuracy:.2%} after {metrics['epochs']} epochs in {metrics['train_seconds']:.1f} s; "
        f"saved in {session.path}"
        if accuracy is not None
        else f"{metrics['epochs']} epochs in {metrics['train_seconds']:.1f} s; saved in {session.path}"
    )


class Reporter:
    """Says nothing; the base of those that do."""

    def step(self, step: Step) -> None:
        """After each update."""

    def epoch(self, epoch: Epoch) -> None:
        """After each epoch."""

    @staticmethod
    @contextlib.contextmanager
    def choose(quiet: bool, epochs: int) -> Iterator[Reporter]:
        """A progress bar on a terminal, a line for each epoch elsewhere."""
        from rich.console import Console

        console = Console()
        if quiet:
            yield Reporter()
        elif not console.is_terminal:
            yield Lines(epochs)
        else:
            with progress_bar(console) as progress:
                yield Bar(progress, epochs)


class Lines(Reporter):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch(self, epoch: Epoch) -> None:
        print(line(epoch, self.epochs), flush=True)


class Bar(Reporter):
    def __init__(self, progress: Any, epochs: int) -> None:
        self.progress, self.epochs = progress, epochs
        self.task = progress.add_task("", total=None, epoch=f"epoch 1/{epochs}", result="")

    def step(self, step: Step) -> None:
        self.progress.update(
            self.task,
            total=self.epochs * step.of,
            completed=(step.epoch - 1) * step.of + step.number,
            epoch=f"epoch {step.epoch}/{self.epochs}  step {step.number}/{step.of}",
            result=f"loss {step.loss:.3f}  accuracy {step.accuracy:.1%}",
        )

    def epoch(self, epoch: Epoch) -> None:
        self.progress.console.print(line(epoch, self.epochs), highlight=False)


def line(row: Epoch, epochs: int) -> str:
    test = "" if row.test_accuracy is None else f"  test loss {row.test_loss:.4f} accuracy {row.test_accuracy:.2%}"
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  train loss {row.train_loss:.4f} "
        f"accuracy {row.train_accuracy:.2%}{test}  {row.seconds:.1f} s"
    )


def progress_bar(console: Any) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.fields[result]}"),
        TimeRemainingColumn(),
        console=console,
    )
