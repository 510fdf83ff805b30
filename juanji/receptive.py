"""Receptive fields: how many pixels of the image an element sees, read off a traced graph.

Each axis of a tensor is made of factors: parts of an axis of the image, in steps of so many pixels, or parts of no such
axis (batch, channels). Convolution widens the reach by (span − 1)·step and multiplies the step by the stride; summing
over a factor widens the reach by what it spans; reshaping only regroups the factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from juanji.graph import Node
from juanji.tensor import Tensor

ALL = math.inf
Reach = tuple[float, ...]


@dataclass(frozen=True)
class Factor:
    axis: int | None
    size: int
    step: float = 1.0


Dims = tuple[tuple[Factor, ...], ...]


@dataclass(frozen=True)
class Field:
    """For each axis of a tensor its factors, and how many pixels an element sees along each axis of the image."""

    dims: Dims
    reach: Reach

    def widened(self, *factors: Factor) -> Reach:
        reach = list(self.reach)
        for factor in factors:
            if factor.axis is not None:
                reach[factor.axis] += (factor.size - 1) * factor.step
        return tuple(reach)

    def contracted(self, *axes: int) -> Field:
        """Without some axes, summed over. What no factor is left of has been seen entirely."""
        gone = [factor for axis in axes for factor in self.dims[axis]]
        dims = tuple(dim for axis, dim in enumerate(self.dims) if axis not in axes)
        left = {factor.axis for dim in dims for factor in dim}
        whole = {factor.axis for factor in gone} - left
        reach = tuple(ALL if axis in whole else size for axis, size in enumerate(self.widened(*gone)))
        return Field(dims, reach)

    def replaced(self, axis: int, *factors: Factor, reach: Reach | None = None) -> Field:
        dims = (*self.dims[:axis], tuple(factors), *self.dims[axis + 1 :])
        return Field(dims, self.reach if reach is None else reach)

    def resized(self, axis: int, size: int, step: float = 1.0) -> Field:
        """Axis `axis` with another number of elements, `step` times as far apart."""
        spatial = [factor for factor in self.dims[axis] if factor.axis is not None]
        if len(spatial) != 1:
            return self.replaced(axis, Factor(None, size))
        return self.replaced(axis, Factor(spatial[0].axis, size, spatial[0].step * step))

    def spatial(self) -> int:
        return sum(factor.axis is not None for dim in self.dims for factor in dim)


def unknown(shape: Sequence[int], reach: Reach) -> Field:
    """A tensor about whose order nothing is known but that it may depend on everything."""
    return Field(tuple((Factor(None, n),) for n in shape), (ALL,) * len(reach))


def receptive_fields(image: Tensor, nodes: Sequence[Node], layout: str = "NHWC") -> dict[int, Field]:
    """The field of every tensor that depends on the image, by identity. Its channels are last, or first with "NCHW"."""
    rank, first = max(image.ndim - 2, 0), layout.index("H")
    dims = [(Factor(i - first if first <= i < first + rank else None, n),) for i, n in enumerate(image.shape)]
    fields = {id(image): Field(tuple(dims), (1.0,) * rank)}
    for node in nodes:
        known = [fields.get(id(x)) for x in node.inputs]
        if any(known):
            fields[id(node.outputs[0])] = field_of(node, known)
    return fields


def field_of(node: Node, known: list[Field | None]) -> Field:
    """By the rule of its record. Without one, results of the inputs' shape are elementwise."""
    rule = RULES.get(node.name)
    output = node.outputs[0]
    field = rule(node, known) if rule else None
    if field is None and not rule and all(x.shape == output.shape for x in node.inputs):
        field = merged(known)
    return field or unknown(output.shape, next(f for f in known if f).reach)


def merged(known: Iterable[Field | None]) -> Field:
    """Of several tensors of one shape, elementwise."""
    fields = [field for field in known if field]
    dims = max(fields, key=Field.spatial).dims
    return Field(dims, tuple(max(sizes) for sizes in zip(*(field.reach for field in fields), strict=True)))


