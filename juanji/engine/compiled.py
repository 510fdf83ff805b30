"""`compile`: a function on tensors as machine code."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from types import MethodType
from typing import Any

import numpy as np

from juanji import recording
from juanji.cell import EDITS, held
from juanji.engine import platform, state
from juanji.engine.door import Door, signature
from juanji.errors import ArgumentError, NonFiniteError, unknown_name
from juanji.graph import Graph
from juanji.kernels import isa as isas
from juanji.tensor import Tensor, trace

# Plans have one place for their arguments, and share cells: one is run at a time, whichever thread asks.
RUNNING = threading.RLock()
platform.around_fork(RUNNING)
ALGORITHMS, PRECISIONS = ("all", "direct"), ("float32", "bfloat16", "auto")
BACKENDS = ("engine", "numpy")  # of JUANJI_BACKEND
PLAIN = (bool, int, float, complex, str, bytes, MethodType)  # whose equals are as good
MUCH = 16  # a batch so many times smaller than the one that is planned for is a small one of its own


class Compiled:
    """A function that runs as machine code. Called like the function itself.

    It is traced and planned once for each set of shapes, dtypes, other arguments, and attributes of modules and
    optimisers that it reads: modes, layers, options such as a slope. Tensors and arrays among its arguments, in any
    containers, are its inputs; cells that it reads or writes are its state.
    """

    learns = False  # whether it multiplies as a training step does, whatever it computes

    def __init__(
        self,
        function: Callable[..., Any],
        algorithms: str = "all",
        batch: int | None = None,
        precision: str = "float32",
    ) -> None:
        check_options(algorithms, batch, precision)
        self.function, self.options = function, (algorithms, batch, precision)
        self.plans: dict[Any, list[tuple[Premises, Door, Any]]] = {}
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any, **options: Any) -> Any:
        if on_definitions():
            return self.function(*args, **options)
        if options:
            args = by_place(self.function, args, options)
        with RUNNING:
            plan = self.plan(*args)
            if plan.run():
                return plan.results()
        name = getattr(self, "__name__", "the function")
        raise NonFiniteError(
            "compile: a value is not finite, so the step was not taken",
            received=f"{name}() gave NaN or infinity, or would have written it",
            rule="parameters, statistics and the optimiser are still those before the step",
            fix="a smaller learning rate, or look for the layer with JUANJI_BACKEND=numpy",
        )

    def plan(self, *args: Any) -> Any:
        """The plan for these arguments, with them put in: `plan.run()` does the work without copying."""
        with RUNNING:
            plan, arrays = self.lookup(args)
            plan.bind(arrays)
            return plan

    def lookup(self, args: Any) -> tuple[Any, list[Any]]:
        found: list[Any] = []
        door, plan = self.known(args, signature(args, found))
        arrays = [x.array if isinstance(x, Tensor) else np.asarray(x) for x in found]
        door.check(arrays)
        return plan, arrays

    def known(self, args: Any, key: Any) -> tuple[Door, Any]:
        entries = self.plans.setdefault(key, [])
        for premises, door, plan in entries:
            if premises.hold():
                return door, plan
        entries.append(self.make(args))
        return entries[-1][1:]

    def __reduce__(self) -> Any:
        """Copies and pickles make plans of their own."""
        return type(self), (self.function, *self.options)

    def make(self, args: Any) -> tuple[Premises, Door, Any]:
        from juanji.engine.plan import Plan

        graph, draft, isa = self.draft(args)
        plan = Plan(draft, isa)
        return Premises(graph, plan), Door(graph), plan

    def memory(self, *args: Any) -> int:
        """Bytes that the plan for these arguments needs at its peak, cells included. None is taken to find it out, and
        no machine code made."""
        from juanji.engine.plan import Arrangement

        return Arrangement(self.draft(args)[1]).memory()

    def draft(self, args: Any) -> tuple[Graph, Any, isas.ISA]:
        """The traced function, what a plan consists of, and the instructions that it is written in."""
        from juanji.engine.contract import Choice
        from juanji.engine.planner import Planner
        from juanji.engine.precision import instructions, settled
        from juanji.engine.simplify import simplify

        graph = trace(self.function, *args)
        leave_homes(graph)
        isa = isas.current()
        algorithms, batch, precision = self.options
        choice = Choice(algorithms, scale(graph.inputs, batch), settled(precision, isa), self.learns)
        isa = instructions(choice.precision, isa)
        return graph, Planner(simplify(graph), isa, choice).draft(), isa


def by_place(function: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a call, all by their places. Raises ArgumentError for those that go by name only."""
    bound = inspect.signature(function).bind(*args, **options)
    if bound.kwargs:
        raise ArgumentError(
            "compile: there are arguments that have no place",
            received=", ".join(bound.kwargs),
            rule="arguments of a compiled function go by place",
            fix="jj.compile(lambda x, flag: f(x, flag=flag))",
        )
    return bound.args


