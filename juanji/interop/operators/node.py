"""What every operator of ONNX shares: the table they stand in, and the node that a function of the table is called for.

A value is a tensor or, where juanji's tensors have no such element type (strings, uint16, uint64), a NumPy array. Half
precision is widened to float32. Shapes that a file computes are values like any other: while a graph is traced they
are known, because they depend on no number of the inputs, so they are folded as they come.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from juanji import recording
from juanji.cell import Cell
from juanji.errors import DataError, JuanjiError, TraceError
from juanji.graph import Array, Node, flatten
from juanji.nn.dropout import NEXT, stream
from juanji.nn.module import Module
from juanji.ops.convspec import ConvSpec
from juanji.tensor import SUPPORTED, DType, Tensor

Value = Tensor | Array
Function = Callable[..., Any]

# The domain of ONNX's own operators, under both of its names, and that of its optimisers.
STANDARD, TRAINING = "", "ai.onnx.preview.training"

# How many bytes a value may take, and the patches of a convolution: so many times what weights and inputs take, and
# always the first. What hostile sizes in a file ask for is refused before memory is taken.
LEAST, GROWTH = 2**30, 64
ROOM: ContextVar[int] = ContextVar("ROOM", default=LEAST)


@dataclass(frozen=True)
class Entry:
    """An operator of the table.

    function  `(node, *inputs)`: the outputs, one or a tuple; an input that is left out is None
    family    the file it stands in
    known     the inputs that must have a value, given to the function as NumPy arrays; None for all of them
    weights   the inputs where a floating initialiser is trained; `buffers` those where it is a running statistic
    moves     its first input is only moved: what becomes of it decides whether it is trained
    looks     looks at whole numbers where they have values, rather than compute with tensors
    random    draws random numbers while training
    """

    function: Function
    family: str
    known: tuple[int, ...] | None
    weights: tuple[int, ...]
    buffers: tuple[int, ...]
    moves: bool
    looks: bool
    random: bool

    def needs(self, place: int) -> bool:
        """Whether input number `place` must have a value."""
        return self.known is None or place in self.known


OPERATORS: dict[tuple[str, str], Entry] = {}


def operator(
    *names: str,
    domain: str = STANDARD,
    known: Sequence[int] | None = (),
    weights: Sequence[int] = (),
    buffers: Sequence[int] = (),
    moves: bool = False,
    looks: bool = False,
    random: bool = False,
) -> Callable[[Function], Function]:
    """Put a function into the table under ONNX's names for it; see `Entry`."""

    def enter(function: Function) -> Function:
        family = function.__module__.rpartition(".")[2]
        places = None if known is None else tuple(known)
        entry = Entry(function, family, places, tuple(weights), tuple(buffers), moves, looks, random)
        OPERATORS.update(dict.fromkeys([(domain, name) for name in names], entry))
        return function

    return enter


def held(array: Any, floating: DType | None = None) -> Value:
    """An array as a value. Half precision becomes float32; `floating` is what float32 becomes, if anything."""
    array = np.asarray(array)
    if array.dtype.name in ("float16", "bfloat16", "float32"):
        array = array.astype(floating or np.float32)
    return Tensor(array) if array.dtype in SUPPORTED else array


def has_value(value: Value) -> bool:
    return not isinstance(value, Tensor) or value.has_value


def is_floating(value: Value) -> bool:
    return isinstance(value, Tensor) and value.is_floating


def array_of(value: Any) -> Array:
    return value.array if isinstance(value, Tensor) else np.asarray(value)


def by_numpy(function: Callable[..., Any], *values: Value) -> Value:
    """An elementwise function of known values that juanji computes nowhere else: whole numbers, strings."""
    arrays = [array_of(value) for value in values]
    room(np.broadcast_shapes(*(array.shape for array in arrays)), 8)
    with np.errstate(all="ignore"):
        return held(function(*arrays))


def room(shape: Sequence[int], itemsize: int) -> None:
    """Raise DataError where a value of this shape would be larger than anything the model and its inputs explain."""
    size = math.prod(map(int, shape)) * itemsize
    if size > ROOM.get():
        raise DataError(
            "a value would be too large",
            received=f"shape {tuple(map(int, shape))}, {size / 2**20:,.0f} MiB",
            rule=f"at most {ROOM.get() / 2**20:,.0f} MiB, {GROWTH} times what weights and inputs take",
            fix="a smaller batch or image, if the file is as it should be",
        )


@contextmanager
def within(taken: int) -> Iterator[None]:
    """Inside, values may take what weights and inputs of `taken` bytes explain."""
    before = ROOM.set(max(LEAST, GROWTH * taken))
    try:
        yield
    finally:
        ROOM.reset(before)


def taken_by(node: Node) -> tuple[int, ...]:
    """The shape of the largest array that a primitive makes: its output, or the patches of a convolution."""
    (output,), spec = node.outputs, node.attrs.get("spec")
    if not isinstance(spec, ConvSpec):
        return output.shape
    channels = (output if node.name == "conv_input_grad" else node.inputs[0]).shape[-1]
    return (output.shape[0], *spec.output, spec.taps, channels)


