"""Networks by name. A model is a small dictionary: which class, for which images, with which options."""

from __future__ import annotations

import inspect
from typing import Any

from juanji.errors import ArgumentError, unknown_name
from juanji.models import convnet, lenet, perceptron
from juanji.nn._checks import counts
from juanji.nn.module import Module
from juanji.ops._geometry import per_axis

MODELS: dict[str, dict[str, Any]] = {**perceptron.MODELS, **convnet.MODELS, **lenet.MODELS}
EVERYWHERE = ("classes", "in_channels", "input_size")
HIDDEN = (*EVERYWHERE, "title")


def names() -> list[str]:
    """The names of all models, sorted."""
    return sorted(MODELS)


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
) -> Module:
    """The network `name`, with parameters drawn from `seed`, in training mode.

    classes      the number of outputs: logits, of which the largest is the answer
    in_channels  of the images (N, H, W, C); the model's own by default, as is
    input_size   an integer or (H, W); the network takes images of this size only
    options      what the model's dictionary sets, changed: `create("perceptron", hidden=(64,))`

    `model.config` holds everything needed to create it again: `create(**model.config)`. Raises UnknownNameError for an
    unknown name, ShapeError for images too small for the network, ArgumentError for other arguments out of range.
    """
    settings = dict(entry(name))
    make = settings.pop("make")
    taken = [option for option in inspect.signature(make).parameters if option not in HIDDEN]
    if unknown := sorted(set(options) - set(taken)):
        raise ArgumentError(
            f"{name} has no such option",
            received=", ".join(unknown),
            rule="classes, in_channels, input_size, seed" + "".join(f", {option}" for option in taken),
        )
    settings |= {"classes": classes, **options}
    settings |= {} if in_channels is None else {"in_channels": in_channels}
    settings |= {} if input_size is None else {"input_size": input_size}
    counts(name, classes=settings["classes"], in_channels=settings["in_channels"])
    settings["input_size"] = per_axis(name, "input_size", settings["input_size"], 2, least=1)
    model: Module = make(**settings)
    model.config = {"name": name, **{key: settings[key] for key in EVERYWHERE}, "seed": seed, **options}
    model.initialise(seed)
    return model
