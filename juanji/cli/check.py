"""juanji check"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from juanji.table import aligned, one_line

if TYPE_CHECKING:
    from juanji.data.download import Progress
    from juanji.data.findings import Finding, Report

SHOWN = 10  # names for each finding
ROWS = 40  # classes


def check(
    data: Annotated[str, typer.Argument(help="A folder, archive, table or file of arrays; or a built-in dataset.")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the files of built-in datasets are, or are downloaded to.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all names.")] = False,
) -> None:
    """Look at every image of a dataset before anything is trained on it.

    DATA is a folder DATA/CLASS/image or DATA/{train,val,test}/CLASS/image, a .zip or .tar of either, a .csv of paths
    and labels, .npz or IDX files, or digits, mnist, fashion-mnist, cifar10.

    The exit code is 1 where training would be wrong: images that cannot be read, one class only, a class without an
    image to train on, the same image in two classes or two parts, classes that differ by upper and lower case only, or
    whose names are not UTF-8. All else that is found is a warning or a note, and the exit code is 0.

    Examples:

      juanji check photos

      juanji check photos.zip --json
    """
    from juanji.data.findings import check as examine

    with progress_bar() as progress:
        report = examine(data, data_dir, progress)
    print(json.dumps(report.to_dict(), ensure_ascii=False) if as_json else "\n".join(lines(report)))
    if report.wrong:
        raise typer.Exit(1)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on the error output, on a terminal only, for what `find`, `load` and `check` tell of their progress."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks = {}

        def progress(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what)
            bar.update(tasks[what], total=of, completed=done)

        yield progress


def lines(report: Report) -> Iterator[str]:
    yield f"{report.name}: {report.images:,} images of {len(report.classes)} classes"
    yield ""
    yield from table(report)
    yield ""
    if report.smallest and report.median and report.largest:
        least, most, middle = map(size, (report.smallest, report.largest, report.median))
        yield f"  sizes  {least} to {most}, median {middle} (width × height)"
    yield f"  modes  {', '.join(f'{count:,} {mode}' for mode, count in report.modes.items()) or 'none'}"
    for level in ("wrong", "warning", "note"):
        for finding in report.findings:
            if finding.level == level:
                yield from told(finding)
    yield ""
    yield conclusion(report)


def size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}×{shape[0]}"


def table(report: Report) -> Iterator[str]:
    """A row for each class, a column for each part; of very many classes their range."""
    parts = report.counts
    if len(report.classes) > ROWS:
        for part, counts in parts.items():
            yield f"  {part}: {min(counts):,} to {max(counts):,} images a class, {sum(counts):,} together"
        return
    rows = [["", *parts]]
    rows += [[name, *(f"{parts[part][i]:,}" for part in parts)] for i, name in enumerate(report.classes)]
    if len(parts) > 1 or len(report.classes) > 1:
        rows.append(["together", *(f"{sum(counts):,}" for counts in parts.values())])
    yield from (f"  {row}" for row in aligned(rows, right=range(1, len(rows[0]))))


def told(finding: Finding) -> Iterator[str]:
    yield ""
    yield f"{finding.level}: {finding.what}"
    shown = finding.names[: SHOWN if finding.level != "note" else 3]
    yield from (f"  {one_line(name)}" for name in shown)
    if len(finding.names) > len(shown):
        yield f"  and {len(finding.names) - len(shown):,} more"
    if finding.fix:
        yield f"  fix: {finding.fix}"


def conclusion(report: Report) -> str:
    wrong = sum(finding.level == "wrong" for finding in report.findings)
    warned = sum(finding.level == "warning" for finding in report.findings)
    warnings = "" if not warned else f", {warned} warning{'s' * (warned > 1)}"
    if wrong:
        return f"training would be wrong: {wrong} finding{'s' * (wrong > 1)}{warnings}"
    return f"nothing is wrong{warnings}"
