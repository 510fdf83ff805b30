"""Optimisers, clipping and schedules against torch.optim: 20 steps in float64."""

import numpy as np
import pytest
import torch

import juanji as jj
from juanji import nn, optim
from juanji.optim import schedules

CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.7}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.01}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.1}),
]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 4)), RNG.normal(size=(16, 2))


def network():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).astype("float64")
    model.initialise(3)
    return model


def gradients(model):
    return jj.value_and_grad(lambda m: jj.ops.mse_loss(m(jj.Tensor(X)), jj.Tensor(Y)))(model)[1]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_twenty_steps(name, options):
    model = network()
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
    theirs.load_state_dict({key: torch.tensor(np.asarray(v)) for key, v in model.state_dict().items()})
    one = getattr(optim, name)(model, **options)
    two = getattr(torch.optim, name)(theirs.parameters(), **options)
    for step in range(20):
        one.update(model, gradients(model))
        two.zero_grad()
        torch.nn.functional.mse_loss(theirs(torch.tensor(X)), torch.tensor(Y)).backward()
        two.step()
        if step == 9:
            one.lr = two.param_groups[0]["lr"] = 0.005
    for key, parameter in theirs.named_parameters():
        np.testing.assert_allclose(model.parameters()[key], parameter.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [8.0, 0.125])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_learning_rates_of_their_own_are_parameter_groups(name, options, factor):
    """Biases learn faster, with the same weight decay, or slower, with less; the first layer's weight not at all."""
    model = network()
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)).double()
    theirs.load_state_dict({key: torch.tensor(np.asarray(v)) for key, v in model.state_dict().items()})
    one = optim.multiplied(getattr(optim, name)(model, **options), {"*.bias": factor})
    two = getattr(torch.optim, name)([p for key, p in theirs.named_parameters() if key != "0.weight"], **options)
    (first,) = two.param_groups
    biases = [p for key, p in theirs.named_parameters() if key.endswith("bias")]
    first["params"] = [p for p in first["params"] if not any(p is bias for bias in biases)]
    changed = {"lr": options["lr"] * factor, "weight_decay": first["weight_decay"] / max(factor, 1)}
    two.add_param_group({**first, "params": biases, **changed})
    for _ in range(20):
        one.update(model, gradients(model), frozen=["0.weight"])
        two.zero_grad()
        torch.nn.functional.mse_loss(theirs(torch.tensor(X)), torch.tensor(Y)).backward()
        two.step()
    for key, parameter in theirs.named_parameters():
        np.testing.assert_allclose(model.parameters()[key], parameter.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clipping(max_norm):
    grads = gradients(network())
    theirs = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads.values()]
    for parameter, g in zip(theirs, grads.values(), strict=True):
        parameter.grad = torch.tensor(np.asarray(g))
    norm = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    np.testing.assert_allclose(optim.grad_norm(grads), norm, rtol=1e-12)
    for parameter, g in zip(theirs, optim.clip_grad_norm(grads, max_norm).values(), strict=True):
        np.testing.assert_allclose(g, parameter.grad, rtol=1e-12)


def rates(make, steps):
    """The learning rate before each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedules():
    s = torch.optim.lr_scheduler
    pairs = [
        (schedules.stepwise(0.1, 3, 0.5), lambda o: s.StepLR(o, 3, 0.5)),
        (schedules.cosine(0.1, 20, final=0.01), lambda o: s.CosineAnnealingLR(o, 20, 0.01)),
        (schedules.one_cycle(0.1, 20), lambda o: s.OneCycleLR(o, 0.1, 20, cycle_momentum=False)),
    ]
    for ours, theirs in pairs:
        # OneCycleLR divides the smallest rate by start·final as we multiply by it.
        np.testing.assert_allclose([ours(t) for t in range(19)], rates(theirs, 19), rtol=1e-9)
