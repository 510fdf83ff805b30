"""Normalisation, channels last: by the batch, the sample, groups of channels, and neighbouring channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from juanji.checks import counts, dividing
from juanji.errors import ArgumentError, ShapeError
from juanji.ops._geometry import away, axes_of, floating
from juanji.ops.elementwise import stop_gradient
from juanji.ops.math import add, rsqrt, square
from juanji.ops.movement import pad_p, reshape, slice_p
from juanji.ops.reduction import mean, sum
from juanji.tensor import Tensor, composite

Parameter = Tensor | None


# What they share


def checked(name: str, x: Any, shape: Sequence[int] | None, **parameters: Any) -> list[Any]:
    """x and the parameters as tensors of one floating dtype, each parameter None or of `shape`, by default (C,)."""
    x = Tensor.of(x)
    given = {key: None if value is None else Tensor.of(value) for key, value in parameters.items()}
    floating(name, x, *(value for value in given.values() if value is not None))
    if x.ndim < 2:
        raise ShapeError(f"{name}: wrong rank", received=f"input of shape {x.shape}", rule="(N, …, C)")
    rule = x.shape[-1:] if shape is None else tuple(shape)
    for key, value in given.items():
        if value is not None and value.shape != rule:
            raise ShapeError(
                f"{name}: {key} does not fit the input",
                received=f"{key} of shape {value.shape}, input of shape {x.shape}",
                rule=f"{key} has shape {rule}",
            )
    return [x, *given.values()]


def affine(x: Tensor, scale: Parameter, bias: Parameter) -> Tensor:
    """γ · x + β, where they are given."""
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def standardised(x: Tensor, axes: tuple[int, ...], epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x − μ)/√(σ² + ε) with the mean and variance over `axes`, and those, with the axes kept."""
    centre = mean(x, axes, keepdims=True)
    centred = x - centre
    variance = mean(square(centred), axes, keepdims=True)
    return centred * rsqrt(variance + epsilon), centre, variance


# Batch normalisation


def batch_norm_examples(rng: np.random.Generator) -> Any:
    statistics = away(rng, 3), np.abs(away(rng, 3))
    yield (away(rng, 4, 3), away(rng, 3), away(rng, 3), *statistics), {"epsilon": 1e-5}
    yield (away(rng, 2, 2, 2, 3), None, None, *statistics), {"epsilon": 0.1}


@composite(batch_norm_examples, "batch_norm")
def batch_norm_c(x: Tensor, scale: Parameter, bias: Parameter, mean: Tensor, var: Tensor, *, epsilon: float) -> Tensor:
    """Batch normalisation by given statistics (003 eq. 33)."""
    inverse = rsqrt(var + epsilon)
    return affine(x - mean, inverse if scale is None else inverse * scale, bias)


def batch_norm_train_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 4, 3), away(rng, 3), away(rng, 3)), {"epsilon": 1e-5}
    yield (away(rng, 2, 2, 2, 3), None, None), {"epsilon": 0.1}


def batch_norm_pull(
    outputs: Sequence[Tensor], g: Tensor, x: Tensor, scale: Parameter, bias: Parameter, *, epsilon: float
) -> tuple[Parameter, ...]:
    """The derivatives by x, γ and β in two passes over g and x (Ioffe, Szegedy 2015, §3, with the sums worked out).

    With x̂ the standardised x: ∂β = Σ g, ∂γ = Σ g·x̂, ∂x = γ/√(σ² + ε) · (g − (∂β + x̂·∂γ)/m).
    """
    _, centre, variance = outputs
    axes = tuple(range(x.ndim - 1))
    inverse, centred = rsqrt(variance + epsilon), x - centre
    by_bias = sum(g, axes)
    by_scale = sum(g * centred, axes) * inverse
    count = 1 / math.prod(x.shape[:-1])
    factor = inverse if scale is None else inverse * scale
    by_x = (g - by_bias * count - centred * (inverse * by_scale * count)) * factor
    return by_x, None if scale is None else by_scale, None if bias is None else by_bias


