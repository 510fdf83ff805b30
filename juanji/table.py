"""Rows of text in columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from unicodedata import combining, east_asian_width

CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


def width(text: str) -> int:
    """How many columns of a terminal the text takes: two for each Chinese character."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def one_line(text: str) -> str:
    """The text with escapes, such as \\n, in place of control characters, which would tear a table."""
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """The rows as lines of columns; those numbered in `right` end together, the others begin together."""
    rows = [[*map(one_line, row)] for row in rows]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(pad(cell, widths[i], i in right) for i, cell in enumerate(row)).rstrip() for row in rows]


def pad(text: str, columns: int, right: bool) -> str:
    space = " " * (columns - width(text))
    return space + text if right else text + space
