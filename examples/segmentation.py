"""A fully convolutional network learns to cut out discs, squares and triangles from textured backgrounds.

Run it with `python examples/segmentation.py`; it needs a minute or two on two cores. Images are generated, of 96×96
pixels with one or two shapes each, in colours and textures that tell nothing about the shape. The network is FCN-8s
with an eighth of its channels (002 §4.6). What counts at the end is the mean intersection over union: for each class
the pixels that are of it and were found, divided by those that are of it or were found.
"""

import sys
import time

import numpy as np

import juanji as jj

SIZE, CLASSES = 96, ("background", "disc", "square", "triangle")
STEPS, BATCH, RATE = 1300, 16, 3e-3


def texture(rng, n):
    """(n, SIZE, SIZE, 3): waves in some direction around a colour."""
    y, x = np.mgrid[:SIZE, :SIZE].astype("float32") / SIZE
    angle, waves, phase = (rng.uniform(0, most, (n, 1, 1)).astype("float32") for most in (np.pi, 14, 6))
    pattern = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase)[..., None]
    colour, strength = rng.normal(0, 0.8, (2, n, 1, 1, 3)).astype("float32")
    return colour + 0.4 * strength * pattern


def masks(rng, n):
    """n shapes, one a mask (n, SIZE, SIZE), and which they are (n,)."""
    centres = rng.uniform(0.28 * SIZE, 0.72 * SIZE, (2, n, 1, 1)).astype("float32")
    y, x = np.mgrid[:SIZE, :SIZE].astype("float32")[:, None] - centres
    radius, turn = (rng.uniform(*ends, (n, 1, 1)).astype("float32") for ends in ((20, 32), (0, 2 * np.pi)))
    kind = rng.integers(1, 4, n)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    disc = np.hypot(u, v) < radius
    square = np.maximum(abs(u), abs(v)) < 0.85 * radius
    triangle = np.maximum(-v, 0.5 * v + np.sqrt(0.75) * abs(u)) < 0.6 * radius
    return np.select([kind[:, None, None] == i for i in (1, 2, 3)], [disc, square, triangle]), kind


def scenes(rng, n):
    """Images (n, SIZE, SIZE, 3) and the class of every pixel (n, SIZE, SIZE)."""
    images, labels = texture(rng, n), np.zeros((n, SIZE, SIZE), np.int64)
    for _ in range(2):
        mask, kind = masks(rng, n)
        mask &= ~(mask & (labels > 0)).any((1, 2), keepdims=True)  # no shape hides another
        images = np.where(mask[..., None], texture(rng, n), images)
        labels = np.where(mask, kind[:, None, None], labels)
    return images + 0.1 * rng.standard_normal(images.shape, "float32"), labels


def intersection_over_union(predicted, labels):
    """For each class."""
    pairs = [(predicted == i, labels == i) for i in range(len(CLASSES))]
    return np.array([(a & b).sum() / (a | b).sum() for a, b in pairs])


def train(steps=STEPS, report=print):
    """The trained network, in evaluation mode."""
    model = jj.models.create("fcn8s", classes=len(CLASSES), input_size=SIZE, width=1 / 8, dropout=0.0)
    optimizer = jj.optim.AdamW(model, lr=RATE, weight_decay=1e-3)
    schedule = jj.optim.schedules.cosine(RATE, steps, warmup=steps // 20)

    @jj.compile
    def step(x, y):
        loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(model)
        optimizer.update(model, jj.optim.clip_grad_norm(grads, 1.0))
        return loss

    rng = np.random.default_rng(0)
    begin = time.perf_counter()
    for i in range(steps):
        optimizer.lr = schedule(i)
        loss = step(*scenes(rng, BATCH))
        if (i + 1) % (steps // 8) == 0:
            report(f"step {i + 1}/{steps}  loss {float(loss):.3f}  {time.perf_counter() - begin:.0f} s")
    return model.eval()


def evaluate(model, images=64):
    """The intersection over union of each class on images that were not trained on."""
    x, y = scenes(np.random.default_rng(1), images)
    run = jj.compile(model)
    predicted = np.concatenate([np.asarray(run(x[i : i + BATCH])).argmax(-1) for i in range(0, images, BATCH)])
    return intersection_over_union(predicted, y)


def main():
    found = evaluate(train())
    for name, value in zip(CLASSES, found, strict=True):
        print(f"{name:<11}{value:.3f}")
    print(f"mean intersection over union {found.mean():.3f}")
    return found.mean()


if __name__ == "__main__":
    sys.exit(0 if main() > 0.9 else 1)
