"""Every layer exported for a batch of any size, run with others than it was traced with."""

import inspect

import numpy as np
import pytest
from runtimes import checked, close, kinds, settled, with_onnxruntime

import juanji as jj
from juanji import nn
from juanji.interop import to_onnx

IMAGE = (7, 8, 4)
ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.1), nn.PReLU(), nn.PReLU(4), nn.ELU(0.7), nn.SELU(), nn.GELU(),
    nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Sigmoid(), nn.Tanh(), nn.ScaledTanh(), nn.Softplus(), nn.Hardsigmoid(),
    nn.Hardswish(), nn.Hardtanh(-0.5, 0.7), nn.Softmax(), nn.LogSoftmax(1),
]  # fmt: skip
# layer, shape of one image, operations that are expected and how many
LAYERS = [
    *((layer, IMAGE, {"Transpose": 0}) for layer in ACTIVATIONS),
    *((layer, (4,), {}) for layer in ACTIVATIONS),
    (nn.Conv1d(3, 4, 3, stride=2, padding=1), (9, 3), {"Conv": 1, "Add": 0, "Transpose": 0}),
    (nn.Conv2d(4, 6, (3, 2), (2, 1), ((1, 0), (0, 1)), groups=2), IMAGE, {"Conv": 1, "Add": 0, "Transpose": 0}),
    (nn.Conv2d(4, 3, 3, padding="same", stride=2, padding_mode="reflect"), IMAGE, {"Conv": 1, "Pad": 1}),
    (nn.Conv2d(4, 3, 3, padding=2, dilation=2, padding_mode="replicate"), IMAGE, {"Conv": 1, "Pad": 1}),
    (nn.Conv2d(4, 3, 3, padding=((-1, 2), (0, -2))), IMAGE, {"Conv": 1, "Slice": 1}),
    (nn.Conv3d(2, 3, 2, bias=False), (4, 5, 6, 2), {"Conv": 1, "Transpose": 0}),
    (nn.ConvTranspose1d(3, 4, 4, 2, 1), (5, 3), {"ConvTranspose": 1, "Add": 0}),
    (nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, groups=2), IMAGE, {"ConvTranspose": 1, "Add": 0, "Transpose": 0}),
    (nn.ConvTranspose2d(4, 6, 2, 2, 3, 1, dilation=2), IMAGE, {"ConvTranspose": 1, "Transpose": 0}),
    (nn.ConvTranspose2d(4, 2, 2, 1, 0, 2, dilation=3), IMAGE, {"ConvTranspose": 1, "Pad": 1}),
    (nn.ConvTranspose3d(2, 3, 2, 2), (2, 3, 2, 2), {"ConvTranspose": 1}),
    (nn.LocallyConnected1d(3, 4, 3, 9), (9, 3), {}),
    (nn.LocallyConnected2d(4, 4, 3, (7, 8), stride=2, padding=1), IMAGE, {}),
    (nn.PartialConv2d(3, ((0, 1), (1, 2), (0, 1, 2)), 3), (6, 5, 3), {"Conv": 2, "Transpose": 0}),
    (nn.Linear(5, 3), (5,), {"Gemm": 1, "Add": 0, "MatMul": 0}),
    (nn.Linear(4, 3, bias=False), IMAGE, {"MatMul": 1, "Reshape": 0}),
    (nn.Sequential(nn.Flatten(), nn.Linear(224, 3)), IMAGE, {"Flatten": 1, "Gemm": 1, "Transpose": 0}),
    (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(224)), IMAGE, {"BatchNormalization": 1}),
    (nn.Flatten(), IMAGE, {}),
    (nn.Flatten(1, 2), IMAGE, {"Reshape": 1, "Transpose": 0}),
    (nn.Flatten(0, 1), IMAGE, {}),
    (nn.Identity(), IMAGE, {"Identity": 1}),
    (nn.Dropout(), IMAGE, {"Identity": 1}),
    (nn.Dropout2d(), IMAGE, {"Identity": 1}),
    (nn.MaxPool1d(2), (7, 3), {"MaxPool": 1}),
    (nn.MaxPool2d(3, 2, 1), IMAGE, {"MaxPool": 1, "Transpose": 0}),
    (nn.MaxPool2d((2, 3), ceil_mode=True), IMAGE, {"MaxPool": 1}),
    (nn.MaxPool2d(2, return_indices=True), IMAGE, {"MaxPool": 1, "Mod": 1}),
    (nn.MaxPool3d(2), (4, 4, 4, 2), {"MaxPool": 1}),
    (nn.AvgPool1d(2), (7, 3), {"AveragePool": 1}),
    (nn.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE, {"AveragePool": 1, "Transpose": 0}),
    (nn.AvgPool2d(3, 2, 1, ceil_mode=True), IMAGE, {"AveragePool": 1}),
    (nn.AvgPool3d(2), (4, 4, 4, 2), {"AveragePool": 1}),
    (nn.LPPool1d(2, 2), (8, 3), {}),
    (nn.LPPool2d(2, 2), IMAGE, {"Transpose": 0}),
    (nn.TrainablePool2d(4), IMAGE, {"AveragePool": 1, "Transpose": 0}),
    (nn.AdaptiveAvgPool1d(3), (7, 3), {}),
    (nn.AdaptiveAvgPool2d((3, None)), IMAGE, {"MatMul": 2, "Transpose": 0, "Reshape": 0}),
    (nn.AdaptiveAvgPool2d(1), IMAGE, {"GlobalAveragePool": 1}),
    (nn.AdaptiveAvgPool3d(1), (4, 4, 4, 2), {"GlobalAveragePool": 1}),
    (nn.AdaptiveMaxPool1d(3), (7, 3), {"MaxPool": 1}),
    (nn.AdaptiveMaxPool2d(3, return_indices=True), IMAGE, {"MaxPool": 1}),
    (nn.AdaptiveMaxPool3d(2), (4, 4, 4, 2), {"MaxPool": 1}),
    (nn.BatchNorm1d(3), (3,), {"BatchNormalization": 1}),
    (nn.BatchNorm1d(3, affine=False), (6, 3), {"BatchNormalization": 1}),
    (nn.BatchNorm2d(4), IMAGE, {"BatchNormalization": 1, "Transpose": 0}),
    (nn.BatchNorm3d(3), (2, 2, 2, 3), {"BatchNormalization": 1}),
    (nn.BatchNorm2d(4, track_running_stats=False), IMAGE, {"ReduceMean": 2, "Transpose": 0}),
    (nn.LayerNorm(4), IMAGE, {"LayerNormalization": 1}),
    (nn.LayerNorm((7, 8, 4), bias=False), IMAGE, {"LayerNormalization": 1, "Transpose": 0}),
    (nn.GroupNorm(2, 4), IMAGE, {"GroupNormalization": 1, "Transpose": 0}),
    (nn.InstanceNorm2d(4, affine=True), IMAGE, {"InstanceNormalization": 1, "Transpose": 0}),
    (nn.LocalResponseNorm(3), IMAGE, {"LRN": 1, "Transpose": 0}),
    (nn.LocalResponseNorm(4), IMAGE, {"LRN": 0, "Transpose": 0}),
    (nn.Upsample(scale_factor=2), IMAGE, {"Resize": 1, "Transpose": 0}),
    (nn.Upsample((5, 7), mode="bilinear"), IMAGE, {"Resize": 1, "Transpose": 0}),
    (nn.Upsample(scale_factor=1.7, mode="bilinear", align_corners=True), IMAGE, {"Resize": 1}),
    (nn.ZeroPad2d(1), IMAGE, {"Pad": 1, "Transpose": 0}),
    (nn.ReflectionPad2d((1, 2, 0, 1)), IMAGE, {"Pad": 1, "Transpose": 0}),
    (nn.ReplicationPad2d(2), IMAGE, {"Pad": 1, "Transpose": 0}),
    (nn.Residual(nn.Conv2d(4, 4, 3, padding=1)), IMAGE, {"Add": 1, "Transpose": 0}),
    (nn.Residual(nn.Conv2d(4, 5, 3, 2, 1), nn.Conv2d(4, 5, 1, 2)), IMAGE, {"Add": 1, "Transpose": 0}),
    (nn.Highway(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)), IMAGE, {"Transpose": 0}),
    (nn.Branches(nn.Conv2d(4, 2, 1), nn.Conv2d(4, 4, 3, padding=1)), IMAGE, {"Concat": 1, "Transpose": 0}),
    (nn.InceptionBlock(4, 4, 2, 6, 2, 3, 5, normalise=nn.BatchNorm2d), IMAGE, {"Concat": 1, "Transpose": 0}),
    (nn.Sequential(nn.Conv2d(4, 3, 1), nn.ReLU()), IMAGE, {"Conv": 1, "Relu": 1}),
]  # fmt: skip
OFFSETS, LABELS = (7, 8, 18), np.array([[1, 0, 3, 2, 1, -100, 0]] * 5)
# layer, inputs for five images
SEVERAL = [
    (nn.DeformConv2d(4, 3, 3, padding=1), [IMAGE, OFFSETS], {"DeformConv": 1, "Transpose": 0}),
    (nn.DeformConv2d(4, 3, 3, padding=1), [IMAGE, OFFSETS, (7, 8, 9)], {"DeformConv": 1, "Transpose": 0}),
    (nn.MaxUnpool2d(2), [(2, 2, 4), np.arange(5 * 16).reshape(5, 2, 2, 4) % 16], {"ScatterElements": 2}),
    (nn.MaxUnpool2d(2), [(2, 2, 4), np.full((5, 2, 2, 4), 3, np.uint8)], {"ScatterElements": 2, "Cast": 2}),
    (nn.CrossEntropyLoss(), [(4,), LABELS[:, 0]], {"SoftmaxCrossEntropyLoss": 1}),
    (nn.CrossEntropyLoss(np.float32([1, 2, 3, 4])), [(7, 4), LABELS], {"SoftmaxCrossEntropyLoss": 1}),
    (nn.CrossEntropyLoss(label_smoothing=0.1), [(4,), LABELS[:, 0].astype("uint8")], {}),
    (nn.NLLLoss(), [(4,), LABELS[:, 2].astype("uint8")], {"NegativeLogLikelihoodLoss": 1, "Cast": 1}),
    (nn.MSELoss(), [(4,), (4,)], {}),
    (nn.L1Loss("sum"), [(4,), (4,)], {}),
    (nn.HuberLoss(reduction="none"), [(4,), (4,)], {}),
    (nn.BCEWithLogitsLoss(reduction="sum"), [(4,), (4,)], {}),
]
# Bases that cannot be called, and what only holds other modules.
WITHOUT = {
    "AdaptivePoolNd", "AvgPoolNd", "BatchNormNd", "ConvNd", "ConvTransposeNd", "LPPoolNd", "LocallyConnectedNd",
    "MaxPoolNd", "Module", "ModuleDict", "ModuleList", "PadNd", "PoolNd",
}  # fmt: skip


