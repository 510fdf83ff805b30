"""`load_onnx`: what is trained, moves and is named; values against onnxruntime, derivatives against differences."""

import copy
import pickle

import numpy as np
import onnx
import onnxruntime
import pytest
from graphs import INT64, classifier, model, node, normal
from onnx import helper, numpy_helper

import juanji as jj
from juanji.errors import ArgumentError, DataError, DTypeError, ShapeError, TraceError
from juanji.interop import load_onnx

X = normal(3, 3, 6, 6)
LABELS = np.array([0, 3, 1])


def by_onnxruntime(proto, *inputs):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {port.name: x for port, x in zip(session.get_inputs(), inputs, strict=True)})


@pytest.fixture
def net(tmp_path):
    onnx.save(classifier(), tmp_path / "net.onnx")
    return load_onnx(tmp_path / "net.onnx")


def test_values(net):
    (expected,) = by_onnxruntime(classifier(), X)
    np.testing.assert_allclose(net(X), expected, 1e-5, 1e-5)
    np.testing.assert_allclose(jj.compile(net)(X), expected, 1e-5, 1e-5)


def test_names(net):
    assert (net.input_names, net.output_names, net.static_inputs) == (("image",), ("scores",), ())
    trained = ["conv.weight", "conv.bias", "bn.weight", "bn.bias", "fc.weight", "fc.bias"]
    assert list(net.parameters()) == trained
    assert list(net.buffers()) == ["bn.mean", "bn.var"]
    assert {*net.state_dict()} == {*trained, "bn.mean", "bn.var"}
    graph = jj.trace(net, X)
    assert graph.names == ("image",)
    assert {"conv/Conv", "bn/BatchNormalization", "up/Resize", "fc/Gemm"} <= {node.path for node in graph.nodes}
    assert [node.name for node in graph.nodes if node.path == "up/Resize"] == ["transpose", "resize", "transpose"]


def test_summary(net):
    summary = net.summary((3, 6, 6))
    assert summary.parameters == 5 * 28 + 10 + 4 * 81
    assert [row.parameters for row in summary.rows if row.parameters] == [140, 10, 324]
    fields = {row.layer: row.receptive_field for row in summary.rows}
    assert (fields["Conv(pads=[1, 1, 1, 1])"], fields["Gemm(transB=1)"]) == ((3, 3), (None, None))


def test_it_is_in_the_mode_of_use(net):
    assert not any(module.training for module in net.modules().values())


def test_training_moves_the_statistics_as_pytorch_does(net):
    """running ← 0.9·running + 0.1·batch, with the variance divided by m − 1."""
    before = {name: tensor.array for name, tensor in net.buffers().items()}
    weight, bias = net.state_dict()["conv.weight"], net.state_dict()["conv.bias"]
    seen = jj.conv(X, weight, bias, padding=1, layout="NCHW").array
    net.train()(X)
    after = net.buffers()
    mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3), ddof=1)
    np.testing.assert_allclose(after["bn.mean"], 0.9 * before["bn.mean"] + 0.1 * mean, 1e-4, 1e-5)
    np.testing.assert_allclose(after["bn.var"], 0.9 * before["bn.var"] + 0.1 * var, 1e-4, 1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_derivatives(net, training):
    net.astype("float64").train(training)
    x = X.astype("float64")
    gradients = jj.grad(lambda m: jj.cross_entropy(m(x), LABELS))(net)
    assert list(gradients) == list(net.parameters())
    jj.check_grads(lambda image: net(image), [x], order=1)
    weight = net.state_dict()["fc.weight"].array
    step = 1e-6 * np.random.default_rng(2).normal(size=weight.shape)

    def loss(change):
        net.load_state_dict({**net.state_dict(), "fc.weight": weight + change})
        return float(jj.cross_entropy(net(x), LABELS))

    np.testing.assert_allclose((loss(step) - loss(-step)) / 2, np.sum(gradients["fc.weight"].array * step), 1e-5)


def test_fine_tuning_compiled_and_not(net):
    other = copy.deepcopy(net)
    losses = []
    for m, wrap in ((net, jj.compile), (other, lambda f: f)):
        optimiser = jj.optim.SGD(m.train(), 0.05, momentum=0.9)

        def step(x, y, m=m, optimiser=optimiser):
            loss, grads = jj.value_and_grad(lambda m: jj.cross_entropy(m(x), y))(m)
            optimiser.update(m, grads)
            return loss

        run = wrap(step)
        losses.append([float(run(X, LABELS)) for _ in range(8)])
    assert losses[0][-1] < 0.2 * losses[0][0]
    np.testing.assert_allclose(*losses, 1e-4)
    for name, value in other.state_dict().items():
        np.testing.assert_allclose(net.state_dict()[name], value, 1e-3, 1e-4, err_msg=name)


def test_copies_and_pickles(net):
    expected = net(X)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(X), expected)
        other.load_state_dict({name: value * 0 for name, value in other.state_dict().items()})
    np.testing.assert_array_equal(net(X), expected)


