"""Options of networks on the command line: NAME=VALUE."""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from juanji.errors import ArgumentError
from juanji.models.registry import EVERYWHERE
from juanji.train import TTA

Options = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="An option of the network, such as width=0.5 or stem=small; may be given several times. "
        "`juanji models NAME` lists them.",
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        help="How images come to that size: crop (the middle is cut out), stretch or pad.", show_default=False
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where the files of built-in datasets lie, or are downloaded to.", show_default=False),
]
SkipUnreadable = Annotated[
    bool, typer.Option("--skip-unreadable", help="Do without images that cannot be read; else they are refused.")
]
Tta = Annotated[
    str | None,
    typer.Option(help=f"Views of each image that are averaged: {', '.join(TTA)}.  [default: the run's]"),
]


def settings(command: str, given: Sequence[str]) -> dict[str, Any]:
    """`width=0.5` as {"width": 0.5}, `channels=4,8` as {"channels": (4, 8)}; `value_of` says how values are read.

    Raises ArgumentError for what has no name before an equals sign, a name given twice, and what every network has.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals or name in found or name in (*EVERYWHERE, "seed"):
            raise ArgumentError(
                f"{command}: bad --option",
                received=repr(text),
                rule="NAME=VALUE, each name once, of what only some networks have",
                fix="--option width=0.5 --option stem=small",
            )
        found[name] = value_of(value)
    return found


def value_of(text: str) -> Any:
    """A number, true or false, or several values with commas between, as JSON or Python writes them; else text."""
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            return read(text)
    return text


UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(command: str, option: str, text: str) -> float:
    """`90s`, `10m` or `1.5h` as seconds. Raises ArgumentError for anything else."""
    with contextlib.suppress(ValueError):
        if text[-1:] in UNITS and 0 < (value := float(text[:-1]) * UNITS[text[-1]]) < float("inf"):
            return value
    raise ArgumentError(
        f"{command}: bad {option}",
        received=repr(text),
        rule="a number above 0 and a unit: s, m or h",
        fix=f"{option} 10m",
    )
