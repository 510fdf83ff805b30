"""Export where the package onnx is missing, and what of it needs none."""

import sys

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError
from juanji.interop import save_onnx, write_atomically
from juanji.interop.export.batch import Batch, Sizes
from juanji.interop.export.builder import Mixed, compressed, mix


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArgumentError, match=r"need the package onnx(?s:.*)pip install onnx"):
        save_onnx(jj.models.create("lenet5"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_sizes_of_the_batch_are_those_that_differ():
    small, large = (jj.trace(lambda x: x.reshape(-1, 2).T, np.ones((n, 4), "float32")) for n in (2, 3))
    sizes = Sizes(small, large)
    assert [sizes.of(x) for x in (*small.inputs, small.outputs)] == [(Batch(1), 4), (2, Batch(2))]
    assert [str(size) for size in (Batch(1), Batch(2))] == ["N", "2*N"]
    assert Sizes(small).of(small.outputs) == (2, 4)


def test_what_repeats_is_kept_once():
    array = np.broadcast_to(np.arange(3.0)[:, None], (2, 3, 4))
    assert compressed(array).shape == (1, 3, 1)
    assert compressed(np.full((2, 2), np.nan)).shape == (2, 2)
    assert compressed(np.zeros((0, 2))).shape == (0, 1)


def test_mixed_constants_lie_as_the_flattened_image_does():
    image = np.arange(12).reshape(2, 3, 2)
    mixed = Mixed(0, (2, 3, 2), (2, 0, 1))
    np.testing.assert_array_equal(mix(image.reshape(12, 1), mixed)[:, 0], image.transpose(2, 0, 1).ravel())
    assert mix(np.ones((1, 4)), mixed).shape == (1, 4)


def test_parts_are_written_in_order(tmp_path):
    write_atomically(tmp_path / "file", (bytes([i]) for i in range(5)))
    assert (tmp_path / "file").read_bytes() == bytes(range(5))
