"""Which images a network is judged on: a part of a dataset, with the run's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import typer

from juanji.cli.check import progress_bar
from juanji.data.labelled import PARTS
from juanji.data.loading import Part, load_part
from juanji.errors import DataError, unknown_name
from juanji.graph import Array
from juanji.train import Run
from juanji.train.folder import place
from juanji.train.validation import SHARE

Parts = Annotated[
    str | None,
    typer.Option(
        "--part", help="test, val, train, or all of them.  [default: test; all of other data that has no parts]"
    ),
]


def judged_on(run: Run, data: str | None, part: str | None, skip_unreadable: bool) -> Part:
    """A part of the run's own data, or of other `data`, in the run's form, with labels that count the run's classes.

    By default what the run was tested on; of other data the test part, or all where it has no parts. Images that cannot
    be read are skipped where that is asked for, or was for training.

    Raises UnknownNameError for another part, DataError for a part without images, or classes that the run has not.
    """
    if part not in (None, *PARTS, "all"):
        raise unknown_name("part", str(part), (*PARTS, "all"))
    config = run.config
    if data is None or place(data) == config.data:
        data, part = config.data, part or "test"
        config.check_place()
    with progress_bar() as progress:
        found = load_part(
            data,
            config.preprocessing.form,
            part,
            validation=SHARE if config.recipe.patience else 0.0,
            data_dir=config.data_dir,
            unreadable="skip" if skip_unreadable else config.unreadable,
            progress=progress,
        )
    images = replace(found.images, y=order(found, run.classes)[found.images.y])
    return found._replace(images=images, classes=run.classes)


def order(found: Part, classes: Sequence[str]) -> Array:
    """The number that each class of the data has in the run; they are matched by their names."""
    if unknown := sorted({*found.classes} - {*classes}):
        raise DataError(
            f"{found.name}: the network was not trained on all of these classes",
            received=", ".join(found.classes),
            rule="the run's, or some of them: " + ", ".join(classes),
            fix=f"rename or take away {', '.join(unknown)}",
        )
    return np.array([classes.index(name) for name in found.classes])
