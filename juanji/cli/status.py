"""What takes seconds says so."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from juanji.engine.compiled import on_definitions


def status(text: str) -> AbstractContextManager[Any]:
    """Inside, a line on the error output, which goes away; none where that is no terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    return console.status(Text(f"{text} …")) if console.is_terminal else nullcontext()


def first_call(name: str) -> str:
    """What the first call of a network of that name is: compiling it, except on the definitions."""
    return f"{'running' if on_definitions() else 'compiling'} {name}"
