"""Losses: how far an output is from its target, as one number to bring down. Classes lie along the last axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from juanji.checks import nonnegative, one_of, positive, share
from juanji.errors import DTypeError, ShapeError
from juanji.graph import Array, Composite
from juanji.ops._geometry import away, floating
from juanji.ops.activation import log_softmax
from juanji.ops.elementwise import astype, broadcast_to, where
from juanji.ops.math import abs, equal, less, logical_and, not_equal, softplus, square
from juanji.ops.movement import expand_dims
from juanji.ops.reduction import mean, sum
from juanji.tensor import DTypeLike, Tensor, composite

IGNORED = -100
UNSIGNED = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}
REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"mean": mean, "sum": sum, "none": lambda loss: loss}


# Classes by number


def check_labels(name: str, labels: Tensor, classes: int, ignored: int | None = None) -> None:
    """Raise unless the labels are whole numbers and, where they have values, classes."""
    if labels.dtype.kind not in "iu":
        raise DTypeError(f"{name}: labels are whole numbers", received=str(labels.dtype), fix='labels.astype("int64")')
    if not labels.has_value or within(labels.array, classes):
        return
    outside = labels.array[(labels.array < 0) | (labels.array >= classes)]
    outside = outside if ignored is None else outside[outside != ignored]
    if outside.size:
        raise ShapeError(
            f"{name}: a label is not one of the classes",
            received=f"label {outside.flat[0]}, {classes} classes",
            rule=f"0 … {classes - 1}" + ("" if ignored is None else f", or {ignored} to be ignored"),
            fix="count classes from 0",
        )


def within(numbers: Array, count: int) -> bool:
    """Whether whole numbers all lie in 0 … count − 1. As unsigned ones, negative ones are large: one look does."""
    return not numbers.size or bool(numbers.view(UNSIGNED[numbers.itemsize]).max() < count)


def hits(labels: Tensor, classes: int) -> Tensor:
    """True at each label's class: (…,) becomes (…, C)."""
    return equal(expand_dims(astype(labels, "int64"), -1), Tensor(np.arange(classes)))


def one_hot(labels: Any, classes: int, dtype: DTypeLike = "float32") -> Tensor:
    """1 at each label's class and 0 elsewhere: (…,) becomes (…, C).

    Raises ShapeError for a label outside 0 … C − 1, DTypeError for labels that are not whole numbers.
    """
    labels = Tensor.of(labels)
    check_labels("one_hot", labels, classes)
    return astype(hits(labels, classes), dtype)


def by_label(
    log_p: Tensor, labels: Tensor, weight: Tensor | None, smoothing: float, ignored: int, reduction: str
) -> Tensor:
    """−w·ln p at the label's class, mixed with the mean over all classes as far as `smoothing` says.

    Labels that are to be ignored add nothing, and "mean" divides by the sum of the others' weights.
    """
    classes = log_p.shape[-1]
    counts = not_equal(astype(labels, "int64"), ignored)
    hit = logical_and(hits(labels, classes), expand_dims(counts, -1))
    weighted = log_p if weight is None else log_p * weight
    loss = -sum(where(hit, weighted, 0.0), -1)
    if smoothing:
        spread = where(counts, -sum(weighted, -1), 0.0)
        loss = loss * (1 - smoothing) + spread * (smoothing / classes)
    if reduction != "mean":
        return REDUCTIONS[reduction](loss)
    weights = astype(hit, log_p.dtype) if weight is None else where(hit, weight, 0.0)
    return sum(loss) / sum(weights)


def by_probability(log_p: Tensor, target: Tensor, weight: Tensor | None, smoothing: float, reduction: str) -> Tensor:
    """−Σ w·t·ln p over the classes, with t mixed with equal probabilities as far as `smoothing` says."""
    if smoothing:
        target = target * (1 - smoothing) + smoothing / log_p.shape[-1]
    loss = -sum(target * (log_p if weight is None else log_p * weight), -1)
    return REDUCTIONS[reduction](loss)


def class_examples(rng: np.random.Generator) -> Any:
    labels, weight = np.array([[0, 2, 1], [3, IGNORED, 3]]), np.abs(away(rng, 4))
    yield (away(rng, 2, 3, 4), labels, None), {"ignore_index": IGNORED, "reduction": "mean"}
    yield (away(rng, 2, 3, 4), labels % 4, weight), {"ignore_index": 3, "reduction": "mean"}
    yield (away(rng, 2, 4), labels[0, :2], weight), {"ignore_index": IGNORED, "reduction": "none"}


