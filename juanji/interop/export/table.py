"""The table from operators to functions that write them in ONNX, and how an elementwise one is entered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from juanji.graph import Node
from juanji.interop.export.builder import Builder, Constant, Value

Result = Value | Constant
# Takes the builder and a node; gives what stands for each output, or None where ONNX has nothing for these options:
# a composite is then exported by its parts.
Entry = Callable[[Builder, Node], "Result | tuple[Result, ...] | None"]

ENTRIES: dict[str, Entry] = {}
# Of these, constants may be worked out on one slice of what repeats.
ELEMENTWISE: set[str] = set()


def entry(*names: str) -> Callable[[Entry], Entry]:
    """Enter a function for the primitives or composites of these names."""

    def enter(function: Entry) -> Entry:
        ENTRIES.update(dict.fromkeys(names, function))
        return function

    return enter


def elementwise(name: str, kind: str, **attributes: Any) -> None:
    """Enter an operator on every element that ONNX has under another name."""
    ELEMENTWISE.add(name)
    ENTRIES[name] = lambda b, node: b.elementwise(kind, *node.inputs, **attributes)
