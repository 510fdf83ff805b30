"""juanji augment"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from juanji.checks import counts
from juanji.cli.check import progress_bar
from juanji.cli.options import DataDir, Resize, SkipUnreadable
from juanji.data import Augment, Dataset, Preprocessing, write_image
from juanji.data.loader import epoch_order
from juanji.data.preparation import Preparation
from juanji.graph import Array
from juanji.train import Choices, Facts

CELL = 96  # pixels that an image of the sheet has at least, so that small ones can be seen
GAP = 4  # pixels between them


def augment(
    data: Annotated[str, typer.Argument(help="A dataset, as for `juanji train`.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture to write; its ending names the format.")],
    changes: Annotated[
        str | None,
        typer.Option(
            "--augment",
            help="none, handwriting, light, standard or strong, and changes of it.  [default: what suits the images]",
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="How many images to show, a row for each.")] = 8,
    epochs: Annotated[int, typer.Option(help="How many epochs to show, a column for each.")] = 6,
    size: Annotated[
        int | None, typer.Option(help="Height and width of the images, in pixels.  [default: what suits them]")
    ] = None,
    resize: Resize = None,
    data_dir: DataDir = None,
    skip_unreadable: SkipUnreadable = False,
    seed: Annotated[int, typer.Option(help="That of the training run.")] = 0,
) -> None:
    """Draw a sheet of what a network sees of some training images: first the image itself, then an epoch a column.

    They are the very images that `juanji train` gives to the network in these epochs, with the same seed and changes;
    what is not given is chosen as it chooses. Have a look whether you would still know what is on them.

    \b
      none         no change
      handwriting  small shifts, turns, zooms and slants; for letters and signs
      light        small shifts and mirror images; for small photographs
      standard     a random part, mirror images, slightly different colours
      strong       smaller parts, RandAugment, erased boxes, two images mixed

    Changes follow with commas between; ranges are written with a colon.

    Examples:

      juanji augment digits -o sheet.png --augment handwriting

      juanji augment digits -o sheet.png --augment standard,flip=none,scale=0.5:1
    """
    counts("augment", images=images, epochs=epochs)
    given: dict[str, Any] = {
        "size": size, "augment": changes and Augment.of(changes), "resize": resize,
        "data_dir": data_dir and str(data_dir), "unreadable": "skip" if skip_unreadable else None,
    }  # fmt: skip
    with progress_bar() as progress:
        facts = Facts.of(data, given["data_dir"], progress)
        choices = Choices.of(data, facts, {name: value for name, value in given.items() if value is not None})
        dataset = choices.load_data(progress)
    changed = choices.recipe.augment
    rows = seen(dataset, changed, images, epochs, seed)
    write_image(out, sheet(rows))
    for default in choices.defaults:
        if default.name == "size":
            print(default)
    print(f"{out}: {len(rows)} images of {dataset.name}, as they are and in epochs 1 to {epochs}; {changed}")


def seen(dataset: Dataset, chosen: Augment, images: int, epochs: int, seed: int) -> Array:
    """Some training images, as they are and as an epoch after another shows them: (images, 1 + epochs, H, W, C)."""
    train = dataset.train
    _, height, width, channels = (dataset.test if len(dataset.test) else train).x.shape
    plain = Preprocessing((height, width), channels, (0.0,) * channels, (1.0,) * channels)
    which = epoch_order(len(train), seed, 0)[:images]

    def column(epoch: int, change: Augment | None) -> Array:
        order = epoch_order(len(train), seed, epoch)
        prepared = Preparation(train, order, seed, epoch, change, plain, len(dataset.classes))
        return np.stack([prepared.of(image) for image in which])

    return np.stack([column(0, None), *(column(epoch, chosen) for epoch in range(1, epochs + 1))], axis=1)


def sheet(rows: Array) -> Array:
    """Images (rows, columns, H, W, C) side by side on white, (Y, X, C), small ones enlarged by a whole number."""
    height, width = rows.shape[2:4]
    times = max(1, round(CELL / max(height, width)))
    cells = rows.repeat(times, axis=2).repeat(times, axis=3)
    framed = np.pad(cells, [(0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)], constant_values=1)
    lines, columns, y, x, channels = framed.shape
    whole = framed.swapaxes(1, 2).reshape(lines * y, columns * x, channels)
    return np.pad(whole, [(GAP, 0), (GAP, 0), (0, 0)], constant_values=1)
