"""Cells, which hold all that changes, and the objects that keep them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from juanji import random, recording, tree
from juanji.checks import same_names
from juanji.errors import ArgumentError, DTypeError, ShapeError, WeightsError
from juanji.graph import Array
from juanji.tensor import DType, DTypeLike, Tensor

Initialiser = Callable[[Array, tuple[int, ...], DType], Array]
PARTS = ("_cells", "_children")
EDITS = [0]  # how often an attribute of any stateful object was given something new; values of cells do not count


class Cell:
    """A named place for one tensor: a parameter, a buffer, an optimiser's slot, a step count.

    `kind` says which. A cell starts out empty and is filled at the first reading by `init(state, shape, dtype)`,
    where the random state comes from a seed and the cell's path, so equal layers in different places differ; `drawn`
    keeps which. Writing must keep shape and dtype, and increases `version`.
    """

    __slots__ = (
        "__weakref__",
        "_fetch",
        "_tensor",
        "drawn",
        "dtype",
        "init",
        "kind",
        "path",
        "seed",
        "shape",
        "version",
    )

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
        self.drawn: tuple[int, str] | None = None
        self._tensor: Tensor | None = None
        self._fetch: Callable[[], Tensor] | None = None

    def initialise(self, seed: int) -> None:
        """Empty the cell: the next reading fills it from `seed` and its path."""
        self._tensor, self._fetch, self.seed, self.drawn = None, None, seed, None
        self.version += 1

    def stored(self) -> Tensor:
        """What the cell holds outside every transform."""
        if self._tensor is None and self._fetch is not None:
            self._tensor = self._fetch()
        if self._tensor is None:
            self.drawn = self.seed, self.path
            state = random.state(*self.drawn)
            self._tensor = Tensor(self.init(state, self.shape, self.dtype), self.dtype)
        return self._tensor

    def __getstate__(self) -> Any:
        """For copies and pickles, which hold their values themselves."""
        self.stored()
        return None, {name: getattr(self, name) for name in self.__slots__[2:]} | {"_fetch": None, "drawn": None}

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
        if self.dtype.kind != "f":
            return
        if self._tensor is not None or self._fetch is not None:  # else it is filled in its place in the network
            self._tensor, self._fetch = Tensor(self.stored().array, dtype), None
        self.dtype = np.dtype(dtype)
        self.version += 1

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
    `place` is the object's path in whatever holds it: "features.3". `_kept` are the kinds of cells that are saved, all
    for none.
    """

    _cells: dict[str, Cell]
    _children: dict[str, Stateful]
    place: str = ""
    _kept: tuple[str, ...] = ()

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
        recording.note_edit(self, name)
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

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            recording.note_read(self, name)
        return object.__getattribute__(self, name)

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
        warn_of_twins([cell for owner in places for cell in owner._cells.values() if cell.drawn])

    def cells(self, *kinds: str) -> dict[str, Cell]:
        """`{path: Cell}` of all cells, or of some kinds. A cell in several places has the first one's name."""
        found: dict[Cell, str] = {}
        for prefix, owner in self.walk():
            for name, cell in owner._cells.items():
                if not kinds or cell.kind in kinds:
                    found.setdefault(cell, join(prefix, name))
        return {path: cell for cell, path in found.items()}

    def saved_cells(self) -> dict[str, Cell]:
        """What is saved, by path: of a module its parameters and buffers, of an optimiser or an average everything."""
        return self.cells(*self._kept)

    def state_dict(self) -> dict[str, Tensor]:
        """The values of `saved_cells`."""
        return {path: cell.read() for path, cell in self.saved_cells().items()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gives from tensors or arrays by path, with axes in juanji's order; dtypes are
        converted.

        Nothing is changed unless everything fits: WeightsError lists missing, unknown and misshapen names. PyTorch's
        tensors, which lie otherwise, are for `load_torch_weights`.
        """
        if not isinstance(values, Mapping):
            raise WeightsError(
                f"{self.class_name}: what is loaded is a dictionary",
                received=repr(values)[:200],
                rule="{path: tensor or array}",
                fix="what state_dict() gave; a file is read by jj.interop.load_weights",
            )
        cells = self.saved_cells()
        for path, value in values.items():
            if not hasattr(value, "shape"):
                raise WeightsError(
                    f"{self.class_name}: what is loaded is tensors or arrays",
                    received=f"{path}: {value!r}",
                    rule="{path: tensor or array}",
                    fix="np.asarray(…) of it",
                )
            if type(value).__module__.partition(".")[0] == "torch":
                raise WeightsError(
                    f"{self.class_name}: PyTorch's tensors have their axes in another order",
                    received=f"{path}: a {type(value).__module__}.{type(value).__name__}",
                    rule="kernels (*k, in, out), and features of images in the order (*X, C)",
                    fix="jj.interop.load_torch_weights(model, state_dict)",
                )
        same_names(
            WeightsError,
            f"the weights do not fit {self.class_name}",
            {path: cell.shape for path, cell in cells.items()},
            {path: tuple(value.shape) for path, value in values.items()},
            fix="the state_dict() of one that was made with the same layers and options; of PyTorch's: "
            "jj.interop.load_torch_weights(model, state_dict)",
        )
        tensors = {path: Tensor.of(values[path]).astype(cell.dtype) for path, cell in cells.items()}
        for path, cell in cells.items():
            cell.write(tensors[path])

    @property
    def class_name(self) -> str:
        """`Conv2d`."""
        return type(self).__name__

    def initialise(self, seed: int = 0) -> None:
        """Fill every cell anew from `seed`."""
        for cell in self.cells().values():
            cell.initialise(seed)


def held(owner: Stateful, name: str) -> Any:
    """What an attribute is, without reading a cell: the cell itself, and tuples of all cells and all children."""
    own = object.__getattribute__(owner, "__dict__")  # which is not noted, and quick
    if name in PARTS:
        return tuple(own[name].values())
    for place in (own, own["_cells"], own["_children"]):
        if name in place:
            return place[name]
    return getattr(type(owner), name, None)


def warn_of_twins(cells: Sequence[Cell]) -> None:
    """Warn of cells that hold the same random numbers, because they were read before they had their places."""
    found: dict[Any, Cell] = {}
    for cell in cells:
        first = found.setdefault((cell.drawn, cell.shape), cell)
        if first is cell or not same_numbers(first, cell):
            continue
        cell.drawn = None  # it is told once
        warnings.warn(
            f"{first.path} and {cell.path} hold the same random numbers, as both were read before they were given a "
            "place in the network; its initialise(seed) draws all anew",
            stacklevel=4,
        )


def same_numbers(one: Cell, other: Cell) -> bool:
    """Whether both hold the same, and not the same number everywhere, as biases do that begin as zeros."""
    here, there = one.stored().array, other.stored().array
    return np.array_equal(here, there) and bool((here != here.flat[:1]).any())


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
