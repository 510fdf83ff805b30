"""Optimisers, averages of weights, gradient clipping, learning-rate schedules and the stopping rule."""

from juanji.optim import schedules
from juanji.optim.adaptive import Adam, AdamW, RMSprop
from juanji.optim.averaging import ExponentialMovingAverage
from juanji.optim.clipping import clip_grad_norm, clip_grad_value, grad_norm
from juanji.optim.muon import Muon
from juanji.optim.optimizer import Optimizer, multiplied
from juanji.optim.sgd import SGD
from juanji.optim.stopping import StoppingRule

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "ExponentialMovingAverage",
    "Muon",
    "Optimizer",
    "RMSprop",
    "StoppingRule",
    "clip_grad_norm",
    "clip_grad_value",
    "grad_norm",
    "multiplied",
    "schedules",
]
