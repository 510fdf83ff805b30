"""Pictures of a training run and of how good its network is, as PNG files.

They are drawn with matplotlib's Agg, without pyplot and its global state, in colours that the colour-blind can tell
apart (Okabe and Ito, "Color universal design", 2002). matplotlib is imported when the first is drawn.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from juanji.errors import ArgumentError
from juanji.graph import Array
from juanji.interop import write_atomically
from juanji.train.evaluation import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
PARTS = {"train": (BLUE, "--"), "val": (GREEN, "-"), "test": (ORANGE, "-")}  # of the history, by the fields' names
# Of what systems have, for characters that matplotlib's own font lacks.
FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei",
         "WenQuanYi Zen Hei", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC",
         "Noto Sans CJK JP", "Arial Unicode MS")  # fmt: skip
LONGEST = 24  # characters of a class's name
ANNOTATED, NAMED = 20, 50  # classes up to which a confusion matrix has numbers in it, and names beside it


# What is drawn upon


def figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def save(drawn: Figure, path: str | Path) -> None:
    png = io.BytesIO()
    drawn.savefig(png, format="png", metadata={"Software": None})
    write_atomically(path, png.getvalue())


@functools.cache
def families() -> list[str]:
    """matplotlib's own font, and the first one here that has Chinese."""
    from matplotlib import font_manager

    known = set(font_manager.get_font_names())
    return ["DejaVu Sans", *[name for name in FONTS if name in known][:1]]


@functools.cache
def fonts() -> list[Any]:
    from matplotlib import font_manager

    return [font_manager.get_font(font_manager.findfont(name)) for name in families()]


def legible(text: str) -> bool:
    """Whether there is a glyph for each character."""
    return text.isprintable() and all(any(font.get_char_index(ord(letter)) for font in fonts()) for letter in text)


def labels(classes: Sequence[str]) -> list[str]:
    """The classes' names as they are drawn: shortened, and "class 3" for a name that no font here can write."""
    return [name if legible(name) else f"class {number}" for number, name in enumerate(map(shortened, classes))]


