"""Tensors, which never change; cells, which hold all that does; and tracing, which runs a function without values."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import traceback
from collections.abc import Callable, Iterator, Sequence
from numbers import Number
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from juanji import recording, tree
from juanji.errors import ArgumentError, DTypeError, ShapeError, TraceError
from juanji.graph import PRIMITIVES, Array, Composite, Examples, Graph, Node, is_array, register

DType = np.dtype[Any]
DTypeLike = Any
DTYPES = ("float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64", "uint32")

SUPPORTED = frozenset(map(np.dtype, DTYPES))
NUMPY_NAMES = {
    "absolute": "abs",
    "divide": "div",
    "multiply": "mul",
    "negative": "neg",
    "power": "pow",
    "subtract": "sub",
}

# What Tensor's operators and methods call. The operators register themselves (`@method`), because a tensor has to
# know its arithmetic while the arithmetic is written in terms of tensors.
METHODS: dict[str, Callable[..., Any]] = {}
F = TypeVar("F", bound=Callable[..., Any])


def method(function: F) -> F:
    METHODS[function.__name__] = function
    return function


def calls(name: str, *, reflected: bool = False) -> Callable[..., Any]:
    """A method of Tensor that calls the operator `name`, with the arguments swapped where `reflected`."""

    def call(self: Tensor, *args: Any, **options: Any) -> Any:
        return METHODS[name](*args, self) if reflected else METHODS[name](self, *args, **options)

    call.__name__ = name
    call.__doc__ = f"See `juanji.ops.{name}`."
    return call


class Tensor:
    """An N-dimensional array that never changes.

    data   a NumPy array (copied; its dtype is kept), a number, or nested lists of numbers (as `np.asarray` reads
           them: Python floats are float64)
    dtype  one of `DTYPES`; the data's own by default

    `np.asarray(x)` gives the array back, `float(x)` a scalar. Arithmetic follows NumPy's broadcasting; Python
    numbers take the tensor's dtype, and two tensors must agree on theirs. While a function is traced its tensors
    have a shape and a dtype but no value; asking for one raises TraceError.
    """

    __slots__ = ("_array", "dtype", "shape")

    def __init__(self, data: Any, dtype: DTypeLike = None) -> None:
        if holds_tensors(data):
            source = Tensor.of(data) if dtype is None else Tensor.of(data).astype(dtype)
            self._set(source._array, source.shape, source.dtype)
            recording.record(Node(PRIMITIVES["identity"], (source,), {}, (self,), recording.path()))
            return
        try:
            array = np.array(data, dtype=dtype)
        except ValueError as error:
            raise ShapeError(f"Tensor: the data is not a regular array: {error}") from None
        except TypeError as error:
            raise DTypeError(f"Tensor: {error}", rule="a dtype is one of " + ", ".join(DTYPES)) from None
        self._set(array, array.shape, array.dtype)

    def _set(self, array: Array | None, shape: tuple[int, ...], dtype: DType) -> None:
        if dtype not in SUPPORTED:
            raise DTypeError(
                "Tensor: this element type is not supported",
                received=str(dtype),
                rule="one of " + ", ".join(DTYPES),
            )
        if array is not None:
            array.flags.writeable = False
        self._array, self.shape, self.dtype = array, shape, dtype

    @classmethod
    def result(cls, array: Array | None, shape: tuple[int, ...], dtype: DTypeLike) -> Tensor:
        """A tensor around what an operator has just computed, without a copy; `array` is None while tracing."""
        tensor = cls.__new__(cls)
        tensor._set(None if array is None else np.asarray(array), tuple(shape), np.dtype(dtype))
        return tensor

    @classmethod
    def of(cls, value: Any) -> Tensor:
        """`value` itself if it is a tensor, a stack if it is a list of tensors, otherwise a tensor of it."""
        if isinstance(value, Tensor):
            return value
        if not holds_tensors(value):
            return cls(value)
        dtype = cls.of(next(filter(holds_tensors, value))).dtype
        return METHODS["stack"]([cls.of(x) if holds_tensors(x) else cls(x, dtype) for x in value])

    @classmethod
    def spec(cls, shape: Sequence[int], dtype: DTypeLike = "float32") -> Tensor:
        """A tensor without a value, to trace a function on: `jj.trace(model, Tensor.spec((1, 28, 28, 1)))`."""
        return cls.result(None, tuple(shape), np.dtype(dtype))

    def without_value(self) -> Tensor:
        return type(self).spec(self.shape, self.dtype)

    def like(self, value: Any) -> Tensor:
        """`value` as a tensor of this one's shape and dtype; numbers are taken as they are."""
        tensor = value if isinstance(value, Tensor) else Tensor(np.asarray(value, self.dtype))
        if tensor.shape != self.shape or tensor.dtype != self.dtype:
            raise ShapeError(
                "a tangent or cotangent must look like the tensor it belongs to",
                received=f"{tensor.dtype}{list(tensor.shape)} for {self.dtype}{list(self.shape)}",
                rule="the same shape and dtype",
            )
        return tensor

    def full_like(self, value: float) -> Tensor:
        return Tensor.result(np.broadcast_to(np.asarray(value, self.dtype), self.shape), self.shape, self.dtype)

    def zeros_like(self) -> Tensor:
        return self.full_like(0)

    @property
    def has_value(self) -> bool:
        return self._array is not None

    @property
    def array(self) -> Array:
        """The value as a read-only NumPy array. Raises TraceError where there is none."""
        if self._array is None:
            raise TraceError(
                "a tensor that is only being traced has no value",
                received=f"{self.dtype}{list(self.shape)}, asked for its value by {caller()}",
                rule="a function that is traced runs once, for every value that its inputs may have",
                fix="use jj.where for a choice, pass plain Python arguments, or leave this function untraced",
            )
        return self._array

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        return self.dtype.kind == "f"

    @property
    def T(self) -> Tensor:  # noqa: N802 (NumPy's name)
        return self.transpose()

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> Array:
        array = self.array
        return array.astype(dtype or array.dtype) if copy or dtype not in (None, array.dtype) else array

    def __array_ufunc__(self, ufunc: Any, how: str, *inputs: Any, **options: Any) -> Any:
        """`array + x` and `np.exp(x)` are the operators of that name here."""
        name = NUMPY_NAMES.get(ufunc.__name__, ufunc.__name__)
        if name not in METHODS or how != "__call__" or options:
            raise DTypeError(f"np.{ufunc.__name__} does not take tensors in this way", fix="np.asarray(x) is the array")
        return METHODS[name](*inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        """NumPy's other functions take the values, except where a derivative would be lost without a word."""
        if any(frame.knows(leaf) for frame in recording.CURRENT.frames for leaf in tree.leaves([args, options])):
            raise DTypeError(
                f"np.{function.__name__} would lose the derivative",
                fix=f"jj.{function.__name__} if there is one; np.asarray(x) for the value alone",
            )
        args, options = tree.map(lambda x: x.array if isinstance(x, Tensor) else x, (args, options))
        return function(*args, **options)

    def item(self) -> Any:
        """The only element, as a Python number."""
        if self.size != 1:
            raise ShapeError(
                "only a tensor of one element is a number",
                received=f"shape {self.shape}",
                fix="reduce it first: .sum()",
            )
        return self.array.item()

    def tolist(self) -> Any:
        return self.array.tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.item(), digits)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("a scalar tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self

    def __reduce__(self) -> Any:
        return Tensor, (self.array,)

    def __repr__(self) -> str:
        if not self.has_value:
            return f"Tensor.spec({self.shape}, dtype={self.dtype})"
        return np.array2string(self.array, separator=", ", prefix="Tensor(").join(["Tensor(", f", dtype={self.dtype})"])

    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        """Elementwise, as `juanji.ops.equal`; false for what is no array at all."""
        return METHODS["equal"](self, other) if isinstance(other, COMPARABLE) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return METHODS["not_equal"](self, other) if isinstance(other, COMPARABLE) else NotImplemented

    __add__, __radd__ = calls("add"), calls("add", reflected=True)
    __sub__, __rsub__ = calls("sub"), calls("sub", reflected=True)
    __mul__, __rmul__ = calls("mul"), calls("mul", reflected=True)
    __truediv__, __rtruediv__ = calls("div"), calls("div", reflected=True)
    __pow__, __rpow__ = calls("pow"), calls("pow", reflected=True)
    __matmul__, __rmatmul__ = calls("matmul"), calls("matmul", reflected=True)
    __neg__, __abs__ = calls("neg"), calls("abs")
    __lt__, __le__ = calls("less"), calls("less_equal")
    __gt__, __ge__ = calls("greater"), calls("greater_equal")
    __invert__, __and__, __or__ = calls("logical_not"), calls("logical_and"), calls("logical_or")
    __getitem__ = calls("getitem")
    reshape, transpose, astype, flatten = (
        calls("reshape"),
        calls("transpose"),
        calls("astype"),
        calls("flatten"),
    )
    sum, mean, max, min = calls("sum"), calls("mean"), calls("max"), calls("min")
    var, std = calls("var"), calls("std")
    argmax, argmin = calls("argmax"), calls("argmin")


def holds_tensors(data: Any) -> bool:
    """Whether `data` is a tensor or a list, of any depth, with one in it."""
    return isinstance(data, Tensor) or (isinstance(data, list | tuple) and any(map(holds_tensors, data)))


COMPARABLE = (Tensor, np.ndarray, Number, list)


def caller() -> str:
    """File and line of the innermost call from outside this package."""
    here = str(Path(__file__).parent)
    outside = (frame for frame in reversed(traceback.extract_stack()) if not frame.filename.startswith(here))
    frame = next(outside, None)
    return f"{frame.filename}, line {frame.lineno}: {frame.line}" if frame else "an unknown line"


def composite(
    examples: Examples, name: str = "", pull: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Composite]:
    """Register a function of primitives as a composite of that name. Used as `@composite(examples)`."""

    def wrap(function: Callable[..., Any]) -> Composite:
        record = register(Composite(name or function.__name__, function, examples, pull=pull))
        return functools.update_wrapper(record, function, updated=())  # type: ignore[return-value]

    return wrap


def trace(function: Callable[..., Any], *args: Any) -> Graph:
    """The static graph of `function` (002 §3): it runs once, on tensors that have a shape and dtype but no value.

    Tensors and arrays among `args`, in any containers, become the graph's inputs; modules contribute their cells as
    they are touched; everything else is passed on as it is. Raises TraceError where the function asks for a value.
    """
    inputs: list[Tensor] = []

    def enter(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        inputs.append(Tensor.of(leaf).without_value())
        frame.keep(inputs[-1:])
        return inputs[-1]

    with recording.Frame(traces=True) as frame:
        outputs = function(*tree.map(enter, args))
    if not inputs and not frame.cells:
        raise ArgumentError(
            "trace: there is nothing to trace",
            received=f"{len(args)} arguments, no tensor or array among them, and no cell was read",
            rule="numbers and other values are fixed when a function is traced",
            fix="jj.trace(f, jj.Tensor(1.0))",
        )
    return Graph(
        inputs=tuple(inputs),
        nodes=tuple(frame.nodes),
        outputs=tree.map(lambda leaf: leaf, outputs),
        cells=frame.cells,
        writes={cell: frame.bound[cell] for cell in frame.written},
        scopes=tuple(frame.scopes),
        reads=tuple((owner, key[1]) for key, owner in frame.reads.items() if key not in frame.edits),
        names=input_names(function, args),
    )


def input_names(function: Callable[..., Any], args: Sequence[Any]) -> tuple[str, ...]:
    """A name for each input of a trace: the parameter's, numbered where a container holds several.

    A function that has names of its own for what it takes, as `input_names`, is believed.
    """
    target = getattr(function, "forward", function)
    try:
        parameters = list(getattr(function, "input_names", None) or inspect.signature(target).parameters)
    except (TypeError, ValueError):
        parameters = []
    names: list[str] = []
    for i, arg in enumerate(args):
        name = parameters[i] if i < len(parameters) else f"x{i}"
        count = sum(is_array(leaf) for leaf in tree.leaves(arg))
        names += [name] if count == 1 else [f"{name}{j}" for j in range(count)]
    return tuple(names)
