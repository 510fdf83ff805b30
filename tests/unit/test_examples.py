"""The examples do what they say."""

import importlib.util
import time
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def segmentation():
    return load("segmentation")


def test_generated_shapes_are_what_their_labels_say(segmentation):
    """A disc fills about π/4 of the box around it, a square at least half, a triangle at most."""
    x, y = segmentation.scenes(np.random.default_rng(0), 12)
    size = segmentation.SIZE
    assert (x.shape, x.dtype, y.shape) == ((12, size, size, 3), np.float32, (12, size, size))
    assert set(np.unique(y)) == {0, 1, 2, 3}
    masks, kinds = segmentation.masks(np.random.default_rng(1), 200)
    for mask, kind in zip(masks, kinds, strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if min(rows[0], columns[0]) == 0 or max(rows[-1], columns[-1]) == size - 1:
            continue  # cut off by the border
        filled = mask.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1))
        low, high = {1: (0.75, 0.82), 2: (0.48, 1.01), 3: (0.4, 0.55)}[int(kind)]
        assert low < filled < high, int(kind)


def test_intersection_over_union(segmentation):
    labels = np.array([[0, 0, 1, 2], [3, 3, 1, 2]])
    predicted = np.array([[0, 1, 1, 2], [3, 3, 2, 2]])
    found = segmentation.intersection_over_union(predicted, labels)
    np.testing.assert_allclose(found, [1 / 2, 1 / 3, 2 / 3, 1])


@pytest.mark.slow
def test_segmentation_learns(segmentation, capsys):
    begin = time.process_time()
    assert segmentation.main() > 0.9
    assert time.process_time() - begin < 240  # two cores for two minutes
    printed = capsys.readouterr().out
    assert printed.count("step ") == 8
    assert [line.split()[0] for line in printed.splitlines()[-5:-1]] == list(segmentation.CLASSES)
