"""juanji cache"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from juanji.errors import ArgumentError
from juanji.summary import size_of

ENTRY = re.compile("[0-9a-f]{64}")


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
        refuse_strangers(folder)
        count, size = code.clear()
        print(f"{folder}: {count} entries, {size_of(size)} removed")
        return
    sizes = [path.stat().st_size for path in files(folder) if ENTRY.fullmatch(path.name)]
    print(f"{folder}: {len(sizes)} entries, {size_of(sum(sizes))}")


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def refuse_strangers(folder: Path) -> None:
    """Raise ArgumentError if anything but entries lies in the folder: JUANJI_CACHE may name a wrong one."""
    strange = [path.name for path in files(folder) if not (ENTRY.fullmatch(path.name) or path.name.startswith("tmp"))]
    if strange:
        raise ArgumentError(
            f"cache: {folder} holds other things than compiled code, so nothing was removed",
            received=", ".join(sorted(strange)[:3]),
            fix="have JUANJI_CACHE name a folder of its own",
        )