def cross_entropy_examples(rng: np.random.Generator) -> Any:
    yield from ((arrays, options | {"label_smoothing": 0.0}) for arrays, options in class_examples(rng))
    options = {"ignore_index": IGNORED, "reduction": "sum", "label_smoothing": 0.1}
    yield (away(rng, 3, 4), rng.integers(0, 4, 3), np.abs(away(rng, 4))), options
    yield (away(rng, 3, 4), rng.dirichlet(np.ones(4), 3), np.abs(away(rng, 4))), options


@composite(cross_entropy_examples, "cross_entropy")
def cross_entropy_c(
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    label_smoothing: float,
    ignore_index: int,
    reduction: str,
) -> Tensor:
    log_p = log_softmax(logits)
    if target.is_floating:
        return by_probability(log_p, target, weight, label_smoothing, reduction)
    return by_label(log_p, target, weight, label_smoothing, ignore_index, reduction)


@composite(class_examples, "nll_loss")
def nll_loss_c(log_p: Tensor, target: Tensor, weight: Tensor | None, *, ignore_index: int, reduction: str) -> Tensor:
    return by_label(log_p, target, weight, 0.0, ignore_index, reduction)


def check_classes(name: str, scores: Tensor, target: Tensor, weight: Any, ignored: int) -> Tensor | None:
    """Raise unless scores (…, C), labels (…) and weights (C,) belong together; the weights as a tensor."""
    floating(name, scores)
    if not scores.ndim or target.shape != scores.shape[:-1]:
        raise ShapeError(
            f"{name}: the target does not fit",
            received=f"scores {scores.shape}, target {target.shape} {target.dtype}",
            rule="scores (N, …, C) with class indices (N, …), whole numbers"
            + (", or probabilities (N, …, C)" if name == "cross_entropy" else ""),
        )
    check_labels(name, target, scores.shape[-1], ignored)
    return check_weight(name, scores, weight)


def check_weight(name: str, scores: Tensor, weight: Any, key: str = "weight") -> Tensor | None:
    """The weights of the classes as a tensor. Raises ShapeError unless there is one for each."""
    floating(name, scores)
    if weight is None:
        return None
    weight = Tensor.of(weight)
    floating(name, scores, weight)
    if weight.shape != scores.shape[-1:]:
        raise ShapeError(
            f"{name}: {key} does not fit",
            received=f"{key} {weight.shape}, scores {scores.shape}",
            rule=f"one number for each class: {scores.shape[-1:]}",
        )
    return weight


def cross_entropy(
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
) -> Tensor:
    """−ln softmax(logits) at the right class: the loss of classification, from net activations (003).

    logits           (N, …, C)
    target           class indices (N, …) of any whole-number dtype, or probabilities (N, …, C)
    weight           (C,): how much each class counts
    label_smoothing  the part of the target that is spread evenly over all classes (Szegedy et al. 2016)
    ignore_index     a label that counts for nothing
    reduction        "mean": over what counts, weighted for class indices; "sum"; "none": (N, …)

    As PyTorch's, but with the classes last. Raises ShapeError where the shapes do not fit and for a label outside
    0 … C − 1, DTypeError for dtypes, ArgumentError for other options.
    """
    logits, target = Tensor.of(logits), Tensor.of(target)
    one_of("cross_entropy", "reduction", reduction, REDUCTIONS)
    share("cross_entropy", label_smoothing=label_smoothing)
    if target.is_floating and logits.ndim and target.shape == logits.shape:
        floating("cross_entropy", logits, target)
        weight = check_weight("cross_entropy", logits, weight)
    else:
        weight = check_classes("cross_entropy", logits, target, weight, ignore_index)
    return cross_entropy_c(
        logits,
        target,
        weight,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction=reduction,
    )


def nll_loss(
    log_p: Any, target: Any, *, weight: Any = None, ignore_index: int = IGNORED, reduction: str = "mean"
) -> Tensor:
    """−ln p at the right class, from logarithms of probabilities (N, …, C): `cross_entropy` after `log_softmax`.

    target, weight, ignore_index, reduction and errors as `cross_entropy`, with class indices only.
    """
    log_p, target = Tensor.of(log_p), Tensor.of(target)
    one_of("nll_loss", "reduction", reduction, REDUCTIONS)
    weight = check_classes("nll_loss", log_p, target, weight, ignore_index)
    return nll_loss_c(log_p, target, weight, ignore_index=ignore_index, reduction=reduction)


# Distances


