"""Networks against PyTorch's functions with the same weights, named as torchvision names them, in float64.

Each function below is a network as its paper, or torchvision, has it, written anew with PyTorch's functions. ResNet and
VGG are in test_networks.py.
"""

import numpy as np
import pytest
import torch
from small import make
from torch.nn import functional as F  # noqa: N812 (as everybody calls it)

import juanji as jj
from juanji import nn


class Net:
    """Named weights of a network, and its layers as functions of their paths. Batch statistics as in training."""

    def __init__(self, model):
        self.weights, self.eps = {}, {}
        for path, value in model.state_dict().items():
            a = torch.tensor(np.asarray(value))
            self.weights[path] = a.permute(3, 2, 0, 1) if a.ndim == 4 else a
        for path, module in model.modules().items():
            if isinstance(module, nn.BatchNorm2d):
                self.eps[path] = module.eps

    def has(self, path):
        return any(name.startswith(f"{path}.") for name in self.weights)

    def conv(self, x, path, stride=1, padding=0, **options):
        return F.conv2d(x, self.weights[f"{path}.weight"], self.weights.get(f"{path}.bias"), stride, padding, **options)

    def norm(self, x, path):
        parts = (self.weights[f"{path}.{part}"].clone() for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, training=True, eps=self.eps[path])

    def dense(self, x, path):
        return F.linear(x, self.weights[f"{path}.weight"], self.weights.get(f"{path}.bias"))

    def basic(self, x, path, stride=1, padding=0):
        """torchvision's BasicConv2d."""
        x = self.conv(x, f"{path}.conv", stride, padding)
        return F.relu(self.norm(x, f"{path}.bn") if self.has(f"{path}.bn") else x)

    def chain(self, x, path, *paddings):
        """Units numbered from 0, of stride 1."""
        for i, padding in enumerate(paddings):
            x = self.basic(x, f"{path}.{i}", 1, padding)
        return x


def flat(x):
    """Flattened channels last, as ours."""
    return x.permute(0, 2, 3, 1).flatten(1)


def alexnet(net, x, two=False):
    def pooled(x):
        x = F.relu(x)
        x = F.local_response_norm(x, 5, 5e-4, 0.75, 2.0) if two else x
        return F.max_pool2d(x, 3, 2)

    places = (0, 4, 8, 10, 12) if two else (0, 3, 6, 8, 10)
    groups = 2 if two else 1
    x = pooled(net.conv(x, f"features.{places[0]}", 4, 0 if two else 2))
    x = pooled(net.conv(x, f"features.{places[1]}", 1, 2, groups=groups))
    x = F.relu(net.conv(x, f"features.{places[2]}", 1, 1))
    x = F.relu(net.conv(x, f"features.{places[3]}", 1, 1, groups=groups))
    x = F.max_pool2d(F.relu(net.conv(x, f"features.{places[4]}", 1, 1, groups=groups)), 3, 2)
    x = flat(F.adaptive_avg_pool2d(x, 6))
    x = F.relu(net.dense(x, "classifier.1"))
    return net.dense(F.relu(net.dense(x, "classifier.4")), "classifier.6")


def nin(net, x):
    for i, (place, padding) in enumerate([(0, 2), (8, 2), (16, 1)]):
        for j in range(3 if i < 2 else 2):
            x = F.relu(net.conv(x, f"features.{place + 2 * j}", 1, 0 if j else padding))
        if i < 2:
            x = [F.max_pool2d, F.avg_pool2d][i](x, 3, 2, 1)
    return F.relu(net.conv(x, "classifier.0")).mean((2, 3))