def leave_homes(graph: Graph) -> None:
    """Forget the memory of cells that have got another dtype since."""
    for cell in {**graph.cells, **graph.writes}:
        if cell in state.HOMES and state.HOMES[cell].array.dtype != cell.dtype:
            del state.HOMES[cell]


class Premises:
    """What a plan depends on besides the arguments: whatever was read of modules and optimisers when it was traced,
    their parts, modes and options, and where the cells lie, which changes with their dtype."""

    def __init__(self, graph: Graph, plan: Any) -> None:
        self.read = [(owner, name, held(owner, name)) for owner, name in graph.reads]
        self.homes = [(cell, plan.homes[key]) for key, cell in plan.draft.homes.items()]
        self.edits, self.same = EDITS[0], True

    def hold(self) -> bool:
        if self.edits != EDITS[0]:
            self.edits = EDITS[0]
            self.same = all(equal(held(owner, name), value) for owner, name, value in self.read)
        return self.same and all(
            home.version == cell.version or (home.array.dtype == cell.dtype and state.HOMES.get(cell) is home)
            for cell, home in self.homes
        )


def equal(value: Any, other: Any) -> bool:
    """Whether an attribute is what it was; of arrays, lists and the like, whether it is the same one."""
    if value is other:
        return True
    if isinstance(value, tuple) and isinstance(other, tuple):
        return len(value) == len(other) and all(map(equal, value, other))
    return type(value) is type(other) and isinstance(value, PLAIN) and value == other


def on_definitions() -> bool:
    """Whether functions run as they are: by the user's wish, or inside a transform, which records what they do."""
    backend = os.environ.get("JUANJI_BACKEND") or "engine"
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS)
    return backend == "numpy" or recording.active()


def precision_here(name: str) -> str:
    """What a precision means on this machine. Raises ArgumentError where bfloat16 is asked for and cannot be had."""
    if not on_definitions():
        from juanji.engine.precision import settled

        return settled(name, isas.current())
    if name == "bfloat16":
        raise ArgumentError(
            "the definitions do not compute in bfloat16",
            received="JUANJI_BACKEND=numpy",
            fix='precision="float32", or "auto"',
        )
    return "float32"


def check_options(algorithms: str, batch: int | None, precision: str) -> None:
    for kind, name, names in (("choice of algorithms", algorithms, ALGORITHMS), ("precision", precision, PRECISIONS)):
        if name not in names:
            raise unknown_name(kind, name, names)
    if batch is not None and batch < 1:
        raise ArgumentError("compile: no such batch", received=f"batch={batch}", rule="at least 1 image")


def scale(inputs: Sequence[Tensor], batch: int | None) -> Fraction:
    """For how many images per image of a batch to choose algorithms: a smaller batch has those of the whole one."""
    images = next((x.shape[0] for x in inputs if x.ndim), 0)
    return Fraction(batch, images) if batch and images <= batch <= MUCH * images else Fraction(1)


def compile(
    function: Callable[..., Any] | None = None,
    *,
    algorithms: str = "all",
    batch: int | None = None,
    precision: str = "float32",
) -> Any:
    """`function` as machine code: a training step over model, optimiser and batch, an inference, or anything else.

    Use it on a function or as a decorator, with or without options::

        @jj.compile
        def step(x, y):
            loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(model)
            optimizer.update(model, grads)
            return loss

    algorithms  "all", where convolutions of stride 1 may use fewer multiplications (Winograd's, within 4e-5 of the
                largest value in float32), or "direct"
    batch       the number of images that algorithms are chosen for. By default that of each call; with it a smaller
                batch, the last of an epoch, uses the kernels of the others
    precision   "bfloat16" keeps activations and their gradients in half the memory and multiplies them in bfloat16;
                sums, parameters, statistics, the loss and the update stay float32. "auto" is that where the CPU has
                instructions for it, else "float32"

    The function is traced: it runs once for each set of shapes, on tensors without values, and again where another
    number comes in the place of an argument that is no tensor or array (a learning rate is better passed as an array),
    or where an attribute of a module or an optimiser that it reads has been set. Of all else that it looks at, global
    variables and what is in lists among them, it keeps what was there.

    Raises TraceError where the function asks for a value; NonFiniteError, with nothing written to any cell, where it
    writes to cells and what it writes or returns is NaN or infinite; UnknownNameError and ArgumentError for other
    options, or for bfloat16 on a machine that has no instructions for it.
    """
    if function is None:
        return functools.partial(Compiled, algorithms=algorithms, batch=batch, precision=precision)
    return Compiled(function, algorithms, batch, precision)
