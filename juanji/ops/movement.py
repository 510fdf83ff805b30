"""Operators that move elements and compute nothing: all linear, each the transpose of another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.graph import Array, Geometry, Linear, LinearInAll, Primitive, primitive
from juanji.ops._geometry import away, axes_of, axis_of, same_dtype, shape_of
from juanji.tensor import Tensor, method

Index = tuple[tuple[int, int, int], ...]


def sizes_of(args: Sequence[Any]) -> tuple[Any, ...]:
    """`f(2, 3)` and `f((2, 3))` alike."""
    return tuple(args[0]) if len(args) == 1 and np.ndim(args[0]) else tuple(args)


# reshape and transpose

reshape_p: Primitive = primitive(
    "reshape",
    lambda x, shape: (shape_of("reshape", shape, x.size), x.dtype),
    lambda x, shape: x.reshape(shape),
    Linear(lambda g, x, shape: reshape_p(g, shape=x.shape)),
    lambda rng: [((away(rng, 2, 6),), {"shape": (3, 4)}), ((away(rng, 1),), {"shape": ()})],
)


@method
def reshape(x: Any, *shape: Any) -> Tensor:
    """The same elements in another shape; one size may be −1. Raises ShapeError where they do not fit."""
    x = Tensor.of(x)
    return reshape_p(x, shape=shape_of("reshape", sizes_of(shape), x.size))


@method
def flatten(x: Any, start: int = 1) -> Tensor:
    """The axes from `start` on made one: (N, H, W, C) becomes (N, H·W·C); x itself where there are none."""
    x = Tensor.of(x)
    return x if x.ndim <= start else reshape(x, *x.shape[:start], math.prod(x.shape[start:]))


def transpose_geometry(x: Tensor, *, axes: tuple[int, ...]) -> Geometry:
    return tuple(x.shape[a] for a in axes), x.dtype


transpose_p: Primitive = primitive(
    "transpose",
    transpose_geometry,
    lambda x, axes: x.transpose(axes),
    Linear(lambda g, x, axes: transpose_p(g, axes=tuple(int(a) for a in np.argsort(axes)))),
    lambda rng: [((away(rng, 2, 3, 4),), {"axes": (2, 0, 1)})],
)


@method
def transpose(x: Any, *axes: Any) -> Tensor:
    """The axes in another order, reversed by default. Raises ShapeError unless each axis comes once."""
    x = Tensor.of(x)
    order = tuple(axis_of("transpose", a, x.ndim) for a in sizes_of(axes)) or tuple(range(x.ndim))[::-1]
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError("transpose: every axis once, please", received=f"axes {order}", rule=f"{x.ndim} axes")
    return x if order == tuple(range(x.ndim)) else transpose_p(x, axes=order)


def moveaxis(x: Any, source: int, target: int) -> Tensor:
    """Axis `source` moved to place `target`, the others in order."""
    x = Tensor.of(x)
    order = [a for a in range(x.ndim) if a != axis_of("moveaxis", source, x.ndim)]
    order.insert(axis_of("moveaxis", target, x.ndim), axis_of("moveaxis", source, x.ndim))
    return transpose(x, *order)


def expand_dims(x: Any, axis: int) -> Tensor:
    """A new axis of size 1 at place `axis`."""
    x = Tensor.of(x)
    place = axis_of("expand_dims", axis, x.ndim + 1)
    return reshape(x, *x.shape[:place], 1, *x.shape[place:])


def squeeze(x: Any, axis: int | None = None) -> Tensor:
    """Without the axis (or all axes) of size 1. Raises ShapeError for an axis of another size."""
    x = Tensor.of(x)
    axes = [a for a, n in enumerate(x.shape) if n == 1] if axis is None else [axis_of("squeeze", axis, x.ndim)]
    if any(x.shape[a] != 1 for a in axes):
        raise ShapeError(f"squeeze: axis {axis} is not of size 1", received=f"shape {x.shape}")
    return reshape(x, *(n for a, n in enumerate(x.shape) if a not in axes))


# flip: its own transpose

flip_p: Primitive = primitive(
    "flip",
    lambda x, axes: (x.shape, x.dtype),
    lambda x, axes: np.flip(x, axes),
    Linear(lambda g, x, axes: flip_p(g, axes=axes)),
    lambda rng: [((away(rng, 3, 4),), {"axes": (0, 1)})],
)


def flip(x: Any, axis: int | Sequence[int] | None = None) -> Tensor:
    """The elements in reverse order along some axes; over both axes of an image it is the rot180 of 002."""
    x = Tensor.of(x)
    return flip_p(x, axes=axes_of("flip", axis, x.ndim))


# pad with zeros, between elements too, and slice with steps: transposes of each other


def pad_geometry(x: Tensor, *, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]) -> Geometry:
    if not len(low) == len(high) == len(interior) == x.ndim or min((*low, *high, *interior), default=0) < 0:
        raise ArgumentError(
            "pad: bad widths", received=f"{low}, {high}, {interior}", rule=f"{x.ndim} numbers each, ≥ 0"
        )
    grown = (n + max(n - 1, 0) * i for n, i in zip(x.shape, interior, strict=True))
    return tuple(a + n + b for a, n, b in zip(low, grown, high, strict=True)), x.dtype


def pad_define(x: Array, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]) -> Array:
    shape = [a + n + max(n - 1, 0) * i + b for a, n, i, b in zip(low, x.shape, interior, high, strict=True)]
    result = np.zeros(shape, x.dtype)
    result[tuple(slice(a, size - b, i + 1) for a, size, b, i in zip(low, shape, high, interior, strict=True))] = x
    return result


def pad_transpose(
    g: Tensor, x: Tensor, *, low: tuple[int, ...], high: tuple[int, ...], interior: tuple[int, ...]
) -> Tensor:
    return slice_p(g, index=tuple((a, n - b, i + 1) for a, n, b, i in zip(low, g.shape, high, interior, strict=True)))


pad_p: Primitive = primitive(
    "pad",
    pad_geometry,
    pad_define,
    Linear(pad_transpose),
    lambda rng: [((away(rng, 2, 3),), {"low": (1, 0), "high": (0, 2), "interior": (0, 1)})],
)


def slice_geometry(x: Tensor, *, index: Index) -> Geometry:
    return tuple(len(range(*bounds)) for bounds in index), x.dtype


def slice_transpose(g: Tensor, x: Tensor, *, index: Index) -> Tensor:
    interior = tuple(step - 1 for _, _, step in index)
    low = tuple(start if n else 0 for (start, _, _), n in zip(index, g.shape, strict=True))
    used = [a + n + max(n - 1, 0) * i for a, n, i in zip(low, g.shape, interior, strict=True)]
    return pad_p(g, low=low, high=tuple(n - u for n, u in zip(x.shape, used, strict=True)), interior=interior)


slice_p: Primitive = primitive(
    "slice",
    slice_geometry,
    lambda x, index: x[tuple(slice(*bounds) for bounds in index)],
    Linear(slice_transpose),
    lambda rng: [((away(rng, 5, 7),), {"index": ((1, 4, 1), (0, 7, 3))})],
)


# take along an axis by one index for all, and its transpose, which adds up


def check_inside(x: Tensor, index: Tensor, axis: int) -> None:
    """Raise unless the index has whole numbers and, where they have values, they count along the axis."""
    if index.dtype.kind not in "iu":
        raise DTypeError("take: indices are whole numbers", received=str(index.dtype), fix='index.astype("int64")')
    if index.has_value and index.size and not -x.shape[axis] <= index.array.min() <= index.array.max() < x.shape[axis]:
        raise ShapeError(
            "take: an index points outside",
            received=f"{index.array.min()} … {index.array.max()} along axis {axis} of {x.shape}",
            rule=f"{-x.shape[axis]} … {x.shape[axis] - 1}",
        )


def take_geometry(x: Tensor, index: Tensor, *, axis: int) -> Geometry:
    check_inside(x, index, axis)
    return x.shape[:axis] + index.shape + x.shape[axis + 1 :], x.dtype


def scatter_define(g: Array, index: Array, axis: int, size: int) -> Array:
    """Add every slice of `g` along the axes of the index to the place its index names."""
    moved = np.moveaxis(g, range(axis, axis + index.ndim), range(index.ndim))
    result = np.zeros((size, *moved.shape[index.ndim :]), g.dtype)
    np.add.at(result, index, moved)
    return np.moveaxis(result, 0, axis)


def scatter_geometry(g: Tensor, index: Tensor, *, axis: int, size: int) -> Geometry:
    return (*g.shape[:axis], size, *g.shape[axis + index.ndim :]), g.dtype


take_p: Primitive = primitive(
    "take",
    take_geometry,
    lambda x, index, axis: np.take(x, index, axis),
    Linear(lambda g, x, index, axis: scatter(g, index, axis=axis, size=x.shape[axis])),
    lambda rng: [((away(rng, 3, 4), rng.integers(0, 4, (2, 3))), {"axis": 1})],
)
scatter: Primitive = primitive(
    "scatter",
    scatter_geometry,
    scatter_define,
    Linear(lambda g, y, index, axis, size: take_p(g, index, axis=axis)),
    lambda rng: [((away(rng, 3, 2, 3), rng.integers(0, 4, (2, 3))), {"axis": 1, "size": 4})],
)


def take(x: Any, index: Any, axis: int = 0) -> Tensor:
    """Slices of x by number along `axis`, as `np.take`. Raises ShapeError for an index outside."""
    x = Tensor.of(x)
    return take_p(x, Tensor.of(index), axis=axis_of("take", axis, x.ndim))


# concat


def concat_geometry(*xs: Tensor, axis: int) -> Geometry:
    same_dtype("concat", *xs)
    rest = {x.shape[:axis] + x.shape[axis + 1 :] for x in xs}
    if len(rest) > 1 or len({x.ndim for x in xs}) > 1:
        raise ShapeError(
            "concat: the shapes differ off the axis",
            received=", ".join(str(x.shape) for x in xs),
            rule=f"equal sizes except along axis {axis}",
        )
    return (*xs[0].shape[:axis], sum(x.shape[axis] for x in xs), *xs[0].shape[axis + 1 :]), xs[0].dtype


def concat_transpose(g: Tensor, arg: int, *xs: Tensor, axis: int) -> Tensor:
    start = sum(x.shape[axis] for x in xs[:arg])
    bounds = [(0, n, 1) for n in g.shape]
    bounds[axis] = (start, start + xs[arg].shape[axis], 1)
    return slice_p(g, index=tuple(bounds))


concat_p: Primitive = primitive(
    "concat",
    concat_geometry,
    lambda *xs, axis: np.concatenate(xs, axis),
    LinearInAll(concat_transpose),
    lambda rng: [((away(rng, 2, 3), away(rng, 2, 1), away(rng, 2, 2)), {"axis": 1})],
)


@method
def concat(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors joined along an axis they have. Raises ShapeError unless all other sizes agree."""
    tensors = [Tensor.of(x) for x in xs]
    if not tensors:
        raise ArgumentError("concat: nothing to join", received="no tensors", rule="at least one")
    return concat_p(*tensors, axis=axis_of("concat", axis, tensors[0].ndim))