def test_initialise_brings_the_file_back(net):
    expected = net(X)
    net.load_state_dict({name: value * 0 for name, value in net.state_dict().items()})
    net.initialise()
    np.testing.assert_array_equal(net(X), expected)


def test_weights_by_way_of_movements():
    """A weight may be transposed, reshaped and shared before it is used; it is trained once."""
    nodes = [
        node("Transpose", "w", "wt", perm=[1, 0]),
        node("MatMul", "x wt", "a"),
        node("MatMul", "a w", "b"),
        node("Unsqueeze", "bias axes", "row"),
        node("Add", "b row", "y"),
    ]
    proto = model(nodes, {"x": [2, 3]}, {"y": [2, 3]}, w=normal(4, 3), bias=normal(3), axes=np.array([0]))
    net = load_onnx(proto)
    assert list(net.parameters()) == ["w", "bias"]
    x = normal(2, 3)
    np.testing.assert_allclose(net(x), by_onnxruntime(proto, x)[0], 1e-5, 1e-5)
    assert set(jj.grad(lambda m: m(x).sum())(net)) == {"w", "bias"}


def test_constants_are_not_trained():
    """Numbers alone, what nodes called Constant hold, and what decides on shapes."""
    nodes = [
        node("Constant", "", "two", value=numpy_helper.from_array(np.full(3, 2, np.float32))),
        node("Mul", "x two", "a"),
        node("Mul", "a half", "b"),
        node("Resize", "b _ scales", "y"),
    ]
    net = load_onnx(
        model(nodes, {"x": [1, 1, 3]}, {"y": [1, 1, 6]}, half=np.float32(0.5), scales=np.array([1, 1, 2], np.float32))
    )
    assert not net.cells()
    np.testing.assert_array_equal(net(np.arange(3, dtype="float32").reshape(1, 1, 3)), [[[0, 0, 1, 1, 2, 2]]])


def test_a_choice_of_graphs():
    """What decides is folded, as PyTorch's questions about ranks are; weights of either branch are trained."""
    lower = helper.make_graph(
        [node("Mul", "x w", "inner"), node("Relu", "inner", "low")],
        "lower",
        [],
        [helper.make_empty_tensor_value_info("low")],
    )
    upper = helper.make_graph([node("Add", "x v", "high")], "upper", [], [helper.make_empty_tensor_value_info("high")])
    nodes = [
        node("Shape", "x", "shape"),
        node("Size", "shape", "rank"),
        node("Equal", "rank two", "flat"),
        node("If", "flat", "y", name="choice", then_branch=lower, else_branch=upper),
    ]
    weights = {"w": np.float32([2, -2]), "v": np.float32([5, 6]), "two": np.array(2)}
    proto = model(nodes, {"x": ["a", "b"]}, {"y": ["a", "b"]}, **weights)
    del proto.graph.input[0].type.tensor_type.shape.dim[:]
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    net = load_onnx(proto)
    assert (list(net.parameters()), net.static_inputs) == (["v", "w"], ())
    for run in (net, jj.compile(net)):
        assert run(np.float32([[1, 1]])).tolist() == [[2, 0]]
        assert run(np.float32([1, 1])).tolist() == [6, 7]
    assert jj.grad(lambda m: m(np.float32([[3, 1]])).sum())(net)["w"].tolist() == [3, 0]
    assert {n.path for n in jj.trace(net, np.float32([[1, 1]])).nodes} == {
        "choice.then_branch.Mul",
        "choice.then_branch.Relu",
    }
    net.astype("float64")
    assert net(np.float64([1, 1])).dtype == "float64"


def test_several_inputs_and_outputs():
    nodes = [node("Add", "a b", "sum"), node("Sub", "a b", "difference")]
    net = load_onnx(model(nodes, {"a": [2], "b": [2]}, {"difference": [2], "sum": [2]}))
    assert (net.input_names, net.output_names) == (("a", "b"), ("difference", "sum"))
    difference, total = net(np.float32([1, 2]), np.float32([3, 5]))
    assert (difference.tolist(), total.tolist()) == ([-2, -3], [4, 7])


