"""Files that nobody should trust: each ends in an error that names it, soon, and without taking memory."""

import os
import tracemalloc

import numpy as np
import onnx
import pytest
from graphs import classifier, model, node, normal, relu
from onnx import TensorProto, helper, numpy_helper

from juanji.errors import DataError, JuanjiError, UnknownNameError
from juanji.interop import load_onnx

X = normal(2, 3, 6, 6)


def written(folder, content):
    path = folder / "model.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return path


def refused(path, error, text, *inputs):
    with pytest.raises(error, match=text) as raised:
        load_onnx(path)(*inputs)
    assert str(path) in str(raised.value)


def changed(change):
    """The smallest model with something done to it."""
    proto = relu()
    change(proto)
    return proto


def tensor(**fields):
    """A weight that says what `fields` say."""
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], raw_data=bytes(8))
    for name, value in fields.items():
        if isinstance(value, list):
            del getattr(proto, name)[:]
            getattr(proto, name).extend(value)
        else:
            setattr(proto, name, value)
    return changed(lambda proto_: proto_.graph.initializer.append(proto))


def nested(depth, op, **branches):
    """A graph in an attribute of a node of a graph in an attribute of …"""
    output = helper.make_tensor_value_info("y", 1, [2])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "inner", [], [output])
    for _ in range(depth):
        chosen = helper.make_node(op, ["c"], ["y"], **dict.fromkeys(branches or ("body",), graph))
        graph = helper.make_graph([chosen], "g", [], [output])
    return graph


def chained(*nodes):
    return model(list(nodes), {"x": [2]}, {"y": [2]})


