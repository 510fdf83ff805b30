"""Cells, which hold all that changes, and the objects that keep them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from juanji import random, recording, tree
from juanji.errors import ArgumentError, DTypeError, ShapeError
from juanji.graph import Array
from juanji.tensor import DType, DTypeLike, Tensor

Initialiser = Callable[[Array, tuple[int, ...], DType], Array]
EDITS = [0]  # how often an attribute of any stateful object was given something new; values of cells do not count


class Cell:
    """A named place for one tensor: a parameter, a buffer, an optimiser's slot, a step count.

    `kind` says which. A cell starts out empty and is filled at the first reading by `init(state, shape, dtype)`,
    where the random state comes from a seed and the cell's path, so equal layers in different places differ.
    Writing must keep shape and dtype, and increases `version`.
    """

    __slots__ = ("__weakref__", "_fetch", "_tensor", "dtype", "init", "kind", "path", "seed", "shape", "version")

    def __init__(
        self,
        shape: Sequence[int],
        init: Initialiser,
        *,
        kind: str = "parameter",
        dtype: DTypeLike = "float32",
    ) -> None:
        self.shape, self.dtype, self.init, self.kind = tuple(shape), np.dtype(dtype), init, kind
        self.version = self.seed = 0
        self.path = ""
        self._tensor: Tensor | None = None
        self._fetch: Callable[[], Tensor] | None = None

    def initialise(self, seed: int) -> None:
        """Empty the cell: the next reading fills it from `seed` and its path."""
        self._tensor, self._fetch, self.seed = None, None, seed
        self.version += 1

    def stored(self) -> Tensor:
        """What the cell holds outside every transform."""
        if self._tensor is None and self._fetch is not None:
            self._tensor = self._fetch()
        if self._tensor is None:
            state = random.state(self.seed, self.path)
            self._tensor = Tensor(self.init(state, self.shape, self.dtype), self.dtype)
        return self._tensor

    def __getstate__(self) -> Any:
        """For copies and pickles, which hold their values themselves."""
        self.stored()
        return None, {name: getattr(self, name) for name in self.__slots__[2:]} | {"_fetch": None}

    def spec(self) -> Tensor:
        """A tensor without value for what the cell holds."""
        return Tensor.spec(self.shape, self.dtype)

    def store(self, tensor: Tensor) -> None:
        self._tensor, self._fetch = tensor, None
        self.version += 1

    def lend(self, fetch: Callable[[], Tensor]) -> None:
        """Take a value that is kept elsewhere: `fetch` gives it when it is next read."""
        self.move(fetch)
        self.version += 1

    def move(self, fetch: Callable[[], Tensor]) -> None:
        """Have the value that the cell holds already kept elsewhere."""
        self._tensor, self._fetch = None, fetch

    def convert(self, dtype: DTypeLike) -> None:
        """Hold floating numbers of another precision from now on; cells of whole numbers stay as they are."""
        if self.dtype.kind == "f":
            tensor = self.stored()
            self.dtype = np.dtype(dtype)
            self.store(Tensor(tensor.array, self.dtype))

    def read(self) -> Tensor:
        return recording.read(self)

    def write(self, value: Any) -> None:
        """Put a tensor of the same shape and dtype in; raises ShapeError or DTypeError for another."""
        tensor = value if isinstance(value, Tensor) else Tensor(value, self.dtype)
        if tensor.shape != self.shape:
            raise ShapeError(
                f"{self.path or self.kind}: the shape of what a cell holds cannot change",
                received=str(tensor.shape),
                rule=str(self.shape),
            )
        if tensor.dtype != self.dtype:
            raise DTypeError(
                f"{self.path or self.kind}: the dtype of what a cell holds cannot change",
                received=str(tensor.dtype),
                rule=str(self.dtype),
            )
        recording.write(self, tensor)


class Stateful:
    """Base of whatever keeps state: modules and optimisers.

    An attribute that is given a Cell reads and writes that cell from then on: `self.weight = Cell(...)`, then
    `self.weight` is a tensor and `self.weight = tensor` writes. An attribute that is itself stateful is a child.
    `place` is the object's path in whatever holds it: "features.3".
    """

    _cells: dict[str, Cell]
    _children: dict[str, Stateful]
    place: str = ""

    def __new__(cls, *args: Any, **options: Any) -> Any:
        if cls.__init__ is object.__init__ and (args or options):
            raise TypeError(f"{cls.__name__}() takes no arguments")
        self = super().__new__(cls)
        object.__setattr__(self, "_cells", {})
        object.__setattr__(self, "_children", {})
        return self

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._cells and not isinstance(value, Cell | Stateful):
            self._cells[name].write(value)
            return
        EDITS[0] += 1
        if isinstance(value, Cell | Stateful):
            place: dict[str, Any] = self._cells if isinstance(value, Cell) else self._children
            if name not in place:  # what is replaced keeps its place in the order
                self._forget(name)
            place[name] = value
            self._settle(self.place)
        elif isinstance(value, list | tuple | dict) and any(isinstance(x, Cell | Stateful) for x in tree.leaves(value)):
            raise ArgumentError(
                f"{type(self).__name__}.{name}: a {type(value).__name__} hides the modules in it",
                rule="state is found through attributes",
                fix="hold them in a Sequential or a ModuleList",
            )
        else:
            self._children.pop(name, None)
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name in (cells := self.__dict__.get("_cells", {})):
            return cells[name].read()
        if name in (children := self.__dict__.get("_children", {})):
            return children[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def _forget(self, name: str) -> bool:
        EDITS[0] += 1
        places: list[dict[str, Any]] = [self._cells, self._children, self.__dict__]
        return any([place.pop(name, None) is not None for place in places])  # noqa: C419 (every place, not the first)

    def __delattr__(self, name: str) -> None:
        if not self._forget(name):
            object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._cells, *self._children]

    def walk(self, prefix: str = "") -> Iterator[tuple[str, Stateful]]:
        """This object and everything stateful below it, with paths, parents first."""
        yield prefix, self
        for name, child in self._children.items():
            yield from child.walk(join(prefix, name))

    def _settle(self, place: str) -> None:
        """Tell everything below where it is. What is held twice is where it is held first."""
        places: dict[Stateful, str] = {}
        for path, owner in self.walk(place):
            places.setdefault(owner, path)
        for owner, path in places.items():
            if owner.place != path:
                object.__setattr__(owner, "place", path)
            for name, cell in owner._cells.items():
                cell.path = join(path, name)

    def cells(self, *kinds: str) -> dict[str, Cell]:
        """`{path: Cell}` of all cells, or of some kinds. A cell in several places has the first one's name."""
        found: dict[Cell, str] = {}
        for prefix, owner in self.walk():
            for name, cell in owner._cells.items():
                if not kinds or cell.kind in kinds:
                    found.setdefault(cell, join(prefix, name))
        return {path: cell for cell, path in found.items()}

    def initialise(self, seed: int = 0) -> None:
        """Fill every cell anew from `seed`."""
        for cell in self.cells().values():
            cell.initialise(seed)


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