def googlenet(net, x, small=True):
    lrn = lambda x: x if net.has("conv1.bn") else F.local_response_norm(x, 5)  # noqa: E731
    pool = lambda x: x if small else F.max_pool2d(x, 3, 2, ceil_mode=True)  # noqa: E731
    x = lrn(pool(net.basic(x, "conv1", *((1, 1) if small else (2, 3)))))
    x = pool(lrn(net.basic(net.basic(x, "conv2"), "conv3", 1, 1)))
    aux = []
    for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        path = f"inception{block}"
        if block in ("4a", "5a"):
            x = F.max_pool2d(x, 2 if block == "5a" and net.has("conv1.bn") else 3, 2, ceil_mode=True)
        pooled = F.max_pool2d(x, 3, 1, 1)
        kernel = net.weights[f"{path}.branch3.1.conv.weight"].shape[-1]
        x = torch.cat([
            net.basic(x, f"{path}.branch1"), net.chain(x, f"{path}.branch2", 0, 1),
            net.chain(x, f"{path}.branch3", 0, kernel // 2), net.basic(pooled, f"{path}.branch4.1"),
        ], 1)  # fmt: skip
        if block in ("4a", "4d"):
            head = {"4a": "aux1", "4d": "aux2"}[block]
            y = net.basic(F.adaptive_avg_pool2d(x, 4), f"{head}.conv")
            aux.append(net.dense(F.relu(net.dense(flat(y), f"{head}.fc1")), f"{head}.fc2"))
    return net.dense(x.mean((2, 3)), "fc"), *aux


def inception_v3(net, x):
    for path, stride, padding, pool in [
        ("Conv2d_1a_3x3", 2, 0, 0), ("Conv2d_2a_3x3", 1, 0, 0), ("Conv2d_2b_3x3", 1, 1, 1),
        ("Conv2d_3b_1x1", 1, 0, 0), ("Conv2d_4a_3x3", 1, 0, 1),
    ]:  # fmt: skip
        x = net.basic(x, path, stride, padding)
        x = F.max_pool2d(x, 3, 2) if pool else x

    def steps(x, path, *paddings):
        for i, padding in enumerate(paddings, 1):
            x = net.basic(x, f"{path}_{i}", 1, padding)
        return x

    row, column = (0, 3), (3, 0)
    for block in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
        m = f"Mixed_{block}."
        mean = F.avg_pool2d(x, 3, 1, 1)
        if block[0] == "5":
            parts = [net.basic(x, m + "branch1x1"), steps(x, m + "branch5x5", 0, 2),
                     steps(x, m + "branch3x3dbl", 0, 1, 1), net.basic(mean, m + "branch_pool")]  # fmt: skip
        elif block == "6a":
            double = net.basic(steps(x, m + "branch3x3dbl", 0, 1), m + "branch3x3dbl_3", 2)
            parts = [net.basic(x, m + "branch3x3", 2), double, F.max_pool2d(x, 3, 2)]
        elif block[0] == "6":
            parts = [net.basic(x, m + "branch1x1"), steps(x, m + "branch7x7", 0, row, column),
                     steps(x, m + "branch7x7dbl", 0, column, row, column, row),
                     net.basic(mean, m + "branch_pool")]  # fmt: skip
        elif block == "7a":
            three = net.basic(steps(x, m + "branch3x3", 0), m + "branch3x3_2", 2)
            seven = net.basic(steps(x, m + "branch7x7x3", 0, row, column), m + "branch7x7x3_4", 2)
            parts = [three, seven, F.max_pool2d(x, 3, 2)]
        else:
            parts = [net.basic(x, m + "branch1x1")]
            for path, y in [("branch3x3_2", steps(x, m + "branch3x3", 0)),
                            ("branch3x3dbl_3", steps(x, m + "branch3x3dbl", 0, 1))]:  # fmt: skip
                parts += [net.basic(y, f"{m}{path}a", 1, (0, 1)), net.basic(y, f"{m}{path}b", 1, (1, 0))]
            parts.append(net.basic(mean, m + "branch_pool"))
        x = torch.cat(parts, 1)
    return net.dense(x.mean((2, 3)), "fc")


def inception_v4(net, x):
    row, column = (0, 3), (3, 0)
    x = net.basic(net.basic(net.basic(x, "features.0", 2), "features.1"), "features.2", 1, 1)
    x = torch.cat([F.max_pool2d(x, 3, 2), net.basic(x, "features.3.conv", 2)], 1)
    x = torch.cat([net.chain(x, "features.4.branch0", 0, 0), net.chain(x, "features.4.branch1", 0, row, column, 0)], 1)
    x = torch.cat([net.basic(x, "features.5.conv", 2), F.max_pool2d(x, 3, 2)], 1)
    for i in range(6, 22):
        m = f"features.{i}.branch"
        mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        if i < 10:
            parts = [net.basic(x, m + "0"), net.chain(x, m + "1", 0, 1), net.chain(x, m + "2", 0, 1, 1),
                     net.basic(mean, m + "3.1")]  # fmt: skip
        elif i == 10:
            parts = [net.basic(x, m + "0", 2), net.basic(net.chain(x, m + "1", 0, 1), m + "1.2", 2),
                     F.max_pool2d(x, 3, 2)]  # fmt: skip
        elif i < 18:
            parts = [net.basic(x, m + "0"), net.chain(x, m + "1", 0, row, column),
                     net.chain(x, m + "2", 0, column, row, column, row), net.basic(mean, m + "3.1")]  # fmt: skip
        elif i == 18:
            parts = [net.basic(net.chain(x, m + "0", 0), m + "0.1", 2),
                     net.basic(net.chain(x, m + "1", 0, row, column), m + "1.3", 2), F.max_pool2d(x, 3, 2)]  # fmt: skip
        else:
            y = net.basic(x, m + "1_0")
            z = net.basic(net.basic(net.basic(x, m + "2_0"), m + "2_1", 1, (1, 0)), m + "2_2", 1, (0, 1))
            parts = [net.basic(x, m + "0")]
            for path, v in (("1_1", y), ("2_3", z)):
                parts += [net.basic(v, f"{m}{path}a", 1, (0, 1)), net.basic(v, f"{m}{path}b", 1, (1, 0))]
            parts.append(net.basic(mean, m + "3.1"))
        x = torch.cat(parts, 1)
    return net.dense(x.mean((2, 3)), "last_linear")


def inception_v2(net, x):
    x = net.basic(net.basic(net.basic(x, "conv1", 1, 1), "conv2"), "conv3", 1, 1)
    for block in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        m, stride = f"inception{block}.", 2 if block in ("3c", "4e") else 1
        three = net.basic(net.chain(x, m + "branch2", 0), m + "branch2.1", stride, 1)
        double = net.basic(net.chain(x, m + "branch3", 0, 1), m + "branch3.2", stride, 1)
        pooled = F.max_pool2d(x, 3, stride, 1) if block in ("3c", "4e", "5b") else F.avg_pool2d(x, 3, 1, 1)
        if stride == 2:
            x = torch.cat([three, double, pooled], 1)
        else:
            x = torch.cat([net.basic(x, m + "branch1.0"), three, double, net.basic(pooled, m + "branch4.1")], 1)
    return net.dense(x.mean((2, 3)), "fc")


def bottleneck(net, x, path, stride=1, dilation=1):
    y = F.relu(net.norm(net.conv(x, f"{path}.conv1"), f"{path}.bn1"))
    y = F.relu(net.norm(net.conv(y, f"{path}.conv2", stride, dilation, dilation=dilation), f"{path}.bn2"))
    y = net.norm(net.conv(y, f"{path}.conv3"), f"{path}.bn3")
    if net.has(f"{path}.downsample"):
        x = net.norm(net.conv(x, f"{path}.downsample.0", stride), f"{path}.downsample.1")
    return F.relu(x + y)


def resnet50(net, x, prefix="", dilated=False, small=True):
    x = F.relu(net.norm(net.conv(x, f"{prefix}conv1", *((1, 1) if small else (2, 3))), f"{prefix}bn1"))
    x = x if small else F.max_pool2d(x, 3, 2, 1)
    dilation = 1
    for stage in range(1, 5):
        i, stride = 0, 1 if stage == 1 else 2
        inside = dilation
        if dilated and stage > 2:
            stride, dilation = 1, dilation * 2
        while net.has(f"{prefix}layer{stage}.{i}"):
            x = bottleneck(net, x, f"{prefix}layer{stage}.{i}", 1 if i else stride, dilation if i else inside)
            i += 1
    return x if prefix else net.dense(x.mean((2, 3)), "fc")


def fcn_resnet50(net, x):
    y = resnet50(net, x, "backbone.", True, False)
    y = F.relu(net.norm(net.conv(y, "classifier.0", 1, 1), "classifier.1"))
    y = F.interpolate(net.conv(y, "classifier.4"), x.shape[2:], mode="bilinear", align_corners=False)
    return y.permute(0, 2, 3, 1)


def preact_resnet18(net, x):
    x = net.conv(x, "conv1", 1, 1)
    for stage in range(1, 5):
        for i in range(2):
            path, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = F.relu(net.norm(x, f"{path}.bn1"))
            x = net.conv(y, f"{path}.downsample", stride) if net.has(f"{path}.downsample") else x
            y = net.conv(y, f"{path}.conv1", stride, 1)
            x = x + net.conv(F.relu(net.norm(y, f"{path}.bn2")), f"{path}.conv2", 1, 1)
    return net.dense(F.relu(net.norm(x, "bn")).mean((2, 3)), "fc")


def resnet20(net, x):
    x = F.relu(net.norm(net.conv(x, "conv1", 1, 1), "bn1"))
    for stage in range(1, 4):
        for i in range(3):
            path, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = F.relu(net.norm(net.conv(x, f"{path}.conv1", stride, 1), f"{path}.bn1"))
            y = net.norm(net.conv(y, f"{path}.conv2", 1, 1), f"{path}.bn2")
            x = F.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            x = F.relu(x + y)
    return net.dense(x.mean((2, 3)), "fc")


def densenet121(net, x):
    x = F.relu(net.norm(net.conv(x, "features.conv0", 1, 1), "features.norm0"))
    for block in range(1, 5):
        i = 1
        while net.has(path := f"features.denseblock{block}.denselayer{i}"):
            y = net.conv(F.relu(net.norm(x, f"{path}.norm1")), f"{path}.conv1")
            x = torch.cat([x, net.conv(F.relu(net.norm(y, f"{path}.norm2")), f"{path}.conv2", 1, 1)], 1)
            i += 1
        if block < 4:
            path = f"features.transition{block}"
            x = F.avg_pool2d(net.conv(F.relu(net.norm(x, f"{path}.norm")), f"{path}.conv"), 2)
    return net.dense(F.relu(net.norm(x, "features.norm5")).mean((2, 3)), "classifier")


def squeezenet1_1(net, x):
    x, place = F.relu(net.conv(x, "features.0", 1, 1)), 2
    for fires in (2, 2, 4):
        for _ in range(fires):
            y = F.relu(net.conv(x, f"features.{place}.squeeze"))
            sides = (("expand1x1", 0), ("expand3x3", 1))
            x = torch.cat([F.relu(net.conv(y, f"features.{place}.{path}", 1, pad)) for path, pad in sides], 1)
            place += 1
        x = x if fires == 4 else F.max_pool2d(x, 3, 2, ceil_mode=True)
        place += 1
    return F.relu(net.conv(x, "classifier.1")).mean((2, 3))


def mobilenet_v2(net, x):
    def unit(x, path, stride=1, padding=0, groups=1):
        return F.relu6(net.norm(net.conv(x, f"{path}.0", stride, padding, groups=groups), f"{path}.1"))

    x, place = unit(x, "features.0", 1, 1), 1
    for stage, (count, stride) in enumerate([(1, 1), (2, 1), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)]):
        for i in range(count):
            path = f"features.{place}.conv"
            y = unit(x, f"{path}.0") if stage else x
            k = 1 if stage else 0
            y = unit(y, f"{path}.{k}", 1 if i else stride, 1, groups=y.shape[1])
            y = net.norm(net.conv(y, f"{path}.{k + 1}"), f"{path}.{k + 2}")
            x = x + y if x.shape == y.shape else y
            place += 1
    return net.dense(unit(x, f"features.{place}").mean((2, 3)), "classifier.1")