def shortened(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def renamed(classes: Sequence[str]) -> dict[str, str]:
    """By the names that are drawn, those of the classes whose own no font here can write."""
    pairs = zip(labels(classes), classes, strict=True)
    return {drawn: name for drawn, name in pairs if drawn != shortened(name)}


def written(size: float = 9) -> dict[str, Any]:
    """Options of a text that came from outside: it is not to be read as a formula, $…$."""
    return {"fontfamily": families(), "parse_math": False, "fontsize": size}


def bare(axes: Axes) -> None:
    """No more lines than are read: without frame above and on the right, over a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


# The course of a training


def learning_curve(history: Sequence[Any], path: str | Path) -> None:
    """Loss, accuracy and learning rate over the epochs.

    history  dataclasses with `epoch`, `lr`, and `train_loss`, `train_accuracy` and the same of `val` and `test`, each
             of which may be None or absent

    Raises ArgumentError for an empty history, DataError where the file cannot be written.
    """
    if not history:
        raise ArgumentError("learning_curve: the history is empty", received="no epoch", rule="at least one")
    rows = [asdict(row) for row in history]
    drawn = figure(7, 7)
    panels = drawn.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1])
    for axes, what in zip(panels, ("loss", "accuracy"), strict=False):
        for part, style in PARTS.items():
            line(axes, rows, f"{part}_{what}", part, style)
        axes.set_ylabel(what)
        axes.legend(frameon=False)
    panels[1].yaxis.set_major_formatter(percent())
    line(panels[2], rows, "lr", "", (GREY, "-"))
    panels[2].set(ylabel="learning rate", xlabel="epoch")
    panels[2].xaxis.get_major_locator().set_params(integer=True)
    for axes in panels:
        bare(axes)
    save(drawn, path)


def line(axes: Axes, rows: Sequence[dict[str, Any]], field: str, name: str, style: tuple[str, str]) -> None:
    """A field of the history, where it is known; the legend tells its last value."""
    points = [(row["epoch"], row[field]) for row in rows if row.get(field) is not None]
    if points:
        last = points[-1][1]
        label = f"{name} {last:.1%}" if field.endswith("accuracy") else f"{name} {last:.3g}"
        marker = "o" if len(points) == 1 else ""  # of which there is no line
        axes.plot(*zip(*points, strict=True), color=style[0], linestyle=style[1], marker=marker, label=label)


def percent() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(1, decimals=None)


def range_test(rates: Sequence[float], losses: Sequence[float], path: str | Path, chosen: float | None = None) -> None:
    """The loss over learning rates that were tried one after the other, and the one that was `chosen`.

    Source: L. Smith, "Cyclical learning rates for training neural networks", WACV 2017, section 3.3.

    Raises ArgumentError for different numbers of rates and losses, or none, DataError where the file cannot be
    written.
    """
    if len(rates) != len(losses) or not len(rates):
        raise ArgumentError(
            "range_test: there must be a loss for each learning rate",
            received=f"{len(rates)} rates, {len(losses)} losses",
            rule="as many of the one as of the other, at least one",
        )
    drawn = figure(7, 4)
    axes = drawn.subplots()
    axes.semilogx(rates, losses, color=BLUE)
    if chosen is not None:
        axes.axvline(chosen, color=ORANGE, linestyle="--", label=f"chosen: {chosen:.3g}")
        axes.legend(frameon=False)
    finite = np.asarray(losses)[np.isfinite(losses)]
    if finite.size:  # the end, where training diverges, would flatten all the rest
        low, high = float(finite.min()), float(finite[: max(1, int(finite.argmin()) + 1)].max())
        axes.set_ylim(low - 0.1 * (high - low) - 1e-6, high + 0.5 * (high - low) + 1e-6)
    axes.set(xlabel="learning rate", ylabel="loss")
    bare(axes)
    save(drawn, path)


# How good a network is


def confusion(evaluation: Evaluation, classes: Sequence[str], path: str | Path) -> None:
    """The confusion matrix: a row for each true class, coloured by which part of it was taken for each other class.

    With 20 classes or fewer the counts stand in the fields; with more than 50 classes names are left out. Raises
    DataError where the file cannot be written.
    """
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(14.0, 3.5 + 0.42 * len(classes))
    drawn = figure(side + 1, side)
    axes = drawn.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    drawn.colorbar(image, label="part of the true class", format=percent(), shrink=0.8)
    if len(classes) <= ANNOTATED:
        annotate(axes, counts, shares)
    names = labels(classes) if len(classes) <= NAMED else []
    ticks = range(len(names))
    axes.set_xticks(ticks, names, rotation=90 if max(map(len, names), default=0) > 2 else 0, **written())
    axes.set_yticks(ticks, names, **written())
    axes.set(xlabel="predicted", ylabel="true", title=f"accuracy {evaluation.accuracy:.2%} on {len(evaluation)} images")
    save(drawn, path)


def annotate(axes: Axes, counts: Array, shares: Array) -> None:
    """The counts, but for zeros, in the fields: light on dark and dark on light."""
    for row, column in np.argwhere(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", color=colour, fontsize=8)


def reliability(evaluation: Evaluation, path: str | Path) -> None:
    """The reliability diagram: how often answers are right, by how confident they are, and how many there are of each.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, figure 1. Raises DataError where the file
    cannot be written.
    """
    found = evaluation.calibration
    edges = np.arange(len(found.count) + 1) / len(found.count)
    drawn = figure(6, 6.5)
    upper, lower = drawn.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as sure as right")
    upper.stairs(np.nan_to_num(found.accuracy), edges, fill=True, color=BLUE, alpha=0.35, label="right")
    upper.plot(found.confidence, found.accuracy, "o", color=BLUE, clip_on=False)
    upper.set(ylabel="accuracy", ylim=(0, 1), title=f"expected calibration error {found.error:.2%}")
    upper.yaxis.set_major_formatter(percent())
    upper.legend(frameon=False, loc="upper left")
    lower.stairs(found.count, edges, fill=True, color=GREY)
    lower.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
    lower.xaxis.set_major_formatter(percent())
    for axes in (upper, lower):
        bare(axes)
    save(drawn, path)


def contact_sheet(
    images: Array, captions: Sequence[str], path: str | Path, *, columns: int = 6, title: str = ""
) -> None:
    """Images (N, H, W, C) in 0…1, C = 1, 3 or 4, beside and below each other, each with its caption of a line or more.

    Raises ArgumentError for no images, or another number of captions, DataError where the file cannot be written.
    """
    if not len(images) or len(captions) != len(images):
        raise ArgumentError(
            "contact_sheet: there must be a caption for each image",
            received=f"{len(images)} images, {len(captions)} captions",
            rule="as many of the one as of the other, at least one",
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = 1 + max(caption.count("\n") for caption in captions)
    tall = 1.7 * images.shape[1] / images.shape[2] + 0.18 * lines + 0.1
    drawn = figure(max(4.0, 1.9 * columns), rows * tall + 0.4)
    drawn.suptitle(title, **written(11))
    for number, axes in enumerate(drawn.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if number < len(images):
            shown = np.clip(images[number], 0, 1)
            axes.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)
            axes.set_title(captions[number], **written(8))
    save(drawn, path)


def mistakes(images: Array, evaluation: Evaluation, chosen: Array, classes: Sequence[str], path: str | Path) -> None:
    """A contact sheet of images (n, H, W, C) in 0…1 that were answered wrongly, with indices `chosen` (n,)."""
    names = labels(classes)
    captions = [mistake(evaluation.mistake(index, names)) for index in chosen]
    wrong = int((~evaluation.right).sum())
    title = f"the most confident of {wrong} mistakes on {len(evaluation)} images"
    contact_sheet(images, captions, path, title=title)


def mistake(told: Mapping[str, Any]) -> str:
    """What was said of an image, what it is, and the end of its name."""
    name = Path(told["image"]).name
    name = name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
    name = name if legible(name) else f"image {told['index']}"
    return f"{told['predicted']} {told['confidence']:.0%}\ntrue: {told['true']} {told['true_probability']:.0%}\n{name}"