@composite(batch_norm_train_examples, pull=batch_norm_pull)
def batch_norm_train(x: Tensor, scale: Parameter, bias: Parameter, *, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation by the batch's own mean and (biased) variance, and those (003 eq. 29-31)."""
    y, centre, variance = standardised(x, tuple(range(x.ndim - 1)), epsilon)
    return affine(y, scale, bias), reshape(centre, -1), reshape(variance, -1)


def batch_norm(
    x: Any,
    scale: Any = None,
    bias: Any = None,
    mean: Any = None,
    var: Any = None,
    *,
    training: bool = False,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
    unbiased: bool = True,
) -> Any:
    """γ · (x − μ)/√(σ² + ε) + β in each channel (003 eq. 29-33).

    x (N, …, C); scale γ, bias β and the running statistics (C,).

    Otherwise than for training, μ and σ² are the running `mean` and `var`, and the result is y. With `training=True`
    they are the batch's, and the result is (y, mean, var) with the running statistics moved towards them::

        mean ← (1 − momentum) · mean + momentum · μ        momentum = 1 − κ of eq. 32

    or the batch's alone where none are given. They are constants to derivatives; y is differentiated through the
    batch's. As in PyTorch the running variance is unbiased (divided by m − 1); `unbiased=False` divides by m, as
    003 and ONNX do.

    Raises ShapeError where a parameter is not (C,), and while training on one value a channel; ArgumentError without
    statistics to use.
    """
    x, scale, bias, mean, var = checked("batch_norm", x, None, scale=scale, bias=bias, mean=mean, var=var)
    check_statistics(mean, var, training)
    if not training:
        return batch_norm_c(x, scale, bias, mean, var, epsilon=epsilon)
    count = sample_size("batch_norm", x, range(x.ndim - 1))
    y, centre, variance = batch_norm_train(x, scale, bias, epsilon=epsilon)
    centre, variance = stop_gradient(centre), stop_gradient(variance)
    if unbiased:
        variance = variance * (count / (count - 1))
    return y, moved(mean, centre, momentum), moved(var, variance, momentum)


def check_statistics(mean: Parameter, var: Parameter, training: bool) -> None:
    if (mean is None) != (var is None) or (mean is None and not training):
        raise ArgumentError(
            "batch_norm: there are no statistics",
            received=" and ".join(f"no {key}" for key, value in [("mean", mean), ("var", var)] if value is None),
            rule="mean and var, both; or neither while training",
            fix="pass running statistics, or training=True",
        )


def moved(running: Parameter, batch: Tensor, momentum: float) -> Tensor:
    """A running statistic moved towards the batch's, which is taken by itself where there is none yet."""
    return batch if running is None else running * (1 - momentum) + batch * momentum


def sample_size(name: str, x: Tensor, axes: Sequence[int]) -> int:
    """How many values a channel's statistics are taken over. Raises ShapeError for fewer than two."""
    count = math.prod(x.shape[a] for a in axes)
    if count < 2:
        raise ShapeError(
            f"{name}: a variance needs more than one value in each channel",
            received=f"input of shape {x.shape}: {count} a channel",
            rule="a single value is its own mean, so the result would be 0 whatever it is",
            fix="a larger batch or image; or eval(), to use running statistics" if name == "batch_norm" else "",
        )
    return count


# Statistics of one sample


def layer_norm_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 5), away(rng, 5), away(rng, 5)), {"axes": (1,), "epsilon": 1e-5}
    yield (away(rng, 2, 3, 4), away(rng, 3, 4), None), {"axes": (1, 2), "epsilon": 0.1}


@composite(layer_norm_examples, "layer_norm")
def layer_norm_c(x: Tensor, scale: Parameter, bias: Parameter, *, axes: tuple[int, ...], epsilon: float) -> Tensor:
    y, _, _ = standardised(x, axes, epsilon)
    shape = tuple(n if a in axes else 1 for a, n in enumerate(x.shape))
    return affine(y, *(None if p is None else reshape(p, *shape) for p in (scale, bias)))


def layer_norm(
    x: Any, scale: Any = None, bias: Any = None, *, axes: int | Sequence[int] = -1, epsilon: float = 1e-5
) -> Tensor:
    """γ · (x − μ)/√(σ² + ε) + β with the mean and biased variance over `axes` of each sample (Ba, Kiros, Hinton 2016).

    x (N, …, C); scale γ and bias β have the sizes of the axes. By default these are the channels at each place, and
    `axes=(-3, -2, -1)` is a whole image. Raises ShapeError where a parameter does not fit.
    """
    x = Tensor.of(x)
    chosen = axes_of("layer_norm", axes, x.ndim)
    x, scale, bias = checked("layer_norm", x, [x.shape[a] for a in chosen], scale=scale, bias=bias)
    return layer_norm_c(x, scale, bias, axes=chosen, epsilon=epsilon)