def fcn8s(net, x):
    size, place, maps = x.shape[2:], 0, {}
    for stage, count in enumerate((2, 2, 3, 3, 3), 1):
        for _ in range(count):
            x = F.relu(net.conv(x, f"features.{place}", 1, 1))
            place += 2
        x = maps[stage] = F.max_pool2d(x, 2, ceil_mode=True)
        place += 1
    x = net.conv(F.relu(net.conv(F.relu(net.conv(x, "fc6", 1, 3)), "fc7")), "score_fr")
    for path, stage, times in (("upscore2", 4, 2), ("upscore_pool4", 3, 2), ("upscore8", 0, 8)):
        # The weight of a transposed convolution is that of the convolution it transposes: (in, out, k, k).
        x = F.conv_transpose2d(x, net.weights[f"{path}.weight"], None, times, times // 2)
        if not stage:
            return x[:, :, : size[0], : size[1]].permute(0, 2, 3, 1)
        score = net.conv(maps[stage], f"score_pool{stage}")
        x = x[:, :, : score.shape[2], : score.shape[3]] + score


def airbench(net, x):
    x = F.gelu(net.conv(x, "whiten"))
    for i in range(3):
        x = F.gelu(net.norm(F.max_pool2d(net.conv(x, f"blocks.{i}.conv1", 1, 1), 2), f"blocks.{i}.norm1"))
        x = F.gelu(net.norm(net.conv(x, f"blocks.{i}.conv2", 1, 1), f"blocks.{i}.norm2"))
    return net.dense(x.amax((2, 3)), "head") / 9


CASES = [
    (alexnet, "alexnet", {}),
    (lambda net, x: alexnet(net, x, two=True), "alexnet_2012", {}),
    (nin, "nin", {}),
    (googlenet, "googlenet", {}),
    (googlenet, "inception_v1", {}),
    (lambda net, x: googlenet(net, x, small=False), "googlenet", {"stem": "large", "input_size": (45, 64)}),
    (lambda net, x: googlenet(net, x, small=False), "inception_v1", {"stem": "large", "input_size": (45, 64)}),
    (inception_v2, "inception_v2", {}),
    (inception_v3, "inception_v3", {}),
    (inception_v4, "inception_v4", {}),
    (resnet50, "resnet50", {}),
    (resnet20, "resnet20", {}),
    (preact_resnet18, "preact_resnet18", {}),
    (densenet121, "densenet121", {}),
    (squeezenet1_1, "squeezenet1_1", {}),
    (mobilenet_v2, "mobilenet_v2", {}),
    (airbench, "airbench94", {}),
    (fcn8s, "fcn8s", {"input_size": (41, 50)}),
    (fcn_resnet50, "fcn_resnet50", {"input_size": (33, 40), "blocks": (1, 2, 2, 2)}),
]


@pytest.mark.parametrize(
    ("forward", "name", "options"), CASES, ids=[f"{name} {o or ''}".strip() for _, name, o in CASES]
)
def test_logits(forward, name, options):
    """In training mode, with batch statistics, and dropout off: its random numbers are ours alone."""
    model = make(name, in_channels=2, classes=5, **options).astype("float64")
    for module in model.modules().values():
        module.p = 0
    rng = np.random.default_rng(0)
    for cell in model.cells("parameter").values():  # none at 0 or 1, where mistakes may hide
        if len(cell.shape) == 1:
            cell.write(jj.Tensor(rng.uniform(0.5, 1.5, cell.shape)))
        elif np.asarray(cell.read()).std() < 0.02:
            cell.write(jj.Tensor(rng.normal(0, 0.1, cell.shape)))
    net = Net(model)
    x = rng.normal(size=(4, *model.config["input_size"], 2))
    outputs = model(jj.Tensor(x))
    found = [nn.main_logits(outputs), *getattr(outputs, "aux_logits", ())]
    expected = forward(net, torch.tensor(x).permute(0, 3, 1, 2))
    for a, b in zip(found, expected if isinstance(expected, tuple) else [expected], strict=True):
        a, b = np.asarray(a), b.numpy()
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * np.abs(b).max())
        assert a.std() > 1e-3 * np.abs(a).max()