DAMAGED = {
    "cut": (classifier().SerializeToString()[:-100], "it is not a model|cannot be used"),
    "noise": (bytes(range(256)), "it is not a model"),
    "nothing": (b"", "there is no graph with outputs in it"),
    "cycle": (chained(node("Add", "x b", "y"), node("Relu", "y", "b")), "a node uses what nothing before it makes"),
    "undefined": (chained(node("Add", "x nowhere", "y")), "Add with input 'nowhere'"),
    "made twice": (chained(node("Relu", "x", "y"), node("Abs", "x", "y")), "two values have one name"),
    "constants": (
        chained(*[node("Constant", "", "c", value_float=1.0)] * 2, node("Add", "x c", "y")),
        "two values have one name",
    ),
    "constant tensors": (
        chained(*[node("Constant", "", "c", value=numpy_helper.from_array(np.ones(2)))] * 2, node("Add", "x c", "y")),
        "two values have one name",
    ),
    "two inputs": (changed(lambda p: p.graph.input.append(p.graph.input[0])), "two values have one name"),
    "no output": (
        changed(lambda p: p.graph.output.append(helper.make_tensor_value_info("z", 1, [2]))),
        "made by no node",
    ),
    "opset": (changed(lambda p: setattr(p.opset_import[0], "version", 999)), "of an unknown version"),
    "sequence": (
        changed(lambda p: p.graph.input.append(helper.make_tensor_sequence_value_info("s", 1, None))),
        "not everything is a tensor",
    ),
    "element": (
        changed(lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 17)),
        "type is not supported",
    ),
    "sparse": (
        changed(lambda p: p.graph.sparse_initializer.add()),
        "sparse weights are not supported",
    ),
    "too few bytes": (tensor(dims=[3]), "a tensor is not what it says"),
    "huge": (tensor(dims=[1 << 40]), "a tensor is not what it says"),
    "huge product": (tensor(dims=[1 << 30, 1 << 30, 1 << 30]), "a tensor is not what it says"),
    "empty and huge": (tensor(dims=[0, 1 << 62], raw_data=b""), "a size that cannot be"),
    "negative": (tensor(dims=[-2]), "a size that cannot be"),
    "axes": (tensor(dims=[1] * 99 + [2]), "more than 64 axes"),
    "type": (tensor(data_type=17), "data type 17 of ONNX is not supported"),
    "raw strings": (tensor(data_type=TensorProto.STRING), "strings as raw numbers"),
    "unknown attribute": (chained(node("Relu", "x", "y", slope=1.0)), "attribute 'slope' of type"),
    "attribute's type": (chained(node("LeakyRelu", "x", "y", alpha=[1.0])), "attribute 'alpha' of type"),
    "no attribute": (chained(node("Cast", "x", "y")), "attribute to is missing"),
    "inputs": (chained(node("Relu", "x x", "y")), "2 inputs for 1 … 1"),
    "no input": (chained(node("Add", "_ x", "y")), "2 inputs for 2 … 2"),
    "outputs": (chained(node("Relu", "x", "y z")), "2 outputs for 1 … 1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged(name, tmp_path):
    content, text = DAMAGED[name]
    refused(written(tmp_path, content), DataError, text)


def test_names_that_are_no_text(tmp_path):
    content = relu().SerializeToString().replace(b"Relu", b"\xff\xfe\xfd\xfc")
    refused(written(tmp_path, content), DataError, "a name in it is not text")


def test_depth(tmp_path):
    """protobuf parses no more than 100 levels; a few are operators juanji has not."""
    refused(
        written(tmp_path, helper.make_model(nested(3, "Loop"))), UnknownNameError, "operators that juanji has not: Loop"
    )
    content = b""
    for tag in (b"\x32", b"\x2a", b"\x0a") * 1000:  # from inside: graph of an attribute of a node
        content = tag + varint(len(content)) + content
    refused(written(tmp_path, b"\x3a" + varint(len(content)) + content), DataError, "it is not a model")


def test_choices_within_choices(tmp_path):
    """Each is looked at once, not once for every way to it."""
    graph = nested(6, "If", then_branch=0, else_branch=0)
    graph.input.extend([helper.make_tensor_value_info("x", 1, [2]), helper.make_tensor_value_info("c", 9, [])])
    net = load_onnx(written(tmp_path, helper.make_model(graph)))
    assert net(np.float32([-1, 2]), np.array(True)).tolist() == [0, 2]
    del graph.input[0]
    refused(written(tmp_path, helper.make_model(graph)), DataError, "If with input 'x'")


def varint(value):
    """How protobuf writes a length."""
    return bytes([value & 127 | 128]) + varint(value >> 7) if value > 127 else bytes([value])


def test_what_cannot_be_read(tmp_path):
    refused(tmp_path / "none.onnx", DataError, "it cannot be read")
    refused(tmp_path, DataError, "it cannot be read")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(2**31)
    refused(tmp_path / "large.onnx", DataError, "it is too large")


def test_all_unsupported_operators_are_named_at_once(tmp_path):
    nodes = [
        node("Relu", "x", "a"),
        node("Loop", "a b c", "d", name="repeat", body=helper.make_graph([], "g", [], [])),
        node("Gru", "d", "e", name="first"),
        node("Gru", "e", "y", name="second"),
        helper.make_node("Special", ["x"], ["z"], domain="com.example"),
    ]
    path = written(tmp_path, chained(*nodes))
    refused(path, UnknownNameError, "juanji has not: Loop, Gru, com.example.Special")
    refused(path, UnknownNameError, "Loop: repeat; Gru: first, second; com.example.Special: number 4")


# Where external data may not lie.
ELSEWHERE = {
    "up": "../weights.bin",
    "root": "/etc/hostname",
    "device": "/dev/zero",
    "Windows root": "C:\\weights.bin",
    "link": "link.bin",
    "folder's link": "linked/weights.bin",
    "folder": ".",
    "up and down": "inside/../../weights.bin",
    "pipe": "pipe",
    "nothing": "",
}


def external(folder, location, **about):
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **about}.items():
        proto.external_data.add(key=key, value=str(value))
    graph = model([node("Add", "x w", "y")], {"x": [2]}, {"y": [2]})
    graph.graph.initializer.append(proto)
    return written(folder, graph)


