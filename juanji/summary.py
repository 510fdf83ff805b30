"""What a network amounts to, read off its traced graph: sizes, parameters, multiplications.

A row is one call of a layer (a module that calls no other). Everything is counted for one sample, as in the tables of
000 and 003. Multiplications are those of convolutions and matrix products: outputs × taps × inputs each (004 §9).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from juanji import tree
from juanji.cell import Cell
from juanji.graph import Graph, Node, flatten
from juanji.receptive import Field, receptive_field, receptive_fields
from juanji.recording import Scope
from juanji.table import aligned


@dataclass(frozen=True)
class Row:
    """One call of a layer. Shapes are without the batch; the receptive field is in pixels of the input, one number an
    axis, None where the layer sees the whole of it; () for inputs that are no images."""

    path: str
    layer: str
    output: tuple[int, ...]
    parameters: int
    multiplications: int
    receptive_field: tuple[int | None, ...]
    activations: int

    def cells(self) -> tuple[str, ...]:
        """The row as the table shows it."""
        field = "all" if set(self.receptive_field) == {None} else "×".join(
            "all" if size is None else str(size) for size in self.receptive_field
        )  # fmt: skip
        counts = (f"{count:,}" if count else "" for count in (self.parameters, self.multiplications))
        return self.path, self.layer, str(self.output), *counts, field


@dataclass(frozen=True)
class Summary:
    """A network's rows and totals, for one sample. `print` shows a table; `to_dict` is for JSON.

    parameters       numbers that are trained, each counted once however often it is used
    buffers          floating numbers that are kept but not trained, such as running statistics
    multiplications  of convolutions and matrix products
    activations      numbers in the outputs of all layers; `activation_bytes` their memory
    """

    rows: tuple[Row, ...]
    parameters: int
    buffers: int
    multiplications: int
    activations: int
    activation_bytes: int

    HEADINGS = ("layer", "kind", "output", "parameters", "multiplications", "receptive field")

    def __str__(self) -> str:
        totals = [
            ("trained parameters", f"{self.parameters:,}"),
            ("buffers, not trained", f"{self.buffers:,}" if self.buffers else ""),
            ("multiplications a sample", f"{self.multiplications:,}"),
            ("activations a sample", f"{self.activations:,} ({size_of(self.activation_bytes)})"),
        ]
        table = aligned([self.HEADINGS, *(row.cells() for row in self.rows)], right=(3, 4, 5))
        rule = "─" * max(map(len, table))
        lines = [f"{name:<26}{value}" for name, value in totals if value]
        return "\n".join([table[0], rule, *table[1:], rule, *lines])

    def __repr__(self) -> str:
        return (
            f"Summary({len(self.rows) - 1} layers, {self.parameters:,} parameters, "
            f"{self.multiplications:,} multiplications)"
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def summarise(graph: Graph, layout: str = "NHWC") -> Summary:
    """The summary of a traced network; its first input is the image, or the features, whose axis 0 is the batch.

    layout  where the image's channels are: last, or first with "NCHW"
    """
    image = graph.inputs[0]
    batch = max(image.shape[0], 1) if image.shape else 1
    nodes = list(flatten(graph.nodes))
    fields = receptive_fields(image, nodes, layout)
    counted: set[Cell] = set()
    rows = [Row("input", "", image.shape[1:], 0, 0, receptive_field(fields, image), 0)]
    for scope, own, cells in calls(graph, nodes):
        parameters = total(cell for cell in cells if cell not in counted)
        rows.append(row_of(scope, own, parameters, fields, batch))
        counted.update(cells)
    counted.update(all_cells(graph))
    activations = sum(row.activations for row in rows)
    return Summary(
        tuple(rows),
        total(cell for cell in counted if cell.kind == "parameter"),
        total(cell for cell in counted if cell.kind == "buffer" and cell.dtype.kind == "f"),
        sum(map(multiplications, nodes)) // batch,
        activations,
        activations * image.dtype.itemsize,
    )


def row_of(scope: Scope, nodes: Sequence[Node], parameters: int, fields: dict[int, Field], batch: int) -> Row:
    """The row of one call. What is only reshaped or handed on is no new activation."""
    output = next(x for x in (*scope.outputs, *scope.inputs) if x.is_floating)
    computed = any(node.name not in ("reshape", "identity") for node in nodes)
    return Row(
        scope.path or type(scope.owner).__name__,
        scope.owner.label,
        output.shape[1:],
        parameters,
        sum(map(multiplications, nodes)) // batch,
        receptive_field(fields, output),
        output.size // batch if computed else 0,
    )


def total(cells: Iterable[Cell]) -> int:
    return sum(math.prod(cell.shape) for cell in cells)


def all_cells(graph: Graph) -> Iterator[Cell]:
    """The state that the graph touched, and all that the outermost module holds."""
    yield from graph.cells
    if graph.scopes and tree.is_stateful(graph.scopes[-1].owner):
        yield from graph.scopes[-1].owner.cells().values()


def calls(graph: Graph, nodes: Sequence[Node]) -> Iterator[tuple[Scope, list[Node], list[Cell]]]:
    """The calls that make rows, each with its nodes and its trained cells, in the order in which they ended.

    A module that calls others has a row only for what it computes by itself with parameters or products.
    """
    made = {id(node.outputs[0]): place for place, node in enumerate(nodes)}
    waiting = list(enumerate(nodes))
    inner: list[str] = []
    for scope in graph.scopes:
        below = f"{scope.path}." if scope.path else ""
        is_leaf = not any(path != scope.path and path.startswith(below) for path in inner)
        inner = [path for path in inner if not path.startswith(below)] + [scope.path]
        last = max((made.get(id(x), -1) for x in scope.outputs), default=-1)
        own = [
            (place, node)
            for place, node in waiting
            if place <= last and (node.path == scope.path or (is_leaf and node.path.startswith(below)))
        ]
        taken = {place for place, _ in own}
        waiting = [entry for entry in waiting if entry[0] not in taken]
        cells = trained(scope.owner, is_leaf)
        computes = any(x.is_floating for x in (*scope.outputs, *scope.inputs))
        known = scope.outputs and all(x.has_value for x in scope.outputs)  # shapes, and what is made of them
        if computes and not known and (is_leaf or cells or any(multiplications(node) for _, node in own)):
            yield scope, [node for _, node in own], cells


def trained(owner: Any, is_leaf: bool) -> list[Cell]:
    """The parameters of a layer, or those that a module made of others has of its own."""
    if not tree.is_stateful(owner):
        return []
    cells = owner.cells() if is_leaf else owner._cells
    return [cell for cell in cells.values() if cell.kind == "parameter"]


# How many products the outputs of a record sum up, over its input shapes and its output's.
Shape = tuple[int, ...]
MULTIPLICATIONS: dict[str, Callable[[Sequence[Shape], Shape], int]] = {
    "matmul": lambda inputs, output: math.prod(output) * inputs[0][-1],
    "conv": lambda inputs, output: math.prod(output) * math.prod(inputs[1][:-1]),
    "conv_input_grad": lambda inputs, output: math.prod(inputs[1]) * math.prod(inputs[0][:-1]),
    "conv_weight_grad": lambda inputs, output: math.prod(inputs[1]) * math.prod(output[:-1]),
}


def multiplications(node: Node) -> int:
    """How many products a convolution or a matrix product sums up; 0 for everything else."""
    count = MULTIPLICATIONS.get(node.name)
    return count([x.shape for x in node.inputs], node.outputs[0].shape) if count else 0


# How it is shown.


def size_of(count: int) -> str:
    """So many bytes, in kB or MB where there are many."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
