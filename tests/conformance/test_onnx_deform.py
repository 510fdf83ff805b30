"""Deformable convolution against the reference evaluator of ONNX."""

import itertools

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

import juanji as jj


def evaluate(inputs, **attributes):
    """ONNX's DeformConv, channels first, of the inputs that are there."""
    names = ["X", "W", "offset", "B", "mask"]
    used = [name if name in inputs else "" for name in names]
    declared = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, inputs[name].shape) for name in used if name]
    result = helper.make_tensor_value_info("Y", TensorProto.DOUBLE, None)
    graph = helper.make_graph([helper.make_node("DeformConv", used, ["Y"], **attributes)], "deform", declared, [result])
    return ReferenceEvaluator(helper.make_model(graph)).run(None, inputs)[0]


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "offset_groups", "masked"),
    list(itertools.product([1, 2], [0, 1], [1, 2], [1, 2], [1, 2], [False, True])),
)
def test_deform_conv(stride, padding, dilation, groups, offset_groups, masked):
    rng = np.random.default_rng(0)
    x, w, bias = rng.normal(size=(1, 5, 6, 4)), rng.normal(size=(2, 3, 4 // groups, 2)), rng.normal(size=2)
    y = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in [(5, 2), (6, 3)]]
    offset, mask = rng.normal(size=(1, *y, offset_groups * 12)), rng.random((1, *y, offset_groups * 6))
    inputs = {"X": x, "offset": offset} | ({"mask": mask} if masked else {})
    inputs = {name: np.moveaxis(array, -1, 1) for name, array in inputs.items()}
    inputs |= {"W": w.transpose(3, 2, 0, 1), "B": bias}
    # The evaluator divides the room for windows without rounding down, so the padding at the end has to fit exactly.
    ends = [(m - 1) * stride + dilation * (k - 1) + 1 - n - padding for m, k, n in zip(y, (2, 3), (5, 6), strict=True)]
    expected = evaluate(
        inputs,
        strides=[stride] * 2,
        pads=[padding, padding, *ends],
        dilations=[dilation] * 2,
        group=groups,
        offset_group=offset_groups,
    )
    got = jj.deform_conv(
        x,
        offset,
        w,
        bias,
        mask if masked else None,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_groups=offset_groups,
    )
    # The evaluator computes places in float32; test_deform.py has the exact sums.
    np.testing.assert_allclose(got, np.moveaxis(expected, 1, -1), 1e-4, 1e-4)
