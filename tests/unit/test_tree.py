"""Walking containers."""

from collections import namedtuple

import pytest

from juanji import tree
from juanji.errors import ArgumentError

Pair = namedtuple("Pair", "a b")


def test_map_keeps_the_containers():
    nested = {"x": [1, (2, None)], "y": Pair(3, {"z": 4})}
    doubled = tree.map(lambda leaf: 2 * leaf, nested)
    assert doubled == {"x": [2, (4, None)], "y": Pair(6, {"z": 8})}
    assert isinstance(doubled["y"], Pair)
    assert list(tree.leaves(nested)) == [1, 2, 3, 4]


def test_stateful_objects_are_not_leaves():
    class Owner:
        def cells(self):
            return {}

    owner = Owner()
    assert tree.map(lambda leaf: leaf + 1, [1, owner]) == [2, owner]
    assert tree.map(lambda leaf: leaf, owner, lambda o: "state") == "state"
    assert list(tree.leaves([1, owner])) == [1, owner]


def test_pairs():
    names = ("box", "lid")
    assert list(tree.pairs({"a": 1, "b": (2, None)}, {"b": [3, 4], "a": [5]}, names)) == [(1, [5]), (2, 3)]
    for other in ({"a": 1}, {"a": 1, "c": 2}, [1, 2], 3):
        with pytest.raises(ArgumentError, match=r"a lid for each box[\s\S]*in the same containers"):
            list(tree.pairs({"a": 1, "b": 2}, other, names))
