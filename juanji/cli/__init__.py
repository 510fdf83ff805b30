"""The command line: one file per command."""

from __future__ import annotations

import codecs
import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

from juanji.cli.augment import augment
from juanji.cli.cache import cache
from juanji.cli.check import check
from juanji.cli.compare import compare
from juanji.cli.evaluate import evaluate
from juanji.cli.export import export
from juanji.cli.filter import filter_image
from juanji.cli.models import models
from juanji.cli.predict import predict
from juanji.cli.profile import profile
from juanji.cli.summary import summary
from juanji.cli.train import train
from juanji.errors import JuanjiError

COMMANDS: dict[str, Callable[..., None]] = {
    "check": check,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "compare": compare,
    "export": export,
    "summary": summary,
    "models": models,
    "profile": profile,
    "augment": augment,
    "filter": filter_image,
    "cache": cache,
}

FULL = (errno.ENOSPC, errno.EFBIG, errno.EIO)  # what writing to a disk may end with

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
for name, command in COMMANDS.items():
    app.command(name)(command)


def show_version(wanted: bool) -> None:
    if wanted:
        print("juanji", metadata.version("juanji"))
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show where in the program an error was raised.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """juanji (卷积): train, try and look into convolutional networks.

    Begin with `juanji train digits`, which takes less than a minute.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. A mistake, like a warning, is told plainly; it ends with exit code 2, Ctrl-C with 130."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character must not end the program. UTF-8 lacks nothing but the bytes of files' names
        # that are not, for which JSON has escapes.
        if hasattr(stream, "reconfigure"):
            utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="backslashreplace" if utf8 else "replace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = plainly()
            try:
                app(arguments)
            finally:
                if sys.stdout:
                    sys.stdout.flush()
    except JuanjiError as error:
        if "--debug" in arguments:
            raise
        print(f"juanji: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is not None or error.errno not in FULL or "--debug" in arguments:
            raise
        # What is left to be printed goes nowhere, or Python would fail with it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        told = JuanjiError(
            "what was to be printed cannot be written",
            received=str(error.strerror),
            rule="room where the output is sent to",
            fix="make room, or send it elsewhere: > FILE",
        )
        print(f"juanji: {told}", file=sys.stderr)
        sys.exit(2)


def plainly() -> Callable[..., None]:
    """A `warnings.showwarning` that tells each warning once, without the place in the program where it came up."""
    told = set[str]()

    def tell(message: Warning | str, *place: Any, **more: Any) -> None:
        if str(message) not in told:
            told.add(str(message))
            print(f"juanji: warning: {message}", file=sys.stderr)

    return tell
