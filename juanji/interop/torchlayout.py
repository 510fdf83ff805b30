"""How a parameter lies in PyTorch's files and how in juanji's cells: one table, read in both directions.

PyTorch's images are channels first, (N, C, *X), and so are the kernels; juanji's are channels last. Two things follow:
axes are in another order, which the layer's class says; and where images are flattened, the features that the next
dense layer sees are numbered by (C, *X) there and by (*X, C) here, which the traced graph says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from juanji.cell import Cell, Stateful
from juanji.errors import ArgumentError
from juanji.graph import Array, Graph
from juanji.interop.flattening import Orders, feature_orders, own_cells
from juanji.nn import ConvNd, LayerNorm, Linear, Module
from juanji.tensor import Tensor, trace

Axes = Callable[[int], Sequence[int]]


def kernel(rank: int) -> Sequence[int]:
    """(*k, in/groups, out) of (out, in/groups, *k); transposed, (*k, out/groups, in) of (in, out/groups, *k)."""
    return (*range(2, rank), 1, 0)


def image(rank: int) -> Sequence[int]:
    """(*X, C) of (C, *X)."""
    return (*range(1, rank), 0)


# Which axis of PyTorch's, of so many, each of ours is. Whatever is not in the table has its axes in the same order.
AXES: dict[tuple[type[Module], str], Axes] = {
    (ConvNd, "weight"): kernel,
    (LayerNorm, "weight"): image,
    (LayerNorm, "bias"): image,
}


@dataclass(frozen=True)
class Layout:
    """How a cell lies in PyTorch.

    shape   PyTorch's
    axes    which of its axes each of ours is
    orders  for some of our axes, which of PyTorch's places each of ours is
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    orders: Mapping[int, Array] = field(default_factory=dict)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of that shape in a file is this one: axes of size 1 may be missing at the end or too many,
        and a dense layer may have been written as the convolution that covers its whole input."""
        dense = len(self.shape) == 2 and len(shape) > 2
        same = trimmed(shape) == trimmed(self.shape)
        return same or (dense and (shape[0], math.prod(shape[1:])) == self.shape)

    def ours(self, array: Array) -> Array:
        """What the cell holds, from what PyTorch holds."""
        array = array.reshape(self.shape).transpose(self.axes)
        for axis, order in self.orders.items():
            array = array.take(order, axis)
        return array

    def theirs(self, array: Array) -> Array:
        """What PyTorch holds, from what the cell holds."""
        for axis, order in self.orders.items():
            array = array.take(np.argsort(order), axis)
        return array.transpose(np.argsort(self.axes))


@dataclass(frozen=True)
class AsItLies(Layout):
    """How a cell lies in a file that juanji wrote."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        return shape == self.shape


@dataclass(frozen=True)
class ForOtherImages(Layout):
    """How the kernels of a first convolution lie in a file where they are for images of another number of channels.

    channels  of the cell
    """

    channels: int = 0

    def ours(self, array: Array) -> Array:
        return with_channels(super().ours(array).astype(np.float64), self.channels)


def for_other_images(place: Layout, shape: tuple[int, ...]) -> Layout | None:
    """The layout of a first convolution's kernels that have `shape` in a file and differ in nothing but the images'
    channels: those of grey or colour images, or for grey ones here. None for all others."""
    axis = place.axes[-2]
    if len(shape) != len(place.shape) or shape == place.shape:
        return None
    same = (*shape[:axis], place.shape[axis], *shape[axis + 1 :]) == place.shape
    known = shape[axis] in (1, 3) or place.shape[axis] == 1
    return ForOtherImages(shape, place.axes, place.orders, place.shape[axis]) if same and known else None


def with_channels(kernels: Array, channels: int) -> Array:
    """Kernels (*k, C, M) for images of another number of channels: the sum for one, which answers to a grey image as
    before to the same in all channels; else repeated, times C/channels, so that answers stay as large.

    Source: timm/models/_manipulate.py, adapt_input_conv.
    """
    if channels == 1:
        return kernels.sum(-2, keepdims=True)
    before = kernels.shape[-2]
    return kernels.take(np.arange(channels) % before, -2) * (before / channels)


def trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return trimmed(shape[:-1]) if shape[-1:] == (1,) else shape


def as_they_lie(model: Stateful) -> dict[str, Layout]:
    """The layouts of a file that juanji wrote."""
    cells = model.saved_cells().items()
    return {path: AsItLies(cell.shape, tuple(range(len(cell.shape)))) for path, cell in cells}


def layouts(model: Module, graphs: Sequence[Graph]) -> dict[str, Layout]:
    """The layout of every parameter and buffer by path, given the network's graphs, none if it has no dense layers."""
    modules = model.modules()
    orders = {module: order for graph in graphs for module, order in feature_orders(graph, modules.values()).items()}
    by_cell = {}
    for module in modules.values():
        for name, cell in own_cells(module).items():
            by_cell[cell] = layout(cell, axes_of(module, name), axis_orders(module, name, cell, orders.get(module)))
    return {path: by_cell[cell] for path, cell in model.cells("parameter", "buffer").items()}


def layout(cell: Cell, axes: Axes, orders: Mapping[int, Array] | None = None) -> Layout:
    order = tuple(axes(len(cell.shape)))
    shape = tuple(cell.shape[axis] for axis in np.argsort(order))
    return Layout(shape, order, orders or {})


def axes_of(module: Module, name: str) -> Axes:
    found = (axes for (kind, cell), axes in AXES.items() if isinstance(module, kind) and cell == name)
    return next(found, range)


def axis_orders(module: Module, name: str, cell: Cell, orders: Orders | None) -> dict[int, Array]:
    """The axes of a layer's cell that number features which come in, or go out, as flattened images."""
    if orders is None or not cell.shape:
        return {}
    given, returned = orders
    if isinstance(module, Linear):
        axes = {0: returned, 1: given} if name == "weight" else {0: returned}
    else:
        axes = {0: given if returned is None else returned}
    return {axis: order for axis, order in axes.items() if order is not None and len(order) == cell.shape[axis]}


def traced(name: str, model: Module, input_shape: Sequence[int] | None) -> tuple[Graph, ...]:
    """The graph of a network in evaluation mode, for two images, and that in training mode if more takes part in it.

    Raises ArgumentError, as of the function `name`, where the shape of its input is unknown.
    """
    config = getattr(model, "config", None)
    if input_shape is None and config is None:
        raise ArgumentError(
            f"{name}: the shape of the network's input is needed",
            received=f"{model.class_name}, which models.create did not make",
            rule="it says in which order a dense layer sees the features of flattened images",
            fix="input_shape=(H, W, C), such as input_shape=(32, 32, 3)",
        )
    shape = (*config["input_size"], config["in_channels"]) if input_shape is None else tuple(input_shape)  # type: ignore[index]
    parameters = model.cells("parameter").values()
    images = Tensor.spec((2, *shape), next((cell.dtype for cell in parameters), "float32"))
    with model.evaluating():
        evaluation = trace(model, images)
        if evaluation.cells.keys() >= {*parameters}:
            return (evaluation,)
        return evaluation, trace(model.train(), images)


def head_of(graph: Graph, model: Module) -> set[str]:
    """The parameters of the classifier and all that evaluation does not use, by path.

    The classifier is the layers that the model itself names in `heads`, or else the last that has parameters.
    """
    modules = model.modules()
    places = {module.place: module for module in modules.values()}
    layers = (places[node.path] for node in reversed(graph.flat()) if node.path in places)
    last = next((layer for layer in layers if own_cells(layer, "parameter")), model)
    named = getattr(model, "heads", None)  # a tuple of paths; a child may have that name, too
    heads = [modules[path] for path in named] if isinstance(named, tuple) else [last]
    left = {cell for layer in heads for cell in layer.cells("parameter", "buffer").values()}
    cells = model.cells("parameter", "buffer")
    return {path for path, cell in cells.items() if cell in left or cell not in graph.cells}
