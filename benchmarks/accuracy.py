"""Does Winograd's algorithm cost accuracy? Two epochs of CIFAR-10 with and without it, for three seeds.

    python -m benchmarks.accuracy cifar10.zip results.jsonl

The archive holds `cifar10/{train,test}/<class>/*.jpg`. Each training is a line of the results; those that are there
already are not repeated, so an interrupted comparison goes on where it was.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import juanji as jj

MODELS: dict[str, dict[str, Any]] = {
    "vgg11_bn": {"pooled": 1, "hidden": ()},
    "resnet18": {"stem": "small"},
}
EPOCHS, BATCH, RATE, MOMENTUM, DECAY = 2, 128, 0.1, 0.9, 5e-4
SHIFT = 4  # pixels an image is moved by at most
MEAN, SPREAD = np.float32([0.4914, 0.4822, 0.4465]), np.float32([0.247, 0.2435, 0.2616])
Array = np.ndarray[Any, np.dtype[Any]]


def load(archive: Path) -> dict[str, tuple[Array, Array]]:
    """Images (N, 32, 32, 3), normalised, and labels of both parts."""
    images: dict[str, list[Any]] = {"train": [], "test": []}
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[2] for name in names})
        for name in names:
            _, part, label, _ = name.split("/")
            picture = np.asarray(Image.open(io.BytesIO(file.read(name))).convert("RGB"))
            images[part].append((picture, classes.index(label)))
    found = {part: tuple(map(np.stack, zip(*pairs, strict=True))) for part, pairs in images.items()}
    return {part: ((x.astype(np.float32) / 255 - MEAN) / SPREAD, y) for part, (x, y) in found.items()}


def batches(x: Array, y: Array, rng: np.random.Generator) -> Iterator[tuple[Array, Array]]:
    """One epoch: shuffled, each image moved a little and maybe mirrored."""
    padded = np.pad(x, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    order = rng.permutation(len(x))
    for rows in (order[i : i + BATCH] for i in range(0, len(x) - BATCH + 1, BATCH)):
        moves, mirrored = rng.integers(0, 2 * SHIFT + 1, (len(rows), 2)), rng.random(len(rows)) < 0.5
        pictures = [padded[i, dy : dy + 32, dx : dx + 32] for i, (dy, dx) in zip(rows, moves, strict=True)]
        yield np.stack([p[:, ::-1] if m else p for p, m in zip(pictures, mirrored, strict=True)]), y[rows]


def train(data: dict[str, tuple[Array, Array]], name: str, algorithms: str, seed: int) -> dict[str, Any]:
    """One training and its accuracy on the test images."""
    rng, (x, y) = np.random.default_rng(seed), data["train"]
    model = jj.models.create(name, input_size=32, seed=seed, **MODELS[name])
    optimizer = jj.optim.SGD(model, RATE, MOMENTUM, weight_decay=DECAY)
    schedule = jj.optim.schedules.one_cycle(RATE, EPOCHS * (len(x) // BATCH))

    @jj.compile(algorithms=algorithms)
    def step(images: Any, labels: Any) -> Any:
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(images), labels))(model)
        optimizer.update(model, grads)
        return loss

    start, losses = time.perf_counter(), []
    for number, (images, labels) in enumerate(itertools.chain(*(batches(x, y, rng) for _ in range(EPOCHS)))):
        optimizer.lr = schedule(number)
        losses.append(float(step(images, labels)))
    seconds = time.perf_counter() - start
    answer = jj.compile(model.eval(), algorithms=algorithms)
    x, y = data["test"]
    right = sum(
        int((np.asarray(answer(x[i : i + 500])).argmax(1) == y[i : i + 500]).sum()) for i in range(0, len(x), 500)
    )
    last = float(np.mean(losses[-100:]))
    return {
        "model": name, "algorithms": algorithms, "seed": seed, "accuracy": right / len(x), "loss": last,
        "seconds": seconds,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("results", type=Path)
    options = parser.parse_args()
    lines = options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else []
    known = {(each["model"], each["algorithms"], each["seed"]) for each in map(json.loads, lines)}
    data = load(options.archive)
    for name, seed, algorithms in itertools.product(MODELS, range(3), ("all", "direct")):
        if (name, algorithms, seed) not in known:
            result = json.dumps(train(data, name, algorithms, seed))
            print(result, flush=True)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(result + "\n")


if __name__ == "__main__":
    main()
