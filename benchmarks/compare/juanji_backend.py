"""juanji, compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import juanji as jj
from benchmarks.compare import data
from benchmarks.compare.networks import CLASSES
from benchmarks.compare.problem import Problem
from juanji.ops.conv import conv_input_grad, conv_weight_grad
from juanji.ops.convspec import plan

Run = Callable[[], object]


def create(case: dict[str, Any]) -> Any:
    """The case's model with its weights drawn, which is no part of the first step."""
    model = jj.models.create(
        case["model"],
        classes=CLASSES,
        in_channels=case["channels"],
        input_size=case["size"],
        **case["options"],
    )
    model.state_dict()
    return model


def train(case: dict[str, Any], **options: Any) -> Run:
    x, y = data.batch(case)
    model = create(case)
    opt = jj.optim.SGD(model, data.RATE, data.MOMENTUM, weight_decay=data.DECAY)

    def step(x: Any, y: Any) -> Any:
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(model)
        opt.update(model, grads)
        return loss

    compiled = jj.compile(step, **options)
    return lambda: np.asarray(compiled(x, y))


def infer(case: dict[str, Any], **options: Any) -> Run:
    x, _ = data.batch(case)
    compiled = jj.compile(create(case).eval(), **options)
    return lambda: np.asarray(compiled(x))


def layer(case: dict[str, Any]) -> Run:
    """One face, its images where a network has them: in memory with a border, which whoever makes them writes along."""
    problem = Problem.parse(case["problem"])
    x, w, g = data.operands(problem)
    spec = plan("conv", problem.size, problem.taps, problem.stride, problem.padding, problem.dilation, problem.groups)
    options = {name: getattr(problem, name) for name in ("stride", "padding", "dilation", "groups")}
    images, gradient = jj.Tensor(x), jj.Tensor(g)
    function, argument = {
        "forward": (lambda w: jj.conv(images, w, **options), w),
        "input-gradient": (lambda w: conv_input_grad(w, gradient, spec=spec), w),
        "weight-gradient": (lambda g: conv_weight_grad(images, g, spec=spec), g),
    }[case["face"]]
    return jj.compile(function).plan(argument).run


def prepare(case: dict[str, Any], settings: dict[str, Any]) -> Run:
    """The case as a function without arguments. JUANJI_THREADS says how many threads."""
    options = {name: value for name, value in settings.items() if name != "threads"}
    return {"train": train, "infer": infer, "layer": layer}[case["kind"]](case, **options)
