"""PyTorch: eager or compiled, channels first or last, in float32 or with autocast to bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.compare import data
from benchmarks.compare.networks import Layers, network
from benchmarks.compare.problem import Problem

Run = Callable[[], object]


class Residual(nn.Module):
    def __init__(self, body: Layers, shortcut: Layers) -> None:
        super().__init__()
        self.body, self.shortcut = build(body), build(shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


MAKERS: dict[str, Callable[..., nn.Module]] = {
    "conv": lambda c, m, size, stride, padding, bias: nn.Conv2d(c, m, size, stride, padding, bias=bias),
    "norm": nn.BatchNorm2d,
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "maxpool": nn.MaxPool2d,
    "meanpool": lambda: nn.AdaptiveAvgPool2d(1),
    "flatten": nn.Flatten,
    "dense": nn.Linear,
    "dropout": nn.Dropout,
    "residual": Residual,
}


def build(layers: Layers) -> nn.Sequential:
    return nn.Sequential(*(MAKERS[name](*arguments) for name, *arguments in layers))


def images(x: data.Array, settings: dict[str, Any]) -> torch.Tensor:
    """(N, H, W, C) as (N, C, H, W), in memory as the settings say."""
    tensor = torch.from_numpy(x).permute(0, 3, 1, 2)
    return tensor if settings.get("channels_last") else tensor.contiguous()


def placed(net: nn.Module, settings: dict[str, Any]) -> nn.Module:
    return net.to(memory_format=torch.channels_last) if settings.get("channels_last") else net  # type: ignore[call-overload]


def precision(settings: dict[str, Any]) -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=settings.get("precision") == "bfloat16")


def train(case: dict[str, Any], settings: dict[str, Any]) -> Run:
    x, y = data.batch(case)
    tx, ty = images(x, settings), torch.from_numpy(y)
    net = placed(build(network(case)), settings)
    fused = settings.get("fused", False)
    optimiser = torch.optim.SGD(
        net.parameters(), lr=data.RATE, momentum=data.MOMENTUM, weight_decay=data.DECAY, fused=fused
    )

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with precision(settings):
            return nn.functional.cross_entropy(net(x), y)

    loss = torch.compile(loss_of) if settings.get("compile") else loss_of

    def step() -> None:
        optimiser.zero_grad()
        loss(tx, ty).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def infer(case: dict[str, Any], settings: dict[str, Any]) -> Run:
    x = images(data.batch(case)[0], settings)
    net = placed(build(network(case)).eval(), settings)
    if settings.get("precision") == "bfloat16":  # which autocast would cast the weights to in every run
        net, x = net.to(torch.bfloat16), x.to(torch.bfloat16)

    @torch.inference_mode()
    def run() -> None:
        net(x)

    return run


def layer(case: dict[str, Any], settings: dict[str, Any]) -> Run:
    """One face. The gradients are what `backward` calls, asked for one of them alone."""
    problem = Problem.parse(case["problem"])
    x, w, g = data.operands(problem)
    tx, tg = images(x, settings), images(g, settings)
    tw = images(data.aligned(w.transpose(3, 0, 1, 2)), settings)
    how = (problem.stride, problem.padding, (problem.dilation,) * 2)
    forward, backward = torch.ops.aten.convolution, torch.ops.aten.convolution_backward
    mask = [case["face"] == "input-gradient", case["face"] == "weight-gradient", False]

    @torch.inference_mode()
    def run() -> None:
        if any(mask):
            backward(tg, tx, tw, None, *how, False, (0, 0), problem.groups, mask)
        else:
            forward(tx, tw, None, *how, False, (0, 0), problem.groups)

    return run


def prepare(case: dict[str, Any], settings: dict[str, Any]) -> Run:
    """The case as a function without arguments."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(0)
    return {"train": train, "infer": infer, "layer": layer}[case["kind"]](case, settings)