def array(given, n, rng):
    return given[:n] if isinstance(given, np.ndarray) else rng.normal(size=(n, *given)).astype("float32")


@pytest.mark.parametrize(
    ("layer", "inputs", "expected"),
    [(layer, [shape], expected) for layer, shape, expected in LAYERS] + SEVERAL,
    ids=lambda v: getattr(v, "label", None),
)
def test_layer(layer, inputs, expected):
    rng, layer = np.random.default_rng(0), settled(layer)
    proto = checked(to_onnx(layer, *(array(x, 1, rng) for x in inputs)))
    found = kinds(proto)
    assert {kind: found[kind] for kind in expected} == expected
    for n in (1, 5):
        arrays = [array(x, n, rng) for x in inputs]
        close(with_onnxruntime(proto, arrays), layer(*arrays), 1e-5)


def test_every_layer_is_tried():
    tried = {type(layer).__name__ for layer, *_ in LAYERS + SEVERAL}
    layers = {
        name for name in nn.__all__ if inspect.isclass(getattr(nn, name)) and issubclass(getattr(nn, name), nn.Module)
    }
    assert layers - tried == WITHOUT


def test_a_mean_over_the_batch_depends_on_its_size():
    layer = nn.MSELoss()
    x = jj.Tensor.spec((1, 3))
    close(
        with_onnxruntime(to_onnx(layer, x, x), [np.eye(3, dtype="float32"), np.ones((3, 3), "float32")]),
        2 / 3 * np.float32(1),
        1e-6,
    )


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("to", [{"scale_factor": 2}, {"scale_factor": 1.7}, {"size": (5, 3)}])
def test_resizing_beside_a_transpose(mode, to):
    """onnxruntime moves a Transpose over a Resize, but neither its axes nor the limits of its cubic kernel."""
    layer, x = nn.Upsample(mode=mode, **to).eval(), np.random.default_rng(0).normal(size=(5, *IMAGE)).astype("float32")
    proto = checked(to_onnx(layer, x[:1], layout="NHWC"))
    assert kinds(proto)["Resize"] == (mode != "bicubic")
    close(with_onnxruntime(proto, [x], "NHWC"), layer(x), 1e-5)
    first = nn.Sequential(nn.Conv2d(4, 4, 1), layer).eval()
    proto = checked(to_onnx(first, x[:1], layout="NHWC"))
    assert kinds(proto)["Resize"] == 1
    close(with_onnxruntime(proto, [x], "NHWC"), first(x), 1e-5)
