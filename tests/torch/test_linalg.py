"""Matrix products, indexing and movement against PyTorch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 4), (4, 2)),
        ((4,), (4, 2)),
        ((3, 4), (4,)),
        ((4,), (4,)),
        ((2, 3, 4), (4, 5)),
        ((5, 2, 3, 4), (4,)),
        ((4,), (2, 4, 3)),
        ((3, 4), (2, 4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((0, 3, 4), (4, 2)),
        ((2, 3, 0), (0, 2)),
    ],
)
def test_matmul(compare, a, b):
    compare(jj.matmul, torch.matmul, RNG.normal(size=a), RNG.normal(size=b))


@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 3, 4)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(compare, shape, bias):
    rest = (RNG.normal(size=3),) if bias else ()
    compare(jj.linear, F.linear, RNG.normal(size=shape), RNG.normal(size=(3, 4)), *rest)


INDICES = {
    "number": (1, Ellipsis, -1),
    "steps": (slice(None, None, 2), slice(1, -1)),
    "new axes": (None, slice(0, 1), None, 2),
    "array": (slice(None), np.array([[3, 0], [0, -1]])),
    "two arrays": (np.array([0, 1, 1]), np.array([2, 2, 0])),
    "an array first": np.array([1, 1, 0]),
    "truth": np.array([[True, False, True, False], [False, False, True, True]]),
}


@pytest.mark.parametrize("name", INDICES)
def test_getitem(compare, name):
    def theirs(x):
        index = INDICES[name]
        convert = lambda item: torch.tensor(item) if isinstance(item, np.ndarray) else item  # noqa: E731
        return x[tuple(map(convert, index))] if isinstance(index, tuple) else x[convert(index)]

    compare(lambda x: x[INDICES[name]], theirs, RNG.normal(size=(2, 4, 3)))


MOVEMENT = {
    "reshape": (lambda x: jj.reshape(x, 4, -1), lambda x: x.reshape(4, -1)),
    "transpose": (lambda x: jj.transpose(x, 2, 0, 1), lambda x: x.permute(2, 0, 1)),
    "moveaxis": (lambda x: jj.moveaxis(x, 0, -1), lambda x: x.movedim(0, -1)),
    "flip": (lambda x: jj.flip(x, (0, 2)), lambda x: x.flip(0, 2)),
    "concat": (lambda x: jj.concat([x, x * 2], 1), lambda x: torch.cat([x, x * 2], 1)),
    "stack": (lambda x: jj.stack([x, x * 2], -1), lambda x: torch.stack([x, x * 2], -1)),
    "broadcast_to": (lambda x: jj.broadcast_to(x, (5, 2, 3, 4)), lambda x: x.expand(5, 2, 3, 4)),
    "take": (
        lambda x: jj.take(x, np.array([2, 0, 2]), 1),
        lambda x: x.index_select(1, torch.tensor([2, 0, 2])),
    ),
    "flatten": (jj.flatten, lambda x: x.flatten(1)),
}


@pytest.mark.parametrize("name", MOVEMENT)
def test_movement(compare, name):
    compare(*MOVEMENT[name], RNG.normal(size=(2, 3, 4)))
