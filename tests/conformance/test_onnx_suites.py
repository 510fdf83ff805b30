"""ONNX's own suites: every case of the operators that juanji has, on the definitions and on the engine."""

import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from suites import (
    EXCLUDED,
    NETWORKS,
    NOT_COMPILED,
    file_cases,
    image,
    network_case,
    node_cases,
    reason,
    with_random_weights,
)

from juanji.errors import TraceError
from juanji.interop.backend import JuanjiBackend, JuanjiRep
from juanji.interop.onnx_module import load_onnx
from juanji.interop.operators import OPERATORS

NODES, ELSEWHERE = node_cases()
FILES = [*file_cases("pytorch-converted"), *file_cases("pytorch-operator")]
WANTED = [case for case in NODES if not reason(case.name, EXCLUDED)]
COMPILED = [case for case in [*WANTED, *FILES] if not reason(case.name, NOT_COMPILED)]
SMALL = NETWORKS[:2]

# What networks of convolutions are made of, in ONNX's words. A name that leaves the table fails here.
NEEDED = re.findall(
    r"\w+",
    """
Conv ConvTranspose DeformConv Col2Im ConvInteger QLinearConv AveragePool MaxPool LpPool GlobalAveragePool GlobalMaxPool
GlobalLpPool MaxUnpool BatchNormalization InstanceNormalization GroupNormalization LRN LayerNormalization
MeanVarianceNormalization LpNormalization Celu Elu Gelu HardSigmoid HardSwish LeakyRelu Mish PRelu Relu Selu Sigmoid
Softplus Softsign Tanh ThresholdedRelu Shrink Swish Softmax LogSoftmax Hardmax Gemm MatMul Dropout Pad Resize Upsample
GridSample AffineGrid DepthToSpace SpaceToDepth Flatten Reshape Transpose Concat Split Squeeze Unsqueeze Slice Gather
Expand Tile Where Clip Abs Add And Ceil Cos Div Equal Erf Exp Floor Greater GreaterOrEqual Identity Less LessOrEqual Log
Max Mean Min Mod Mul Neg Not Or Pow Reciprocal Round Sign Sin Sqrt Sub Sum Tan Xor ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare ArgMax ArgMin CumSum
NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss QuantizeLinear DequantizeLinear Cast CastLike Constant ConstantOfShape
Shape Size Range OneHot Adagrad Adam Momentum
""",
)


def test_the_table_has_what_networks_need():
    assert not {*NEEDED} - {name for _, name in OPERATORS}
    assert len(NODES) > ELSEWHERE


def test_the_documentation_lists_them():
    text = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| (\w+(?:, \w+)*) \|$", text, re.MULTILINE)
    listed = {name: family for family, names in rows for name in names.split(", ")}
    assert listed.pop("operators") == "family"  # the heading
    assert listed == {name: entry.family for (_, name), entry in OPERATORS.items()}


def defined(case, monkeypatch, record_property, family):
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    record_property("onnx", f"definitions, {family}")
    case.check(JuanjiBackend)


def compiled(case, monkeypatch, record_property, family):
    """On the engine, unless all that goes in decides on shapes: then there is nothing to compile."""
    monkeypatch.delenv("JUANJI_BACKEND", raising=False)
    ready = case.check(JuanjiBackend)
    made = any(plan for plans in ready.compiled.plans.values() for *_, plan in plans)
    record_property("onnx", f"engine, {family}" if made else "nothing to compile")


@pytest.mark.parametrize("case", WANTED, ids=str)
def test_node(case, monkeypatch, record_property):
    defined(case, monkeypatch, record_property, case.family)


@pytest.mark.parametrize("case", FILES, ids=str)
def test_file(case, monkeypatch, record_property):
    defined(case, monkeypatch, record_property, case.family)


@pytest.mark.parametrize("case", [c for c in NODES if reason(c.name, EXCLUDED)], ids=str)
def test_what_is_left_out_would_fail(case, monkeypatch):
    """So that nothing is left out for longer than needed."""
    monkeypatch.setenv("JUANJI_BACKEND", "numpy")
    with pytest.raises(Exception, match=r"not supported|not everything is a tensor|Not equal to tolerance"):
        case.check(JuanjiBackend)


@pytest.mark.parametrize("case", [c for c in WANTED if reason(c.name, NOT_COMPILED)], ids=str)
def test_what_is_not_compiled_says_so(case, monkeypatch):
    monkeypatch.delenv("JUANJI_BACKEND", raising=False)
    with pytest.raises(TraceError, match="has no value"):
        case.check(JuanjiBackend)


@pytest.mark.parametrize("case", COMPILED[::9], ids=str)
def test_some_compiled(case, monkeypatch, record_property):
    compiled(case, monkeypatch, record_property, case.family)


@pytest.mark.slow
@pytest.mark.parametrize("case", COMPILED, ids=str)
def test_compiled(case, monkeypatch, record_property):
    compiled(case, monkeypatch, record_property, case.family)


@pytest.mark.parametrize("name", SMALL)
def test_small_network(name, monkeypatch, record_property):
    defined(network_case(name), monkeypatch, record_property, "networks")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS[2:])
def test_network(name, monkeypatch, record_property):
    defined(network_case(name), monkeypatch, record_property, "networks")


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS[2:])])
def test_network_with_random_weights(name, monkeypatch):
    """Weights that are all equal hide what is mixed up, so these are not; the oracle is onnxruntime."""
    monkeypatch.delenv("JUANJI_BACKEND", raising=False)
    model = with_random_weights(name)
    x = image(model)
    onnxruntime.set_default_logger_severity(3)  # it warns of the shapes of weights, which nobody needs any more
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    net = load_onnx(model)
    assert sum(parameter.size for parameter in net.parameters().values()) > 1e6
    (mine,) = JuanjiRep(net).run([x])
    np.testing.assert_allclose(mine, expected, 1e-3, 1e-3 * np.abs(expected).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network_compiled(name, monkeypatch, record_property):
    compiled(network_case(name), monkeypatch, record_property, "networks")
