"""Into juanji and out again: names, training in between, and names that modules need for themselves."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import model, node

import juanji as jj
from juanji.errors import ArgumentError, DataError
from juanji.interop import load_onnx, load_weights, save_onnx, save_torch_weights, save_weights, to_onnx

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 8, 8)).astype(np.float32)


def two_outputs():
    nodes = [
        node("Conv", "image conv.w", "map"),
        node("Relu", "map", "kept"),
        node("GlobalAveragePool", "kept", "mean"),
    ]
    w = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
    return model(nodes, {"image": X.shape}, {"kept": None, "mean": None}, opset=19, **{"conv.w": w})


def test_names_survive(tmp_path):
    loaded = load_onnx(two_outputs())
    path = tmp_path / "again.onnx"
    for _ in range(2):
        save_onnx(loaded, path, X)
        graph = onnx.load(path).graph
        assert [x.name for x in graph.input] == ["image"]
        assert [x.name for x in graph.output] == ["kept", "mean"]
        assert [x.name for x in graph.initializer] == ["conv.w"]
        save_weights(loaded, tmp_path / "weights")
        loaded = load_onnx(path)
        load_weights(loaded, tmp_path / "weights")
    save_torch_weights(loaded, tmp_path / "torch", input_shape=(8, 8, 3))


@pytest.mark.parametrize("bounds", [{"low": 0, "high": 6}, {"low": -0.5}, {"high": 0.5}], ids=str)
def test_a_clip_stays_one(bounds):
    inputs = " ".join(["x", *(end if end in bounds else "_" for end in ("low", "high"))])
    values = {end: np.float32(bound) for end, bound in bounds.items()}
    proto = model([node("Clip", inputs, "y")], {"x": X.shape}, {"y": None}, opset=19, **values)
    loaded = load_onnx(proto)
    again = to_onnx(loaded, X)
    assert [n.op_type for n in again.graph.node] == ["Clip"]
    np.testing.assert_array_equal(np.asarray(load_onnx(again)(X)), np.clip(X, bounds.get("low"), bounds.get("high")))


def test_relu6_comes_back_as_one_clip():
    proto = to_onnx(jj.nn.Sequential(jj.nn.Conv2d(3, 4, 3), jj.nn.ReLU6()), jj.Tensor.spec((1, 8, 8, 3)))
    for _ in range(2):
        assert [n.op_type for n in proto.graph.node] == ["Conv", "Clip"]
        proto = to_onnx(load_onnx(proto), X)


def test_trained_in_between(tmp_path):
    loaded = load_onnx(two_outputs())
    optimizer = jj.optim.SGD(loaded, 0.1)

    @jj.compile
    def step(x):
        loss, grads = jj.value_and_grad(lambda net: (net(x)[1] ** 2).mean())(loaded)
        optimizer.update(loaded, grads)
        return loss

    assert float(step(X)) > float(step(X)) > 0
    save_onnx(loaded, tmp_path / "trained.onnx", X)
    session = onnxruntime.InferenceSession(tmp_path / "trained.onnx", providers=["CPUExecutionProvider"])
    for mine, theirs in zip(loaded(X), session.run(None, {"image": X}), strict=True):
        np.testing.assert_allclose(np.asarray(mine), theirs, rtol=1e-5, atol=1e-5)


def test_the_inputs_are_the_files_own(tmp_path):
    nodes = [node("Conv", "image w", "a"), node("GlobalAveragePool", "a", "b"), node("Cast", "factor", "f", to=1)]
    w = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
    inputs = {"image": ["n", 3, 8, 8], "factor": (11, [1])}
    proto = model([*nodes, node("Mul", "b f", "y")], inputs, {"y": None}, w=w)
    loaded = load_onnx(proto)
    save_onnx(loaded, tmp_path / "again.onnx")
    ports = onnx.load(tmp_path / "again.onnx").graph.input
    assert [port.name for port in ports] == ["image", "factor"]
    assert [port.type.tensor_type.elem_type for port in ports] == [1, 11]
    sizes = [[d.dim_param or d.dim_value for d in port.type.tensor_type.shape.dim] for port in ports]
    assert sizes == [["N", 3, 8, 8], [1]]
    again = load_onnx(tmp_path / "again.onnx")
    np.testing.assert_allclose(np.asarray(again(X, [3.0])), np.asarray(loaded(X, [3.0])), rtol=1e-6)


@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        ({"x": ["n", 3, "h", 8]}, r"\(any, 3, any, 8\)"),
        ({"x": None}, "any shape"),
        ({"x": [2, 6], "shape": (7, [2])}, r"\(2\) whose value decides on shapes"),
    ],
)
def test_inputs_that_the_file_leaves_open(inputs, received):
    last = node("Reshape", "x shape", "y") if "shape" in inputs else node("Relu", "x", "y")
    loaded = load_onnx(model([last], inputs, {"y": None}))
    with pytest.raises(
        ArgumentError, match=f"does not say all about its input[\\s\\S]*received  {received}\n"
    ) as caught:
        to_onnx(loaded)
    assert re.fullmatch(received, caught.value.received)
    assert caught.value.fix == f"give an example of each input: {', '.join(inputs)}"


@pytest.mark.parametrize("name", ["constants", "makes", "drops", "training", "forward", "layout"])
def test_nodes_may_be_called_like_attributes(name):
    proto = two_outputs()
    proto.graph.node[1].name = name
    loaded = load_onnx(proto)
    np.testing.assert_allclose(np.asarray(loaded(X)[0]).min(), 0)


@pytest.mark.parametrize("name", ["training", "floating", "place", "cells", "random_state", "__class__", "_cells"])
def test_weights_may_be_too(name, tmp_path):
    """And beside one that is called as an attribute is that holds the other."""
    proto = two_outputs()
    again, bias = f"{name}_", RNG.normal(size=4).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(bias, again))
    proto.graph.initializer[0].name = name
    proto.graph.node[0].input[1:] = [name, again]
    loaded = load_onnx(proto)
    expected = np.asarray(loaded(X)[1])
    assert list(loaded.parameters()) == [name, again]
    loaded.train().eval().astype("float64").astype("float32")
    np.testing.assert_allclose(np.asarray(jj.compile(loaded)(X)[1]), expected, rtol=1e-5)
    save_weights(loaded, tmp_path / "weights")
    load_weights(load_onnx(proto), tmp_path / "weights")
    written = to_onnx(loaded, X)
    assert {x.name for x in written.graph.initializer} == {name, again}
    np.testing.assert_allclose(np.asarray(load_onnx(written)(X)[1]), expected, rtol=1e-5)


def test_many_values_at_once_are_refused():
    """Each would fit; together they would not."""
    nodes = [node("ConstantOfShape", "shape", "big"), *(node("Exp", "big", f"y{i}") for i in range(4))]
    proto = model(nodes, {}, {f"y{i}": None for i in range(4)}, opset=19, shape=np.array([60 << 20]))
    with pytest.raises(DataError, match="a value would be too large"):
        load_onnx(proto)()