def distance(name: str, body: Callable[..., Tensor], **options: float) -> Composite:
    """Register the loss that is `body(x − target, **options)`, reduced, as a composite."""

    def function(x: Tensor, target: Tensor, *, reduction: str, **given: float) -> Tensor:
        return REDUCTIONS[reduction](body(x - target, **given))

    def examples(rng: np.random.Generator) -> Any:
        for reduction in REDUCTIONS:
            yield (away(rng, 2, 3), away(rng, 2, 3, low=3, high=4)), {"reduction": reduction, **options}

    return composite(examples, name)(function)


def huber_of(d: Tensor, *, delta: float) -> Tensor:
    size = abs(d)
    return where(less(size, delta), square(d) * 0.5, (size - 0.5 * delta) * delta)


mse_loss_c = distance("mse_loss", square)
l1_loss_c = distance("l1_loss", abs)
huber_loss_c = distance("huber_loss", huber_of, delta=2.0)
smooth_l1_loss_c = distance("smooth_l1_loss", lambda d, beta: huber_of(d, delta=beta) * (1 / beta), beta=2.0)


def paired(name: str, x: Any, target: Any, reduction: str) -> tuple[Tensor, Tensor]:
    """x and its target as tensors. Raises unless they are of one shape and floating dtype."""
    x, target = Tensor.of(x), Tensor.of(target)
    one_of(name, "reduction", reduction, REDUCTIONS)
    floating(name, x, target)
    if x.shape != target.shape:
        raise ShapeError(
            f"{name}: output and target differ in shape",
            received=f"{x.shape} and {target.shape}",
            rule="one shape; nothing is broadcast, because (N,) against (N, 1) would compare every pair",
        )
    return x, target


def mse_loss(x: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """(x − t)², of tensors of one shape; reduced as in `cross_entropy` ("mean" over all elements)."""
    return mse_loss_c(*paired("mse_loss", x, target, reduction), reduction=reduction)


def l1_loss(x: Any, target: Any, *, reduction: str = "mean") -> Tensor:
    """|x − t|, with derivative 0 at 0. As `mse_loss`."""
    return l1_loss_c(*paired("l1_loss", x, target, reduction), reduction=reduction)


def huber_loss(x: Any, target: Any, *, delta: float = 1.0, reduction: str = "mean") -> Tensor:
    """½d² where |d| = |x − t| < δ, δ · (|d| − ½δ) beyond (Huber 1964). Raises ArgumentError unless δ > 0."""
    positive("huber_loss", delta=delta)
    pair = paired("huber_loss", x, target, reduction)
    return huber_loss_c(*pair, delta=delta, reduction=reduction)


def smooth_l1_loss(x: Any, target: Any, *, beta: float = 1.0, reduction: str = "mean") -> Tensor:
    """½d²/β where |d| = |x − t| < β, |d| − ½β beyond: `huber_loss` divided by β. β = 0 is `l1_loss`."""
    nonnegative("smooth_l1_loss", beta=beta)
    if beta == 0:
        return l1_loss(x, target, reduction=reduction)
    pair = paired("smooth_l1_loss", x, target, reduction)
    return smooth_l1_loss_c(*pair, beta=beta, reduction=reduction)


def binary_examples(rng: np.random.Generator) -> Any:
    x, target = away(rng, 3, 4), rng.random((3, 4))
    yield (x, target, None, None), {"reduction": "mean"}
    yield (x, target, np.abs(away(rng, 3, 1)), np.abs(away(rng, 4))), {"reduction": "none"}


@composite(binary_examples, "binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits_c(
    logits: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, *, reduction: str
) -> Tensor:
    missed = softplus(-logits)
    loss = (1 - target) * logits + (missed if pos_weight is None else missed * ((pos_weight - 1) * target + 1))
    return REDUCTIONS[reduction](loss if weight is None else loss * weight)


def binary_cross_entropy_with_logits(
    logits: Any, target: Any, *, weight: Any = None, pos_weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """−t · ln σ(x) − (1 − t) · ln(1 − σ(x)), from net activations x, without overflow.

    logits, target  of one shape (N, …, C), targets between 0 and 1
    weight          factors that broadcast to that shape
    pos_weight      (C,): factors of the first term

    Reduced as in `mse_loss`. Raises ShapeError where the shapes do not fit, DTypeError for dtypes.
    """
    name = "binary_cross_entropy_with_logits"
    logits, target = paired(name, logits, target, reduction)
    pos_weight = check_weight(name, logits, pos_weight, "pos_weight")
    if weight is not None:
        weight = Tensor.of(weight)
        floating(name, logits, weight)
        weight = broadcast_to(weight, logits.shape)
    return binary_cross_entropy_with_logits_c(logits, target, weight, pos_weight, reduction=reduction)
