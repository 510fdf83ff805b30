"""Export where the package onnx is missing, and what of it needs none."""

import os
import stat
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import juanji as jj
from juanji.errors import ArgumentError, DataError
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


def test_files_are_whole_whoever_writes_them(tmp_path):
    contents = [letter * 100_000 for letter in (b"a", b"b")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda i: write_atomically(tmp_path / "file", contents[i % 2]), range(40)))
    assert (tmp_path / "file").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    write_atomically(tmp_path / ("x" * 250), b"a long name")


@pytest.mark.skipif(os.name == "nt", reason="links need rights, and there are no such permissions and pipes")
def test_what_is_at_a_place_stays_what_it_is(tmp_path):
    old, link, new = tmp_path / "folder" / "old", tmp_path / "link", tmp_path / "new"
    old.parent.mkdir()
    old.touch(0o640)
    link.symlink_to(old)
    write_atomically(link, b"content")
    assert link.is_symlink()
    assert (old.read_bytes(), stat.S_IMODE(old.stat().st_mode)) == (b"content", 0o640)
    link.unlink()
    link.symlink_to(new)  # which is not there yet
    write_atomically(link, b"content")
    (tmp_path / "other").touch()
    assert new.stat().st_mode == (tmp_path / "other").stat().st_mode
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        write_atomically(tmp_path / "pipe", [b"con", b"tent"])
        assert read.result() == b"content"
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(DataError, match="folder: the file cannot be written\n  received  Is a directory"):
        write_atomically(old.parent, b"content")
    assert [path.name for path in old.parent.iterdir()] == ["old"]
