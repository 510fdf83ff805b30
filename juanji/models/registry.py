"""Networks by name. A model is a small dictionary: what it is, which class, for which images, with which options.

The class is called with the name, `classes`, `in_channels` and `input_size`; keyword-only arguments are the options.
"""

from __future__ import annotations

import inspect
from typing import Any

from juanji.checks import counts, per_axis, whole
from juanji.errors import ArgumentError, unknown_name
from juanji.models import (
    airbench,
    alexnet,
    convnet,
    deform_resnet,
    densenet,
    fcn,
    googlenet,
    highway,
    inception_v2,
    inception_v3,
    inception_v4,
    lenet,
    mobilenet,
    nin,
    perceptron,
    preact_resnet,
    resnet,
    squeezenet,
    vgg,
)
from juanji.models.network import Network

# In the order in which they are best read: simple ones first, then by year.
FAMILIES = (
    perceptron,
    convnet,
    lenet,
    alexnet,
    nin,
    vgg,
    googlenet,
    inception_v2,
    inception_v3,
    inception_v4,
    highway,
    resnet,
    preact_resnet,
    deform_resnet,
    densenet,
    squeezenet,
    mobilenet,
    airbench,
    fcn,
)
MODELS: dict[str, dict[str, Any]] = {name: entry for family in FAMILIES for name, entry in family.MODELS.items()}
TASKS = tuple(dict.fromkeys(entry["make"].task for entry in MODELS.values()))
EVERYWHERE = ("classes", "in_channels", "input_size")
# What the options of the models mean; those that have one say in their docstrings what it counts there.
OPTIONS = {
    "hidden": "units of the dense layers before the last",
    "channels": "outputs of each convolution, or of each stage of them",
    "kernel": "size of the convolutions",
    "same_first": "whether padding lets the first convolution keep the size",
    "batch_norm": "whether batch normalisation stands behind every convolution",
    "dropout": "share of the units that dropout sets to 0",
    "stages": "outputs of the convolutions of each stage; a pooling ends each",
    "pooled": "size to which mean pooling brings the features: 7 as published, 1 for small images",
    "stem": "'large' as published, or 'small' for images of about 32×32, without the strides at the beginning",
    "aux": "whether auxiliary heads speak in training mode",
    "units": "of every dense layer",
    "layers": "with a gate: in all, or of each stage",
    "gate_bias": "of the gates at the beginning; negative numbers hand the input on",
    "blocks": "how many a stage",
    "growth": "channels that a layer adds",
    "stride": "of the finest map that is scored: 32, 16 or 8",
    "width": "every number of channels, or of units, times that",
}


def names(task: str | None = None) -> list[str]:
    """The names of all models, or of those for a task, "classification" or "segmentation", sorted."""
    if task is not None and task not in TASKS:
        raise unknown_name("task", task, TASKS)
    return sorted(name for name, entry in MODELS.items() if task in (None, entry["make"].task))


def entry(name: str) -> dict[str, Any]:
    """The dictionary of the model `name`. Raises UnknownNameError, with the nearest names."""
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def create(
    name: str,
    *,
    classes: int = 10,
    in_channels: int | None = None,
    input_size: Any = None,
    seed: int = 0,
    **options: Any,
) -> Network:
    """The network `name`, with parameters drawn from `seed`, in training mode.

    classes      the number of outputs: logits, of which the largest is the answer, for each image or each pixel
    in_channels  of the images (N, H, W, C); the model's own by default, as is
    input_size   an integer or (H, W); the network takes images of this size only
    options      what the model's class takes besides, as `models.options(name)` lists it:
                 `create("perceptron", hidden=(64,))`, and for nearly all of them `width`, by which every number of
                 channels is multiplied: `create("resnet50", width=0.5)`

    `model.config` holds everything needed to create it again: `create(**model.config)`. Raises UnknownNameError for an
    unknown name, ShapeError for images too small for the network, ArgumentError for other arguments out of range.
    """
    settings = {key: value for key, value in entry(name).items() if key not in ("about", "make")}
    check_options(name, options)
    given = {"classes": classes, "in_channels": in_channels, "input_size": input_size, **options}
    settings |= {key: value for key, value in given.items() if value is not None or key in options}
    counts(name, classes=classes, in_channels=settings["in_channels"])
    whole(name, seed=seed)
    settings["input_size"] = per_axis(name, "input_size", settings["input_size"], 2, least=1)
    model: Network = entry(name)["make"](name, **settings)
    model.config = {"name": name, **{key: settings[key] for key in EVERYWHERE}, "seed": seed, **options}
    model.initialise(seed)
    return model


def options(name: str) -> dict[str, Any]:
    """What `create` takes for the model `name` besides classes and images: its options, and what they are by default.

    `OPTIONS` says what they mean. Raises UnknownNameError, with the nearest names, for an unknown model.
    """
    parameters = inspect.signature(entry(name)["make"]).parameters.values()
    taken = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    return {parameter.name: entry(name).get(parameter.name, parameter.default) for parameter in taken}


def check_options(name: str, given: dict[str, Any]) -> None:
    """Raise ArgumentError, with the nearest names, for options that a model does not take."""
    taken = options(name)
    known = [*EVERYWHERE, "seed", *taken]
    if unknown := sorted(set(given) - set(taken)):
        raise ArgumentError(
            f"{name} has no such option",
            received=", ".join(unknown),
            rule=", ".join(known),
            fix=unknown_name("option", unknown[0], known).fix,
        )
