"""Models of ONNX, checked and run by the two programs that others wrote: onnxruntime and the reference evaluator."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

import juanji as jj
from juanji import tree

onnxruntime.set_default_logger_severity(4)


def is_image(x):
    return x.dtype.kind == "f" and 3 <= x.ndim <= 5


def feeds(proto, arrays, layout="NCHW"):
    """The arrays, channels last, by the names of the model's inputs, as it wants them."""
    turned = [np.moveaxis(x, -1, 1) if layout == "NCHW" and is_image(x) else x for x in arrays]
    return {value.name: x for value, x in zip(proto.graph.input, turned, strict=True)}


def channels_last(results, layout="NCHW"):
    return [np.moveaxis(y, 1, -1) if layout == "NCHW" and is_image(y) else y for y in results]


def session(proto):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def with_onnxruntime(proto, arrays, layout="NCHW"):
    return channels_last(session(proto).run(None, feeds(proto, arrays, layout)), layout)


def with_evaluator(proto, arrays, layout="NCHW"):
    return channels_last(ReferenceEvaluator(proto).run(None, feeds(proto, arrays, layout)), layout)


def close(results, expected, tolerance):
    """Every result has the shape and dtype, and the values to `tolerance` of the largest."""
    expected = [np.asarray(y) for y in tree.leaves(expected)]
    assert len(results) == len(expected)
    for y, z in zip(results, expected, strict=True):
        assert (y.shape, y.dtype) == (z.shape, z.dtype)
        scale = np.abs(z[np.isfinite(z)].astype(float)).max(initial=0)
        np.testing.assert_allclose(y.astype(float), z.astype(float), 0, tolerance * scale + 1e-12)


def kinds(proto):
    return Counter(node.op_type for node in proto.graph.node)


def settled(model, seed=0):
    """The model in evaluation mode, with running statistics as training might have left them."""
    rng = np.random.default_rng(seed)
    for path, cell in model.cells("buffer").items():
        if path.endswith("running_mean"):
            cell.write(jj.Tensor(rng.normal(0, 0.2, cell.shape).astype(cell.dtype)))
        if path.endswith("running_var"):
            cell.write(jj.Tensor(rng.uniform(0.5, 2, cell.shape).astype(cell.dtype)))
    return model.eval()


def checked(proto):
    onnx.checker.check_model(proto, full_check=True)
    return proto