def test_weights_that_are_outputs():
    nodes = [node("Add", "x w", "y"), node("Identity", "w", "copy"), node("Identity", "k", "same")]
    outputs = {"y": [2], "w": [2], "copy": [2], "same": [2]}
    net = load_onnx(model(nodes, {"x": [2]}, outputs, w=np.float32([1, 2]), k=np.float32([3, 4])))
    assert [y.tolist() for y in net(np.zeros(2, "float32"))] == [[1, 2], [1, 2], [1, 2], [3, 4]]


def test_initialisers_that_are_inputs_too():
    """As files before IR version 4 have them."""
    proto = model([node("Add", "x w", "y")], {"x": [2], "w": [2]}, {"y": [2]}, w=np.float32([1, 2]))
    net = load_onnx(proto)
    assert net.input_names == ("x",)
    assert list(net.parameters()) == ["w"]


def test_half_precision_is_computed_in_float32():
    w = np.float16([0.5, 0.25])
    proto = model([node("Mul", "x w", "y")], {"x": (10, [2])}, {"y": (10, [2])}, w=w)
    net = load_onnx(proto)
    assert net.parameters()["w"].dtype == "float32"
    assert net(np.float16([2, 4])).tolist() == [1, 1]
    assert net(np.float32([2, 4])).dtype == "float32"


def test_dropout_while_training():
    proto = model([node("Dropout", "x ratio", "y")], {"x": [1000]}, {"y": [1000]}, ratio=np.float32(0.25))
    net, x = load_onnx(proto), np.ones(1000, np.float32)
    np.testing.assert_array_equal(net(x), x)
    first, second = net.train()(x).array, net(x).array
    assert set(np.unique(first)) == {np.float32(0), np.float32(4 / 3)}
    assert 0.65 < (first > 0).mean() < 0.85
    assert (first != second).any()
    step = jj.compile(net)
    assert (step(x).array != step(x).array).any()


def test_shapes_from_inputs():
    """What decides on shapes is a number of the graph: given as a list where the model is compiled."""
    proto = model([node("Reshape", "x shape", "y")], {"x": [6], "shape": (INT64, [2])}, {"y": ["a", "b"]})
    net, x = load_onnx(proto), normal(6)
    assert net.static_inputs == ("shape",)
    assert net(x, np.array([2, 3])).shape == (2, 3)
    assert jj.compile(net)(x, [3, -1]).shape == (3, 2)
    with pytest.raises(TraceError, match="Reshape: input 'shape' must have a value when the graph is made"):
        jj.compile(net)(x, np.array([2, 3]))


@pytest.mark.parametrize("names", [("", "", "Abs_1"), ("n", "n", "n_1"), ("n_1", "n", "n"), ("call", "call_1", "call")])
def test_numbered_names_that_others_have_already(names):
    """A node without a name is called by its operation."""
    nodes = [node("Abs", a, b, name=name) for a, b, name in zip("xab", "aby", names, strict=True)]
    net = load_onnx(model(nodes, {"x": (2,)}, {"y": (2,)}))
    np.testing.assert_array_equal(net(np.float32([-1, 2])), [1, 2])


def test_other_sizes_where_the_file_leaves_them_open():
    proto = model([node("GlobalAveragePool", "x", "y")], {"x": [1, 2, "h", "w"]}, {"y": [1, 2, 1, 1]})
    net = load_onnx(proto)
    assert net(normal(1, 2, 5, 7)).shape == (1, 2, 1, 1)
    assert net(normal(4, 2, 3, 3)).shape == (4, 2, 1, 1)


