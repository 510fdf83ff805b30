"""PyTorch's checkpoints, built by hand: what they hold is read, and nothing but WeightsError comes of a bad one."""

import functools
import io
import os
import pickle
import struct
import time
import tracemalloc
import zipfile
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from juanji.errors import WeightsError
from juanji.interop import checkpoint, pickles, stored
from juanji.interop.checkpoint import contents


@dataclass
class Raw:
    """Instructions as they are."""

    code: bytes


@dataclass
class Storage:
    key: str
    kind: str
    count: int
    legacy: bool = False


@dataclass
class Stored:
    storage: Storage
    shape: tuple
    strides: tuple
    offset: int = 0


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def code(value):
    """The instructions, in protocol 2, that push a value."""
    if isinstance(value, Raw):
        return value.code
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        size = value.bit_length() // 8 + 1
        start = b"\x8a" + bytes([size]) if size < 256 else b"\x8b" + struct.pack("<i", size)
        return start + value.to_bytes(size, "little", signed=True)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(code, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(code, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(code(key) + code(item) for key, item in value.items()) + b"u"
    if isinstance(value, Storage):
        identity = ("storage", Raw(named("torch", value.kind)), value.key, "cpu", value.count)
        return code((*identity, None) if value.legacy else identity) + b"Q"
    hooks = Raw(named("collections", "OrderedDict") + b")R")
    arguments = (value.storage, value.offset, value.shape, value.strides, False, hooks)
    return named("torch._utils", "_rebuild_tensor_v2") + code(arguments) + b"R"


def program(value):
    return b"\x80\x02" + code(value) + b"."


def archive(path, pickled, storages=(), **more):
    """A zip checkpoint: its pickle, the bytes of each storage, and further members."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("net/data.pkl", pickled)
        for key, content in dict(storages).items():
            file.writestr(f"net/data/{key}", content)
        for name, content in more.items():
            file.writestr(f"net/{name}", content)
    return path


def legacy(path, value, storages=()):
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    parts = [0x1950A86A20F9469CFC6C, 1001, machine, value, [key for key, _, _ in storages]]
    data = (struct.pack("<q", count) + content for _, count, content in storages)
    path.write_bytes(b"".join([*map(program, parts), *data]))
    return path


A = np.arange(24, dtype="<f4")
WEIGHT = Stored(Storage("0", "FloatStorage", 24), (2, 3, 4), (12, 4, 1))
SCALE = Stored(Storage("1", "HalfStorage", 3), (3,), (1,))
STATE = {"weight": WEIGHT, "scale": SCALE}
BYTES = {"0": A.tobytes(), "1": np.array([1, 2, 3], "<f2").tobytes()}


def read(path):
    """All tensors of a file."""
    with contents(path) as source:
        return {name: source.read(name) for name in source.tensors}


def refusal(path):
    """The error's text, which names the file."""
    with pytest.raises(WeightsError) as caught:
        read(path)
    assert f"at        {path}" in str(caught.value)
    return str(caught.value)


# What is understood


def test_tensors_are_read(tmp_path):
    found = read(archive(tmp_path / "x", program(STATE), BYTES))
    assert np.array_equal(found["weight"], A.reshape(2, 3, 4))
    assert found["weight"].dtype == np.float32
    assert (found["scale"].tolist(), found["scale"].dtype) == ([1, 2, 3], np.float16)


@pytest.mark.parametrize(("kind", "dtype"), checkpoint.STORAGES.items())
def test_every_kind_of_number(kind, dtype, tmp_path):
    numpy_type = stored.DTYPES[dtype]
    values = np.array([1, 0, 1], numpy_type)
    if kind == "BFloat16":
        values = (np.array([1, -0.75, 3e38], "f4").view("u4") >> 16).astype("u2")
    tensor = Stored(Storage("k", f"{kind}Storage", 3), (3,), (1,))
    found = read(archive(tmp_path / "x", program({"a": tensor}), {"k": values.astype(values.dtype.newbyteorder("<"))}))
    expected = [1, -0.75, 2.9908e38] if kind == "BFloat16" else values
    assert np.allclose(found["a"], expected, rtol=1e-3, atol=0)


def test_strides_offsets_and_shared_storages(tmp_path):
    shared = WEIGHT.storage
    state = {
        "transposed": Stored(shared, (4, 6), (1, 4)),
        "every other": Stored(shared, (3,), (2,), 5),
        "last": Stored(shared, (1, 1), (100, 100), 23),
        "one everywhere": Stored(shared, (2, 5), (0, 0), 7),
        "scalar": Stored(shared, (), (), 2),
        "empty": Stored(shared, (0, 3), (3, 1), 24),
    }
    found = read(archive(tmp_path / "x", program(state), BYTES))
    assert np.array_equal(found["transposed"], A.reshape(6, 4).T)
    assert found["every other"].tolist() == [5, 7, 9]
    assert found["last"].tolist() == [[23]]
    assert found["one everywhere"].tolist() == [[7] * 5] * 2
    assert found["scalar"] == 2
    assert found["empty"].shape == (0, 3)


def test_big_endian_numbers(tmp_path):
    path = archive(tmp_path / "x", program({"a": WEIGHT}), {"0": A.astype(">f4").tobytes()}, byteorder="big")
    assert np.array_equal(read(path)["a"], A.reshape(2, 3, 4))


def test_the_format_of_old(tmp_path):
    weight = Stored(Storage("94", "FloatStorage", 24, legacy=True), (2, 12), (1, 2))
    scale = Stored(Storage("1", "HalfStorage", 3, legacy=True), (3,), (1,))
    path = legacy(tmp_path / "x", {"w": weight, "s": scale}, [("1", 3, BYTES["1"]), ("94", 24, BYTES["0"])])
    assert np.array_equal(read(path)["w"], A.reshape(12, 2).T)
    assert read(path)["s"].tolist() == [1, 2, 3]


def test_what_stands_beside_the_weights(tmp_path):
    ordered = Raw(named("collections", "OrderedDict") + code(([["weight", WEIGHT], ["scale", SCALE]],)) + b"R")
    metadata = code({"_metadata": {"": {"version": 1}}}) + b"b"
    value = {
        "epoch": 3,
        "best": 0.5,
        "none": None,
        3: [(), {}, (True, False), -(2**70)],
        "size": Raw(named("torch", "Size") + code(((1, 2),)) + b"R"),
        "state_dict": Raw(ordered.code + metadata),
    }
    assert list(read(archive(tmp_path / "x", program(value), BYTES))) == ["weight", "scale"]


def test_text_as_python_2_wrote_it(tmp_path):
    """Byte strings, and an OrderedDict made of a list of pairs."""
    pair = b"](" + b"U\x06weight" + code(WEIGHT) + b"e"
    state = named("collections", "OrderedDict") + b"](" + pair + b"e" + b"\x85R"
    value = b"}" + b"T" + struct.pack("<i", 10) + b"state_dict" + state + b"s"
    assert list(read(archive(tmp_path / "x", program(Raw(value)), BYTES))) == ["weight"]


def test_parameters_are_their_tensors(tmp_path):
    plain = named("torch._utils", "_rebuild_parameter") + code((WEIGHT, True, {})) + b"R"
    state = named("torch._utils", "_rebuild_parameter_with_state") + code((SCALE, True, {}, {"a": 1})) + b"R"
    path = archive(tmp_path / "x", program({"weight": Raw(plain), "scale": Raw(state)}), BYTES)
    assert read(path)["scale"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_plain_data(protocol):
    """Of protocols below 2 there is no more to say than numbers, text and containers, which all agree on."""
    numbers = [1, -5, 300, 70000, 2**40, -(2**2100), 0.5, True, False, None]
    value = {"a": numbers, "again": numbers, "c": ((), (1,), (1, 2), (1, 2, 3, 4)), "text": ["x" * 300, "卷积"]}
    machine = pickles.Machine({}, lambda identity: None)
    assert machine.run(io.BytesIO(pickle.dumps(value, protocol))) == value


# What is refused, by name, before anything happens

SIDE_EFFECT = "refused_or_not"
HOSTILE = {
    "os.system": named("os", "system") + code((f"touch {SIDE_EFFECT}",)) + b"R",
    "posix.system": code("posix") + code("system") + b"\x93" + code((f"touch {SIDE_EFFECT}",)) + b"R",
    "builtins.eval": named("builtins", "eval") + code((f"open('{SIDE_EFFECT}', 'w')",)) + b"R",
    "builtins.getattr": named("builtins", "getattr"),
    "juanji.models.create": named("juanji.models", "create"),
    "torch._utils._rebuild_qtensor": named("torch._utils", "_rebuild_qtensor"),
    "torch.ComplexFloatStorage": named("torch", "ComplexFloatStorage"),
    "numpy.core.multiarray.scalar": named("numpy.core.multiarray", "scalar"),
    "argparse.Namespace": named("argparse", "Namespace") + b")\x81}b",
    "a name that is no text": code(1) + code("x") + b"\x93",
    "the instruction INST os system": b"(" + code(f"touch {SIDE_EFFECT}") + b"ios\nsystem\n",
    "the instruction OBJ": b"(" + code(1) + b"o",
    "the instruction NEWOBJ": named("collections", "OrderedDict") + b")\x81",
    "the instruction NEWOBJ_EX": named("collections", "OrderedDict") + b")}\x92",
    "the instruction PERSID 7": b"P7\n",
    "the instruction EXT1": b"\x82\x01",
    "the instruction EMPTY_SET": b"\x8f",
    "the instruction NEXT_BUFFER": b"\x97",
    "the instruction BYTEARRAY8": b"\x96" + struct.pack("<Q", 1) + b"x",
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("make", [archive, legacy])
def test_what_is_not_data_is_refused_by_name(what, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickled = {"weight": WEIGHT, "x": Raw(HOSTILE[what])}
    path = archive(tmp_path / "x", program(pickled), BYTES) if make is archive else legacy(tmp_path / "x", pickled)
    text = refusal(path)
    assert "the checkpoint holds something else than weights" in text
    assert f"received  {what}\n" in text
    assert "torch.save(model.state_dict(), file) writes the weights alone" in text
    assert os.listdir(tmp_path) == ["x"]


def test_the_table_of_names_holds_data_only():
    """Nothing that a checkpoint may name is a class, a module or a function of another program."""
    for value in checkpoint.NAMES.values():
        assert isinstance(value, str | pickles.Function)
        if isinstance(value, pickles.Function):
            assert value.call is tuple or value.call.__module__.startswith("juanji.interop")


DAMAGED = {
    "no stop": b"\x80\x02}",
    "nothing": b"",
    "an unknown instruction": b"\x80\x02\xff.",
    "too little on the stack": b"\x80\x02a.",
    "too much on the stack": b"\x80\x02}}.",
    "no mark": b"\x80\x02u.",
    "a memo that was never filled": b"\x80\x02h\x07.",
    "a call of text": program(Raw(code("x") + b")R")),
    "a call of a dtype": program(Raw(named("torch", "FloatStorage") + b")R")),
    "a call without a tuple": program(Raw(named("torch", "Size") + b"]R")),
    "too few arguments": program(Raw(named("torch._utils", "_rebuild_tensor_v2") + b")R")),
    "appending to a tuple": program(Raw(b")Na")),
    "attributes of a list": program(Raw(b"]}b")),
    "odd number of items": program(Raw(b"}(N" + b"u")),
    "a list for a key": program(Raw(b"}]Ns")),
    "text that ends early": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "text that is not UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
    "a number of many digits": b"\x80\x02L" + b"9" * 5000 + b"L\n.",
    "a persistent id of its own": program(Raw(code(("module", 1, 2, 3, 4)) + b"Q")),
    "a persistent id that is a number": program(Raw(code(5) + b"Q")),
    "a storage of −1 numbers": program({"a": Stored(Storage("0", "FloatStorage", -1), (1,), (1,))}),
    "a storage with two types": program({"a": WEIGHT, "b": Stored(Storage("0", "HalfStorage", 48), (1,), (1,))}),
    "beyond the storage": program({"a": Stored(WEIGHT.storage, (25,), (1,))}),
    "beyond by strides": program({"a": Stored(WEIGHT.storage, (2, 2), (23, 1))}),
    "beyond by the offset": program({"a": Stored(WEIGHT.storage, (1,), (1,), 24)}),
    "backwards": program({"a": Stored(WEIGHT.storage, (3,), (-1,), 20)}),
    "before the storage": program({"a": Stored(WEIGHT.storage, (3,), (1,), -1)}),
    "sizes without strides": program({"a": Stored(WEIGHT.storage, (3, 1), (1,))}),
    "a size that is half": program({"a": Stored(WEIGHT.storage, (1.5,), (1,))}),
    "a hundred axes": program({"a": Stored(WEIGHT.storage, (1,) * 100, (1,) * 100)}),
    "a tensor of no storage": program({"a": Stored(Raw(b"N"), (1,), (1,))}),
    "a view of a storage": program(Raw(code(("storage", "F32", "0", "cpu", 24, ("1", 0, 2))) + b"Q")),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_damaged_pickles(what, tmp_path):
    text = refusal(archive(tmp_path / "x", DAMAGED[what], BYTES))
    assert "the weight file cannot be read" in text
    assert "rule      a whole file, in the safetensors format or written by torch.save" in text


NO_STATE = {
    "a number": (program(3), "received  int, without entries"),
    "a list": (program([1]), "received  list, without entries"),
    "nothing": (program({}), "received  dict, without entries"),
    "other things": (program({"weight": WEIGHT, "epoch": 3, 5: WEIGHT}), "received  epoch (int), 5 (Stored)"),
    "two networks": (program({"generator": STATE, "critic": STATE}), "received  generator (dict), critic (dict)"),
    "itself": (program(Raw(b"}q\x00" + code("model") + b"h\x00s")), "received  model (dict)"),
    "itself in a list": (program(Raw(b"]q\x00h\x00a")), "received  list, without entries"),
}


@pytest.mark.parametrize("what", NO_STATE)
def test_checkpoints_without_a_state_dictionary(what, tmp_path):
    pickled, received = NO_STATE[what]
    text = refusal(archive(tmp_path / "x", pickled, BYTES))
    assert "there is no state dictionary in the checkpoint" in text
    assert received in text


# Work and memory are bounded


def doubled(times):
    return code("x") + b"2\x86" * times  # DUP, TUPLE2: (x, x), ((x, x), (x, x)), …


BOMBS = {
    "lists in lists": b"]" * 3000 + b"a" * 2999,
    "marks": b"(" * 3000,
    "many empty dictionaries": b"(" + b"}" * 3000 + b"l",
    "tuples that double": b"}" + code("a") + doubled(1000) + b"s",
    "a key that doubles": b"}" + doubled(1000) + b"Ns",
    "the same list again and again": b"](" + b"N" * 800 + b"eq\x00" + named("torch", "Size") + b"q\x01"
    + b"h\x01h\x00\x85R" * 500,
    "the same pairs again and again": b"](" + b"(" + code("a") + b"Nt" + b"2" * 800 + b"eq\x00"
    + named("collections", "OrderedDict") + b"q\x01" + b"h\x01h\x00\x85R" * 500,
}  # fmt: skip


@pytest.mark.parametrize("what", BOMBS)
def test_bombs_end_early(what, tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_STEPS", 2000)
    path, begin = archive(tmp_path / "x", program(Raw(BOMBS[what]))), time.perf_counter()
    text = refusal(path)
    assert time.perf_counter() - begin < 2
    if "double" not in what:  # those end by themselves, as nothing walks through what they make
        assert "its table of contents takes more than 2,000 steps to read" in text


LONG = b"\x8b" + struct.pack("<i", 10**6) + b"\x01" * 10**6  # a number of eight million bits
IDENTITY = code("storage") + b"%b" + code("0") + code("cpu") + b"%b"
ENDLESS = {
    "a key of millions of bits": b"}" + LONG + b"q\0" + b"Ns" + b"h\0Ns" * 10**4,
    "text as a size": code("x" * 10**6) + b"q\0" + named("torch", "Size") + b"q\1" + b"h\1h\0\x85R" * 10**4,
    "a doubled type": b"(" + IDENTITY % (doubled(200), b"K\1") + b"tQ",
    "a count of millions of bits": b"(" + IDENTITY % (named("torch", "FloatStorage"), LONG) + b"tQ",
}  # fmt: skip


@pytest.mark.parametrize("what", ENDLESS)
def test_arithmetic_ends_too(what, tmp_path):
    path, begin = archive(tmp_path / "x", program(Raw(ENDLESS[what])), BYTES), time.perf_counter()
    assert "the weight file cannot be read" in refusal(path)
    assert time.perf_counter() - begin < 5


def test_sizes_without_bounds(tmp_path):
    for shape, strides in (((2**70000,), (2**70000,)), ((2**63,), (0,)), ((True,), (1,))):
        text = refusal(archive(tmp_path / "x", program({"a": Stored(WEIGHT.storage, shape, strides)}), BYTES))
        assert "sizes, strides and offset of a tensor are whole numbers of 0 to 2⁶³ − 1" in text


def test_storages_named_by_doubled_tuples(tmp_path):
    begin = time.perf_counter()
    path = legacy(tmp_path / "x", {}, [(Raw(doubled(1000)), 0, b"")])
    assert "not those that the objects speak of" in refusal(path)
    assert time.perf_counter() - begin < 5


@pytest.mark.slow
def test_the_greatest_bomb_takes_seconds_and_little_memory(tmp_path):
    many = b"}" * checkpoint.LARGEST
    path = archive(tmp_path / "x", (b"\x80\x02(" + many)[: checkpoint.LARGEST])
    begin = time.perf_counter()
    refusal(path)
    assert time.perf_counter() - begin < 20
    tracemalloc.start()
    refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 200e6
    tracemalloc.stop()


def test_a_table_of_contents_that_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "LARGEST", 1000)
    text = refusal(archive(tmp_path / "x", program("x" * 1000)))
    assert "net/data.pkl: 1,008 bytes, where at most 1,000 are expected" in text


@pytest.mark.parametrize("count", [2**20, 2**60, 2**63 - 1])
def test_sizes_are_checked_before_memory_is_taken(count, tmp_path):
    tensor = Stored(Storage("0", "FloatStorage", count, legacy=True), (count,), (1,))
    tracemalloc.start()
    text = refusal(archive(tmp_path / "x", program({"a": tensor}), BYTES))
    assert "net/data/0: 96 bytes" in text
    assert f"rule      {count:,} numbers of F32, {4 * count:,} bytes" in text
    refusal(legacy(tmp_path / "y", {"a": tensor}, [("0", count, A.tobytes())]))
    refusal(legacy(tmp_path / "z", {"a": tensor}, [("0", 24, A.tobytes())]))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


# Archives


def test_compressed_members_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("net/data.pkl", b"}" * 10_000_000)
    text = refusal(tmp_path / "x")
    assert "a member of the checkpoint cannot be used" in text
    assert "net/data.pkl: it is compressed, 9,7" in text
    assert "bytes for 10,000,000" in text


@pytest.mark.parametrize("name", ["../net/data/0", "/net/data/0", "net/../../x", "C:/x", "..\\x", "\\x"])
def test_names_that_lead_out_are_refused(name, tmp_path):
    with zipfile.ZipFile(archive(tmp_path / "x", program(STATE), BYTES), "a") as file:
        file.writestr(zipfile.ZipInfo(name), b"")
    assert ": its name leads out of the archive" in refusal(tmp_path / "x")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_given_twice_is_refused(tmp_path):
    with zipfile.ZipFile(archive(tmp_path / "x", program(STATE), BYTES), "a") as file:
        file.writestr("net/data/0", BYTES["0"])
    assert "net/data/0: its name is given twice" in refusal(tmp_path / "x")


def patched(path, old, new):
    """The file with the last place where `old` stands changed, which of an archive is in its directory."""
    content = path.read_bytes()
    at = content.rfind(old)
    assert at >= 0
    path.write_bytes(content[:at] + new + content[at + len(old) :])
    return path


def entry(path, name):
    with zipfile.ZipFile(path) as file:
        return file.getinfo(name)


def test_members_that_lie_over_one_another_are_refused(tmp_path):
    path = archive(tmp_path / "x", program(STATE), BYTES)
    patched(path, struct.pack("<II", 6, 6), struct.pack("<II", 600, 600))
    assert "net/data/1: its 600 bytes reach beyond the end of the file, or into another member" in refusal(path)


MISPLACED = {
    "first": "reach beyond the end of the file, or into another member",
    "four later": "net/data/1: there is no header where it should begin",
    "outside": "net/data/1: it lies outside the file",
}


@pytest.mark.parametrize("where", MISPLACED)
def test_members_that_are_elsewhere_are_refused(where, tmp_path):
    path = archive(tmp_path / "x", program(STATE), BYTES)
    second = entry(path, "net/data/1").header_offset
    places = {"first": entry(path, "net/data/0").header_offset, "four later": second + 4, "outside": 2**31}
    name = b"net/data/1"
    patched(path, struct.pack("<I", second) + name, struct.pack("<I", places[where]) + name)
    assert MISPLACED[where] in refusal(path)


def test_encrypted_members_are_refused(tmp_path):
    path = archive(tmp_path / "x", program(STATE), BYTES)
    content = bytearray(path.read_bytes())
    at = content.rfind(b"PK\1\2")
    content[at + 8] |= 1
    path.write_bytes(content)
    assert "net/data/1: it is encrypted" in refusal(path)


def test_changed_bytes_are_noticed(tmp_path):
    path = patched(archive(tmp_path / "x", program(STATE), BYTES), A.tobytes(), A[::-1].tobytes())
    assert "have another CRC-32 than when they were written" in refusal(path)


def test_missing_members(tmp_path):
    text = refusal(archive(tmp_path / "x", program(STATE), {"0": BYTES["0"]}))
    assert "received  net/data/1: missing\n" in text
    assert "rule      3 numbers of F16, 6 bytes" in text
    with zipfile.ZipFile(tmp_path / "y", "w") as file:
        file.writestr("word/document.xml", "<x/>")
    text = refusal(tmp_path / "y")
    assert "this zip archive is no checkpoint of PyTorch" in text
    assert "received  word/document.xml" in text
    zipfile.ZipFile(tmp_path / "z", "w").close()
    assert "received  an empty archive" in refusal(tmp_path / "z")


def test_legacy_files_of_others(tmp_path):
    (tmp_path / "x").write_bytes(pickle.dumps([1, 2, 3]) + program(2) * 4)
    assert "a pickle that torch.save did not write" in refusal(tmp_path / "x")
    weight = Stored(Storage("7", "FloatStorage", 24, legacy=True), (24,), (1,))
    assert "not those that the objects speak of" in refusal(legacy(tmp_path / "y", {"a": weight}))
    assert "the storage 7 has 23 numbers, or fewer; 24 are expected" in refusal(
        legacy(tmp_path / "z", {"a": weight}, [("7", 23, A.tobytes())])
    )


# Any damage at all


@functools.cache
def examples(folder):
    weight = Stored(Storage("0", "FloatStorage", 24, legacy=True), (2, 12), (12, 1))
    small = {"weight": Stored(Storage("0", "FloatStorage", 24), (2, 12), (12, 1))}
    return {
        "zip": archive(folder / "zip", program(small), {"0": BYTES["0"]}, byteorder="little").read_bytes(),
        "legacy": legacy(folder / "legacy", {"weight": weight}, [("0", 24, BYTES["0"])]).read_bytes(),
        "safetensors": save({"weight": A.reshape(2, 12), "scale": np.array([1, 2, 3], "f2")}),
    }


@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(format, tmp_path):
    content = examples(tmp_path)[format]
    for length in range(0, len(content), 3):
        (tmp_path / "x").write_bytes(content[:length])
        refusal(tmp_path / "x")


def survives(path, content):
    """Whatever the file is, its tensors can be read or WeightsError, which names it, says why not."""
    path.write_bytes(content)
    caught = None
    try:
        read(path)
    except WeightsError as error:
        caught = error
    assert caught is None or str(path) in str(caught)


FUZZ = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("format", ["zip", "legacy", "safetensors"])
@FUZZ
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_bytes_can_change(tmp_path, format, changes):
    content = bytearray(examples(tmp_path)[format])
    for place, value in changes:
        content[place % len(content)] = value
    survives(tmp_path / "x", bytes(content))


BEGINNINGS = [b"", b"PK\3\4", b"\x80\x02", b"\x80\x02}(", b"\x80\x04\x95"]


@FUZZ
@given(body=st.binary(max_size=60), start=st.sampled_from(BEGINNINGS))
def test_any_file_at_all(tmp_path, body, start):
    survives(tmp_path / "x", start + body)


INSTRUCTIONS = [
    *(bytes([letter]) for letter in b"(]})N012aesutldRQb\x94\x85\x86\x87"),
    *(b"q\0", b"h\0", b"K\3", code("0"), code("storage"), code("state_dict"), code(WEIGHT), code(WEIGHT.storage)),
    *(named(*name.rsplit(".", 1)) for name in checkpoint.NAMES if "cuda" not in name),
]


@FUZZ
@given(st.lists(st.sampled_from(INSTRUCTIONS), max_size=25))
def test_any_program_at_all(tmp_path, instructions):
    path = archive(tmp_path / "zip", b"\x80\x02" + b"".join(instructions) + b".", BYTES)
    survives(tmp_path / "x", path.read_bytes())
