"""Every network compiled: it learns eight images by heart, and a step is that of the definitions."""

import copy

import numpy as np
import pytest
from small import batch, make, slow_but, without_dropout

import juanji as jj
from juanji import nn

# Compiled in a second or two. All others are slow, for nothing but the time that it takes to write their kernels.
QUICK = {"perceptron", "nin", "vgg11_bn", "highway_conv", "resnet18"}
# Deep ones without normalisation want smaller steps.
CAREFUL = {"lenet5_1998", "alexnet_2012", "vgg13", "vgg16", "vgg19", "squeezenet1_1", "fcn32s"}


def training_step(model, optimizer):
    def step(x, y):
        def objective(model):
            outputs = model(x)
            return nn.with_auxiliary(jj.cross_entropy)(outputs, y), nn.main_logits(outputs)

        (loss, logits), grads = jj.value_and_grad(objective, has_aux=True)(model)
        optimizer.update(model, grads)
        return loss, logits, grads

    return step


@pytest.mark.parametrize("name", slow_but(QUICK))
def test_it_learns_eight_images_by_heart(name):
    model = without_dropout(make(name))
    x, y = batch(model)
    step = jj.compile(training_step(model, jj.optim.Adam(model, lr=1e-3 if name in CAREFUL else 3e-3)))
    for _ in range(300):
        _, logits, _ = step(x, y)
        right = np.asarray(logits).argmax(-1) == y
        if right.all():
            break
    assert right.all(), f"{right.mean():.0%}"


@pytest.mark.parametrize("name", slow_but(QUICK - {"perceptron"}))
def test_a_training_step_is_that_of_the_definitions(name):
    model = without_dropout(make(name)).astype("float64")
    twin = copy.deepcopy(model)
    x, y = batch(model, 4)
    x = x.astype("float64")
    mine, its = jj.optim.SGD(model, 0.01), jj.optim.SGD(twin, 0.01)
    loss, logits, grads = jj.compile(training_step(model, mine))(x, y)
    want, wanted, gradients = training_step(twin, its)(x, y)
    np.testing.assert_allclose(float(loss), float(want), rtol=1e-9)
    np.testing.assert_allclose(logits, wanted, rtol=1e-7, atol=1e-9)
    for path, g in gradients.items():
        g = np.asarray(g)
        np.testing.assert_allclose(grads[path], g, rtol=0, atol=1e-7 * max(np.abs(g).max(), 1e-6), err_msg=path)
    for path, cell in twin.cells("buffer").items():
        np.testing.assert_allclose(model.cells()[path].read(), cell.read(), rtol=1e-8, atol=1e-12, err_msg=path)


FULL_SIZE = ["alexnet", "vgg16", "googlenet", "inception_v3", "resnet50", "densenet121", "mobilenet_v2", "fcn8s"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name):
    """Two steps of two images: the loss falls, and everything stays finite (the engine refuses what is not)."""
    model = without_dropout(jj.models.create(name))
    x, y = batch(model, 2)
    step = jj.compile(lambda x, y: full(x, y)[0])
    full = training_step(model, jj.optim.SGD(model, 1e-4))
    first, second = float(step(x, y)), float(step(x, y))
    assert 0 < second < first