@method
def stack(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    return concat([expand_dims(x, axis) for x in xs], axis)


# indexing


@method
def getitem(x: Any, index: Any) -> Tensor:
    """`x[index]` with whole numbers, slices (negative steps too), `...`, None, and arrays of indices or truth values.

    Arrays of indices may stand on one axis, or on several neighbouring ones, together, as in NumPy. Truth values need
    a value, so they cannot be traced.
    """
    x = Tensor.of(x)
    items = full_index(x, index if isinstance(index, tuple) else (index,))
    bounds, flips, arrays = [], [], {}
    for axis, item in enumerate(entry for entry in items if entry is not None):
        size = x.shape[axis]
        if isinstance(item, slice):
            taken = range(*item.indices(size))
            reverse = taken.step < 0
            taken = taken[::-1] if reverse else taken
            bounds.append((taken.start, max(taken.stop, taken.start), taken.step))
            flips += [axis] if reverse else []
        elif hasattr(item, "__index__") and not (isinstance(item, Tensor | np.ndarray) and item.ndim):
            place = axis_position(item.__index__(), size, axis, x.shape)
            bounds.append((place, place + 1, 1))
        else:
            bounds.append((0, size, 1))
            arrays[axis] = item
    if any(bound != (0, n, 1) for bound, n in zip(bounds, x.shape, strict=True)):
        x = slice_p(x, index=tuple(bounds))
    x = flip(x, flips) if flips else x
    return arrange(x, items, arrays)


def full_index(x: Tensor, index: tuple[Any, ...]) -> list[Any]:
    """The index with `...` spelled out and truth values turned into numbers: one entry an axis, and the Nones."""
    items = [np.array(item, None if item else np.int64) if isinstance(item, list) else item for item in index]
    axes = sum(map(spanned, items))
    if axes > x.ndim:
        raise ShapeError("too many indices", received=f"{axes} indices for shape {x.shape}")
    if any(isinstance(item, Tensor | np.ndarray) and item.ndim for item in items):  # then numbers are indices too
        items = [np.array([item]) if isinstance(item, int | np.integer) else item for item in items]
    dots = next((i for i, item in enumerate(items) if item is Ellipsis), len(items))
    return list(numbered(x, [*items[:dots], *[slice(None)] * (x.ndim - axes), *items[dots + 1 :]]))


def is_truth(item: Any) -> bool:
    return isinstance(item, bool) or getattr(item, "dtype", None) == np.dtype(bool)


def spanned(item: Any) -> int:
    """How many axes an entry of an index speaks of."""
    return 0 if item is None or item is Ellipsis else len(getattr(item, "shape", ())) if is_truth(item) else 1


def numbered(x: Tensor, items: Sequence[Any]) -> Iterator[Any]:
    """The entries with truth values as the numbers of the true ones. Raises ShapeError where they do not fit x."""
    axis = 0
    for item in items:
        span, shape = x.shape[axis : axis + spanned(item)], getattr(item, "shape", ())
        axis += len(span)
        if not is_truth(item):
            yield item
        elif shape == span != ():
            yield from np.nonzero(np.asarray(item))
        else:
            raise ShapeError(
                "truth values do not fit the axes they choose from",
                received=f"{shape} for {span} of shape {x.shape}",
                rule="one for each element of at least one axis",
                fix="jj.where chooses by a single one" if span == () else "",
            )


def axis_position(place: int, size: int, axis: int, shape: tuple[int, ...]) -> int:
    if not -size <= place < size:
        raise IndexError(f"index {place} is outside axis {axis} of shape {shape}: {-size} … {size - 1}")
    return place % size


def arrange(x: Tensor, items: Sequence[Any], arrays: dict[int, Any]) -> Tensor:
    """Drop the axes that had a number, add those for None, and take by the arrays."""
    axes = [item for item in items if item is not None]
    shape: list[int] = []
    first = None
    sizes = iter(x.shape)
    for item in items:
        size = 1 if item is None else next(sizes)
        is_array = any(item is array for array in arrays.values())
        first = len(shape) if is_array and first is None else first
        if item is None or isinstance(item, slice) or is_array:
            shape.append(size)
    x = reshape(x, *shape) if tuple(shape) != x.shape else x
    if first is None:
        return x
    if list(arrays) != list(range(min(arrays), min(arrays) + len(arrays))) or len(axes) < len(arrays):
        raise ArgumentError("arrays of indices must stand on neighbouring axes", received=f"axes {list(arrays)}")
    indices = [Tensor.of(item) for item in arrays.values()]
    sizes_here = x.shape[first : first + len(indices)]
    for place, index in enumerate(indices, first):
        check_inside(x, index, place)
    if len(indices) == 1:
        return take(x, indices[0], first)
    flat = Tensor(np.int64(0))
    for index, size in zip(indices, sizes_here, strict=True):
        flat = flat * size + from_front(index, size)
    x = reshape(x, *x.shape[:first], math.prod(sizes_here), *x.shape[first + len(indices) :])
    return take(x, flat, first)


def from_front(index: Tensor, size: int) -> Tensor:
    """The index with negative numbers, which count from the end, replaced."""
    index = index.astype("int64")
    return index + (index < 0).astype("int64") * size