@pytest.fixture
def folder(tmp_path):
    """A model's folder, with weights in it, above it, and by links and pipes."""
    inside = tmp_path / "models"
    (inside / "inside").mkdir(parents=True)
    for place in (tmp_path, inside, inside / "inside"):
        (place / "weights.bin").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    try:
        (inside / "link.bin").symlink_to(tmp_path / "weights.bin")
        (inside / "linked").symlink_to(tmp_path, target_is_directory=True)
        os.mkfifo(inside / "pipe")
    except (OSError, AttributeError):
        pytest.skip("no links or pipes here")
    return inside


@pytest.mark.parametrize("location", ELSEWHERE.values(), ids=ELSEWHERE)
def test_weights_elsewhere(folder, location):
    refused(external(folder, location), DataError, "its weights lie elsewhere")


def test_weights_beside(folder):
    assert load_onnx(external(folder, "weights.bin", offset=4)).parameters()["w"].tolist() == [2, 3]
    assert load_onnx(external(folder, "inside/weights.bin", length=8)).parameters()["w"].tolist() == [1, 2]
    for about in ({"offset": 12}, {"offset": -4}, {"length": 4}, {"offset": "many"}, {"length": 1 << 60}):
        refused(external(folder, "weights.bin", **about), DataError, "a tensor is not what it says")
    refused(external(folder, "none.bin"), DataError, "a tensor is not what it says")
    with pytest.raises(DataError, match="its weights lie elsewhere"):
        load_onnx(onnx.load(external(folder, "weights.bin"), load_external_data=False))


HUGE = 1 << 40
INITIAL = {
    "huge": np.array([HUGE]), "wide": np.array([1, 1, 1 << 20, 1 << 20]), "many": np.array([1, 1, 1 << 14, 1 << 14]),
    "pads": np.array([0, 0, 1 << 18, 1 << 18, 0, 0, 1 << 18, 1 << 18]), "scales": np.float32([1, 1, 1e6, 1e6]),
    "nan": np.float32([1, 1, np.nan, 1]), "infinite": np.float32([1, 1, np.inf, 1]), "k": normal(2, 3, 3, 3),
    "zero": np.float32(0), "one": np.float32(1), "end": np.float32(1e12), "column": normal(1 << 15, 1),
    "row": normal(1, 1 << 15), "values": np.float32([0, 1]), "negative": np.array([-5]), "block": np.array([2, 2]),
    "ints": np.arange(4).reshape(1, 1, 2, 2), "image": np.array([1 << 20, 1 << 20]), "power": normal(2, 3, 6, 6),
}  # fmt: skip
# Small nodes that ask for much.
ABSURD = [
    node("ConstantOfShape", "huge", "y"),
    node("ConstantOfShape", "negative", "y"),
    node("Expand", "x wide", "y"),
    node("Tile", "x many", "y"),
    node("Tile", "ints many", "y"),
    node("Pad", "x pads", "y"),
    node("Resize", "x _ scales", "y"),
    node("Resize", "x _ nan", "y"),
    node("Resize", "x _ infinite", "y"),
    node("Resize", "x _ _ wide", "y", mode="cubic"),
    node("Range", "zero end one", "y"),
    node("Range", "zero end zero", "y"),
    node("OneHot", "ints huge values", "y"),
    node("Where", "x x x", "y"),
    node("Conv", "x k", "y", pads=[1 << 18] * 4),
    node("Conv", "x k", "y", pads=[1 << 62] * 4),
    node("Conv", "x k", "y", strides=[0, 0]),
    node("Conv", "x k", "y", strides=[1]),
    node("Conv", "x k", "y", dilations=[1 << 40, 1]),
    node("ConvTranspose", "power k", "y", strides=[1 << 20, 1 << 20]),
    node("ConvTranspose", "power k", "y", output_shape=[1 << 20, 1 << 20]),
    node("MaxPool", "x", "y", kernel_shape=[1 << 20, 1], pads=[1 << 19, 0, 1 << 19, 0]),
    node("AveragePool", "x", "y", kernel_shape=[1 << 40, 1 << 40]),
    node("AveragePool", "x", "y", kernel_shape=[2, 2], pads=[1 << 40] * 4),
    node("MaxUnpool", "x ints", "y", kernel_shape=[1 << 20, 1 << 20]),
    node("Col2Im", "x image block", "y"),
    node("DepthToSpace", "x", "y", blocksize=1 << 30),
    node("SpaceToDepth", "x", "y", blocksize=1 << 30),
    node("GroupNormalization", "x values values", "y", num_groups=1 << 40),
    node("Transpose", "x", "y", perm=[0] * 4),
    node("Unsqueeze", "x huge", "y"),
    node("TopK", "x huge", "y z"),
    node("Flatten", "x", "y", axis=1 << 40),
]


