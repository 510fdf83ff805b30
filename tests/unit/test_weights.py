"""Weight files: what is written is read back, and nothing but WeightsError comes of a file that is not right."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from juanji.cell import Cell
from juanji.errors import DataError, WeightsError
from juanji.interop import load_weights, read_metadata, save_weights
from juanji.nn.module import Module


class Small(Module):
    """Two parameters, one of them a layer deeper, and buffers of two kinds of number."""

    def __init__(self, outputs=3, deep=True):
        self.weight = Cell((2, outputs), lambda state, shape, dtype: np.arange(2.0 * outputs).reshape(shape))
        self.mean = Cell((2,), lambda state, shape, dtype: np.ones(shape), kind="buffer")
        self.count = Cell((), lambda state, shape, dtype: np.array(7), kind="buffer", dtype="int64")
        if deep:
            self.child = Small(1, deep=False)


def filled():
    model = Small()
    model.load_state_dict({name: np.asarray(x) + 1 for name, x in model.state_dict().items()})
    return model


def values(model):
    return {name: np.asarray(x).tolist() for name, x in model.state_dict().items()}


@pytest.fixture
def file(tmp_path):
    save_weights(filled(), tmp_path / "model.safetensors", {"classes": ["一", "b"]})
    return tmp_path / "model.safetensors"


def test_what_is_written_is_read_back(file):
    model = Small()
    load_weights(model, file)
    assert values(model) == values(filled())
    assert read_metadata(file) == {"classes": ["一", "b"]}
    assert list(file.parent.iterdir()) == [file]


def test_equal_weights_make_equal_files(file, tmp_path):
    save_weights(filled(), tmp_path / "again", {"classes": ["一", "b"]})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


def test_other_programs_can_read_it(file):
    from safetensors.numpy import load_file

    assert load_file(file)["weight"].tolist() == values(filled())["weight"]


def test_files_of_other_programs_have_no_metadata(tmp_path):
    from safetensors.numpy import save_file

    save_file({name: np.asarray(x) for name, x in filled().state_dict().items()}, tmp_path / "other")
    assert read_metadata(tmp_path / "other") == {}
    model = Small()
    load_weights(model, tmp_path / "other")
    assert values(model) == values(filled())


def test_a_failed_write_leaves_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def fail(descriptor):
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(DataError, match=r"model\.safetensors: the file cannot be written[\s\S]*the disk is full"):
        save_weights(Small(), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_files_of_other_models_are_told_apart(file):
    class Other(Small):
        def __init__(self):
            super().__init__(outputs=4, deep=False)
            self.bias = Cell((4,), lambda state, shape, dtype: np.zeros(shape))

    model = Other()
    with pytest.raises(WeightsError) as caught:
        load_weights(model, file)
    text = str(caught.value)
    assert "the weights do not fit Other" in text
    assert "missing bias (4,)" in text
    assert "unknown child.weight (2, 1)" in text
    assert "misfitting weight F32(2, 3), the model's float32(2, 4)" in text
    assert f"at        {file}" in text


def test_another_kind_of_number_does_not_fit(tmp_path):
    from safetensors.numpy import save_file

    state = {name: np.asarray(x) for name, x in Small().state_dict().items()}
    save_file({**state, "mean": state["mean"].astype(np.int32)}, tmp_path / "x")
    with pytest.raises(WeightsError, match=r"misfitting mean I32\(2,\), the model's float32\(2,\)"):
        load_weights(Small(), tmp_path / "x")
    save_file({**state, "mean": state["mean"].astype(np.float64)}, tmp_path / "y")
    load_weights(Small(), tmp_path / "y")


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(WeightsError, match=r"there is no such weight file[\s\S]*gone"):
        load_weights(Small(), tmp_path / "gone")
    with pytest.raises(WeightsError, match="the weight file cannot be read"):
        load_weights(Small(), tmp_path)


def refused(content, tmp_path):
    """Whether the file is refused; if so, with WeightsError naming it and with the model untouched."""
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    model = Small()
    with contextlib.suppress(WeightsError):
        read_metadata(path)
    caught = None
    try:
        load_weights(model, path)
    except WeightsError as error:
        caught = error
    if caught:
        assert "bad.safetensors" in str(caught)
        assert values(model) == values(Small())
    return caught is not None


def test_every_truncation_is_refused(file, tmp_path):
    content = file.read_bytes()
    assert all(refused(content[:length], tmp_path) for length in range(len(content)))
    assert refused(content + b"\0", tmp_path)


def test_every_bit_of_the_header_can_flip(file, tmp_path):
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    for place in range(8 + size):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        refused(flipped, tmp_path)


def header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip file, such as PyTorch's",
        b"\x80\x04 a pickle",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 10**12) + b"{",
        header([]),
        header({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}),
        header({"weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}),
        header({"weight": {"dtype": "NO", "shape": [1], "data_offsets": [0, 4]}}) + b"1234",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_foreign_and_hostile_files_are_refused(content, tmp_path):
    assert refused(content, tmp_path)


def test_damaged_metadata(tmp_path):
    from safetensors.numpy import save_file

    for text in ("{", "[1]", "[" * 100_000):
        save_file({}, tmp_path / "x", {"juanji": text})
        with pytest.raises(WeightsError, match="the metadata of a weight file is damaged"):
            read_metadata(tmp_path / "x")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused(tmp_path, content, sized):
    assert refused(struct.pack("<Q", len(content)) + content if sized else content, tmp_path)
