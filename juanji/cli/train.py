"""juanji train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from juanji.cli.options import Options, settings
from juanji.cli.status import first_call
from juanji.errors import NonFiniteError
from juanji.interop import Loaded
from juanji.train import Epoch, Recipe, Session, Step


def train(
    data: Annotated[str, typer.Argument(help="A built-in dataset: digits.")],
    model: Annotated[str, typer.Option(help="A network, by a name from `juanji models`.")] = "lenet5",
    epochs: Annotated[int, typer.Option(help="Times through the training images.")] = Recipe.epochs,
    batch: Annotated[int, typer.Option(help="Images a step.")] = Recipe.batch,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate.  [default: 0.005, sgd 0.02, rmsprop 0.001]")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="adamw, adam, rmsprop or sgd (momentum 0.9).")] = Recipe.optimizer,
    weight_decay: Annotated[float, typer.Option(help="Pull of the weights to 0.")] = Recipe.weight_decay,
    stop_epsilon: Annotated[
        float, typer.Option(help="Stop when the parameters change by less in an epoch; 0 never stops.")
    ] = Recipe.stop_epsilon,
    size: Annotated[
        int | None, typer.Option(help="Height and width of the images, in pixels.  [default: the network's own]")
    ] = None,
    option: Options = None,
    precision: Annotated[
        str, typer.Option(help="float32; bfloat16, faster where the CPU multiplies it; auto, that where it can be had.")
    ] = Recipe.precision,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: a file (.safetensors, .pth, .pt, .bin) or hf:REPOSITORY."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bits.")] = Recipe.seed,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the run, new or empty; else the first free runs/DATA-MODEL-NUMBER.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the last line only.")] = False,
) -> None:
    """Train a network and save it in a run folder.

    The folder holds model.safetensors (the weights), config.json (all that was chosen), history.csv (a row for each
    epoch) and metrics.json. It is usable after every epoch; Ctrl-C stops the run and keeps what is saved. A part of
    the images is held out for testing; nothing is chosen by it.

    Training losses and accuracies are those on images that are moved and turned a little, with smoothed labels: they
    look worse than those of testing.

    --weights begins with published weights of the same network (torchvision's, timm's, Hugging Face's) or with those
    of another run, model.safetensors. A classifier for other classes begins anew; kernels that see colour images are
    summed over the channels for grey ones, and repeated the other way round. hf:timm/resnet18.a1_in1k takes the file
    from the Hugging Face hub, for which huggingface_hub must be installed.

    Examples:

      juanji train digits

      juanji train digits --model lenet5 --epochs 5 --seed 1 --out runs/mine

      juanji train digits --weights runs/mine/model.safetensors

      juanji train digits --model googlenet --size 32 --option stem=small --option width=0.25
    """
    recipe = Recipe(
        epochs=epochs, batch=batch, lr=lr, optimizer=optimizer,
        weight_decay=weight_decay, stop_epsilon=stop_epsilon, precision=precision, seed=seed,
    )  # fmt: skip
    session = Session.start(data, model, recipe, out, size, settings("train", option or []), weights)
    if not quiet:
        session.model.summary(session.dataset.shape)
        if session.loaded is not None:
            print(f"\nweights of {weights}{besides(session.loaded, session.dataset.shape[-1])}")
        if precision == "auto":
            print(f"\nprecision: {session.config.recipe.precision}")
        print(f"\n{len(session.dataset.train)} images to train on, {len(session.dataset.test)} to test on\n")
    try:
        run(session, quiet)
    except KeyboardInterrupt:
        print(f"interrupted: {kept(session)} in {session.path}")
        raise typer.Exit(130) from None
    except NonFiniteError:
        print(f"stopped: {kept(session)} in {session.path}")
        raise
    print(conclusion(session))


def run(session: Session, quiet: bool) -> None:
    """Train with a line for each epoch and, on a terminal, a progress bar below them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(quiet=quiet)
    shown: list[Any] = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[result]}")]
    epochs = session.config.recipe.epochs
    with Progress(*shown, TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task(first_call(session.config.model["name"]), total=None, result="")

        def on_step(step: Step) -> None:
            bar.update(
                task,
                total=epochs * step.of,
                completed=(step.epoch - 1) * step.of + step.number,
                description=f"epoch {step.epoch}/{epochs}  step {step.number}/{step.of}",
                result=f"loss {step.loss:.3f}  accuracy {step.accuracy:.1%}",
            )

        def on_epoch(epoch: Epoch) -> None:
            console.print(line(epoch, epochs), highlight=False, soft_wrap=True)

        session.train(on_step, on_epoch)


def besides(loaded: Loaded, channels: int) -> str:
    """What was done to weights that are for images of other channels, or for other classes."""
    left, adapted = loaded
    how = "summed over the channels, for grey images" if channels == 1 else f"repeated for {channels} channels"
    told = [f"{', '.join(adapted)} {how}"] * bool(adapted) + [f"{', '.join(left)} begin anew"] * bool(left)
    return "".join(f"; {text}" for text in told)


def line(row: Epoch, epochs: int) -> str:
    test = "" if row.test_accuracy is None else f"  test loss {row.test_loss:.4f} accuracy {row.test_accuracy:.2%}"
    return (
        f"epoch {row.epoch:>{len(str(epochs))}}/{epochs}  train loss {row.train_loss:.4f} "
        f"accuracy {row.train_accuracy:.2%}{test}  {row.seconds:.1f} s"
    )


def kept(session: Session) -> str:
    done = len(session.history)
    return f"the network after epoch {done} is saved" if done else "no epoch was finished; the untrained network is"


def conclusion(session: Session) -> str:
    last = session.history[-1]
    accuracy = "" if last.test_accuracy is None else f"test accuracy {last.test_accuracy:.2%} "
    return f"{accuracy}after epoch {last.epoch}, {session.seconds:.1f} s; saved in {session.path}"
