"""Losses against PyTorch, over all their options."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

RNG = np.random.default_rng(0)
REDUCTIONS = ["mean", "sum", "none"]
PLACES = [(5,), (2, 3), (2, 2, 3)]
WEIGHTS = [None, np.array([0.5, 2.0, 1.0, 3.0])]  # PyTorch does not differentiate by them


def channels_first(x):
    return x.movedim(-1, 1).contiguous() if x.ndim > 2 else x


def tensor(weights):
    return None if weights is None else torch.tensor(weights)


def labels(places, ignored):
    result = RNG.integers(0, 4, places)
    result.flat[:2] = [1, ignored]
    return result


@pytest.mark.parametrize(
    ("places", "reduction", "weight", "smoothing", "ignored"),
    list(itertools.product(PLACES, REDUCTIONS, WEIGHTS, [0.0, 0.2], [-100, 2])),
)
def test_cross_entropy(compare, places, reduction, weight, smoothing, ignored):
    options = {"reduction": reduction, "label_smoothing": smoothing, "ignore_index": ignored}
    compare(
        lambda x, y: jj.cross_entropy(x, y, weight=weight, **options),
        lambda x, y: F.cross_entropy(channels_first(x), y, tensor(weight), **options),
        RNG.normal(0, 3, (*places, 4)),
        labels(places, ignored),
    )


@pytest.mark.parametrize(
    ("places", "reduction", "weight", "smoothing"), list(itertools.product(PLACES, REDUCTIONS, WEIGHTS, [0.0, 0.2]))
)
def test_cross_entropy_of_probabilities(compare, places, reduction, weight, smoothing):
    options = {"reduction": reduction, "label_smoothing": smoothing}
    compare(
        lambda x, y: jj.cross_entropy(x, y, weight=weight, **options),
        lambda x, y: F.cross_entropy(channels_first(x), channels_first(y), tensor(weight), **options),
        RNG.normal(0, 3, (*places, 4)),
        RNG.dirichlet(np.ones(4), places),
    )


@pytest.mark.parametrize(
    ("places", "reduction", "weight", "ignored"), list(itertools.product(PLACES, REDUCTIONS, WEIGHTS, [-100, 2]))
)
def test_nll_loss(compare, places, reduction, weight, ignored):
    options = {"reduction": reduction, "ignore_index": ignored}
    compare(
        lambda x, y: jj.nll_loss(x, y, weight=weight, **options),
        lambda x, y: F.nll_loss(channels_first(x), y, tensor(weight), **options),
        np.log(RNG.dirichlet(np.ones(4), places)),
        labels(places, ignored),
    )


def test_a_single_sample(compare):
    compare(jj.cross_entropy, F.cross_entropy, RNG.normal(size=4), np.array(2))


DISTANCES = {
    "mse_loss": {},
    "l1_loss": {},
    "huber_loss": {"delta": 0.7},
    "smooth_l1_loss": {"beta": 0.5},
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", DISTANCES)
def test_distances(compare, name, reduction):
    """With equal elements, and some at the joint of Huber's two pieces."""
    x, target = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3, 4))
    target[0, 0] = x[0, 0] + [0.0, 0.5, 0.7, -0.7]
    options = DISTANCES[name] | {"reduction": reduction}
    compare(
        lambda x, t: getattr(jj.ops, name)(x, t, **options),
        lambda x, t: getattr(F, name)(x, t, **options),
        x,
        target,
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("pos_weight", WEIGHTS)
@pytest.mark.parametrize("weight", [None, RNG.uniform(0.5, 2, (3, 1))])
def test_binary_cross_entropy(compare, reduction, pos_weight, weight):
    x = RNG.normal(0, 5, (2, 3, 4))
    x[0, 0] = [-900, 900, -40, 40]
    compare(
        lambda x, t: jj.ops.binary_cross_entropy_with_logits(
            x, t, weight=weight, pos_weight=pos_weight, reduction=reduction
        ),
        lambda x, t: F.binary_cross_entropy_with_logits(
            x, t, tensor(weight), pos_weight=tensor(pos_weight), reduction=reduction
        ),
        x,
        RNG.random((2, 3, 4)),
    )
