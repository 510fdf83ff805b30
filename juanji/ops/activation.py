"""Activation functions beyond those of math.py, each a node to draw and export. Derivatives at kinks are PyTorch's."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from juanji.errors import ArgumentError, ShapeError
from juanji.ops._geometry import away, axis_of, floating
from juanji.ops.elementwise import stop_gradient, where
from juanji.ops.math import abs, erf, exp, expm1, greater, greater_equal, less_equal, log, sigmoid, softplus, tanh
from juanji.ops.reduction import max, sum
from juanji.tensor import Tensor, composite

F = TypeVar("F", bound=Callable[..., Tensor])

# Klambauer, Unterthiner, Mayr, Hochreiter, "Self-normalizing neural networks", NIPS 2017.
SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


def activation(*examples: dict[str, Any]) -> Callable[[F], F]:
    """Register a function of one floating tensor `x` and options as a composite of its name, and return the door to it.

    The door takes arrays too, and gives the node every option, the default ones as well. `examples` are options.
    """

    def wrap(body: F) -> F:
        name, signature = body.__name__, inspect.signature(body)
        record = composite(lambda rng: [((away(rng, 3, 4),), options) for options in examples], name)(body)

        @functools.wraps(body)
        def call(*args: Any, **options: Any) -> Tensor:
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            x = Tensor.of(bound.arguments.pop("x"))
            floating(name, x)
            return record(x, **bound.arguments)

        return call  # type: ignore[return-value]

    return wrap


@activation({"slope": 0.1})
def leaky_relu(x: Any, slope: float = 0.01) -> Tensor:
    """x where x > 0, slope · x elsewhere."""
    return where(greater(x, 0), x, x * slope)


@activation({"alpha": 0.7})
def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """x where x > 0, α · (e^x − 1) elsewhere (Clevert, Unterthiner, Hochreiter 2016)."""
    positive = greater(x, 0)
    # The side not taken must not overflow: its derivative would be 0 · ∞.
    return where(positive, x, expm1(where(positive, 0.0, x)) * alpha)


@activation({})
def selu(x: Any) -> Tensor:
    """λ · elu(x, α) with the constants for which activations keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return elu(x, SELU_ALPHA) * SELU_SCALE


@activation({"approximate": "none"}, {"approximate": "tanh"})
def gelu(x: Any, approximate: str = "none") -> Tensor:
    """x · Φ(x) with the normal distribution function Φ, or with "tanh" its approximation (Hendrycks, Gimpel 2016)."""
    if approximate == "none":
        return x * 0.5 * (erf(x * math.sqrt(0.5)) + 1)
    if approximate == "tanh":
        return x * 0.5 * (tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1)
    raise ArgumentError("gelu: unknown approximation", received=repr(approximate), rule='"none" or "tanh"')


@activation({})
def silu(x: Any) -> Tensor:
    """x · σ(x), also called swish."""
    return x * sigmoid(x)


@activation({})
def mish(x: Any) -> Tensor:
    """x · tanh(ln(1 + e^x)) (Misra 2019)."""
    return x * tanh(softplus(x))


@activation({"low": -1.5, "high": 1.0})
def hardtanh(x: Any, low: float = -1.0, high: float = 1.0) -> Tensor:
    """x held between `low` and `high`, with derivative 0 from the bounds on. Raises ArgumentError if low > high."""
    if low > high:
        raise ArgumentError("hardtanh: bad bounds", received=f"low={low}, high={high}", rule="low ≤ high")
    return where(less_equal(x, low), low, where(greater_equal(x, high), high, x))


@activation({})
def relu6(x: Any) -> Tensor:
    """min(max(x, 0), 6), with derivative 0 at both ends."""
    return hardtanh(x, 0.0, 6.0)


@activation({})
def hardsigmoid(x: Any) -> Tensor:
    """relu6(x + 3)/6: σ in straight lines."""
    return relu6(x + 3) * (1 / 6)


@activation({})
def hardswish(x: Any) -> Tensor:
    """x · relu6(x + 3)/6 (Howard et al. 2019)."""
    return x * hardsigmoid(x)


@activation({})
def softsign(x: Any) -> Tensor:
    """x/(1 + |x|)."""
    return x / (abs(x) + 1)


@activation({})
def logsigmoid(x: Any) -> Tensor:
    """ln σ(x), without overflow."""
    return -softplus(-x)


@activation({})
def scaled_tanh(x: Any) -> Tensor:
    """1.7159 · tanh(2x/3): ±1 go to about ±1, where the curvature is largest (LeCun et al. 1998, appendix A)."""
    return tanh(x * (2 / 3)) * 1.7159


@activation({"axis": -1}, {"axis": 0})
def softmax(x: Any, axis: int = -1) -> Tensor:
    """e^x / Σ e^x along `axis`, with the largest element taken out so that nothing overflows (003)."""
    axis_of("softmax", axis, x.ndim)
    powers = exp(x - stop_gradient(max(x, axis, keepdims=True)))
    return powers / sum(powers, axis, keepdims=True)


@activation({"axis": -1}, {"axis": 0})
def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """ln softmax(x) = x − ln Σ e^x along `axis`, without overflow or ln 0."""
    axis_of("log_softmax", axis, x.ndim)
    shifted = x - stop_gradient(max(x, axis, keepdims=True))
    return shifted - log(sum(exp(shifted), axis, keepdims=True))


@activation({"axis": -1})
def softmin(x: Any, axis: int = -1) -> Tensor:
    """softmax(−x): large where x is small."""
    return softmax(-x, axis)


def prelu_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 3, 4), away(rng, 4)), {}
    yield (away(rng, 2, 3, 4), away(rng, 1)), {}


@composite(prelu_examples, "prelu")
def prelu_c(x: Tensor, slope: Tensor) -> Tensor:
    return where(greater(x, 0), x, x * slope)


def prelu(x: Any, slope: Any) -> Tensor:
    """x where x > 0, slope · x elsewhere, with a learnt slope: one, or one for each channel (He et al. 2015).

    x (…, C), slope (C,) or (1,). Raises ShapeError for another shape.
    """
    x, slope = Tensor.of(x), Tensor.of(slope)
    floating("prelu", x, slope)
    channels = x.shape[-1:] or (1,)
    if slope.shape not in [(1,), channels]:
        raise ShapeError(
            "prelu: the slope does not fit",
            received=f"slope of shape {slope.shape}, x of shape {x.shape}",
            rule=f"(1,), or one number for each channel: {channels}",
        )
    return prelu_c(x, slope)
