"""juanji cache"""

from __future__ import annotations

from typing import Annotated

import typer

from juanji.summary import size_of


def cache(clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False) -> None:
    """Show where compiled code is kept, and how much there is.

    The folder is the one that JUANJI_CACHE names, else the system's place for caches. Nothing is lost with it: what is
    not there is compiled again.

    Example:

      juanji cache --clear
    """
    from juanji.kernels import cache as code

    folder = code.folder()
    if clear:
        count, size = code.clear()
        print(f"{folder}: {count} entries, {size_of(size)} removed")
        return
    sizes = [path.stat().st_size for path in code.entries()]
    print(f"{folder}: {len(sizes)} entries, {size_of(sum(sizes))}")
