"""Summaries have the right figures: sizes, parameters, multiplications, receptive fields."""

import json

import numpy as np
import pytest

import juanji as jj
from juanji import nn
from juanji.graph import PRIMITIVES, Multilinear
from juanji.receptive import RULES
from juanji.summary import MULTIPLICATIONS, summarise


def summary_of(model, *shape, batch=1):
    return summarise(jj.trace(model.eval(), jj.Tensor.spec((batch, *shape))))


def column(summary, name):
    return [getattr(row, name) for row in summary.rows]


def test_the_table_of_note_000_with_its_errata():
    summary = summary_of(jj.models.create("cnn_small"), 32, 32, 3)
    assert column(summary, "path") == ["input", "conv1", "pool1", "conv2", "pool2", "fc1", "fc2"]
    assert column(summary, "output") == [
        (32, 32, 3), (28, 28, 8), (14, 14, 8), (10, 10, 16), (5, 5, 16), (128,), (10,),
    ]  # fmt: skip
    assert column(summary, "activations") == [0, 6272, 1568, 1600, 400, 128, 10]
    assert column(summary, "parameters") == [0, 608, 0, 3216, 0, 51_328, 1290]
    assert column(summary, "multiplications") == [0, 28 * 28 * 8 * 75, 0, 10 * 10 * 16 * 200, 0, 51_200, 1280]
    assert column(summary, "receptive_field") == [
        (1, 1), (5, 5), (6, 6), (14, 14), (16, 16), (None, None), (None, None),
    ]  # fmt: skip
    assert summary.parameters == 608 + 3216 + 51_328 + 1290


def test_the_dense_network_of_003():
    summary = summary_of(jj.models.create("perceptron"), 28, 28, 1)
    assert column(summary, "parameters") == [0, 200_960, 65_792, 65_792, 2570]
    assert column(summary, "receptive_field")[1] == (None, None)


def test_sharing_in_004():
    conv = summary_of(nn.Conv2d(3, 20, 8, stride=2, padding=1), 32, 32, 3)
    local = summary_of(nn.LocallyConnected2d(3, 20, 8, 32, stride=2, padding=1), 32, 32, 3)
    assert (conv.parameters, local.parameters) == (3860, 756_560)
    assert conv.rows[-1].output == local.rows[-1].output == (14, 14, 20)
    assert conv.multiplications == local.multiplications == 14 * 14 * 20 * 8 * 8 * 3
    assert conv.rows[-1].receptive_field == local.rows[-1].receptive_field == (8, 8)


def test_the_bottleneck_of_004():
    direct = summary_of(nn.Conv2d(192, 32, 5, padding="same"), 28, 28, 192)
    narrow = summary_of(nn.Sequential(nn.Conv2d(192, 16, 1), nn.Conv2d(16, 32, 5, padding="same")), 28, 28, 192)
    assert direct.multiplications == 120_422_400
    assert narrow.multiplications == 2_408_448 + 10_035_200 == 12_443_648
    block = summary_of(nn.InceptionBlock(192, 64, 96, 128, 16, 32, 32), 28, 28, 192)
    assert block.rows[-1].output == (28, 28, 32)
    assert block.multiplications == 28 * 28 * (192 * 64 + 192 * 96 + 9 * 96 * 128 + 192 * 16 + 25 * 16 * 32 + 192 * 32)


def test_lenet5_of_1998_layer_by_layer():
    summary = summary_of(jj.models.create("lenet5_1998"), 32, 32, 1)
    assert column(summary, "path")[1:] == ["c1", "s2", "c3", "s4", "c5", "f6", "output"]
    assert column(summary, "parameters")[1:] == [156, 12, 1516, 32, 48_120, 10_164, 0]
    assert summary.parameters == 60_000
    assert summary.buffers == 84 * 10
    assert column(summary, "receptive_field")[1:6] == [(5, 5), (6, 6), (14, 14), (16, 16), (32, 32)]


FIELDS = [
    ([nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)], (5, 5)),
    ([nn.Conv2d(1, 1, 3, dilation=2), nn.Conv2d(1, 1, 3, dilation=4)], (13, 13)),
    ([nn.Conv2d(1, 1, (3, 1), stride=(2, 1)), nn.Conv2d(1, 1, (3, 5))], (7, 5)),
    ([nn.MaxPool2d(3, 2), nn.AvgPool2d(2), nn.Conv2d(1, 1, 3)], (13, 13)),
    ([nn.Conv2d(1, 1, 2, stride=2), nn.ConvTranspose2d(1, 1, 2, stride=2), nn.Conv2d(1, 1, 3)], (4, 4)),
    ([nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3)], (4, 4)),
    ([nn.ReflectionPad2d(1), nn.Conv2d(1, 1, 3)], (3, 3)),
    ([nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1), nn.ReLU(), nn.Dropout(), nn.Linear(1, 4)], (3, 3)),
    ([nn.Residual(nn.Conv2d(1, 1, 3, padding=1))], (3, 3)),
    ([nn.Branches(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 5, padding=2)), nn.Conv2d(2, 1, 3)], (7, 7)),
    ([nn.Conv2d(1, 1, 3), nn.Flatten()], (3, 3)),
    ([nn.Conv2d(1, 1, 3), nn.Flatten(), nn.Linear(14 * 14, 2)], (None, None)),
    ([nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1)], (None, None)),
    ([nn.AdaptiveAvgPool2d(4)], (4, 4)),
    ([nn.AdaptiveMaxPool2d(1)], (16, 16)),
    ([nn.LPPool2d(2, 2), nn.LocallyConnected2d(1, 1, 3, 8)], (6, 6)),
    ([nn.LocalResponseNorm(3), nn.Conv2d(1, 1, 3)], (3, 3)),
    ([nn.InstanceNorm2d(1)], (None, None)),
]


