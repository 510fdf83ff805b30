"""juanji predict"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from juanji.graph import Array
from juanji.train import Run, load_run


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
    dark ink on light paper use --invert. Images that look wrong in this way are told on the error output.

    Examples:

      juanji predict runs/digits-lenet5-1 seven.png

      juanji predict runs/digits-lenet5-1 scans/*.jpg --invert --top 1 --json
    """
    loaded = load_run(run)
    x = np.stack([loaded.config.preprocessing.read(path) for path in images])
    if invert:
        x = 1 - x
    warn(loaded, images, x)
    results: list[dict[str, Any]] = [
        {"image": str(path), "predictions": likeliest(loaded.classes, row, top)}
        for path, row in zip(images, loaded.predict(x), strict=True)
    ]
    if as_json:
        print(json.dumps(results, ensure_ascii=False))
        return
    for result in results:
        print(text(result))


def text(result: dict[str, Any]) -> str:
    named = (f"{p['class']} ({p['probability']:.1%})" for p in result["predictions"])
    return f"{result['image']}: {', '.join(named)}"


def likeliest(classes: tuple[str, ...], probabilities: Array, top: int) -> list[dict[str, Any]]:
    order = probabilities.argsort(kind="stable")[::-1][:top]
    return [{"class": classes[i], "probability": float(probabilities[i])} for i in order]


def warn(run: Run, images: list[Path], x: Array) -> None:
    """Tell of images that are mostly light, where those the network was trained on are mostly dark."""
    mean = run.config.preprocessing.mean
    if sum(mean) / len(mean) > 0.5:
        return
    for path, image in zip(images, x, strict=True):
        if image.mean() > 0.5:
            print(
                f"{path}: this image is mostly light (mean {image.mean():.2f}); the network was trained on mostly "
                f"dark ones (mean {sum(mean) / len(mean):.2f}). --invert swaps dark and light.",
                file=sys.stderr,
            )
