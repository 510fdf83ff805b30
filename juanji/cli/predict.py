"""juanji predict"""

from __future__ import annotations

import csv
import functools
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from juanji.cli.inputs import Input, inputs
from juanji.cli.options import Tta
from juanji.cli.status import first_call, status
from juanji.engine.platform import threads
from juanji.errors import ArgumentError, DataError
from juanji.graph import Array
from juanji.table import one_line
from juanji.train import Run, load_run
from juanji.train.evaluation import batch_of

BLANK = 0.01  # standard deviation of an image that shows nothing; black is 0, white 1
DARK = 1 / 3  # mean of images, up to which they are signs on a dark ground

AHEAD = 4  # images for each thread that are in memory as files

Result = dict[str, Any]
Read = tuple[str, Array] | DataError


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder that `juanji train` made.")],
    paths: Annotated[
        list[str],
        typer.Argument(help="Image files (PNG, JPEG, BMP, GIF, TIFF, WebP), folders, archives (.zip, .tar), or -."),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name, the likeliest first.")] = 3,
    invert: Annotated[bool, typer.Option("--invert", help="Swap dark and light first.")] = False,
    tta: Tta = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Take - for a list of paths, one a line, or as find -print0 has them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one array.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one row an image.")] = False,
) -> None:
    """Say what is on images: the likeliest classes with their probabilities.

    Folders are searched with all folders in them, archives are read in place, and - is one image from standard input.
    Images are looked at some at a time, in their order, and results are printed as they come: there may be any number.

    Each image is brought to the size the network was trained with and turned to grey or colour like the training
    images. A network trained on the digits expects one digit, light on a black ground, that fills the picture; for
    dark ink on light paper use --invert; images that look wrong in this way are told on the error output.

    Images that cannot be read are told there, too, and the others answered; the exit code is 2 then, and 0 where all
    could be read.

    Examples:

      juanji predict runs/digits-lenet5-1 seven.png

      juanji predict runs/digits-lenet5-1 scans/ more.zip --invert --top 1 --csv > answers.csv

      find . -name '*.jpg' | juanji predict runs/flowers-resnet18-1 - --list --json
    """
    if as_json and as_csv:
        raise ArgumentError(
            "predict: --json or --csv", received="both", rule="one form of the output", fix="leave one out"
        )
    if listed and "-" not in paths:
        raise ArgumentError(
            "predict: --list says how standard input is read",
            received=f"--list, paths {', '.join(paths)}",
            fix="add - to the paths: find … | juanji predict RUN - --list",
        )
    loaded, unread = load_run(run).viewed(tta), 0
    with (json_array if as_json else csv_rows if as_csv else lines)(min(top, len(loaded.classes))) as write:
        for found in results(loaded, inputs(paths, listed), top, invert):
            if isinstance(found, DataError):
                unread += 1
                print(f"juanji: {found}", file=sys.stderr)
            else:
                write(found)
    if unread:
        raise typer.Exit(2)


def results(run: Run, images: Iterator[Input | DataError], top: int, invert: bool) -> Iterator[Result | DataError]:
    """What the network says of each image, and of those that cannot be read why, in their order, a batch at a time."""
    for batch in batches(run, images, invert):
        x = [image for image in batch if not isinstance(image, DataError)]
        with status(first_call(run.config.model["name"])):
            said = iter(run.predict(np.stack([pixels for _, pixels in x])) if x else ())
        for image in batch:
            if isinstance(image, DataError):
                yield image
            else:
                warn(run, *image)
                yield {"image": image[0], "predictions": likeliest(run.classes, next(said), top)}
        sys.stdout.flush()


def batches(run: Run, images: Iterator[Input | DataError], invert: bool) -> Iterator[list[Read]]:
    """Images, decoded by threads, as many at a time as the network looks at together."""
    preprocessing = run.config.preprocessing
    size, count = batch_of((1, *preprocessing.size, preprocessing.channels)), threads()
    with ThreadPoolExecutor(count) as pool:
        batch: list[Read] = []
        # No more files than a few for each thread are in memory before they are decoded.
        while some := [*islice(images, min(AHEAD * count, size - len(batch)))]:
            batch += pool.map(functools.partial(readable, run, invert), some)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def readable(run: Run, invert: bool, image: Input | DataError) -> Read:
    """An image by its name, in the run's size and channels; or why it cannot be read."""
    if isinstance(image, DataError):
        return image
    try:
        x = run.config.preprocessing.read(image.source, image.name)
    except DataError as error:
        return error
    return image.name, 1 - x if invert else x


def likeliest(classes: tuple[str, ...], probabilities: Array, top: int) -> list[dict[str, Any]]:
    order = probabilities.argsort(kind="stable")[::-1][:top]
    return [{"class": classes[i], "probability": float(probabilities[i])} for i in order]


def warn(run: Run, name: str, image: Array) -> None:
    """Tell of an image that is blank, or mostly light where those the network was trained on are grey and dark."""
    mean = run.config.preprocessing.mean
    if image.std() < BLANK:
        print(f"{name}: this image is blank; what follows means nothing.", file=sys.stderr)
    elif len(mean) == 1 and mean[0] < DARK and image.mean() > 0.5:
        print(
            f"{name}: this image is mostly light (mean {image.mean():.2f}); the network was trained on mostly "
            f"dark ones (mean {mean[0]:.2f}). --invert swaps dark and light.",
            file=sys.stderr,
        )


# Forms of the output: what is written before the first result and after the last, and how each is written


@contextmanager
def lines(top: int) -> Iterator[Callable[[Result], None]]:
    def write(result: Result) -> None:
        named = (f"{p['class']} ({p['probability']:.1%})" for p in result["predictions"])
        print(one_line(f"{result['image']}: {', '.join(named)}"))

    yield write


@contextmanager
def json_array(top: int) -> Iterator[Callable[[Result], None]]:
    before = "\n"

    def write(result: Result) -> None:
        nonlocal before
        print(before, json.dumps(result, ensure_ascii=False), sep="", end="")
        before = ",\n"

    print("[", end="")
    try:
        yield write
    finally:  # an array to the end, even if an error ends it early
        print("\n]")


@contextmanager
def csv_rows(top: int) -> Iterator[Callable[[Result], None]]:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["image", *(f"{name}_{place}" for place in range(1, top + 1) for name in ("class", "probability"))])
    yield lambda result: table.writerow(
        [result["image"], *(value for said in result["predictions"] for value in said.values())]
    )
