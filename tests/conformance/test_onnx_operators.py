"""Every registered operator on its own examples, exported: the two runtimes against juanji."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runtimes import checked, close, kinds, with_evaluator, with_onnxruntime

import juanji as jj
from juanji.errors import ArgumentError, JuanjiError
from juanji.graph import COMPOSITES, PRIMITIVES
from juanji.interop import to_onnx
from juanji.interop.export.walk import ENTRIES

RECORDS = {**PRIMITIVES, **COMPOSITES}

DERIVATIVE = "only derivatives need it"
RANDOM = "ONNX has other random numbers, which no seed makes the same everywhere"
NOT_EXPORTED = {
    "conv_weight_grad": DERIVATIVE,
    "pad": DERIVATIVE + ", with zeros between elements",
    "scatter": DERIVATIVE,
    "window_spread": DERIVATIVE,
    "uniform": RANDOM,
    "normal": RANDOM,
}
BY_PARTS = {
    "binary_cross_entropy_with_logits": "ONNX has no such loss",
    "huber_loss": "ONNX has no such loss",
    "l1_loss": "ONNX has no such loss",
    "mse_loss": "ONNX has no such loss",
    "smooth_l1_loss": "ONNX has no such loss",
    "batch_norm_train": "the outputs of ONNX's are the running statistics, not those of the batch",
    "locally_connected": "ONNX has no such layer",
    "logsigmoid": "ONNX has none",
    "normal": "its parts are random",
    "scaled_tanh": "ONNX has none",
    "silu": "Swish is in the standard, but onnxruntime has no kernel for it",
    "softmin": "ONNX has none",
    "var": "ONNX has none",
}
# Where the reference evaluator of onnx 1.23 is wrong; onnxruntime is asked all the same.
GROUPS = "transposed convolution in groups takes one image"
EVALUATOR_FAULTS = {
    **{("fold", i): GROUPS for i in (0, 1, 3)},
    ("conv_input_grad", 1): GROUPS,
    ("max_pool", 3): "sizes of volumes with padding at one end only",
    ("window_argmax", 3): "sizes of volumes with padding at one end only",
}
# Scales are float32 in ONNX, and cubic convolution moves with them more than interpolation by lines does.
COARSE = {("resize", 3): 1e-6}


def examples(name):
    return list(RECORDS[name].examples(np.random.default_rng(1)))


def cast(arrays, dtype):
    arrays = [None if a is None else np.asarray(a) for a in arrays]
    return [a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in arrays]


def function_of(name, arrays, attrs):
    """The operator as a function of the arrays that are there."""

    def function(*xs):
        given = iter(xs)
        return RECORDS[name](*(None if a is None else next(given) for a in arrays), **attrs)

    return function, [a for a in arrays if a is not None]


CASES = [(name, i) for name in sorted(RECORDS) if name not in NOT_EXPORTED for i in range(len(examples(name)))]


@pytest.mark.parametrize(("name", "i"), CASES)
def test_operator(name, i):
    arrays, attrs = examples(name)[i]
    for dtype, run, tolerance in [("float32", with_onnxruntime, 1e-5), ("float64", with_evaluator, 2e-7)]:
        if run is with_evaluator and (name, i) in EVALUATOR_FAULTS:
            continue
        function, given = function_of(name, cast(arrays, dtype), attrs)
        proto = checked(to_onnx(function, *given, dynamic_batch=False))
        checked(to_onnx(function, *given, dynamic_batch=False, opset=21))
        expected = given[0] if name == "dropout" else function(*map(jj.Tensor, given))
        close(run(proto, given), expected, max(tolerance, COARSE.get((name, i), 0)))


@pytest.mark.parametrize(("name", "reason"), NOT_EXPORTED.items())
def test_what_is_not_exported_says_so(name, reason):
    function, given = function_of(name, *examples(name)[0])
    with pytest.raises(
        ArgumentError, match=r"has no counterpart in ONNX\n  received .*\n  rule .*no gradients, no random"
    ):
        to_onnx(function, *given, dynamic_batch=False)


def test_every_operator_has_an_entry_or_a_reason():
    assert set(RECORDS) - set(ENTRIES) == (set(NOT_EXPORTED) - {"pad"}) | set(BY_PARTS)
    assert set(ENTRIES) <= set(RECORDS)


def test_a_border_between_elements_is_refused_and_one_around_them_is_not():
    x = jj.Tensor.spec((1, 3, 3, 2))
    assert kinds(to_onnx(lambda x: jj.ops.pad(x, [(0, 0), (1, 2), (0, 1), (0, 0)]), x)) == {"Pad": 1}


OPTIONS = [
    ("local_response_norm", {"size": 4}, {"LRN": 0}),
    ("local_response_norm", {"size": 3}, {"LRN": 1}),
    ("resize", {"size": (15, 25), "mode": "nearest"}, {"Resize": 1}),
    ("resize", {"scale": 1.3, "mode": "nearest"}, {"Resize": 1}),
    ("resize", {"scale": (0.7, 1.9), "mode": "bilinear"}, {"Resize": 1}),
    ("resize", {"size": (1, 7), "mode": "bilinear", "align_corners": True}, {"Resize": 1}),
    ("avg_pool", {"size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, {"AveragePool": 1, "Mul": 1}),
    ("avg_pool", {"size": 3, "stride": 2, "padding": 1, "count_include_pad": False}, {"AveragePool": 1, "Mul": 0}),
    ("max_pool", {"size": 2, "dilation": 3, "padding": 2}, {"MaxPool": 1, "Pad": 1}),
    ("max_pool", {"size": 2, "padding": ((-1, 0), (0, -2))}, {"MaxPool": 1, "Slice": 1}),
    ("lp_pool", {"norm": 2, "size": 2, "dilation": 3, "padding": 2}, {"AveragePool": 0, "Conv": 1}),
    ("max_pool", {"size": 2, "stride": 5}, {"MaxPool": 1}),
    ("adaptive_avg_pool", {"output_size": (4, 3)}, {"MatMul": 2, "Transpose": 0}),
    ("softmax", {"axis": 2}, {"Softmax": 1, "Transpose": 0}),
    ("softmax", {"axis": -1}, {"Softmax": 1, "Transpose": 0}),
    ("mean", {"axis": (1, 2)}, {"ReduceMean": 1, "Transpose": 0}),
    ("max", {"axis": -1, "keepdims": True}, {"ReduceMax": 1, "Transpose": 0}),
    ("flip", {"axis": (1, 2)}, {"Slice": 1, "Transpose": 0}),
    ("getitem", {"index": (slice(None), slice(None, None, -2), slice(1, 4))}, {"Transpose": 0}),
    ("layer_norm", {"axes": (1, 2, 3)}, {"LayerNormalization": 1, "Transpose": 0}),
    ("layer_norm", {"axes": -1}, {"LayerNormalization": 1, "Transpose": 2}),
    ("layer_norm", {"axes": 1}, {"LayerNormalization": 0}),
    ("pad", {"widths": [(0, 0), (2, 1), (0, 3), (0, 0)], "mode": "reflect"}, {"Pad": 1, "Gather": 0}),
    ("pad", {"widths": [(0, 0), (2, 1), (0, 3), (0, 0)], "mode": "edge"}, {"Pad": 1, "Gather": 0}),
    ("pad", {"widths": [(0, 0), (8, 1), (0, 0), (0, 0)], "mode": "reflect"}, {"Pad": 0, "Gather": 1}),
    ("pad", {"widths": [(0, 0), (1, 1), (0, 0), (0, 0)], "mode": "constant", "value": 2.5}, {"Pad": 1, "Where": 1}),
    ("take", {"index": np.array([3, -1, 0], np.int8), "axis": -1}, {"Gather": 1}),
    ("clip", {"low": -0.5, "high": 0.5}, {"Clip": 1, "Where": 0}),
    ("clip", {"low": 0.25}, {"Clip": 1, "Where": 0}),
    ("clip", {"high": 0.25}, {"Clip": 1, "Where": 0}),
    ("logsumexp", {"axis": (1, 3)}, {"ReduceLogSumExp": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "expected"), OPTIONS)
def test_options_on_a_batch_of_any_size(name, options, expected):
    function = getattr(jj.ops, name)
    x = np.random.default_rng(0).normal(size=(4, 7, 6, 5)).astype("float32")
    proto = checked(to_onnx(lambda x: function(x, **options), x))
    found = kinds(proto)
    assert {kind: found[kind] for kind in expected} == expected
    for batch in (x, x[:1]):
        close(with_onnxruntime(proto, [batch]), function(batch, **options), 1e-5)


@pytest.mark.parametrize("options", [{"padding": ((-1, 0), (0, 0))}, {"dilation": 3, "padding": 2}])
def test_places_in_what_is_cut_or_far_outside_have_no_counterpart(options):
    with pytest.raises(ArgumentError, match="window_argmax has no counterpart in ONNX"):
        to_onnx(lambda x: jj.max_pool(x, 2, return_indices=True, **options), jj.Tensor.spec((1, 6, 6, 1)))


@st.composite
def windows(draw):
    """The sizes of images and the options of windows over them, one to three axes."""
    rank = draw(st.integers(1, 3))

    def sizes(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    pads = st.tuples(st.integers(-2, 3), st.integers(-2, 3))
    padding = draw(st.one_of(st.just(0), st.sampled_from(["same", "same_lower", "full"]), st.tuples(*[pads] * rank)))
    return sizes(1, 7), sizes(1, 3), {"stride": sizes(1, 3), "padding": padding, "dilation": sizes(1, 2)}


def agrees(function, x):
    """The exported function is the function, on a batch that was not traced, wherever the function takes x."""
    try:
        expected = function(jj.Tensor(x))
    except JuanjiError:
        assume(False)
    close(with_onnxruntime(to_onnx(function, x), [x]), expected, 1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(windows(), st.sampled_from([(2, 4, 1), (4, 2, 2), (3, 3, 3)]), st.booleans())
def test_any_convolution(drawn, channels, bias):
    (size, kernel, options), (c, m, groups) = drawn, channels
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, *size, c)).astype("float32")
    w = jj.Tensor(rng.normal(size=(*kernel, c // groups, m)).astype("float32"))
    b = jj.Tensor(rng.normal(size=m).astype("float32")) if bias else None
    agrees(lambda x: jj.conv(x, w, b, groups=groups, **options), x)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(windows(), st.sampled_from([(2, 4, 1), (4, 2, 2), (3, 3, 3)]), st.integers(0, 2))
def test_any_transposed_convolution(drawn, channels, extra):
    (size, kernel, options), (c, m, groups) = drawn, channels
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, *size, c)).astype("float32")
    w = jj.Tensor(rng.normal(size=(*kernel, m // groups, c)).astype("float32"))
    agrees(lambda x: jj.conv_transpose(x, w, output_padding=extra, groups=groups, **options), x)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(windows(), st.booleans(), st.booleans())
def test_any_pooling(drawn, ceil_mode, include):
    size, kernel, options = drawn
    cut = isinstance(options["padding"], tuple) and min(map(min, options["padding"])) < 0
    x = np.random.default_rng(0).normal(size=(1, *size, 2)).astype("float32")

    def function(x, ceil_mode=ceil_mode and not cut):
        largest = jj.max_pool(x, kernel, ceil_mode=ceil_mode, **options)
        mean_options = {key: value for key, value in options.items() if key != "dilation"}
        mean = jj.ops.avg_pool(x, kernel, ceil_mode=ceil_mode, count_include_pad=include, **mean_options)
        return largest, mean

    agrees(function, x)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(windows())
def test_any_patches(drawn):
    size, kernel, options = drawn
    x = np.random.default_rng(0).normal(size=(1, *size, 2)).astype("float32")

    def function(x):
        patches = jj.unfold(x, kernel, **options)
        return patches, jj.fold(patches * 2, size, **options)

    agrees(function, x)
