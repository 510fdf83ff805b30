"""Normalisation against PyTorch, with the channels moved to its place."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import juanji as jj

SHAPES = [(6, 4), (3, 5, 4), (2, 3, 4, 4), (2, 2, 3, 2, 4)]
RNG = np.random.default_rng(0)


def arrays(shape):
    return RNG.normal(1, 2, shape), RNG.normal(size=shape[-1:]), RNG.normal(size=shape[-1:])


def channels_first(function):
    return lambda x, *rest: function(x.movedim(-1, 1), *rest).movedim(1, -1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [False, True])
def test_batch_norm(compare, shape, affine):
    x, scale, bias = arrays(shape)
    parameters = (scale, bias) if affine else ()
    compare(
        lambda x, *p: jj.ops.batch_norm(x, *p, training=True, epsilon=1e-3)[0],
        channels_first(lambda x, *p: F.batch_norm(x, None, None, *p, training=True, eps=1e-3)),
        x,
        *parameters,
    )
    mean, var = RNG.normal(size=4), RNG.uniform(0.5, 2, 4)
    compare(
        lambda x, *p: jj.ops.batch_norm(x, *(p or (None, None)), mean, var),
        channels_first(lambda x, *p: F.batch_norm(x, torch.tensor(mean), torch.tensor(var), *p)),
        x,
        *parameters,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics(shape):
    x, mean, var = RNG.normal(1, 2, shape), RNG.normal(size=4), RNG.uniform(0.5, 2, 4)
    expected = torch.tensor(mean), torch.tensor(var)
    F.batch_norm(torch.tensor(x).movedim(-1, 1), *expected, training=True, momentum=0.3)
    _, *running = jj.ops.batch_norm(x, mean=mean, var=var, training=True, momentum=0.3)
    np.testing.assert_allclose(running, np.stack(expected), 1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2])
def test_layer_norm(compare, shape, count):
    x = RNG.normal(1, 2, shape)
    sizes = shape[-count:]
    compare(
        lambda x, scale, bias: jj.ops.layer_norm(x, scale, bias, axes=range(-count, 0)),
        lambda x, scale, bias: F.layer_norm(x, sizes, scale, bias),
        x,
        RNG.normal(size=sizes),
        RNG.normal(size=sizes),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm(compare, shape, groups):
    if len(shape) == 2 and groups == 4:
        pytest.skip("one value a group")
    compare(
        lambda x, scale, bias: jj.ops.group_norm(x, groups, scale, bias, epsilon=1e-3),
        channels_first(lambda x, scale, bias: F.group_norm(x, groups, scale, bias, eps=1e-3)),
        *arrays(shape),
    )


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_instance_norm(compare, shape):
    compare(
        lambda x, scale, bias: jj.ops.instance_norm(x, scale, bias),
        channels_first(lambda x, scale, bias: F.instance_norm(x, weight=scale, bias=bias)),
        *arrays(shape),
    )


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_local_response_norm(compare, shape, size):
    options = {"alpha": 0.3, "beta": 0.6, "k": 1.5}
    compare(
        lambda x: jj.ops.local_response_norm(x, size, **options),
        channels_first(lambda x: F.local_response_norm(x, size, **options)),
        RNG.normal(size=shape),
    )
