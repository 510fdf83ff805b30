"""Tables of results, the machine they come from, and where they are kept."""

from __future__ import annotations

import importlib.metadata
import itertools
import math
import os
import platform
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.compare.cases import FACES, Case
from benchmarks.compare.measure import Result
from benchmarks.compare.problem import Problem

PLACE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PACKAGES = ("juanji", "numpy", "llvmlite", "torch", "onnxruntime", "openvino", "jax")
NONE = "–"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first row is the header and whose numbers end together."""
    widths = [max(2, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    lines.insert(1, ["-" * (w - 1) + ":" if i else "-" * w for i, w in enumerate(widths)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def known(results: Sequence[Result]) -> list[float]:
    return [result for result in results if not isinstance(result, str)]


def number(result: Result, scale: float = 1e3) -> str:
    """Three digits of a result in units of 1/scale: of seconds, milliseconds."""
    if isinstance(result, str):
        return NONE
    return f"{result * scale:.3g}" if result * scale < 1000 else f"{result * scale:,.0f}"


def times(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}×"


def advantage(row: Sequence[Result]) -> float | None:
    """How many times as long the best of the others takes as juanji, which comes first."""
    mine, others = known(row[:1]), known(row[1:])
    return min(others) / mine[0] if mine and others else None


def gain(row: Sequence[Result]) -> float | None:
    """How many times as long the first takes as the second."""
    both = known(row)
    return both[0] / both[1] if len(both) == 2 else None


def errors(labels: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[Result]]) -> str:
    """What went wrong, each message once with the place where it came first."""
    found: dict[str, str] = {}
    for label, row in zip(labels, rows, strict=True):
        for column, result in zip(columns, row, strict=True):
            if isinstance(result, str):
                found.setdefault(result, f"{label}, {column}")
    return "".join(f"\n{place}: {message}\n" for message, place in found.items())


def section(
    title: str,
    columns: Sequence[str],
    rows: dict[str, list[Result]],
    ratio: tuple[str, Callable[[Sequence[Result]], float | None]] | None = None,
    scale: float = 1e3,
) -> str:
    """Results by row and column, and if wanted a ratio of each row under its heading."""
    heading, of = ratio or ("", None)
    body = [[label, *(number(x, scale) for x in row), *([times(of(row))] if of else [])] for label, row in rows.items()]
    header = ["", *columns, *([heading] if of else [])]
    return f"## {title}\n\n{table([header, *body])}\n{errors(list(rows), columns, list(rows.values()))}"


def layers(title: str, columns: Sequence[str], cases: Sequence[Case], rows: list[list[Result]]) -> str:
    """GFLOP/s of both and their ratio for each face; geometric means and worst cases."""
    count, ratios = len(FACES), [advantage(row) for row in rows]
    body = []
    for i in range(0, len(cases), count):
        work = Problem.parse(cases[i].problem).operations
        speeds = [[NONE if isinstance(x, str) else f"{work / x / 1e9:.0f}" for x in row] for row in rows[i : i + count]]
        cells = zip(speeds, ratios[i : i + count], strict=True)
        body.append([cases[i].problem, *(cell for pair, ratio in cells for cell in (*pair, times(ratio)))])
    faces = [[ratio for ratio in ratios[i::count] if ratio is not None] for i in range(count)]
    for label, of in (("geometric mean", mean), ("worst", worst)):
        body.append([label, *(cell for values in faces for cell in ("", "", times(of(values))))])
    together = [*itertools.chain(*faces)]
    header = [f"GFLOP/s of {columns[0]}", *(cell for face in FACES for cell in (face, columns[1], "ratio"))]
    summary = f"All faces: geometric mean {times(mean(together))}, worst {times(worst(together))}."
    places = [f"{case.problem} {case.face}" for case in cases]
    return f"## {title}\n\n{table([header, *body])}\n\n{summary}\n{errors(places, columns, rows)}"


def mean(ratios: Sequence[float]) -> float | None:
    """The geometric mean."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else None


def worst(ratios: Sequence[float]) -> float | None:
    return min(ratios, default=None)


def machine(threads: int) -> str:
    """Processor, cores, instruction sets and versions."""
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    model, flags = processor()
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd") if name in flags]
    return (
        f"{model}, {os.cpu_count()} processors ({', '.join(sets)}), {threads} threads unless said otherwise; "
        f"{platform.system()}, Python {platform.python_version()}, {', '.join(versions)}.\n"
    )


def processor() -> tuple[str, list[str]]:
    """Its name and its instruction sets, as far as the system tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    name = re.search(r"model name\s*: (.*)", text)
    flags = re.search(r"(?:flags|Features)\s*: (.*)", text)
    return name[1] if name else platform.processor() or platform.machine(), flags[1].split() if flags else []


def write(text: str) -> None:
    """Put the results between the marks in docs/benchmarks.md."""
    document = PLACE.read_text(encoding="utf-8")
    head, rest = document.split(BEGIN)
    PLACE.write_text(f"{head}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")
