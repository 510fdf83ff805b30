"""Walking containers."""

from collections import namedtuple

from juanji import tree

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