def windowed(node: Node, known: list[Field | None]) -> Field | None:
    """Windows of a ConvSpec: convolution and pooling."""
    field, spec = known[0], node.attrs["spec"]
    if field is None:
        return None
    for axis, (k, d, s, y) in enumerate(zip(spec.kernel, spec.dilation, spec.stride, spec.output, strict=True), 1):
        taps = [Factor(f.axis, k, f.step * d) for f in field.dims[axis]]
        field = Field(field.resized(axis, y, s).dims, field.widened(*taps))
    return field.replaced(len(field.dims) - 1, Factor(None, node.outputs[0].shape[-1]))


def unfolded(node: Node, known: list[Field | None]) -> Field | None:
    """Patches (N, *Y, C, *K): the taps are factors of their own, not yet summed over."""
    field, spec = known[0], node.attrs["spec"]
    if field is None:
        return None
    taps = [
        tuple(Factor(f.axis, k, f.step * d) for f in field.dims[axis])
        for axis, (k, d) in enumerate(zip(spec.kernel, spec.dilation, strict=True), 1)
    ]
    for axis, (s, y) in enumerate(zip(spec.stride, spec.output, strict=True), 1):
        field = field.resized(axis, y, s)
    return Field((*field.dims, *taps), field.reach)


def transposed(node: Node, known: list[Field | None]) -> Field | None:
    """The same windows walked backwards: ⌈span/stride⌉ inputs reach an output."""
    field, spec = known[-1], node.attrs["spec"]
    if field is None:
        return None
    for axis, (span, s, x) in enumerate(zip(spec.span, spec.stride, spec.input, strict=True), 1):
        seen = [Factor(f.axis, -(-span // s), f.step) for f in field.dims[axis]]
        field = Field(field.resized(axis, x, 1 / s).dims, field.widened(*seen))
    dims = field.dims[: spec.rank + 1]
    return Field((*dims, (Factor(None, node.outputs[0].shape[-1]),)), field.reach)


def reshaped(node: Node, known: list[Field | None]) -> Field | None:
    """The same factors grouped anew, split where a new axis needs a part of one."""
    (field,) = known
    rest = [factor for dim in field.dims for factor in dim]  # type: ignore[union-attr]
    dims: list[tuple[Factor, ...]] = []
    for n in node.outputs[0].shape:
        taken: list[Factor] = []
        room = n
        while rest and ((room > 1 and room % rest[0].size == 0) or (n == 1 and not taken and rest[0].size == 1)):
            taken.append(rest.pop(0))
            room //= max(taken[-1].size, 1)
        if room > 1:
            if not rest or rest[0].size % room:
                return None
            whole = rest.pop(0)
            minor = whole.size // room
            taken.append(Factor(whole.axis, room, whole.step * minor))
            rest.insert(0, Factor(whole.axis, minor, whole.step))
        dims.append(tuple(taken))
    if dims:
        dims[-1] += tuple(rest)
    return Field(tuple(dims), field.reach)  # type: ignore[union-attr]


def multiplied(node: Node, known: list[Field | None]) -> Field | None:
    """A matrix product sums over the last axis of the left side; a fixed matrix may see only a part of it."""
    left, right = known
    a, b = node.inputs
    if right is not None:
        sides = [f.contracted(len(f.dims) - 1 - i) for i, f in enumerate((left, right)) if f]
        reach = [max(sizes) for sizes in zip(*(side.reach for side in sides), strict=True)]
        return Field(unknown(node.outputs[0].shape, ()).dims, tuple(reach))
    if left is None:
        return None
    last = len(left.dims) - 1
    spatial = [factor for factor in left.dims[last] if factor.axis is not None]
    if b.has_value and b.ndim == 2 and len(left.dims[last]) == len(spatial) == 1:
        rows = [np.flatnonzero(column) for column in np.asarray(b).T]
        span = max((int(row[-1] - row[0]) + 1 for row in rows if row.size), default=1)
        seen = Factor(spatial[0].axis, span, spatial[0].step)
        step = a.shape[-1] / b.shape[-1]
        return Field(left.resized(last, b.shape[-1], step).dims, left.widened(seen))
    summed = left.contracted(last)
    return Field((*summed.dims, (Factor(None, b.shape[-1]),)), summed.reach)


def picked(node: Node, known: list[Field | None]) -> Field | None:
    """Elements picked along an axis by a fixed index, by as many steps as they lie apart."""
    field, index, axis = known[0], node.inputs[1], node.attrs["axis"]
    if field is None or known[1] is not None or not index.has_value or index.ndim != 1:
        return None
    apart = np.abs(np.diff(np.asarray(index, np.float64)))
    return field.resized(axis, index.size, float(apart.mean()) if apart.size else 1.0)


def joined(node: Node, known: list[Field | None]) -> Field:
    axis = node.attrs["axis"]
    return merged(known).resized(axis, node.outputs[0].shape[axis])


def padded(node: Node, known: list[Field | None]) -> Field | None:
    (field,) = known
    for axis, (n, m) in enumerate(zip(node.inputs[0].shape, node.outputs[0].shape, strict=True)):
        if n != m and field is not None:
            field = field.resized(axis, m, 1 / (node.attrs["interior"][axis] + 1))
    return field


def sliced(node: Node, known: list[Field | None]) -> Field | None:
    (field,) = known
    for axis, (bounds, n) in enumerate(zip(node.attrs["index"], node.inputs[0].shape, strict=True)):
        if tuple(bounds) != (0, n, 1) and field is not None:
            field = field.resized(axis, node.outputs[0].shape[axis], bounds[2])
    return field


def stretched(node: Node, known: list[Field | None]) -> Field | None:
    (field,) = known
    new = node.outputs[0].shape
    old = (0,) * (len(new) - node.inputs[0].ndim) + node.inputs[0].shape
    dims = ((),) * (len(new) - len(field.dims)) + field.dims  # type: ignore[union-attr]
    return Field(
        tuple(dim if n == m else (Factor(None, m),) for dim, n, m in zip(dims, old, new, strict=True)),
        field.reach,  # type: ignore[union-attr]
    )


# A rule answers None where an element may depend on anything.
RULES: dict[str, Callable[[Node, list[Field | None]], Field | None]] = {
    "conv": windowed,
    "window_sum": windowed,
    "window_argmax": windowed,
    "window_gather": lambda node, known: known[1] or known[0],
    "unfold": unfolded,
    "conv_input_grad": transposed,
    "window_spread": transposed,
    "fold": transposed,
    "reshape": reshaped,
    "transpose": lambda node, known: Field(tuple(known[0].dims[a] for a in node.attrs["axes"]), known[0].reach),  # type: ignore[union-attr]
    "sum": lambda node, known: known[0].contracted(*node.attrs["axes"]),  # type: ignore[union-attr]
    "cumsum": lambda node, known: None,
    "scatter": lambda node, known: None,
    "window_scatter": lambda node, known: None,
    "conv_weight_grad": lambda node, known: None,
    "argmax": lambda node, known: known[0].contracted(node.attrs["axis"]),  # type: ignore[union-attr]
    "matmul": multiplied,
    "take": picked,
    "concat": joined,
    "pad": padded,
    "slice": sliced,
    "broadcast_to": stretched,
}


def receptive_field(fields: dict[int, Field], tensor: Tensor) -> tuple[int | None, ...]:
    """The receptive field of a tensor's elements: pixels along each axis of the image, None for all of them."""
    field = fields.get(id(tensor))
    reach = field.reach if field else ()
    return tuple(None if size == ALL else math.ceil(size - 1e-9) for size in reach)
