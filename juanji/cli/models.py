"""juanji models"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import typer

from juanji import models as registry
from juanji.errors import unknown_name
from juanji.table import aligned


def models(
    name: Annotated[str | None, typer.Argument(help="One of them, to see what it takes.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Only networks for classification, or for segmentation: a class a pixel.")
    ] = None,
    classes: Annotated[int, typer.Option(help="How many classes they tell apart.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the networks, simple ones first: the images they take by default, and their parameters.

    Of one network, by its name, the options: what they are by default, and what they mean. They go behind --option of
    the other commands, `--option stem=small`.

    Examples:

      juanji models

      juanji models --task segmentation --classes 21

      juanji models resnet18
    """
    chosen = registry.list(task)
    if name is not None:
        if name not in chosen:
            raise unknown_name(f"model for {task}" if task else "model", name, chosen)
        shown: Any = row(name, classes) | {"options": registry.options(name)}
        print(json.dumps(shown, ensure_ascii=False) if as_json else "\n".join(about(shown)))
        return
    rows = [row(name, classes) for name in registry.MODELS if name in chosen]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    headings = ("name", "images", "parameters", "about")
    cells = [(r["name"], "×".join(map(str, r["images"])), f"{r['parameters']:,}", r["about"]) for r in rows]
    print(*aligned([headings, *cells], right=(1, 2)), sep="\n")


def about(shown: dict[str, Any]) -> list[str]:
    """One network and its options."""
    images = "×".join(map(str, shown["images"]))
    head = (
        f"{shown['name']}: {shown['about']}",
        f"{shown['task']} of images {images}, {shown['parameters']:,} parameters",
    )
    rows = [(key, written(value), registry.OPTIONS[key]) for key, value in shown["options"].items()]
    return [*head, "", *aligned([("option", "default", "meaning"), *rows])] if rows else [*head, "no options"]


def written(value: Any) -> str:
    """A default as it is written behind --option NAME=, where several values need no brackets."""
    text = value if isinstance(value, str) else repr(value).replace(" ", "")
    return text[1:-1] if isinstance(value, tuple) and value else text


def row(name: str, classes: int) -> dict[str, Any]:
    network = registry.create(name, classes=classes)
    return {
        "name": name,
        "task": network.task,
        "images": [*network.config["input_size"], network.config["in_channels"]],
        "parameters": sum(math.prod(cell.shape) for cell in network.cells("parameter").values()),
        "about": registry.MODELS[name]["about"],
    }
