"""In which order features are numbered where images are flattened, or made of features, read off a traced graph.

PyTorch numbers the elements of a flattened image by (C, *X), juanji by (*X, C). An *order* says of each of our features
which number it has in PyTorch. Dense layers, and what stands between them and the flattening, are stored in that order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from juanji.cell import Cell
from juanji.errors import WeightsError
from juanji.graph import Array, Graph, Node
from juanji.nn import Linear, Module

Orders = tuple[Array | None, Array | None]  # of what a layer is given, and of what it returns
CONVOLUTIONS = ("conv", "conv_input_grad", "deform_conv", "locally_connected")
MOVING = ("transpose", "flip", "pad", "slice", "take", "scatter", "cumsum", "group_norm")


def feature_orders(graph: Graph, modules: Iterable[Module]) -> dict[Module, Orders]:
    """The orders of the layers that are given, or return, flattened images.

    Raises WeightsError where flattened features reach what cannot be followed.
    """
    nodes, places = graph.nodes, {module.place: module for module in modules}
    orders = Tracker(nodes).orders
    found: dict[Module, Orders] = {}
    for node in nodes:
        module = places.get(node.path)
        now = orders.get(id(node.inputs[0])), orders.get(id(node.outputs[0]))
        if isinstance(module, Linear) and node.name == "matmul":
            if not same(found.setdefault(module, now), now):
                raise lost(node)
        elif any(order is not None for order in now) and node.name == "matmul":
            raise lost(node)
        elif any(order is not None for order in now) and module is not None and not isinstance(module, Linear):
            found[module] = now
    return found


def same(before: Orders, now: Orders) -> bool:
    """Whether a layer that is called once more is given and returns features in the same orders."""
    return all(np.array_equal(a, b) for a, b in zip(before, now, strict=True))  # type: ignore[arg-type]


def own_cells(module: Module, *kinds: str) -> dict[str, Cell]:
    """The parameters and buffers of a module itself, by name."""
    return {name: cell for name, cell in module._cells.items() if cell.kind in (kinds or ("parameter", "buffer"))}


class Tracker:
    """The orders of the tensors of a graph, by identity, for those that have one.

    Whatever has more than two axes is taken for an image (N, *X, C), except where features (N, F) were given more axes
    and no convolution follows. A composite is one node, as whatever it does inside is none of the network's flattening.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.orders: dict[int, Array] = {}
        self.convolved: set[int] = set()
        self.no_images: set[int] = set()
        for node in reversed(nodes):
            self.look_ahead(node)
        for node in nodes:
            self.follow(node)
        for node in reversed(nodes):
            self.follow_back(node)

    def look_ahead(self, node: Node) -> None:
        """What goes into a convolution through functions that keep the number of axes."""
        y = node.outputs[0]
        if node.name in CONVOLUTIONS or id(y) in self.convolved:
            self.convolved.update(id(x) for x in tensors(node) if x.ndim == y.ndim)

    def makes_image(self, node: Node) -> bool:
        """Whether features (N, F) become an image (N, *X, C)."""
        x, y = node.inputs[0], node.outputs[0]
        return node.name == "reshape" and flattens(y, x) and (y.ndim > 3 or id(y) in self.convolved)

    def follow(self, node: Node) -> None:
        """The order of a node's output from those of its inputs: flattening begins one, a matrix product ends it."""
        x, y = node.inputs[0], node.outputs[0]
        known = [self.orders.get(id(x)) for x in tensors(node)]
        order = next((order for order in known if order is not None), None)
        foreign = any(id(x) in self.no_images for x in tensors(node))
        if node.name == "reshape" and flattens(x, y) and not foreign:
            order = channels_last(x.shape[1:])
        elif self.makes_image(node) or node.name == "matmul":
            order = None
        elif order is not None and node.name == "concat" and y.shape[-1:] != order.shape:
            order = joined(node, known)
        elif order is not None and (moves(node) or not all(o is None or np.array_equal(o, order) for o in known)):
            raise lost(node)
        elif foreign or (node.name == "reshape" and flattens(y, x)):
            self.no_images.add(id(y))
        if order is not None and y.shape[-1:] == order.shape:
            self.orders[id(y)] = order

    def follow_back(self, node: Node) -> None:
        """The orders of a node's inputs from that of its output: features that become an image have one, too."""
        y = node.outputs[0]
        order = None if node.name == "matmul" else self.orders.get(id(y))
        if self.makes_image(node):
            order = channels_last(y.shape[1:])
        if order is not None:
            fitting = (x for x in tensors(node) if x.ndim == 2 and x.shape[-1:] == order.shape)
            self.orders.update((id(x), order) for x in fitting if id(x) not in self.orders)


def moves(node: Node) -> bool:
    """Whether features have other places afterwards, or meet functions to which their places matter."""
    x, y = node.inputs[0], node.outputs[0]
    return node.name in MOVING or (node.name == "reshape" and x.shape[-1:] != y.shape[-1:])


def tensors(node: Node) -> list[Any]:
    return [x for x in node.inputs if x is not None]


def flattens(x: Any, y: Any) -> bool:
    """Whether y (N, features) can be x (N, *X, C)."""
    return y.ndim == 2 < x.ndim and x.shape[0] == y.shape[0]


def channels_last(shape: Sequence[int]) -> Array | None:
    """PyTorch's number of each element of a flattened image (*X, C); None if both number them alike."""
    channels, places = shape[-1], math.prod(shape[:-1])
    return None if 1 in (channels, places) else np.arange(channels * places).reshape(channels, places).T.ravel()


def joined(node: Node, known: Sequence[Array | None]) -> Array:
    """The order of features side by side."""
    sizes = [x.shape[-1] for x in tensors(node)]
    parts = zip(np.cumsum([0, *sizes]), sizes, known, strict=False)  # the last sum is that of all
    return np.concatenate([start + (np.arange(n) if order is None else order) for start, n, order in parts])


def lost(node: Node) -> WeightsError:
    return WeightsError(
        "the order of flattened features cannot be followed",
        at=node.path,
        received=f"{node.name} of features that are a flattened image",
        rule="between flattening and a Linear come only functions that leave each feature in its place, and put only "
        "features of one order together; a Linear that is called twice is given the same",
    )
