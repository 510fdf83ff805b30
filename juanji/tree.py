"""Walking nested containers. Dictionaries, lists, tuples and named tuples are branches; so is whatever has state.

A *stateful* object (a module, an optimiser) keeps its tensors in cells and answers `cells()` with `{name: Cell}`.
Everything else, tensors included, is a leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from juanji.errors import ArgumentError


def is_stateful(tree: Any) -> bool:
    return callable(getattr(tree, "cells", None))


def map(fn: Callable[[Any], Any], tree: Any, on_stateful: Callable[[Any], Any] = lambda owner: owner) -> Any:
    """`tree` with `fn` applied to every leaf and `on_stateful` to every stateful object, in a fixed order."""
    if tree is None:
        return None
    if is_stateful(tree):
        return on_stateful(tree)
    if isinstance(tree, dict):
        return {key: map(fn, value, on_stateful) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(map(fn, value, on_stateful) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map(fn, value, on_stateful) for value in tree)
    return fn(tree)


def leaves(tree: Any) -> Iterator[Any]:
    """The leaves of `tree` in the order of `map`, stateful objects among them."""
    found: list[Any] = []
    map(found.append, tree, found.append)
    return iter(found)


def pairs(tree: Any, other: Any, names: tuple[str, str]) -> Iterator[tuple[Any, Any]]:
    """The leaves of `tree`, stateful objects among them, each with what `other` has in its place.

    Raises ArgumentError where `other` is built of other containers; `names` says what both hold.
    """
    if tree is None:
        return
    if isinstance(tree, dict) and isinstance(other, dict) and tree.keys() == other.keys():
        for key in tree:
            yield from pairs(tree[key], other[key], names)
    elif isinstance(tree, list | tuple) and isinstance(other, list | tuple) and len(tree) == len(other):
        for branch, counterpart in zip(tree, other, strict=True):
            yield from pairs(branch, counterpart, names)
    elif isinstance(tree, dict | list | tuple):
        one, another = names
        raise ArgumentError(
            f"a {another} for each {one}, please",
            received=f"{len(list(leaves(tree)))} {one}s, {len(list(leaves(other)))} {another}s",
            rule="in the same containers",
        )
    else:
        yield tree, other
