"""juanji evaluate"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from juanji.cli.status import first_call, status
from juanji.table import aligned
from juanji.train import Evaluation, load_run
from juanji.train import evaluate as test


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that `juanji train` made.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test a trained network on the images that were held out from its training.

    Prints accuracy, loss (mean cross-entropy), the accuracy of each class, and the confusion matrix: a row for each
    true class, a column for each predicted one.

    Example:

      juanji evaluate runs/digits-lenet5-1
    """
    loaded = load_run(run)
    images = loaded.config.load_data().test
    with status(first_call(loaded.config.model["name"])):
        result = test(loaded.model, loaded.config.preprocessing(images.x), images.y)
    if as_json:
        values = {
            "accuracy": result.accuracy,
            "loss": result.loss,
            "images": len(images),
            "class_accuracy": dict(zip(loaded.classes, result.class_accuracy, strict=True)),
            "confusion": result.confusion.tolist(),
        }
        print(json.dumps(values, ensure_ascii=False))
    else:
        print(f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on {len(images)} images\n")
        print(table(loaded.classes, result))


def table(classes: tuple[str, ...], result: Evaluation) -> str:
    """The confusion matrix as text, with the accuracy of each class at the end of its row."""
    shares = ("" if share is None else f"{share:.1%}" for share in result.class_accuracy)
    rows = [["true \\ predicted", *classes, "accuracy"]]
    for name, counts, share in zip(classes, result.confusion, shares, strict=True):
        rows.append([name, *(str(count) if count else "·" for count in counts), share])
    return "\n".join(aligned(rows, right=range(len(rows[0]))))