class Operator(Module):
    """A node of an ONNX graph as a module: its operator, its attributes, the names of what goes in and comes out.

    key      domain and name of the operator, in the table
    attrs    every attribute the operator has, by name: the node's, or the default, or None
    given    the attributes that the node gives
    version  of the operators' set (opset) that the file was written for
    floating what float32 in the file means here, float64 after `model.astype("float64")`
    """

    def __init__(
        self,
        key: tuple[str, str],
        version: int,
        attrs: Mapping[str, Any],
        given: Iterable[str],
        inputs: Sequence[str],
        outputs: Sequence[str],
    ) -> None:
        self.key, self.op, self.version, self.given = key, key[1], version, tuple(given)
        self.attrs = {name: value for name, value in attrs.items() if not isinstance(value, Module)}
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.floating = np.dtype(np.float32)
        for name, value in attrs.items():
            if isinstance(value, Module):  # a graph in an attribute, which takes what it needs from outside as inputs
                setattr(self, name, value)
                self.inputs += tuple(x for x in value.captured if x not in self.inputs)
        if self.entry.random:
            self.random_state = Cell((3,), stream, kind="random", dtype="uint32")

    @property
    def entry(self) -> Entry:
        """Its place in the table, under its domain and name."""
        return OPERATORS[self.key]

    def __getitem__(self, attribute: str) -> Any:
        return self.attrs.get(attribute)

    def branches(self) -> list[Any]:
        """The graphs in its attributes."""
        return list(self._children.values())

    def wants(self, output: int) -> bool:
        """Whether anyone asks for output number `output`."""
        return output < len(self.outputs) and bool(self.outputs[output])

    def draw(self) -> Tensor:
        """A random state that no other call has."""
        state: Any = self.random_state
        self.random_state = state + Tensor(NEXT)
        return Tensor.of(state)

    def update(self, place: int, value: Tensor) -> None:
        """Write the cell that is input number `place`, if it is one."""
        cell = self.cell(self.inputs[place])
        if cell is not None:
            cell.write(value)

    def cell(self, name: str) -> Cell | None:
        """The cell that is the input of that name, if one is."""
        return self._cells.get(key_of(name))

    def forward(self, *values: Value | None) -> tuple[Value, ...]:
        """The outputs. Raises DataError where the node makes no sense, and what the operators of juanji raise."""
        given = [self.taken(place, value) for place, value in enumerate(values)]
        with self.explaining():
            if not self._children:  # what is inside is measured there
                self.measure(given)
            return self.results(given)

    def results(self, given: Sequence[Any]) -> tuple[Value, ...]:
        result = self.entry.function(self, *given)
        outputs = result if isinstance(result, tuple) else (result,)
        if len(outputs) < len(self.outputs):
            raise DataError(f"{self.op}: there are only {len(outputs)} outputs", received=str(self.outputs))
        return outputs

    def taken(self, place: int, value: Value | None) -> Any:
        """An input as the function takes it: an array where it must be known."""
        if value is None or not self.entry.needs(place):
            return value
        if not has_value(value):
            raise TraceError(
                f"{self.op}: input {self.inputs[place]!r} must have a value when the graph is made",
                received="it depends on inputs that are only being traced",
                rule="what decides on shapes is a constant of a traced graph",
                fix="give that input as a number or a list of numbers, or leave the model uncompiled",
            )
        return array_of(value)

    def measure(self, given: Sequence[Any]) -> None:
        """Raise where the node would make something too large: first it is traced, which takes no memory.

        A function that looks at a value is measured up to there; what it makes of it is no larger.
        """
        specs = [self.without_value(x) for x in given]
        with recording.Frame(traces=True) as frame:
            frame.keep(x for x, value in zip(specs, given, strict=True) if x is not value)
            with suppress(TraceError):
                self.results(specs)
        for made in flatten(frame.nodes):
            room(taken_by(made), made.outputs[0].dtype.itemsize)

    def without_value(self, value: Any) -> Any:
        keeps = not isinstance(value, Tensor) or (self.entry.looks and not value.is_floating)
        return value if keeps else value.without_value()

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """What Python says of arguments that make no sense becomes an error of juanji's."""
        try:
            yield
        except JuanjiError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, MemoryError) as error:
            raise DataError(
                f"{self.op}: the node makes no sense",
                received=f"{type(error).__name__}: {error}; {self.extra()}",
                rule=f"operator {self.op} of ONNX, opset {self.version}",
            ) from error

    @property
    def class_name(self) -> str:
        return self.op

    def extra(self) -> str:
        """The attributes that the node gives, those that are short."""
        shown = [name for name in self.given if name in self.attrs and not isinstance(self[name], np.ndarray)]
        return ", ".join(f"{name}={self[name]!r}" for name in shown)


# Attributes of operators, without underscores at their end.
TAKEN = {name.rstrip("_") for name in (*dir(Operator), "floating", "random_state", "then_branch", "else_branch")}


def key_of(name: str) -> str:
    """The attribute of an operator that holds the weight `name`: that itself, or one more underscore behind it."""
    return f"{name}_" if name.rstrip("_") in TAKEN else name


def name_of(key: str) -> str:
    """The weight that an attribute holds, back from `key_of`."""
    return key[:-1] if key.rstrip("_") in TAKEN else key
