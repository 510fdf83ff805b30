"""juanji predict"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from juanji.cli.status import first_call, status
from juanji.errors import DataError
from juanji.graph import Array
from juanji.train import Run, load_run

BLANK = 0.01  # standard deviation of an image that shows nothing; black is 0, white 1


def predict(
    run: Annotated[Path, typer.Argument(help="A run folder that `juanji train` made.")],
    images: Annotated[list[Path], typer.Argument(help="Image files: PNG, JPEG, BMP, GIF, TIFF, WebP.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name, the likeliest first.")] = 3,
    invert: Annotated[bool, typer.Option("--invert", help="Swap dark and light first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what is on images: the likeliest classes with their probabilities.

    Each image is stretched to the size the network was trained with and turned to grey or colour like the training
    images. A network trained on the digits expects one digit, light on a black ground, that fills the picture; for
    dark ink on light paper use --invert; images that look wrong in this way are told on the error output.

    Images that cannot be read are told there, too, and the others answered; the exit code is 2 then, and 0 where all
    could be read.

    Examples:

      juanji predict runs/digits-lenet5-1 seven.png

      juanji predict runs/digits-lenet5-1 scans/*.jpg --invert --top 1 --json
    """
    loaded = load_run(run)
    read = list(readable(loaded, images))
    paths, x = [path for path, _ in read], np.stack([image for _, image in read]) if read else np.zeros(0)
    if invert:
        x = 1 - x
    warn(loaded, paths, x)
    with status(first_call(loaded.config.model["name"])):
        probabilities = loaded.predict(x) if read else ()
    results: list[dict[str, Any]] = [
        {"image": str(path), "predictions": likeliest(loaded.classes, row, top)}
        for path, row in zip(paths, probabilities, strict=True)
    ]
    print(json.dumps(results, ensure_ascii=False) if as_json else "\n".join(map(text, results)))
    if len(read) < len(images):
        raise typer.Exit(2)


def readable(run: Run, images: list[Path]) -> Iterator[tuple[Path, Array]]:
    """The images that can be read, in the run's size and channels; of the others the error output tells."""
    for path in images:
        try:
            yield path, run.config.preprocessing.read(path)
        except DataError as error:
            print(f"juanji: {error}", file=sys.stderr)


def text(result: dict[str, Any]) -> str:
    named = (f"{p['class']} ({p['probability']:.1%})" for p in result["predictions"])
    return f"{result['image']}: {', '.join(named)}"


def likeliest(classes: tuple[str, ...], probabilities: Array, top: int) -> list[dict[str, Any]]:
    order = probabilities.argsort(kind="stable")[::-1][:top]
    return [{"class": classes[i], "probability": float(probabilities[i])} for i in order]


def warn(run: Run, paths: list[Path], x: Array) -> None:
    """Tell of images that are blank, or mostly light where those the network was trained on are mostly dark."""
    mean = run.config.preprocessing.mean
    for path, image in zip(paths, x, strict=True):
        if image.std() < BLANK:
            print(f"{path}: this image is blank; what follows means nothing.", file=sys.stderr)
        elif image.mean() > 0.5 > sum(mean) / len(mean):
            print(
                f"{path}: this image is mostly light (mean {image.mean():.2f}); the network was trained on mostly "
                f"dark ones (mean {sum(mean) / len(mean):.2f}). --invert swaps dark and light.",
                file=sys.stderr,
            )
