"""Windows of any size, stride, padding and dilation, resizing to any size, slices: against onnxruntime."""

import numpy as np
import onnxruntime
import pytest
from graphs import model, node
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from juanji.errors import JuanjiError
from juanji.interop import load_onnx

KERNEL, STRIDE, PAD, DILATION = st.integers(1, 3), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)


def agree(proto, x):
    """The same values from both; what juanji refuses, onnxruntime refuses or leaves undefined."""
    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {"x": x})
    except Exception:  # its own, of many kinds
        assume(False)
    try:
        mine = load_onnx(proto)(x)
    except JuanjiError as error:
        # Of windows in the padding alone onnxruntime makes −∞ or NaN, of those that do not fit nothing at all.
        assume("in the padding alone" not in str(error) and expected.size)
        raise
    assert mine.shape == expected.shape
    np.testing.assert_allclose(mine, expected, 1e-4, 1e-4)


@st.composite
def windows(draw, op):
    rank = draw(st.integers(1, 2))
    each = lambda values: [draw(values) for _ in range(rank)]  # noqa: E731
    kernel = each(KERNEL)
    attributes = {"strides": each(STRIDE), "dilations": each(DILATION)}
    if draw(st.booleans()):
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        attributes["dilations"] = [1] * rank
    else:
        attributes["pads"] = each(PAD) + each(PAD)
    if op in ("MaxPool", "AveragePool"):
        attributes |= {"kernel_shape": kernel, "ceil_mode": draw(st.integers(0, 1))}
        attributes["dilations"] = attributes["dilations"] if op == "MaxPool" else [1] * rank
    if op == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    if attributes.get("auto_pad", "VALID") != "VALID" or (op == "ConvTranspose" and "auto_pad" in attributes):
        # Where a kernel is shorter than its stride, onnxruntime crops before it pools, though not before it convolves,
        # and misses ONNX's size of transposed convolution, input · stride.
        assume(all(k >= s for k, s in zip(kernel, attributes["strides"], strict=True)))
    elif op == "ConvTranspose":
        attributes["output_padding"] = [draw(st.integers(0, max(s - 1, 0))) for s in attributes["strides"]]
    size = each(st.integers(3, 9))
    if "pads" in attributes and op != "ConvTranspose":
        # Of an input that is too small onnxruntime rounds the negative length up, to 0.
        pads, parts = attributes["pads"], zip(size, kernel, attributes["dilations"], strict=True)
        assume(all(n + pads[i] + pads[i + rank] > d * (k - 1) for i, (n, k, d) in enumerate(parts)))
    return kernel, attributes, size


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data(), seed=st.integers(0, 99))
def test_windows(op, data, seed):
    kernel, attributes, size = data.draw(windows(op))
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    given = {"w": draw(4, 2, *kernel) if op == "Conv" else draw(4, 3, *kernel)} if op.startswith("Conv") else {}
    attributes |= {"group": 2} if given else {}
    x = draw(2, 4, *size)
    window = node(op, "x w" if given else "x", "y", **attributes)
    agree(model([window], {"x": x.shape}, {"y": None}, opset=19, **given), x)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    target=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    place=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
)
def test_resize(size, target, mode, place, rounding):
    x = np.random.default_rng(0).normal(size=(1, 2, *size)).astype(np.float32)
    options = {"mode": mode, "coordinate_transformation_mode": place}
    options |= {"nearest_mode": rounding} if mode == "nearest" else {}
    resize = node("Resize", "x _ _ sizes", "y", **options)
    agree(model([resize], {"x": x.shape}, {"y": None}, opset=19, sizes=np.array([1, 2, *target])), x)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    starts=st.lists(st.integers(-9, 9), min_size=2, max_size=2),
    ends=st.lists(st.integers(-9, 9), min_size=2, max_size=2),
    steps=st.lists(st.sampled_from([-3, -2, -1, 1, 2, 3]), min_size=2, max_size=2),
    axes=st.permutations([0, 1, 2]),
)
def test_slice(starts, ends, steps, axes):
    x = np.arange(5 * 4 * 3, dtype=np.float32).reshape(5, 4, 3)
    bounds = {"starts": starts, "ends": ends, "axes": axes[:2], "steps": steps}
    cut = node("Slice", "x starts ends axes steps", "y")
    agree(model([cut], {"x": x.shape}, {"y": None}, **{name: np.array(values) for name, values in bounds.items()}), x)
