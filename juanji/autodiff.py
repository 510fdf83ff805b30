"""Differentiation: record the function, then walk its graph forwards or backwards (002 §3).

Both modes come from the same records, so whatever runs has both. The walks are made of ordinary operators: inside
another transform they are recorded in turn, which gives derivatives of any order. Arguments may be tensors, numbers,
arrays, nested containers, and modules; what comes back is shaped like what was differentiated, a module as
`{name: Tensor}` over its parameters.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from juanji import recording, tree
from juanji.checks import same_names
from juanji.errors import ArgumentError, DTypeError, ShapeError, unknown_name
from juanji.graph import COMPOSITES, PRIMITIVES, Rule, Tangents, pullback, pushforward
from juanji.tensor import METHODS, Tensor

Function = Callable[..., Any]


def variable(value: Any, frame: recording.Frame) -> Tensor:
    """A tensor of the same value for `frame` to follow; frames outside take it for the original."""
    tensor = Tensor(float(value)) if isinstance(value, Integral | float) else Tensor.of(value)
    if not tensor.is_floating:
        raise DTypeError(
            "only floating-point tensors can be differentiated",
            received=f"{tensor.dtype}{list(tensor.shape)}",
            fix='x.astype("float32")',
        )
    alias = PRIMITIVES["identity"](tensor)
    frame.keep([alias])
    return alias


class Recorded:
    """A function run once on variables of its own: the arguments, the output and every node between them."""

    def __init__(self, function: Function, args: Sequence[Any], has_aux: bool = False) -> None:
        self.variables: list[Tensor] = []
        with recording.Frame() as frame:
            result: Any = function(*tree.map(self._enter(frame), tuple(args), self._bind(frame)))
        self.aux: Any
        output, self.aux = result if has_aux else (result, None)
        if any(isinstance(leaf, float | np.ndarray) for leaf in tree.leaves(output)):
            warnings.warn(
                "the function returned a plain number or array, which depends on nothing: its derivative is zero. "
                "Use jj.sin for math.sin, and keep tensors tensors",
                stacklevel=4,
            )
        self.output: Any = tree.map(Tensor.of, output)
        self.args, self.frame = args, frame

    def _enter(self, frame: recording.Frame) -> Callable[[Any], Tensor]:
        def enter(leaf: Any) -> Tensor:
            self.variables.append(variable(leaf, frame))
            return self.variables[-1]

        return enter

    def _bind(self, frame: recording.Frame) -> Callable[[Any], Any]:
        def bind(owner: Any) -> Any:
            for cell in owner.cells("parameter").values():
                if cell not in frame.bound:
                    frame.bind(cell, variable(cell.read(), frame))
                self.variables.append(frame.bound[cell])
            return owner

        return bind

    def shaped(self, values: Sequence[Tensor]) -> Any:
        """One value for each variable, put together like the arguments."""
        rest = iter(values)
        named = lambda owner: {name: next(rest) for name in owner.cells("parameter")}  # noqa: E731
        return tree.map(lambda _: next(rest), tuple(self.args), named)

    def aligned(self, tangents: Sequence[Any]) -> Iterator[Any]:
        """The leaves of `tangents` in the order of the variables; a module's are looked up by name."""
        for arg, tangent in tree.pairs(tuple(self.args), tuple(tangents), ("primal", "tangent")):
            if not tree.is_stateful(arg):
                yield tangent
                continue
            shapes = {name: cell.shape for name, cell in arg.cells("parameter").items()}
            given = {name: np.shape(value) for name, value in tangent.items()}
            what, fix = "jvp: the tangents are not those of the module's parameters", "one for each of parameters()"
            same_names(ArgumentError, what, shapes, given, fix=fix)
            yield from (tangent[name] for name in shapes)

    def forward(self, tangents: Sequence[Any]) -> Any:
        known: Tangents = {}
        for variable_, tangent in zip(self.variables, self.aligned(tangents), strict=True):
            known[id(variable_)] = variable_.like(tangent)
        pushforward(self.frame.nodes, known)
        return tree.map(lambda y: known[id(y)] if id(y) in known else y.zeros_like(), self.output)

    def backward(self, cotangents: Any, rules: Mapping[str, Rule] | None = None) -> Any:
        known: Tangents = {}
        for y, cotangent in tree.pairs(self.output, cotangents, ("output", "cotangent")):
            known[id(y)] = known[id(y)] + y.like(cotangent) if id(y) in known else y.like(cotangent)
        pullback(self.frame.nodes, known, self.frame.knows, rules)
        return self.shaped([known[id(x)] if id(x) in known else x.zeros_like() for x in self.variables])


def jvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Forward mode: `function(*primals)` and its derivative along `tangents`, which look like `primals` (eq. 3.4)."""
    for name, given in {"primals": primals, "tangents": tangents}.items():
        if not isinstance(given, tuple | list):
            raise ArgumentError(
                f"jvp: {name} come in a tuple, one for each argument",
                received=type(given).__name__,
                fix="jvp(f, (x,), (dx,))",
            )
    recorded = Recorded(function, primals)
    return recorded.output, recorded.forward(tangents)


def vjp(function: Function, *primals: Any, rules: Mapping[str, Rule] | None = None, has_aux: bool = False) -> Any:
    """Reverse mode: `function(*primals)` and a function from the output's cotangent to those of the primals (eq. 3.5).

    rules    other rules for some operators, by name: `{"relu": rule}` with `rule(cotangent, *inputs, **attrs)`
             returning the inputs' cotangents (guided back-propagation); UnknownNameError for a name there is not
    has_aux  `function` returns (output, anything); the result is then (output, pull, anything)
    """
    recorded = Recorded(function, primals, has_aux)
    known = {*PRIMITIVES, *COMPOSITES, *(node.name for node in recorded.frame.nodes)}
    for name in rules or {}:
        if name not in known:
            raise unknown_name("operator", name, known)
    pull = functools.partial(recorded.backward, rules=rules)
    return (recorded.output, pull, recorded.aux) if has_aux else (recorded.output, pull)


def value_and_grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that returns `function`'s scalar value and its gradient by the arguments `argnums`.

    One backward pass whatever the number of inputs. `argnums` a number gives one gradient, a sequence a tuple. With
    `has_aux`, `function` returns (value, anything) and the result is ((value, anything), gradient). Raises ShapeError
    unless the value is a scalar.
    """
    single = isinstance(argnums, Integral)
    chosen: Any = (argnums,) if single else tuple(argnums)  # type: ignore[arg-type]

    @functools.wraps(function)
    def differentiated(*args: Any, **options: Any) -> Any:
        recorded = Recorded(*split(function, chosen, args, options), has_aux=has_aux)
        value = recorded.output
        if not isinstance(value, Tensor) or value.size != 1:
            raise ShapeError(
                "grad: the function must return a scalar",
                received=f"shape {value.shape}" if isinstance(value, Tensor) else type(value).__name__,
                fix="reduce it (.sum(), .mean()), or use vjp or jacobian",
            )
        gradients = recorded.backward(value.full_like(1))
        return (value, recorded.aux) if has_aux else value, gradients[0] if single else gradients

    return differentiated


def grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """The gradient of a scalar function, as `value_and_grad` without the value; with `has_aux`, (gradient, aux)."""
    differentiated = value_and_grad(function, argnums, has_aux)

    @functools.wraps(function)
    def gradient(*args: Any, **options: Any) -> Any:
        value, gradients = differentiated(*args, **options)
        return (gradients, value[1]) if has_aux else gradients

    return gradient


def split(
    function: Function, argnums: Sequence[int], args: Sequence[Any], options: Mapping[str, Any]
) -> tuple[Function, list[Any]]:
    """`function` of the arguments `argnums` alone, the others held, and those arguments."""
    if any(not -len(args) <= i < len(args) for i in argnums):
        raise ArgumentError(
            "grad: argnums points past the arguments", received=f"argnums {argnums}, {len(args)} arguments"
        )
    places = [i % len(args) for i in argnums]

    def of_chosen(*chosen: Any) -> Any:
        rest = list(args)
        for place, value in zip(places, chosen, strict=True):
            rest[place] = value
        return function(*rest, **options)

    return of_chosen, [args[place] for place in places]


def jacobian(function: Function, argnums: int = 0, mode: str = "auto") -> Function:
    """All first derivatives of a function from one tensor to one tensor: shape = output shape + input shape.

    N passes forwards for N inputs, or M backwards for M outputs (002 §3); `mode` is "forward", "reverse" or "auto",
    which takes the cheaper.
    """
    if mode not in ("auto", "forward", "reverse"):
        raise ArgumentError("jacobian: unknown mode", received=repr(mode), rule='"auto", "forward" or "reverse"')

    def differentiated(*args: Any, **options: Any) -> Tensor:
        recorded = Recorded(*split(function, (argnums,), args, options))
        (arg,), y = recorded.args, recorded.output
        if not isinstance(y, Tensor) or isinstance(arg, dict | list | tuple) or tree.is_stateful(arg):
            raise ArgumentError(
                "jacobian: takes a function from one tensor to one tensor",
                received=f"{type(arg).__name__} to {type(y).__name__}",
                fix="stack or concatenate them, or use vjp and jvp",
            )
        x = recorded.variables[0]
        if not x.size or not y.size:
            return Tensor(np.zeros((*y.shape, *x.shape), y.dtype))
        forward = x.size < y.size if mode == "auto" else mode == "forward"
        if forward:
            columns = METHODS["stack"]([recorded.forward([unit]) for unit in basis(x)])
            return columns.reshape(x.size, y.size).transpose().reshape(*y.shape, *x.shape)
        rows = METHODS["stack"]([recorded.backward(unit)[0] for unit in basis(y)])
        return rows.reshape(*y.shape, *x.shape)

    return differentiated


def basis(tensor: Tensor) -> Iterator[Tensor]:
    """The unit vectors of `tensor`'s space, in its shape."""
    for i in range(tensor.size):
        unit = np.zeros(tensor.size, tensor.dtype)
        unit[i] = 1
        yield Tensor(unit.reshape(tensor.shape))


def hvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The Hessian of a scalar function times `tangents`, without the Hessian: forward over reverse mode."""
    return jvp(grad(function, tuple(range(len(primals)))), primals, tangents)[1]
