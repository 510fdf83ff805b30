"""Names of parameters in published files, where they differ from juanji's, which are torchvision's.

A family is a list of (pattern, replacement), applied to a name one after the other. Which family a file belongs to is
told by how many of its names the model knows afterwards. Sources: torchvision/models, timm/models and
transformers/models on GitHub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable

from juanji.errors import WeightsError

Replacement = str | Callable[[re.Match[str]], str]

# What programs put in front of every name: DataParallel, torch.compile, Lightning and others.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
# Kept by PyTorch's batch normalisation beside its statistics, and used for nothing with a momentum.
UNUSED = re.compile(r"(^|\.)num_batches_tracked$")
# Classifiers on the way that only training uses, in files of GoogLeNet, Inception v3, FCN and DeepLab v3.
AUXILIARY = re.compile(r"^(aux\d|AuxLogits|aux_classifier)\.")
# Blocks before each stage of MobileNet v2, the stem's convolution counted: table 2 of Sandler et al., CVPR 2018.
MOBILENET_STAGES = (1, 2, 4, 7, 11, 14, 17)


def later(pattern: str, number: int) -> Replacement:
    """`pattern` with `{0}`, `{1}`, … for the groups, of which the first is a number and is increased by `number`."""
    return lambda match: pattern.format(int(match[1]) + number, *match.groups()[1:])


def mobilenet_block(match: re.Match[str]) -> str:
    stage, block = int(match[1]), int(match[2])
    return f"features.{MOBILENET_STAGES[stage] + block if stage < len(MOBILENET_STAGES) else 'unknown'}.conv."


FAMILIES: dict[str, list[tuple[str, Replacement]]] = {
    "torchvision": [],
    # densenet121-a639ec97.pth and its kin: norm.1 for norm1.
    "torchvision DenseNet of 2017": [(r"(\.denselayer\d+\.)(norm|conv)\.([12])\.", r"\1\2\3.")],
    "timm VGG": [
        (r"^pre_logits\.fc1\.", "classifier.0."),
        (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."),
    ],
    "timm MobileNet v2": [
        (r"^blocks\.0\.(\d+)\.conv_dw\.", later("features.{0}.conv.0.0.", 1)),
        (r"^blocks\.0\.(\d+)\.bn1\.", later("features.{0}.conv.0.1.", 1)),
        (r"^blocks\.0\.(\d+)\.conv_pw\.", later("features.{0}.conv.1.", 1)),
        (r"^blocks\.0\.(\d+)\.bn2\.", later("features.{0}.conv.2.", 1)),
        (r"^blocks\.(\d+)\.(\d+)\.", mobilenet_block),
        (r"\.conv\.conv_pw\.", ".conv.0.0."),
        (r"\.conv\.bn1\.", ".conv.0.1."),
        (r"\.conv\.conv_dw\.", ".conv.1.0."),
        (r"\.conv\.bn2\.", ".conv.1.1."),
        (r"\.conv\.conv_pwl\.", ".conv.2."),
        (r"\.conv\.bn3\.", ".conv.3."),
        (r"^conv_stem\.", "features.0.0."),
        (r"^bn1\.", "features.0.1."),
        (r"^conv_head\.", "features.18.0."),
        (r"^bn2\.", "features.18.1."),
        (r"^classifier\.(?=\D)", "classifier.1."),
    ],
    "Hugging Face ResNet": [
        (r"^resnet\.", ""),
        (r"^embedder\.embedder\.convolution\.", "conv1."),
        (r"^embedder\.embedder\.normalization\.", "bn1."),
        (r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.", later("layer{0}.{1}.", 1)),
        (r"\.shortcut\.convolution\.", ".downsample.0."),
        (r"\.shortcut\.normalization\.", ".downsample.1."),
        (r"\.layer\.(\d+)\.convolution\.", later(".conv{0}.", 1)),
        (r"\.layer\.(\d+)\.normalization\.", later(".bn{0}.", 1)),
        (r"^classifier\.1\.", "fc."),
    ],
    "Hugging Face MobileNet v2": [
        (r"^mobilenet_v2\.", ""),
        (r"^conv_stem\.first_conv\.", "features.0."),
        (r"^conv_stem\.conv_3x3\.", "features.1.conv.0."),
        (r"^conv_stem\.reduce_1x1\.convolution\.", "features.1.conv.1."),
        (r"^conv_stem\.reduce_1x1\.normalization\.", "features.1.conv.2."),
        (r"^layer\.(\d+)\.expand_1x1\.", later("features.{0}.conv.0.", 2)),
        (r"^layer\.(\d+)\.conv_3x3\.", later("features.{0}.conv.1.", 2)),
        (r"^layer\.(\d+)\.reduce_1x1\.convolution\.", later("features.{0}.conv.2.", 2)),
        (r"^layer\.(\d+)\.reduce_1x1\.normalization\.", later("features.{0}.conv.3.", 2)),
        (r"^conv_1x1\.", "features.18."),
        (r"\.convolution\.", ".0."),
        (r"\.normalization\.", ".1."),
        (r"^classifier\.(?=\D)", "classifier.1."),
    ],
}


def matched(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """`{name in the model: name in the file}`, for a model that knows the names `known`.

    Names that are unknown to it stay as they are in the file, without what stands before all of them; what no network
    needs is left out. Raises WeightsError for two names that mean one.
    """
    bare = without_prefixes({name: name for name in names}, known)
    wanted = {short: name for short, name in bare.items() if not UNUSED.search(short)}
    renamings = [[renamed(short, family, known) for short in wanted] for family in FAMILIES.values()]
    best = max(renamings, key=lambda renaming: sum(name in known for name in renaming))
    found: dict[str, str] = {}
    for new, name in zip(best, wanted.values(), strict=True):
        if new in found:
            raise WeightsError(
                "two names of the file mean one parameter",
                received=f"{found[new]} and {name}",
                rule=f"one name for {new}",
            )
        if new in known or not AUXILIARY.search(new):
            found[new] = name
    return found


def without_prefixes(names: dict[str, str], known: Collection[str]) -> dict[str, str]:
    """Names without the prefixes that all of them have and none of the model's."""
    for prefix in PREFIXES * 2:  # which stand before one another in any order
        if names and all(name.startswith(prefix) for name in names) and not any(k.startswith(prefix) for k in known):
            names = {short.removeprefix(prefix): name for short, name in names.items()}
    return names


def renamed(name: str, family: list[tuple[str, Replacement]], known: Collection[str]) -> str:
    """A name by the patterns of a family; what the model knows already keeps its name."""
    for pattern, replacement in family if name not in known else ():
        name = re.sub(pattern, replacement, name)
    return name
