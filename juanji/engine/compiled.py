"""`compile`: a function on tensors as machine code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from juanji import recording, tree
from juanji.errors import NonFiniteError
from juanji.graph import Graph, is_array
from juanji.kernels import isa as isas
from juanji.tensor import Tensor, trace


class Compiled:
    """A function that runs as machine code. Called like the function itself.

    It is traced and planned once for each set of shapes, dtypes, other arguments and modes (training or not) of the
    modules it calls. Tensors and arrays among its arguments, in any containers, are its inputs; cells that it reads or
    writes are its state.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.plans: dict[Any, list[tuple[Modes, Any]]] = {}
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: Any) -> Any:
        if os.environ.get("JUANJI_BACKEND") == "numpy" or recording.active():
            return self.function(*args)
        plan, arrays = self.lookup(args)
        plan.bind(arrays)
        if not plan.run():
            name = getattr(self, "__name__", "the function")
            raise NonFiniteError(
                "compile: a value is not finite, so the step was not taken",
                received=f"{name}() gave NaN or infinity, or would have written it",
                rule="parameters, statistics and the optimiser are still those before the step",
                fix="a smaller learning rate, or look for the layer with JUANJI_BACKEND=numpy",
            )
        return plan.results()

    def plan(self, *args: Any) -> Any:
        """The plan for these arguments, with them put in: `plan.run()` does the work without copying."""
        plan, arrays = self.lookup(args)
        plan.bind(arrays)
        return plan

    def lookup(self, args: Any) -> tuple[Any, list[Any]]:
        leaves = list(tree.leaves(args))
        arrays = [x.array if isinstance(x, Tensor) else x for x in leaves if is_array(x)]
        key = tuple((x.shape, x.dtype) if is_array(x) else (type(x), x if x.__hash__ else id(x)) for x in leaves)
        known = self.plans.setdefault(key, [])
        for modes, plan in known:
            if modes.hold():
                return plan, arrays
        modes, plan = self.make(args)
        known.append((modes, plan))
        return plan, arrays

    def make(self, args: Any) -> tuple[Modes, Any]:
        from juanji.engine.plan import Plan
        from juanji.engine.planner import Planner
        from juanji.engine.simplify import simplify

        graph = trace(self.function, *args)
        isa = isas.current()
        return Modes(graph), Plan(Planner(simplify(graph), isa).draft(), isa)


class Modes:
    """The modes of the modules that a graph called, training or not, as they were when it was traced."""

    def __init__(self, graph: Graph) -> None:
        owners = {id(scope.owner): scope.owner for scope in graph.scopes}
        self.modes = [(owner, owner.training) for owner in owners.values() if hasattr(owner, "training")]

    def hold(self) -> bool:
        return all(owner.training is mode for owner, mode in self.modes)


def compile(function: Callable[..., Any]) -> Compiled:
    """`function` as machine code: a training step over model, optimiser and batch, an inference, or anything else.

    Use it on a function or as a decorator::

        @jj.compile
        def step(x, y):
            loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(model)
            optimizer.update(model, grads)
            return loss

    The function is traced: it runs once for each set of shapes, on tensors without values. Raises TraceError where it
    asks for one, and NonFiniteError, with nothing written to any cell, where a result is NaN or infinite.
    """
    return Compiled(function)


def as_arrays(args: Any) -> list[Any]:
    return [np.asarray(x) for x in tree.leaves(args) if is_array(x)]
