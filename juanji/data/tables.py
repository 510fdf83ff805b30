"""A table of image files and their labels: CSV, with commas, semicolons or tabs."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from juanji.data.images import is_image
from juanji.data.labelled import PART_NAMES, ImageFiles, Labelled, numbered
from juanji.data.source import Listed, Names
from juanji.errors import DataError

# What the columns are called; without a heading they are the path, the label and, where it names parts, the third.
HEADINGS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "image_path", "img", "id", "image_id"),
    "label": ("label", "class", "target", "category", "species", "class_name", "y"),
    "part": ("split", "part", "set", "subset", "partition"),
}
ENDINGS = (".csv", ".tsv")
DELIMITERS = ",;\t"


def in_table(path: Path) -> Labelled:
    """The images that a table names, relative to the folder that it lies in.

    A row is a path, a label and maybe a part (train, val, test), or has these under their headings. Raises DataError,
    naming the table and the line, for a row that is not; a file that is not there is told of when it is read.
    """
    labels: list[str] = []
    parts: list[int] = []
    files = Names.of(collect(path, labels, parts))
    if not len(files):
        raise bad_row(path, 1, "no row")
    classes, y = numbered(labels)
    samples = ImageFiles(Listed(path.parent, files), np.arange(len(files)))
    return Labelled(str(path), samples, y, classes, np.array(parts, np.int8) if parts else None)


def collect(path: Path, labels: list[str], parts: list[int]) -> Iterator[str]:
    """The path of each row; its label and part are added to the lists."""
    columns: tuple[int, int, int | None] | None = None
    seen: set[str] = set()
    for number, row in rows(path):
        if columns is None:
            columns, heading = find_columns(path, row)
            if heading:
                continue
        file, label, part = columns
        if len(row) <= max(file, label, part or 0) or not row[file].strip() or not row[label].strip():
            raise bad_row(path, number, repr(row)[:200])
        name = row[file].strip().replace("\\", "/")
        if (plain := posixpath.normpath(name)) in seen:
            raise bad_row(path, number, f"{name} a second time")
        if part is not None:
            if row[part].strip().lower() not in PART_NAMES:
                raise bad_row(path, number, f"part {row[part]!r}")
            parts.append(PART_NAMES[row[part].strip().lower()])
        seen.add(plain)
        labels.append(row[label].strip())
        yield name


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold anything, with the line that each ends on."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(csv.field_size_limit())
            delimiter = max(DELIMITERS, key=first.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: the table cannot be read",
            received=f"bytes that are no UTF-8: {error.reason}",
            rule="UTF-8",
            fix='save it as UTF-8; in Excel: "CSV UTF-8"',
        ) from None
    except csv.Error as error:
        raise bad_row(path, 0, str(error)[:200]) from None
    except OSError as error:
        raise DataError(
            f"{path}: the table cannot be read",
            received=error.strerror or str(error),
            fix="make it readable, or name another",
        ) from None


def find_columns(path: Path, row: Sequence[str]) -> tuple[tuple[int, int, int | None], bool]:
    """The columns of path, label and part, and whether this first row is their heading."""
    cells = [cell.strip().lower() for cell in row]
    places = {what: [cells.index(name) for name in names if name in cells] for what, names in HEADINGS.items()}
    if places["path"] and places["label"]:
        return (places["path"][0], places["label"][0], next(iter(places["part"]), None)), True
    if len(row) < 2:
        raise bad_row(path, 1, repr(row)[:200])
    third = 2 if len(row) == 3 and cells[2] in (*PART_NAMES, *HEADINGS["part"]) else None
    return (0, 1, third), not is_image(row[0].strip()) and not (path.parent / row[0].strip()).is_file()


def bad_row(path: Path, number: int, received: str) -> DataError:
    return DataError(
        f"{path}: this is not a table of image files and labels",
        received=f"line {number}: {received}" if number else received,
        rule="in each row the path of an image, once, relative to the table, and its label; maybe train, val or test",
        fix="headings path,label,split say which column is which",
    )
