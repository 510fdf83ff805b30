"""What is measured, by name, and who takes part."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Case:
    """A training step, an inference, or one face of one layer. Children get it as a dictionary."""

    name: str
    kind: str
    model: str = ""
    batch: int = 0
    size: int = 0
    channels: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    face: str = ""


@dataclass(frozen=True)
class Configuration:
    """A framework with its settings; it runs in a process of its own."""

    name: str
    backend: str
    settings: dict[str, Any] = field(default_factory=dict)


JUANJI = Configuration("juanji", "juanji_backend")
TORCH = Configuration("torch NHWC", "torch_backend", {"channels_last": True})
COMPILED = Configuration("torch.compile NHWC", "torch_backend", {"channels_last": True, "fused": True, "compile": True})
TRAINING = [
    JUANJI,
    Configuration("torch NCHW", "torch_backend"),
    TORCH,
    Configuration("torch NHWC fused", "torch_backend", {"channels_last": True, "fused": True}),
    Configuration("torch.compile NCHW", "torch_backend", {"fused": True, "compile": True}),
    COMPILED,
    Configuration("JAX", "jax_backend"),
]
INFERENCE = [
    JUANJI,
    Configuration("onnxruntime", "onnx_backend", {"runtime": "onnxruntime"}),
    Configuration("OpenVINO", "onnx_backend", {"runtime": "openvino"}),
    TORCH,
]
LAYER = [JUANJI, TORCH]


def in_bfloat16(*configurations: Configuration) -> list[Configuration]:
    return [replace(each, settings={**each.settings, "precision": "bfloat16"}) for each in configurations]


TRAINING_BFLOAT16 = in_bfloat16(JUANJI, TORCH, TRAINING[3], COMPILED)
INFERENCE_BFLOAT16 = in_bfloat16(JUANJI, INFERENCE[2], TORCH)

SMALL_STEM = {"stem": "small"}
TRAINING_CASES = [
    Case("train lenet5 b64", "train", "lenet5", 64, 28, 1),
    Case("train lenet5 b256", "train", "lenet5", 256, 28, 1),
    Case("train cnn_small b128", "train", "cnn_small", 128, 32),
    Case("train resnet18 32x32 b128", "train", "resnet18", 128, 32, options=SMALL_STEM),
    Case("train resnet18 224x224 b32", "train", "resnet18", 32, 224),
    Case("train vgg11_bn 64x64 b32", "train", "vgg11_bn", 32, 64, options={"pooled": 1, "hidden": ()}),
    Case("train vgg16 224x224 b8", "train", "vgg16", 8, 224),
    Case("train airbench94 32x32 b1024", "train", "airbench94", 1024, 32),
]
INFERENCE_CASES = [
    Case("infer lenet5 b1", "infer", "lenet5", 1, 28, 1),
    Case("infer resnet18 224x224 b1", "infer", "resnet18", 1, 224),
    Case("infer resnet18 224x224 b32", "infer", "resnet18", 32, 224),
]
STEP = TRAINING_CASES[3]
BFLOAT16_TRAINING = [case for case in TRAINING_CASES if case.model in ("resnet18", "airbench94")]
BFLOAT16_INFERENCE = INFERENCE_CASES[2:]

LAYERS = {
    "ResNet-18": """
        n8h224w224c3k64r7s7u2p3 n8h56w56c64k64r3s3p1 n8h56w56c64k128r3s3u2p1 n8h56w56c64k128r1s1u2
        n8h28w28c128k128r3s3p1 n8h28w28c128k256r3s3u2p1 n8h28w28c128k256r1s1u2 n8h14w14c256k256r3s3p1
        n8h14w14c256k512r3s3u2p1 n8h14w14c256k512r1s1u2 n8h7w7c512k512r3s3p1""",
    "ResNet-50": """
        n8h56w56c64k64r1s1 n8h56w56c64k256r1s1 n8h56w56c256k64r1s1 n8h56w56c256k128r1s1 n8h56w56c128k128r3s3u2p1
        n8h28w28c128k512r1s1 n8h56w56c256k512r1s1u2 n8h28w28c512k128r1s1 n8h28w28c512k256r1s1 n8h28w28c256k256r3s3u2p1
        n8h14w14c256k1024r1s1 n8h28w28c512k1024r1s1u2 n8h14w14c1024k256r1s1 n8h14w14c1024k512r1s1
        n8h14w14c512k512r3s3u2p1 n8h7w7c512k2048r1s1 n8h14w14c1024k2048r1s1u2 n8h7w7c2048k512r1s1""",
    "VGG-16": """
        n8h224w224c3k64r3s3p1 n8h112w112c64k128r3s3p1 n8h56w56c128k256r3s3p1 n8h28w28c512k512r3s3p1
        n8h14w14c512k512r3s3p1""",
    "GoogLeNet": """
        n8h28w28c192k64r1s1 n8h28w28c96k128r3s3p1 n8h28w28c16k32r5s5p2 n8h14w14c480k192r1s1 n8h14w14c112k224r3s3p1
        n8h14w14c24k64r5s5p2 n8h7w7c832k384r1s1 n8h7w7c48k128r5s5p2""",
    "MobileNet": """
        n8h112w112c32k32r3s3p1g32 n8h112w112c64k64r3s3u2p1g64 n8h56w56c128k128r3s3p1g128 n8h28w28c256k256r3s3p1g256
        n8h14w14c512k512r3s3p1g512 n8h7w7c1024k1024r3s3p1g1024""",
    "ugly": """
        n8h28w28c17k19r3s3p1 n8h27w29c31k37r5s3p2q1 n8h56w1c64k64r3s1p1q0 n8h1w56c64k64r1s3p0q1 n64h1w1c512k512r1s1
        n8h17w17c160k160r1s7p0q3 n8h17w17c160k160r7s1p3q0 n8h227w227c3k96r11s11u4 n2h33w33c512k256r3s3p12d12
        n8h32w32c3k16r5s5 n8h32w32c32k32r3s3u2v1p1 n8h56w56c128k128r3s3p1g32""",
}  # fmt: skip
FACES = ("forward", "input-gradient", "weight-gradient")
QUICK_LAYERS = """
    n8h224w224c3k64r7s7u2p3 n8h56w56c64k64r3s3p1 n8h14w14c256k256r3s3p1 n8h28w28c128k256r3s3u2p1 n8h28w28c128k512r1s1
    n8h28w28c256k256r3s3p1g256 n8h28w28c17k19r3s3p1 n8h17w17c160k160r1s7p0q3""".split()  # noqa: SIM905 (as above)
QUICK = [*TRAINING_CASES[:3], INFERENCE_CASES[0]]


def layer_cases(quick: bool) -> list[Case]:
    """Every face of every layer, named by its problem."""
    problems = QUICK_LAYERS if quick else [problem for text in LAYERS.values() for problem in text.split()]
    return [Case(problem, "layer", problem=problem, face=face) for problem in problems for face in FACES]