def group_norm_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 3, 4), away(rng, 4), away(rng, 4)), {"groups": 2, "epsilon": 1e-5}
    yield (away(rng, 2, 2, 2, 3), None, None), {"groups": 1, "epsilon": 0.1}


@composite(group_norm_examples, "group_norm")
def group_norm_c(x: Tensor, scale: Parameter, bias: Parameter, *, groups: int, epsilon: float) -> Tensor:
    n, channels = x.shape[0], x.shape[-1]
    grouped = reshape(x, n, math.prod(x.shape[1:-1]), groups, channels // groups)
    y, _, _ = standardised(grouped, (1, 3), epsilon)
    return affine(reshape(y, *x.shape), scale, bias)


def group_norm(x: Any, groups: int, scale: Any = None, bias: Any = None, *, epsilon: float = 1e-5) -> Tensor:
    """γ · (x − μ)/√(σ² + ε) + β with the statistics of one sample over all places and C/groups channels (Wu, He 2018).

    x (N, …, C), scale and bias (C,). Raises ArgumentError where the groups do not divide the channels.
    """
    x, scale, bias = checked("group_norm", x, None, scale=scale, bias=bias)
    dividing("group_norm", groups, x.shape[-1], received=f"groups={groups}, input of shape {x.shape}")
    return group_norm_c(x, scale, bias, groups=groups, epsilon=epsilon)


def instance_norm_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 3, 4), away(rng, 4), away(rng, 4)), {"epsilon": 1e-5}
    yield (away(rng, 2, 2, 2, 3), None, None), {"epsilon": 0.1}


@composite(instance_norm_examples, "instance_norm")
def instance_norm_c(x: Tensor, scale: Parameter, bias: Parameter, *, epsilon: float) -> Tensor:
    y, _, _ = standardised(x, tuple(range(1, x.ndim - 1)), epsilon)
    return affine(y, scale, bias)


def instance_norm(x: Any, scale: Any = None, bias: Any = None, *, epsilon: float = 1e-5) -> Tensor:
    """γ · (x − μ)/√(σ² + ε) + β in each channel of each sample by itself (Ulyanov, Vedaldi, Lempitsky 2016).

    x (N, *X, C), scale and bias (C,). Raises ShapeError for images of one pixel.
    """
    x, scale, bias = checked("instance_norm", x, None, scale=scale, bias=bias)
    sample_size("instance_norm", x, range(1, x.ndim - 1))
    return instance_norm_c(x, scale, bias, epsilon=epsilon)


# Neighbouring channels


def local_response_norm_examples(rng: np.random.Generator) -> Any:
    yield (away(rng, 2, 3, 5),), {"size": 3, "alpha": 0.1, "beta": 0.75, "k": 2.0}
    yield (away(rng, 2, 3),), {"size": 4, "alpha": 0.5, "beta": 0.5, "k": 1.0}


@composite(local_response_norm_examples, "local_response_norm")
def local_response_norm_c(x: Tensor, *, size: int, alpha: float, beta: float, k: float) -> Tensor:
    zero, low, high = (0,) * (x.ndim - 1), size // 2, (size - 1) // 2
    squares = pad_p(square(x), low=(*zero, low), high=(*zero, high), interior=(*zero, 0))
    rest = tuple((0, n, 1) for n in x.shape[:-1])
    neighbours = [slice_p(squares, index=(*rest, (i, i + x.shape[-1], 1))) for i in range(size)]
    total = functools.reduce(add, neighbours)
    return x * (total * (alpha / size) + k) ** -beta


def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x/(k + α · Σ x²/size)^β with the sum over `size` channels around each (AlexNet: Krizhevsky et al. 2012, §3.3).

    x (N, …, C). Channels past the ends count as 0. As in PyTorch α is divided by `size`, which the paper does not do:
    its n = 5, α = 10⁻⁴ are size=5, alpha=5e-4 here.
    """
    (x,) = checked("local_response_norm", x, None)
    counts("local_response_norm", size=size)
    return local_response_norm_c(x, size=size, alpha=alpha, beta=beta, k=k)
