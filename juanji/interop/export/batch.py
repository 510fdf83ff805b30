"""Which sizes belong to the batch: a function is traced with two numbers of images, and what differs counts them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from juanji import tree
from juanji.errors import ArgumentError
from juanji.graph import Graph, Node
from juanji.tensor import Tensor

SMALL, LARGE = 2, 3  # images of the two traces; one alone is treated in ways of its own


@dataclass(frozen=True)
class Batch:
    """A size of `per` for each image."""

    per: int

    def __str__(self) -> str:
        return "N" if self.per == 1 else f"{self.per}*N"


Size = int | Batch


class Sizes:
    """The sizes of a graph's tensors, each a number or a Batch.

    small  the graph that is exported, of SMALL images where `large` is given
    large  the same function traced with LARGE images; None where the batch is a fixed number
    """

    def __init__(self, small: Graph, large: Graph | None = None) -> None:
        self.graphs = small, large  # tensors are known by identity, so they have to stay
        self.twins: dict[int, Any] = {}
        if large is not None:
            self.pair(zip(small.inputs, large.inputs, strict=True))
            self.pair((x, large.cells[cell]) for cell, x in small.cells.items())
            self.pair_nodes(small.nodes, large.nodes)
            outputs, others = list(tree.leaves(small.outputs)), list(tree.leaves(large.outputs))
            if len(outputs) != len(others):
                raise depends_on_batch("the number of results", f"{len(outputs)} and {len(others)}")
            self.pair(zip(outputs, others, strict=True))

    def pair(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self.twins.update((id(x), twin) for x, twin in pairs if x is not None)

    def pair_nodes(self, nodes: tuple[Node, ...], twins: tuple[Node, ...]) -> None:
        for node, twin in zip(nodes, twins, strict=False):
            if node.name != twin.name or len(node.inputs) != len(twin.inputs):
                raise depends_on_batch(node.name, f"{node.name} becomes {twin.name}", at=node.path)
            self.twins[id(node)] = twin
            self.pair(zip(node.inputs, twin.inputs, strict=True))
            self.pair(zip(node.outputs, twin.outputs, strict=True))
            self.pair_nodes(node.body, twin.body)
        if len(nodes) != len(twins):
            raise depends_on_batch("the graph", f"{len(nodes)} and {len(twins)} operations")

    def twin(self, thing: Any) -> Any:
        """The tensor or node that stands in the other trace for this one."""
        return self.twins.get(id(thing), thing)

    def of(self, tensor: Tensor) -> tuple[Size, ...]:
        """The shape of a tensor. Raises ArgumentError for a size that is no multiple of the number of images."""
        other = self.twin(tensor).shape
        if len(other) != tensor.ndim:
            raise depends_on_batch("a shape", f"{tensor.shape} and {other}")
        sizes: list[Size] = []
        for n, m in zip(tensor.shape, other, strict=True):
            if n != m and n * LARGE != m * SMALL:
                raise depends_on_batch("a shape", f"{tensor.shape} and {other}")
            sizes.append(n if n == m else Batch(n // SMALL))
        return tuple(sizes)


def depends_on_batch(what: str, received: str, at: str = "") -> ArgumentError:
    return ArgumentError(
        f"to_onnx: {what} depends on the number of images in another way than by repetition",
        at=at,
        received=f"with {SMALL} and {LARGE} images: {received}",
        rule="in a graph of any batch, sizes are fixed or multiples of N and everything else is fixed",
        fix="dynamic_batch=False, which fixes the number of images",
    )