@pytest.mark.parametrize(("layers", "field"), FIELDS)
def test_receptive_fields(layers, field):
    assert summary_of(nn.Sequential(*layers), 16, 16, 1).rows[-1].receptive_field == field


@pytest.mark.parametrize("layers", [entry[0] for entry in FIELDS[:6]])
def test_receptive_fields_are_what_the_gradient_sees(layers):
    model = nn.Sequential(*layers).eval()
    model.initialise(1)
    x = jj.Tensor(np.random.default_rng(0).normal(size=(1, 16, 16, 1)).astype("float32"))
    found = summary_of(model, 16, 16, 1).rows[-1].receptive_field

    def middle(x):
        y = model(x)
        return y[:, y.shape[1] // 2, y.shape[2] // 2].sum()

    seen = np.abs(np.asarray(jj.jacobian(middle)(x)))[0, ..., 0] > 0
    reach = tuple(int(np.ptp(np.flatnonzero(seen.any(axis)))) + 1 for axis in (1, 0))
    assert all(r <= f for r, f in zip(reach, found, strict=True))
    if not any(isinstance(layer, nn.MaxPool2d | nn.ConvTranspose2d) for layer in layers):
        assert reach == found


def test_one_and_three_spatial_axes():
    assert summary_of(nn.Conv1d(2, 3, 5), 9, 2).rows[-1].receptive_field == (5,)
    summary = summary_of(nn.Conv3d(2, 3, (1, 2, 3)), 4, 5, 6, 2)
    assert summary.rows[-1].receptive_field == (1, 2, 3)
    assert summary.multiplications == 4 * 4 * 4 * 3 * 6 * 2


def test_transposed_convolution_multiplies_as_its_convolution():
    up = summary_of(nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1), 5, 5, 8)
    assert up.rows[-1].output == (10, 10, 4)
    assert up.multiplications == 5 * 5 * 8 * 16 * 4


def test_shared_layers_count_once_and_have_a_row_for_each_call():
    shared = nn.Linear(4, 4)
    summary = summary_of(nn.Sequential(shared, nn.ReLU(), shared), 4)
    assert column(summary, "parameters") == [0, 20, 0, 0]
    assert column(summary, "multiplications") == [0, 16, 0, 16]
    assert (summary.parameters, summary.multiplications) == (20, 32)


class Own(nn.Module):
    """A module with a parameter of its own and a layer."""

    def __init__(self):
        self.scale = jj.Cell((3,), nn.init.ones)
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) * self.scale


def test_a_modules_own_parameters_have_a_row():
    summary = summary_of(Own(), 3)
    assert column(summary, "path") == ["input", "layer", "Own"]
    assert column(summary, "parameters") == [0, 12, 3]
    assert summary.parameters == 15


def test_the_batch_does_not_count():
    model = jj.models.create("lenet5")
    assert summary_of(model, 28, 28, 1, batch=7) == summary_of(model, 28, 28, 1)


def test_printing(capsys):
    summary = jj.models.create("lenet5").summary((28, 28, 1))
    shown = capsys.readouterr().out
    assert shown.strip() == str(summary)
    for text in ("conv1", "Conv2d(1, 6, 5, padding='same')", "(28, 28, 6)", "117,600", "14×14", "all", "61,706", "kB"):
        assert text in shown
    assert repr(summary) == "Summary(7 layers, 61,706 parameters, 416,520 multiplications)"
    assert json.loads(json.dumps(summary.to_dict()))["rows"][1]["receptive_field"] == [5, 5]


def test_the_mode_is_kept():
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))
    model[1].eval()
    model.summary((3,))
    assert model[0].training
    assert not model[1].training
    assert int(model[1].num_batches_tracked) == 0


def test_every_product_is_counted():
    """What is linear in several arguments sums up products; everything else costs none, or one an element."""
    products = {name for name, record in PRIMITIVES.items() if isinstance(record.kind, Multilinear)}
    assert set(MULTIPLICATIONS) == products


def is_elementwise(record):
    for arrays, attrs in record.examples(np.random.default_rng(0)):
        inputs = [jj.Tensor(array) for array in arrays]
        shape, _ = record.geometry(*inputs, **attrs)
        if any(x.shape != shape for x in inputs):
            return False
    return True


@pytest.mark.parametrize("name", sorted(set(PRIMITIVES) - {"uniform"}))  # which takes no image but a random state
def test_every_primitive_has_a_receptive_field(name):
    assert name in RULES or is_elementwise(PRIMITIVES[name])
