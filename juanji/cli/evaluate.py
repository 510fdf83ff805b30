"""juanji evaluate"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from juanji.cli.options import SkipUnreadable, Tta
from juanji.cli.parts import Parts, judged_on
from juanji.cli.status import first_call, status
from juanji.data import Images
from juanji.interop.files import made
from juanji.table import aligned, width
from juanji.train import Evaluation, evaluate_images, load_run

SHOWN = 24  # mistakes in the picture
TOLD = 5  # and in the text
LONGEST = 30  # classes in a table; of more, those that are recognised worst
WIDTH = 120  # of a page that is no terminal


def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that `juanji train` made.")],
    data: Annotated[
        str | None, typer.Argument(help="Other images of the same classes: what `juanji train` takes.")
    ] = None,
    part: Parts = None,
    skip_unreadable: SkipUnreadable = False,
    tta: Tta = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; pictures are drawn only where --out is given.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the pictures.  [default: the run folder]")] = None,
) -> None:
    """Judge a trained network by the images that were held out from its training, or by others.

    Prints the accuracy, how far it may be off with so many images, the balanced accuracy, in which every class counts
    the same, the loss (mean cross-entropy), and how far the network's confidence can be believed: the expected
    calibration error. Then precision, recall and F1 of each class; the confusion matrix, a row for each true class and
    a column for each predicted one; and the most confident mistakes.

    Draws confusion.png, reliability.png and mistakes.png. Of DATA that has no parts every image is judged, unless it is
    what the network was trained on; --part divides it as `juanji train` would.

    Examples:

      juanji evaluate runs/digits-lenet5-1

      juanji evaluate runs/flowers-resnet18-1 new-photos --out report
    """
    loaded = load_run(run).viewed(tta)
    chosen = judged_on(loaded, data, part, skip_unreadable)
    images, views = chosen.images, loaded.config.recipe.tta
    with status(first_call(loaded.config.model["name"])):
        result = evaluate_images(loaded.asked, images, loaded.config.preprocessing)
    if as_json:
        about = {"run": str(run), "data": data or loaded.config.data, "part": chosen.part, "tta": views}
        print(json.dumps(about | result.to_dict(loaded.classes), ensure_ascii=False))
    else:
        seen = "" if views == "none" else f", averaged over views: {views}"
        hint = "; if it learnt from some of these images: --part test" if chosen.part == "all" and part is None else ""
        print("\n\n".join(report(result, loaded.classes, f"{chosen.part} of {chosen.name}{seen}{hint}")))
    if not as_json or out is not None:
        drawn = draw(result, images, loaded.classes, run if out is None else out)
        if not as_json:
            print("\npictures:", ", ".join(map(str, drawn)))
            for told in unwritten(loaded.classes):
                print(told)


# In words


def report(result: Evaluation, classes: Sequence[str], images: str) -> Iterator[str]:
    """The paragraphs of what is printed; `images` says which were judged."""
    yield f"accuracy {result.accuracy:.2%}, loss {result.loss:.4f} on {len(result)} images"
    yield "\n".join(aligned([("judged on", images), *figures(result)]))
    yield "\n".join(by_class(result, classes))
    yield "\n".join(confusion(result, classes))
    if len(told := result.mistakes(TOLD)):
        rows = [("the most confident mistakes", "true", "predicted", "confidence")]
        for m in (result.mistake(index, classes) for index in told):
            rows.append((m["image"], m["true"], m["predicted"], f"{m['confidence']:.1%}"))
        yield "\n".join(aligned(rows, right=[3]))


def figures(result: Evaluation) -> Iterator[tuple[str, str]]:
    low, high = result.accuracy_interval
    yield "95% interval of the accuracy", f"{low:.1%} to {high:.1%}"
    yield "balanced accuracy", f"{result.balanced_accuracy:.2%}"
    if result.top5 is not None:
        yield "top-5 accuracy", f"{result.top5:.2%}"
    yield "macro F1", f"{result.macro_f1:.4f}"
    yield (
        "expected calibration error",
        f"{result.calibration.error:.2%} (mean confidence {result.confidence.mean():.2%})",
    )


def by_class(result: Evaluation, classes: Sequence[str]) -> list[str]:
    """Precision, recall and F1 of each class, or of those with the lowest F1 where there are many."""
    chosen, heading = [*range(len(classes))], "class"
    if len(classes) > LONGEST:
        known = np.array([1.0 if f1 is None else f1 for f1 in result.f1])
        chosen, heading = np.argsort(known, kind="stable")[:LONGEST].tolist(), f"class ({LONGEST} with the lowest F1)"
    rows = [(heading, "images", "precision", "recall", "F1")]
    for i in chosen:
        shares = ("–" if share is None else f"{share:.1%}" for share in (result.precision[i], result.recall[i]))
        f1 = result.f1[i]
        rows.append((classes[i], str(result.support[i]), *shares, "–" if f1 is None else f"{f1:.3f}"))
    return aligned(rows, right=range(1, 5))


def confusion(result: Evaluation, classes: Sequence[str]) -> list[str]:
    """The confusion matrix, or the most frequent confusions where it is wider than the page."""
    rows = [["true \\ predicted", *classes]]
    rows += [[name, *map(mark, counts)] for name, counts in zip(classes, result.confusion, strict=True)]
    lines = aligned(rows, right=range(1, len(rows[0])))
    if max(map(width, lines)) <= shutil.get_terminal_size((WIDTH, 24)).columns:
        return lines
    return aligned(list(confusions(result, classes)), right=[2])


def mark(count: int) -> str:
    return str(count) if count else "·"


def confusions(result: Evaluation, classes: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    wrong = result.confusion * (1 - np.eye(len(classes), dtype=np.int64))
    yield "true", "taken for", "images"
    for place in np.argsort(-wrong, axis=None, kind="stable")[:LONGEST]:
        true, said = np.unravel_index(place, wrong.shape)
        if wrong[true, said]:
            yield classes[true], classes[said], str(wrong[true, said])


# In pictures


def unwritten(classes: Sequence[str]) -> Iterator[str]:
    """A line that tells which names are not in the pictures, for want of a font."""
    from juanji.train import pictures

    if renamed := pictures.renamed(classes):
        told = ", ".join(f"{drawn} is {name}" for drawn, name in renamed.items())
        yield f"in the pictures {told}: no font here can write that; with Noto Sans CJK installed Chinese is drawn"


def draw(result: Evaluation, images: Images, classes: Sequence[str], out: Path) -> list[Path]:
    """Write the pictures into the folder `out`, which is made where need be, and return their paths."""
    from juanji.train import pictures

    made(out, "name one, in a folder that may be written to: --out FOLDER")
    matrix, diagram, sheet = out / "confusion.png", out / "reliability.png", out / "mistakes.png"
    pictures.confusion(result, classes, matrix)
    pictures.reliability(result, diagram)
    if not len(chosen := result.mistakes(SHOWN)):
        return [matrix, diagram]
    pictures.mistakes(images.read(chosen), result, chosen, classes, sheet)
    return [matrix, diagram, sheet]
