"""From a traced graph to operations of ONNX: each node by its entry in the table, or else by its parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from juanji import tree
from juanji.errors import ArgumentError, JuanjiError
from juanji.graph import Node, flatten
from juanji.interop.export import layers, movement, pointwise, reduction, windows
from juanji.interop.export.batch import Batch, depends_on_batch
from juanji.interop.export.builder import Builder, Constant
from juanji.interop.export.table import ELEMENTWISE, ENTRIES
from juanji.tensor import Tensor

FAMILIES = (layers, movement, pointwise, reduction, windows)  # whose import fills the table
# These look at the sizes of tensors instead of their options, which the batch may change.
BY_SIZES = ("reshape", "broadcast_to", "slice")


def write(b: Builder, nodes: Sequence[Node], wanted: set[int]) -> None:
    """Write the nodes that the tensors in `wanted` need, which gains what those need in turn."""
    for node in live(nodes, wanted):
        b.path = node.path
        try:
            write_node(b, node, wanted)
        except JuanjiError as error:
            error.at = error.at or node.path
            raise


def write_node(b: Builder, node: Node, wanted: set[int]) -> None:
    """Write a node as a whole, or else its parts."""
    if not inner(node) & wanted and (worked_out(b, node) or entered(b, node)):
        return
    if not node.body:
        raise no_counterpart(node)
    write(b, node.body, wanted)


def live(nodes: Sequence[Node], wanted: set[int]) -> list[Node]:
    kept = []
    for node in reversed(nodes):
        if (inner(node) | set(map(id, node.outputs))) & wanted:
            kept.append(node)
            wanted.update(map(id, node.inputs))
    return kept[::-1]


def inner(node: Node) -> set[int]:
    """The tensors between the parts of a composite. Derivatives speak of them, networks do not."""
    made = {id(x) for part in flatten(node.body) for x in part.outputs}
    return made.difference(map(id, node.outputs))


def entered(b: Builder, node: Node) -> bool:
    """Write a node by its entry; false where there is none for it."""
    if node.name not in ENTRIES:
        return False
    twin = b.sizes.twin(node)
    if node.name not in BY_SIZES and node.attrs != twin.attrs:
        raise depends_on_batch(node.name, f"{dict(node.attrs)} and {dict(twin.attrs)}")
    result = ENTRIES[node.name](b, node)
    if result is None:
        return False
    results = result if isinstance(result, tuple) else (result,)
    b.values.update((id(x), value) for x, value in zip(node.outputs, results, strict=True))
    return True


def worked_out(b: Builder, node: Node) -> bool:
    """Compute a node of which every input is known, such as half of a batch normalisation that is taken apart."""
    found = [b.value(x) for x in node.inputs if x is not None]
    constants = [value.array for value in found if isinstance(value, Constant)]
    if len(constants) < len(found) or node.name in ("transpose", "broadcast_to", "reshape", "identity"):
        return False
    if node.name in ELEMENTWISE:
        given: Iterable[Tensor | None] = map(Tensor, np.broadcast_arrays(*constants))
    elif any(isinstance(n, Batch) for x in (*node.inputs, *node.outputs) if x is not None for n in b.sizes.of(x)):
        return False
    else:
        arrays = iter(constants)
        given = [None if x is None else Tensor(np.broadcast_to(next(arrays), x.shape)) for x in node.inputs]
    results = tree.leaves(node.record(*given, **node.attrs))
    b.values.update((id(x), Constant(y.array)) for x, y in zip(node.outputs, results, strict=True))
    return True


def no_counterpart(node: Node) -> ArgumentError:
    shapes = ", ".join(str(x.shape) for x in node.inputs if x is not None)
    options = ", ".join(f"{key}={value}" for key, value in node.attrs.items())
    return ArgumentError(
        f"to_onnx: {node.name} has no counterpart in ONNX",
        received=f"{node.name} of {shapes}" + (f" with {options}" if options else ""),
        rule="what is exported is a network in use: no gradients, no random numbers",
        fix="export the network itself, not a step of its training",
    )