@pytest.mark.parametrize("bad", ABSURD, ids=lambda bad: f"{bad.op_type}({' '.join(bad.input)})")
def test_absurd_sizes(bad, tmp_path):
    used = {name: value for name, value in INITIAL.items() if name in bad.input}
    proto = model([bad], {"x": [2, 3, 6, 6]}, {"y": ["a"]}, **used)
    path = written(tmp_path, proto)
    tracemalloc.start()
    try:
        refused(path, JuanjiError, "at  ", X)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


def test_growing_by_broadcasting(tmp_path):
    nodes = [node("Mul", "column row", "a"), node("ReduceSum", "a", "b"), node("Add", "x b", "y")]
    proto = model(nodes, {"x": [2]}, {"y": [2]}, column=INITIAL["column"], row=INITIAL["row"])
    refused(written(tmp_path, proto), DataError, "a value would be too large", normal(2))


def test_wide_neighbourhoods_are_cut():
    """Of more channels than there are nothing is added up, but α is divided by the size."""
    x = normal(1, 3, 2, 2)
    net = load_onnx(
        model([node("LRN", "x", "y", size=(1 << 40) + 1, alpha=float(1 << 40))], {"x": [1, 3, 2, 2]}, {"y": ["a"]})
    )
    np.testing.assert_allclose(net(x), x * (1 + (x**2).sum(1, keepdims=True)) ** -0.75, 1e-5)


def damage(rng, content):
    """A few bits flipped, sometimes the end cut off, sometimes a piece written twice."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    if rng.random() < 0.1:
        data = data[: rng.integers(len(data))]
    if rng.random() < 0.1:
        start, size = rng.integers(len(data) or 1), rng.integers(64)
        data[start:start] = data[start : start + size]
    return bytes(data)


def outcome(path):
    """The error of juanji's that a file ends in, or None."""
    try:
        load_onnx(path)(X)
    except JuanjiError as error:
        return error


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_random_damage(seed, tmp_path):
    """Whatever becomes of a file, it is read, or refused by name; nothing else happens."""
    rng, content = np.random.default_rng(seed), classifier().SerializeToString()
    outcomes = {True: 0, False: 0}
    for _ in range(400 if seed == 0 else 4000):
        path = written(tmp_path, damage(rng, content))
        error = outcome(path)
        assert error is None or str(path) in str(error)
        outcomes[error is None] += 1
    assert min(outcomes.values()) > 50


def test_typed_numbers():
    """Numbers in the fields of their own types, and of half precision by their bits."""
    half = helper.make_tensor("w", TensorProto.FLOAT16, [2], [0.5, -2])
    for proto in (
        helper.make_tensor("w", TensorProto.FLOAT, [2], [0.5, -2]),
        half,
        numpy_helper.from_array(np.float16([0.5, -2]), "w"),
    ):
        graph = model([node("Add", "x w", "y")], {"x": [2]}, {"y": [2]})
        graph.graph.initializer.append(proto)
        assert load_onnx(graph).parameters()["w"].tolist() == [0.5, -2]
