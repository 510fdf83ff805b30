"""juanji models"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from juanji import models as registry
from juanji.table import aligned


def models(
    task: Annotated[
        str | None, typer.Option(help="Only networks for classification, or for segmentation: a class a pixel.")
    ] = None,
    classes: Annotated[int, typer.Option(help="How many classes they tell apart.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks, simple ones first: the images they take by default, and their parameters.

    Examples:

      juanji models

      juanji models --task segmentation --classes 21
    """
    chosen = registry.list(task)
    rows = [row(name, classes) for name in registry.MODELS if name in chosen]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    headings = ("name", "images", "parameters", "about")
    cells = [(r["name"], "×".join(map(str, r["images"])), f"{r['parameters']:,}", r["about"]) for r in rows]
    print(*aligned([headings, *cells], right=(1, 2)), sep="\n")


def row(name: str, classes: int) -> dict[str, Any]:
    network = registry.create(name, classes=classes)
    return {
        "name": name,
        "task": network.task,
        "images": [*network.config["input_size"], network.config["in_channels"]],
        "parameters": sum(math.prod(cell.shape) for cell in network.cells("parameter").values()),
        "about": registry.MODELS[name]["about"],
    }
