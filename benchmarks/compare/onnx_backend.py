"""onnxruntime and OpenVINO, from an ONNX model of the PyTorch network. Nothing is fused here: they do that."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from benchmarks.compare import data
from benchmarks.compare.networks import CLASSES, network
from benchmarks.compare.torch_backend import Residual, build

Run = Callable[[], object]


class Builder:
    """Collects nodes and weights; `add` gives the name of a node's output."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def add(self, kind: str, *inputs: str | torch.Tensor | None, **attributes: Any) -> str:
        names = [self.weight(x) if isinstance(x, torch.Tensor) else x for x in inputs if x is not None]
        output = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def weight(self, tensor: torch.Tensor) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def convert(self, module: Any, x: str) -> str:
        match module:
            case nn.Dropout():
                return x
            case nn.Sequential():
                for child in module:
                    x = self.convert(child, x)
                return x
            case Residual():
                return self.add("Relu", self.add("Add", self.convert(module.body, x), self.convert(module.shortcut, x)))
            case nn.Conv2d():
                pads = [*module.padding] * 2
                return self.add("Conv", x, module.weight, module.bias, strides=module.stride, pads=pads)
            case nn.BatchNorm2d():
                parts = (module.weight, module.bias, module.running_mean, module.running_var)
                return self.add("BatchNormalization", x, *parts, epsilon=module.eps)
            case nn.MaxPool2d():
                size, stride, padding = ([n] * 2 for n in (module.kernel_size, module.stride, module.padding))
                return self.add("MaxPool", x, kernel_shape=size, strides=stride, pads=padding * 2)
            case nn.Linear():
                return self.add("Gemm", x, module.weight, module.bias, transB=1)
        plain = {"ReLU": "Relu", "AdaptiveAvgPool2d": "GlobalAveragePool", "Flatten": "Flatten"}
        return self.add(plain[type(module).__name__], x)


def model_of(net: nn.Module, shape: tuple[int, ...]) -> bytes:
    """`net` for images (N, C, H, W) as the bytes of an ONNX file."""
    builder = Builder()
    output = helper.make_tensor_value_info(builder.convert(net, "x"), onnx.TensorProto.FLOAT, (shape[0], CLASSES))
    images = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(builder.nodes, "network", [images], [output], builder.weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def with_onnxruntime(model: bytes, x: data.Array, settings: dict[str, Any]) -> Run:
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = settings["threads"], 1
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": x})


def with_openvino(model: bytes, x: data.Array, settings: dict[str, Any]) -> Run:
    core = importlib.import_module("openvino").Core()
    hints = {
        "INFERENCE_NUM_THREADS": settings["threads"],
        "PERFORMANCE_HINT": "LATENCY",
        # By itself it takes bfloat16 on processors that have it.
        "INFERENCE_PRECISION_HINT": "bf16" if settings.get("precision") == "bfloat16" else "f32",
    }
    request = core.compile_model(core.read_model(model), "CPU", hints).create_infer_request()
    return lambda: request.infer({0: x}, share_inputs=True, share_outputs=True)


def prepare(case: dict[str, Any], settings: dict[str, Any]) -> Run:
    """The case as a function without arguments."""
    torch.manual_seed(0)
    x = np.ascontiguousarray(data.batch(case)[0].transpose(0, 3, 1, 2))
    net = build(network(case)).eval()
    run = with_onnxruntime if settings["runtime"] == "onnxruntime" else with_openvino
    return run(model_of(net, x.shape), x, settings)
