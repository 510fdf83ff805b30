"""juanji train"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from juanji.cli.check import progress_bar
from juanji.cli.options import DataDir, Options, Resize, SkipUnreadable, seconds, settings
from juanji.cli.status import first_call
from juanji.data import Augment
from juanji.errors import ArgumentError, NonFiniteError
from juanji.interop import Loaded
from juanji.train import OPTIMIZERS, SCHEDULES, TTA, Choices, Display, Facts, Session, TensorBoard, freezing
from juanji.train.choices import placed
from juanji.train.folder import begun, read_config
from juanji.train.recipe import CLASS_WEIGHTS

AUTO = "auto"
FEW, LATE = 3, 1.1  # epochs that teach little; times the limit


def may(*names: str, help: str) -> Any:
    """An option that may be left out."""
    return typer.Option(*names, help=help, show_default=False)


def train(
    data: Annotated[
        str | None, typer.Argument(help="A folder, archive, table or built-in dataset; with --resume also a run.")
    ] = None,
    model: Annotated[str | None, may(help="A network, by a name from `juanji models`.")] = None,
    size: Annotated[
        int | None, may("--size", "--image-size", help="Height and width of the images, in pixels.")
    ] = None,
    resize: Resize = None,
    augment: Annotated[
        str | None,
        may(help="Random changes: none, handwriting, light, standard or strong, and changes of it; `juanji augment`."),
    ] = None,
    data_dir: DataDir = None,
    skip_unreadable: SkipUnreadable = False,
    option: Options = None,
    epochs: Annotated[int | None, may(help="Times through the training images.")] = None,
    time_limit: Annotated[
        str | None, may(help="Train as many epochs as end in this time, such as 10m, but not more.")
    ] = None,
    batch: Annotated[str | None, may(help="Images a step; auto for the most that memory has room for.")] = None,
    accumulate: Annotated[int | None, may(help="Parts of a batch, each of which needs a share of its memory.")] = None,
    lr: Annotated[str | None, may(help="Highest learning rate; auto for a range test.")] = None,
    schedule: Annotated[str | None, may(help=f"Learning rates over the steps: {', '.join(SCHEDULES)}.")] = None,
    warmup: Annotated[float | None, may(help="Part of the steps in which the learning rate rises.")] = None,
    optimizer: Annotated[str | None, may(help=f"{', '.join(OPTIMIZERS)} (momentum 0.9).")] = None,
    lr_multiplier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN=FACTOR",
            help="Parameters with a learning rate of their own, such as *.bn?.bias=64; may be given several times.",
        ),
    ] = None,
    weight_decay: Annotated[float | None, may(help="Pull of the weights to 0.")] = None,
    clip_norm: Annotated[float | None, may(help="Longest gradient; longer ones are scaled to it.")] = None,
    ema: Annotated[
        float | None, may(help="Decay of a running mean of the weights, which is tested and saved, such as 0.999.")
    ] = None,
    label_smoothing: Annotated[float | None, may(help="Part of each label that is shared among all classes.")] = None,
    class_weights: Annotated[
        str | None, may(help=f"{' or '.join(CLASS_WEIGHTS)}: whether every class counts the same.")
    ] = None,
    patience: Annotated[
        int | None, may(help="Epochs without progress on the validation part after which to stop.")
    ] = None,
    stop_epsilon: Annotated[float | None, may(help="Stop when the parameters change by less in an epoch.")] = None,
    init: Annotated[
        str | None,
        may(
            "--init",
            "--weights",
            help="What to begin with: a run, a file of weights (.safetensors, .pth, .pt, .bin), or hf:REPOSITORY.",
        ),
    ] = None,
    freeze: Annotated[
        str | None, may(help="What is not trained: a number of stages, paths, or all but the head.")
    ] = None,
    unfreeze_at: Annotated[
        str | None, may(help="Epochs before which frozen stages thaw, the last first, such as 3,6.")
    ] = None,
    tta: Annotated[
        str | None,
        may(help=f"Views of each image whose answers are averaged where it is tested or used: {', '.join(TTA)}."),
    ] = None,
    eval_every: Annotated[
        int | None, may(help="Epochs from one look at the validation or test images to the next.")
    ] = None,
    precision: Annotated[
        str | None, may(help="float32; bfloat16, faster where the CPU multiplies it; auto, that where it can be had.")
    ] = None,
    seed: Annotated[int | None, may(help="The same seed gives the same bits.")] = None,
    out: Annotated[
        Path | None, may(help="Folder for the run, new or empty; else the first free runs/DATA-MODEL-NUMBER.")
    ] = None,
    config: Annotated[
        Path | None, may(help="A run's config.json, whose choices are made again; options change them.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was interrupted.")] = False,
    checkpoint_every: Annotated[
        str, typer.Option(help="Steps, or a time, after which the state is saved besides after each epoch.")
    ] = "60s",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write events for TensorBoard into the run's folder.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print the last line only, what did not fit of --init, or into a time.")
    ] = False,
) -> None:
    """Train a network and save it in a run folder.

    Whatever is not given is chosen from the data, and told with the reason.

    The folder holds model.safetensors (the weights), config.json (all that was chosen), history.csv (a row for each
    epoch), metrics.json, and checkpoint.safetensors (all that is needed to go on). It is usable after every epoch;
    Ctrl-C stops the run and keeps what is saved. A part of the images is held out for testing; nothing is chosen by it.

    Training losses and accuracies are those on images that are changed at random, with smoothed labels: they look worse
    than those of testing.

    --resume goes on with a run after Ctrl-C, a crash or a loss of power, to the very bits that it would have ended in.
    Given with DATA and --out it begins the run where there is none yet, so the same command may be given again and
    again.

    --init begins with published weights of the same network (torchvision's, timm's, Hugging Face's) or with those of
    another run, whose network, options and size are then taken over. The learning rate is a third of the usual one.
    With --config, what that says stays. A classifier for other classes begins anew. hf:timm/resnet18.a1_in1k takes the
    file from the Hugging Face hub, for which huggingface_hub must be installed. With --freeze all only the new
    classifier is trained.

    docs/training.md explains every option.

    Examples:

      juanji train digits

      juanji train digits --model lenet5 --epochs 5 --seed 1 --out runs/mine

      juanji train --resume runs/mine

      juanji train digits --init runs/mine --freeze 2 --unfreeze-at 3

      juanji train photos --model resnet18 --init hf:timm/resnet18.a1_in1k

      juanji train digits --model googlenet --size 32 --option stem=small --option width=0.25
    """
    given: dict[str, Any] = {
        "model": model, "size": size, "epochs": epochs, "batch": number("batch", batch, int), "accumulate": accumulate,
        "time_limit": time_limit and seconds("train", "--time-limit", time_limit), "lr": number("lr", lr, float),
        "schedule": schedule, "warmup": warmup, "optimizer": optimizer, "weight_decay": weight_decay,
        "clip_norm": clip_norm, "ema": ema, "label_smoothing": label_smoothing, "class_weights": class_weights,
        "patience": patience, "stop_epsilon": stop_epsilon, "weights": init, "freeze": freeze,
        "unfreeze_at": unfreeze_at and whole_numbers(unfreeze_at), "precision": precision, "seed": seed,
        "tta": tta, "eval_every": eval_every,
        "options": settings("train", option) if option else None,
        "lr_multipliers": multipliers(lr_multiplier) if lr_multiplier else None,
        "resize": resize, "augment": augment and Augment.of(augment), "data_dir": data_dir and str(data_dir),
        "unreadable": "skip" if skip_unreadable else None,
    }  # fmt: skip
    given = {name: value for name, value in given.items() if value is not None}
    auto = frozenset(name for name, text in (("lr", lr), ("batch", batch)) if text == AUTO)
    every = interval(checkpoint_every)
    if resume and (session := resumed(data, config, out, given)):
        progress = session.trainer.progress
        tell(session, quiet, "finished already" if progress.finished else f"going on after step {progress.done}")
    else:
        choices = chosen(data, config, given, auto)
        with progress_bar() as shown:
            session = Session.start(choices, out, shown)
        known = (str(default) for default in choices.defaults if default.name not in auto)
        tell(session, quiet, *known, *session.measured)
    run(session, every, quiet, tensorboard)
    print(*limited(session), conclusion(session), sep="\n")


# What is given


def number(name: str, text: str | None, kind: type[int] | type[float]) -> int | float | None:
    """A number, None where it is left out or to be found. Raises ArgumentError for anything else."""
    if text is None or text == AUTO:
        return None
    try:
        return kind(text)
    except ValueError:
        raise ArgumentError(f"training: bad {name}", received=f"{name}={text}", rule="a number, or auto") from None


def whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise ArgumentError(
            "train: bad --unfreeze-at", received=repr(text), rule="epochs with commas between", fix="--unfreeze-at 3,6"
        ) from None


def multipliers(texts: list[str]) -> tuple[tuple[str, float], ...]:
    pairs = [text.rpartition("=") for text in texts]
    try:
        return tuple((pattern, float(factor)) for pattern, _, factor in pairs)
    except ValueError:
        raise ArgumentError(
            "train: bad --lr-multiplier", received=repr(texts), rule="PATTERN=FACTOR", fix="--lr-multiplier '*.bias=2'"
        ) from None


def interval(text: str) -> dict[str, Any]:
    """When to write a checkpoint, as `Session.train` takes it: `200` steps, or a time."""
    if text.isdecimal() and int(text):
        return {"every_steps": int(text), "every_seconds": 0.0}
    return {"every_seconds": seconds("train", "--checkpoint-every", text)}


def resumed(data: str | None, config: Path | None, out: Path | None, given: Mapping[str, Any]) -> Session | None:
    """The run to go on with; None where it has not begun yet, but has been told how to."""
    if data is None and out is None:
        raise ArgumentError("train: which run?", fix="juanji train --resume runs/digits-lenet5-1")
    path = Path(str(data)) if out is None else out
    if out is not None and (data or config) and not begun(path):
        return None
    choices = Choices.of_config(read_config(path / "config.json"))
    if config is not None and Choices.of_config(read_config(config)).changed(placed(given)) != choices:
        raise ArgumentError(
            "train: a run is resumed with the choices it began with",
            received=f"--config {config}, which is not that of {path}",
            fix="leave the option out, or name another folder",
        )
    fixed = {name: value for name, value in given.items() if (name, value) != ("precision", AUTO)}
    if data is not None and out is not None:
        fixed["data"] = data
    choices.check(fixed)
    return Session.resume(path)


def chosen(data: str | None, config: Path | None, given: Mapping[str, Any], auto: frozenset[str]) -> Choices:
    if config is not None:
        choices = Choices.of_config(read_config(config)).changed({**given, "auto": auto})
        return choices if data is None else choices.changed({"data": data})
    if data is None:
        raise ArgumentError("train: which images?", fix="juanji train digits, or --config FILE")
    with progress_bar() as progress:
        facts = Facts.of(data, given.get("data_dir"), progress)
    return Choices.of(data, facts, given, auto)


# What is told


def tell(session: Session, quiet: bool, *lines: str) -> None:
    """What is going to be trained, on what and how; where `quiet`, only what is not as it was asked for."""
    config, dataset = session.config, session.dataset
    weights = session.loaded and f"weights of {config.weights}{besides(session.loaded, dataset.shape[-1])}"
    if quiet and session.loaded and any(session.loaded):
        print(weights)
    if quiet:
        return
    session.model.summary(dataset.shape)
    if weights:
        print(f"\n{weights}")
    print()
    for line in lines:
        print(line)
    print(*frozen(session), f"precision: {config.recipe.precision}", sep="\n")
    looked = f", {len(dataset.val)} to validate" if dataset.val is not None else ""
    print(f"\n{len(dataset.train)} images to train on{looked}, {len(dataset.test)} to test on\n")


def run(session: Session, every: Mapping[str, Any], quiet: bool, tensorboard: bool) -> None:
    """Train, showing how it goes. Ctrl-C ends with what is kept, and exit code 130."""
    display = Display(quiet, first_call(session.config.model["name"]))
    callbacks = [display, *([TensorBoard(session.path)] if tensorboard else [])]
    try:
        with display.running():
            session.train(callbacks, **every)
    except KeyboardInterrupt:
        print(f"interrupted: {kept(session)} in {session.path}; juanji train --resume {session.path} goes on")
        raise typer.Exit(130) from None
    except NonFiniteError:
        print(f"stopped: {kept(session)} in {session.path}")
        raise


def frozen(session: Session) -> Iterator[str]:
    """A line that says how much is not trained, if any."""
    trainer, recipe = session.trainer, session.config.recipe
    parameters = session.model.parameters()
    if held := freezing.held(session.model, trainer.frozen_now):
        count, all_of_them = (sum(parameters[path].size for path in paths) for paths in (held, parameters))
        yield f"frozen{' at first' * bool(recipe.unfreeze_at)}: {count:,} of {all_of_them:,} parameters"


def besides(loaded: Loaded, channels: int) -> str:
    """What was done to weights that are for images of other channels, or for other classes."""
    left, adapted = loaded
    how = "summed over the channels, for grey images" if channels == 1 else f"repeated for {channels} channels"
    told = [f"{', '.join(adapted)} {how}"] * bool(adapted) + [f"{', '.join(left)} begin anew"] * bool(left)
    return "".join(f"; {text}" for text in told)


def kept(session: Session) -> str:
    done = len(session.history)
    return f"the network after epoch {done} is saved" if done else "no epoch was finished; the untrained network is"


def limited(session: Session) -> Iterator[str]:
    """What a time limit has left of the epochs, where it has cut them short."""
    recipe, progress = session.config.recipe, session.trainer.progress
    epochs = progress.done / session.trainer.count
    if not recipe.time_limit or progress.done < progress.total or epochs >= recipe.epochs:
        return
    little = ", too few to learn much: give it more time, or a smaller network or --size" if epochs < FEW else ""
    late = f"; with getting ready it took {session.seconds:.1f} s" if session.seconds > LATE * recipe.time_limit else ""
    yield f"time limit of {recipe.time_limit:g} s: {epochs:.3g} of {recipe.epochs} epochs{little}{late}"


def conclusion(session: Session) -> str:
    last, best = session.history[-1], session.trainer.progress.best
    accuracy = "" if last.test_accuracy is None else f"test accuracy {last.test_accuracy:.2%} "
    which = f"of epoch {best.epoch}, the best on the validation part," if best else f"after epoch {last.epoch},"
    return f"{accuracy}{which} {session.seconds:.1f} s; saved in {session.path}"
