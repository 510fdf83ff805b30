"""juanji cache"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from juanji.summary import size_of


def cache(clear: Annotated[bool, typer.Option("--clear", help="Remove everything in it.")] = False) -> None:
    """Show where compiled code, decoded images and downloaded datasets are kept, and how much there is.

    The folder is the one that JUANJI_CACHE names, else the system's place for caches. Nothing is lost with it: what is
    not there is compiled, decoded or downloaded again.

    Example:

      juanji cache --clear
    """
    from juanji.data import packed, public
    from juanji.kernels import cache as code

    folder, removed = code.folder(), " removed" if clear else ""
    kinds: tuple[tuple[Path, Any, str], ...] = (
        (folder, code, "entries"),
        (folder / "images", packed, "sets of images"),
        (folder / "datasets", public, "files of datasets"),
    )
    for place, kept, what in kinds:
        sizes = [path.stat().st_size for path in kept.entries()]
        count, size = kept.clear() if clear else (len(sizes), sum(sizes))
        if count or place == folder:
            print(f"{place}: {count} {what}, {size_of(size)}{removed}")
