"""What is being recorded right now, and where in the model.

Each transform (`vjp`, `jvp`, `trace`) opens a *frame*. A frame knows the tensors that depend on its variables and
keeps a node for every operator applied to one of them; it holds on to the tensors, they hold nothing of it, so no
history survives the transform. Nested transforms are nested frames, which is all that keeps their derivatives apart.
Frames and paths belong to one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from juanji.errors import JuanjiError

if TYPE_CHECKING:
    from juanji.cell import Cell
    from juanji.graph import Node
    from juanji.tensor import Tensor


@dataclass(frozen=True, eq=False, slots=True)
class Scope:
    """One call of a module: where, which, and the tensors that went in and came out."""

    path: str
    owner: Any
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Frame:
    """One open transform: its tensors by identity, its nodes, and the values cells have inside it.

    In a frame that `traces`, a cell read becomes an input and a cell written an output. Other attributes of stateful
    objects that are read, and those that are set, are noted: on the former depends what is traced.
    """

    def __init__(self, *, traces: bool = False) -> None:
        self.traces = traces
        self.tensors: dict[int, Tensor] = {}
        self.nodes: list[Node] = []
        self.scopes: list[Scope] = []
        self.reads: dict[tuple[int, str], Any] = {}
        self.edits: set[tuple[int, str]] = set()
        self.cells: dict[Cell, Tensor] = {}
        self.bound: dict[Cell, Tensor] = {}
        self.written: dict[Cell, None] = {}

    def knows(self, tensor: Any) -> bool:
        return id(tensor) in self.tensors

    def keep(self, tensors: Iterable[Tensor]) -> None:
        self.tensors.update((id(tensor), tensor) for tensor in tensors)

    def add(self, node: Node) -> None:
        if any(map(self.knows, node.inputs)):
            self.nodes.append(node)
            self.keep(node.outputs)

    def bind(self, cell: Cell, tensor: Tensor) -> None:
        """Give `cell` the value `tensor` for as long as this frame is open."""
        self.cells[cell] = self.bound[cell] = tensor
        self.keep([tensor])

    def __enter__(self) -> Frame:
        CURRENT.frames.append(self)
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: Any) -> None:
        """Close the frame; what was written to a bound cell goes on to where it would have gone without it."""
        CURRENT.frames.remove(self)
        if not failed and not self.traces:
            for cell in self.written:
                write(cell, self.bound[cell])


class Current(threading.local):
    """The open frames and the path of the module being called, for this thread."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.path = ""


CURRENT = Current()


def record(node: Node) -> None:
    for frame in CURRENT.frames:
        frame.add(node)


def read(cell: Cell) -> Tensor:
    """The value of `cell` as the innermost frame that knows it has it."""
    for frame in reversed(CURRENT.frames):
        if cell in frame.bound:
            return frame.bound[cell]
        if frame.traces:
            frame.bind(cell, cell.spec())
            return frame.bound[cell]
    return cell.stored()


def write(cell: Cell, tensor: Tensor) -> None:
    for frame in reversed(CURRENT.frames):
        if frame.traces or cell in frame.bound:
            frame.bound[cell] = tensor
            frame.written[cell] = None
            return
    cell.store(tensor)


def note_read(owner: Any, name: str) -> None:
    """Tell the open frames that trace that an attribute of a stateful object was read."""
    for frame in CURRENT.frames:
        if frame.traces:
            frame.reads[id(owner), name] = owner


def note_edit(owner: Any, name: str) -> None:
    """Tell the open frames that trace that an attribute of a stateful object was set."""
    for frame in CURRENT.frames:
        if frame.traces:
            frame.edits.add((id(owner), name))


def path() -> str:
    """The path of the module being called: `features.3`."""
    return CURRENT.path


def active() -> bool:
    """Whether any frame is open."""
    return bool(CURRENT.frames)


@contextmanager
def at(place: str) -> Iterator[None]:
    """Inside, `place` is the path, unless it is empty."""
    outside = CURRENT.path
    CURRENT.path = place or outside
    try:
        yield
    finally:
        CURRENT.path = outside


@contextmanager
def scope(place: str, owner: Any) -> Iterator[None]:
    """A call of the module at `place`: as `at`, and an error that passes is told where it was raised."""
    with at(place):
        try:
            yield
        except JuanjiError as error:
            error.at = error.at or f"{CURRENT.path} ({owner.label})".strip()
            raise


def note_call(owner: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
    """Tell the open frames that a module was called."""
    for frame in CURRENT.frames:
        frame.scopes.append(Scope(path(), owner, tuple(inputs), tuple(outputs)))


@contextmanager
def grouped(make: Any) -> Iterator[list[Tensor]]:
    """Fold the nodes recorded inside into one, `make(outputs, body)`; the caller fills in the list of outputs."""
    marks = [(frame, len(frame.nodes)) for frame in CURRENT.frames]
    outputs: list[Tensor] = []
    yield outputs
    for frame, mark in marks:
        if body := frame.nodes[mark:]:
            frame.nodes[mark:] = [make(tuple(outputs), tuple(body))]
