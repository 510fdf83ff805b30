"""Small ONNX models for tests, from nodes as tuples."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def node(op, inputs, outputs, **attributes):
    """`inputs` and `outputs` are names in one string, "_" for one that is left out."""
    names = [["" if name == "_" else name for name in text.split()] for text in (inputs, outputs)]
    return helper.make_node(op, *names, **attributes)


def port(name, form):
    """A shape of float32, None where it is open; or (element type, shape)."""
    typed = isinstance(form, tuple) and len(form) == 2 and isinstance(form[1], list)
    return helper.make_tensor_value_info(name, *(form if typed else (1, form)))


def model(nodes, inputs, outputs, opset=20, **initialisers):
    """inputs and outputs: {name: form}, as `port` takes them."""
    ports = [[port(name, form) for name, form in table.items()] for table in (inputs, outputs)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in initialisers.items()]
    graph = helper.make_graph(nodes, "test", *ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def classifier():
    """Convolution, batch normalisation, pooling, computed shapes, resizing, a dense layer: (N, 3, 6, 6) to (N, 4)."""
    nodes = [
        node("Conv", "image conv.weight conv.bias", "a", pads=[1, 1, 1, 1], name="/conv/Conv"),
        node(
            "BatchNormalization", "a bn.weight bn.bias bn.mean bn.var", "b", momentum=0.9, name="/bn/BatchNormalization"
        ),
        node("Relu", "b", "c", name="/relu/Relu"),
        node("MaxPool", "c", "d", kernel_shape=[2, 2], strides=[2, 2], name="/pool/MaxPool"),
        node("Resize", "d _ scales", "e", mode="linear", name="/up/Resize"),
        node("Shape", "e", "shape"),
        node("Constant", "", "zero", value=numpy_helper.from_array(np.array([0]))),
        node("Gather", "shape zero", "batch"),
        node("Constant", "", "rest", value=numpy_helper.from_array(np.array([-1]))),
        node("Concat", "batch rest", "flat", axis=0),
        node("Reshape", "e flat", "f"),
        node("Gemm", "f fc.weight fc.bias", "scores", transB=1, name="/fc/Gemm"),
    ]
    rng = np.random.default_rng(1)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    weights = {
        "conv.weight": draw(5, 3, 3, 3), "conv.bias": draw(5), "bn.weight": draw(5), "bn.bias": draw(5),
        "bn.mean": draw(5), "bn.var": np.abs(draw(5)), "fc.weight": draw(4, 5 * 4 * 4), "fc.bias": draw(4),
        "scales": np.array([1, 1, 1.5, 1.5], np.float32),
    }  # fmt: skip
    return model(nodes, {"image": ["n", 3, 6, 6]}, {"scores": ["n", 4]}, **weights)


def relu(**changes):
    """The smallest model: y = max(x, 0)."""
    return model([node("Relu", "x", "y")], {"x": [2]}, {"y": [2]}, **changes)


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