def test_external_weights(tmp_path):
    onnx.save(classifier(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    np.testing.assert_array_equal(load_onnx(tmp_path / "net.onnx")(X), load_onnx(classifier())(X))


def test_bfloat16_weights():
    values = [1.0, -2.5]
    proto = model([node("Add", "x w", "y")], {"x": [2]}, {"y": [2]})
    proto.graph.initializer.append(helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [2], values))
    assert load_onnx(proto).parameters()["w"].tolist() == values


WRONG_INPUTS = [
    ((), ShapeError, "this model takes other inputs"),
    ((X.astype("float64"),), DTypeError, "input 'image' has another dtype"),
    ((X[0],), ShapeError, "input 'image' has another shape"),
    ((X[:, :2],), ShapeError, r"rule      \(any, 3, 6, 6\), the first may differ"),
]


@pytest.mark.parametrize(("inputs", "error", "text"), WRONG_INPUTS)
def test_wrong_inputs(net, inputs, error, text):
    with pytest.raises(error, match=text) as raised:
        net(*inputs)
    assert "net.onnx" in str(raised.value)


# Nodes that cannot be computed, with what is said of them.
IMPOSSIBLE = [
    (node("Conv", "x w", "y", kernel_shape=[5, 5]), ShapeError, "kernel_shape is not that of the weights"),
    (node("DepthToSpace", "v", "y", blocksize=2), ArgumentError, "DepthToSpace: images in blocks, please"),
    (node("Resize", "x _ s", "y", mode="best"), ArgumentError, "Resize: unknown mode"),
    (node("Resize", "x _ s", "y", nearest_mode="best"), ArgumentError, "Resize: unknown nearest_mode"),
    (node("Resize", "x _ z", "y"), DataError, "Resize: nothing to resize"),
    (node("Squeeze", "x axes", "y"), ShapeError, "Squeeze: an axis is not of size 1"),
    (node("ReduceSum", "x far", "y"), ShapeError, "every axis once, please"),
    (node("Split", "x parts", "y a"), ShapeError, "Split: the parts are not the whole"),
    (node("Reshape", "x zeros", "y"), ShapeError, "Reshape: there is no size to keep"),
    (node("GatherND", "x far", "y"), ArgumentError, "an index points outside"),
    (node("ScatterND", "v twice u", "y"), ArgumentError, "a place is written twice"),
    (node("MaxUnpool", "x i small", "y", kernel_shape=[2, 2]), ArgumentError, "output_shape is too small"),
    (node("Cast", "x", "y", to=17), DataError, "Cast: this element type is not supported"),
    (node("QuantizeLinear", "x scale truth", "y"), DataError, "this type of quantisation is not supported"),
    (node("LeakyRelu", "x", "y a"), DataError, "a node is not as its operator is defined"),
    (node("Tile", "x axes", "y"), ShapeError, "Tile: how often along each axis"),
    (node("Expand", "x huge", "y"), DataError, "a value would be too large"),
    (node("ConstantOfShape", "huge", "y"), DataError, "a value would be too large"),
    (node("BatchNormalization", "x v v v v", "y"), ShapeError, "batch_norm: scale does not fit"),
    (node("BatchNormalization", "x u u u u", "y m s"), DataError, "BatchNormalization: there are only 1 outputs"),
    (node("TopK", "x far", "y a"), ShapeError, "TopK: there are not so many"),
    (node("GroupNormalization", "x u u", "y", num_groups=3), ArgumentError, "the groups do not divide the channels"),
    (node("Concat", "x", "y", axis=7), ShapeError, "concat: there is no axis 7"),
    (node("Transpose", "x", "y", perm=[0, 1]), ShapeError, "every axis once"),
    (node("Conv", "x w", "y", strides=[1, 2, 3]), ArgumentError, "conv: bad stride"),
    (node("Mod", "x w", "y"), DataError, "Mod: the node makes no sense"),
]
GIVEN = {
    "w": normal(1, 2, 3, 3), "v": normal(3), "s": np.float32([1, 1, 2, 2]), "z": np.float32([1, 1, 0, 0]),
    "axes": np.array([1]), "far": np.array([9]), "parts": np.array([1, 2]), "zeros": np.array([1, 2, 4, 4, 0]),
    "twice": np.array([[1], [1]]), "u": normal(2), "i": np.zeros((1, 2, 4, 4), np.int64), "truth": np.array(True),
    "small": np.array([1, 2, 3, 3]), "scale": np.float32(1), "huge": np.array([1 << 24, 2, 4, 4]),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "error", "text"), IMPOSSIBLE, ids=lambda part: getattr(part, "op_type", None))
def test_impossible_nodes(bad, error, text):
    used = {name: value for name, value in GIVEN.items() if name in bad.input}
    proto = model([bad], {"x": [1, 2, 4, 4]}, {"y": ["a"]}, **used)
    with pytest.raises(error, match=text) as raised:
        load_onnx(proto)(normal(1, 2, 4, 4))
    assert "model 'test'" in str(raised.value)


def test_operators_before_opset_14():
    """What BatchNormalization said of statistics for every place."""
    bad = node("BatchNormalization", "x v v v v", "y", spatial=0)
    with pytest.raises(ArgumentError, match="statistics for every place"):
        load_onnx(model([bad], {"x": [1, 3]}, {"y": [1, 3]}, opset=7, v=normal(3)))(normal(1, 3))
