"""CIFAR-10 with juanji's default recipe, in juanji and in PyTorch with the same one: accuracy and seconds.

    python -m benchmarks.cifar cifar10.zip results.jsonl --epochs 15 --seeds 0,1,2

Both begin with the same weights and are given the same batches, by the same loader, at the same learning rates, in
bfloat16 where the CPU has it. PyTorch runs eagerly on images with the channels last, with its fused optimiser, which
was its fastest form (`benchmarks.compare`, "train airbench94"). Seconds are from the archive to the last answer, once
the images have been decoded into the cache. Trainings that are among the results already are not repeated.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from juanji.models.airbench import COOL
from juanji.optim.muon import POLYNOMIAL, TINY
from juanji.tensor import Tensor
from juanji.train import TTA, Choices, Facts, Session, Trainer
from juanji.train.views import view

AT_ONCE = 500  # images that are answered together
STATISTICS = 2  # batches that the statistics of averaged weights are measured on, as in juanji
Array = np.ndarray[Any, np.dtype[Any]]


def prepared(archive: str, epochs: int, seed: int) -> Trainer:
    """The training that `juanji train` begins, tested once, at the end."""
    given = {"model": "airbench94", "epochs": epochs, "eval_every": epochs, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        return Session.start(Choices.of(archive, Facts.of(archive), given), folder).trainer


def in_juanji(trainer: Trainer) -> float:
    return float([*trainer.run()][-1].test_accuracy or 0.0)


class InTorch:
    """The training of a trainer in PyTorch, which asks it for weights, batches and learning rates only."""

    def __init__(self, trainer: Trainer) -> None:
        import torch

        from benchmarks.compare.networks import airbench
        from benchmarks.compare.torch_backend import build

        self.torch, self.recipe = torch, trainer.recipe
        self.trainer: Any = trainer  # whose optimiser is Muon
        self.net = build(airbench(3, 32)).to(memory_format=torch.channels_last)
        self.norms = [module for module in self.net if isinstance(module, torch.nn.BatchNorm2d)]
        self.begin()
        biases = [norm.bias for norm in self.norms]
        *kernels, head = self.without(self.net[0].weight, self.net[-1].bias, *self.scales, *biases)
        decay, ((_, of_biases), (_, of_head)) = self.recipe.weight_decay, self.recipe.lr_multipliers
        self.factors = of_biases, of_head
        groups = [
            {"params": params, "weight_decay": decay / factor}
            for params, factor in zip((biases, [head]), self.factors, strict=True)
        ]
        self.optimizer = torch.optim.SGD(groups, lr=self.recipe.rate, momentum=0.9, nesterov=True, fused=True)
        self.kernels = [(kernel, torch.zeros_like(kernel)) for kernel in kernels]
        self.learnt = [*kernels, *biases, head]
        self.means = [p.detach().clone() for p in self.learnt]

    @property
    def scales(self) -> list[Any]:
        """Of the normalisations, which stay 1."""
        return [norm.weight for norm in self.norms]

    def without(self, *parameters: Any) -> list[Any]:
        return [p for p in self.net.parameters() if not any(p is each for each in parameters)]

    def begin(self) -> None:
        """Take over the trainer's weights. The head has a bias here, which stays 0."""
        torch, model = self.torch, self.trainer.model
        head = self.net[-1].bias
        with torch.no_grad():
            head.zero_()
            theirs = self.without(head, *self.scales)
            for value, parameter in zip(model.parameters().values(), theirs, strict=True):
                array = np.array(value)  # of a convolution (*k, in, out)
                array = np.moveaxis(array, (-1, -2), (0, 1)) if array.ndim > 2 else array
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
        for norm in self.norms:
            norm.momentum = model.blocks[0].norm1.momentum

    def images(self, x: Array) -> Any:
        return self.torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2)

    def logits(self, x: Any) -> Any:
        bfloat16 = self.recipe.precision == "bfloat16" and self.net.training
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=bfloat16):
            return self.net(x) / COOL

    def batches(self, epoch: int) -> Iterator[tuple[Array, Array]]:
        self.trainer.progress.epoch = epoch
        return self.trainer.batches()

    def __call__(self) -> float:
        total, done = self.recipe.epochs * self.trainer.count, 0
        schedule = self.recipe.make_schedule(total)
        for epoch in range(1, self.recipe.epochs + 1):
            for x, y in self.batches(epoch):
                self.step(self.images(x), self.torch.from_numpy(y), schedule(done))
                done += 1
                self.average(min(self.recipe.ema, (1 + done) / (10 + done)))
        return self.accuracy()

    def step(self, x: Any, y: Any, lr: float) -> None:
        for group, factor in zip(self.optimizer.param_groups, self.factors, strict=True):
            group["lr"] = lr * factor
        self.optimizer.zero_grad()
        smoothing = self.recipe.label_smoothing
        self.torch.nn.functional.cross_entropy(self.logits(x), y, label_smoothing=smoothing).backward()
        self.optimizer.step()
        with self.torch.no_grad():
            for kernel, velocity in self.kernels:
                self.turn(kernel, velocity, lr)

    def turn(self, kernel: Any, velocity: Any, lr: float) -> None:
        """A step of Muon, its products in bfloat16 as it was published."""
        muon = self.trainer.optimizer
        velocity.mul_(muon.momentum).add_(kernel.grad)
        x = kernel.grad.add(velocity, alpha=muon.momentum).flatten(1)
        x = (x / (x.norm() + TINY)).bfloat16()
        a, b, c = POLYNOMIAL
        for _ in range(muon.rounds):
            small = len(x) <= x.shape[1]
            square = x @ x.T if small else x.T @ x
            rest = b * square + c * square @ square
            x = a * x + (rest @ x if small else x @ rest)
        kernel.mul_(len(kernel) ** 0.5 / (kernel.norm() + TINY)).add_(x.view_as(kernel).float(), alpha=-lr)
        kernel.grad = None

    def average(self, decay: float) -> None:
        with self.torch.no_grad():
            self.torch._foreach_lerp_(self.means, self.learnt, 1 - decay)

    def accuracy(self) -> float:
        """Of the averaged weights, with statistics measured for them, over the recipe's views."""
        torch, data = self.torch, self.trainer.dataset.test
        with torch.no_grad():
            for parameter, mean in zip(self.learnt, self.means, strict=True):
                parameter.copy_(mean)
            for norm in self.norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
            for x, _ in itertools.islice(self.batches(self.recipe.epochs), STATISTICS):
                self.logits(self.images(x))
        self.net.eval()
        right = 0
        for start in range(0, len(data), AT_ONCE):
            some = slice(start, start + AT_ONCE)
            x, total = Tensor(self.trainer.preprocessing(data.read(some))), 0.0
            with torch.inference_mode():
                for weight, mirrored, by in TTA[self.recipe.tta]:
                    total = total + weight * self.logits(self.images(np.array(view(x, mirrored, by))))
            right += int((total.argmax(1).numpy() == data.y[some]).sum())
        return right / len(data)


FRAMEWORKS: dict[str, Callable[[Trainer], float]] = {
    "juanji": in_juanji,
    "torch": lambda trainer: InTorch(trainer)(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("results", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--frameworks", default=",".join(FRAMEWORKS))
    options = parser.parse_args()
    prepared(options.archive, options.epochs, 0)  # decodes the images
    lines = options.results.read_text("utf-8").splitlines() if options.results.exists() else []
    known = [(each["framework"], each["epochs"], each["seed"]) for each in map(json.loads, lines)]
    for seed, framework in itertools.product(map(int, options.seeds.split(",")), options.frameworks.split(",")):
        what = {"framework": framework, "epochs": options.epochs, "seed": seed}
        if tuple(what.values()) in known:
            continue
        start = time.perf_counter()
        accuracy = FRAMEWORKS[framework](prepared(options.archive, options.epochs, seed))
        line = json.dumps({**what, "accuracy": accuracy, "seconds": time.perf_counter() - start})
        print(line, flush=True)
        with options.results.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
