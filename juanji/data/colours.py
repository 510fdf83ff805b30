"""Changes of an image's colours, on Pillow images of bytes, grey or RGB.

Brightness, contrast and saturation mix the image with a duller one: factor 1 leaves it as it is, 0 gives the dull one,
more than 1 goes beyond. They are those of Pillow's ImageEnhance and of torchvision's ColorJitter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from juanji.graph import Array


def brightness(image: Any, factor: float) -> Any:
    """factor · image."""
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def contrast(image: Any, factor: float) -> Any:
    """Mixed with its mean grey, the mean of 0.299 R + 0.587 G + 0.114 B rounded."""
    from PIL import Image

    # ImageEnhance.Contrast, whose way to the mean takes longer than all the rest.
    mean = int(np.asarray(image.convert("L")).mean() + 0.5)
    return Image.blend(Image.new("L", image.size, mean).convert(image.mode), image, factor)


def saturation(image: Any, factor: float) -> Any:
    """Mixed with itself in grey, 0.299 R + 0.587 G + 0.114 B; a grey image stays as it is."""
    from PIL import ImageEnhance

    return ImageEnhance.Color(image).enhance(factor)


def sharpness(image: Any, factor: float) -> Any:
    """Mixed with itself blurred by [1 1 1; 1 5 1; 1 1 1] / 13."""
    from PIL import ImageEnhance

    return ImageEnhance.Sharpness(image).enhance(factor)


def hue(image: Any, turn: float) -> Any:
    """Every colour moved by this part of the circle of colours, −½ to ½; a grey image stays as it is."""
    from PIL import Image

    if image.mode == "L":
        return image
    angle, saturation, value = image.convert("HSV").split()
    moved = angle.point([(old + round(255 * turn)) % 256 for old in range(256)])
    return Image.merge("HSV", (moved, saturation, value)).convert(image.mode)


def posterize(image: Any, bits: float) -> Any:
    """Each value cut down to its highest `bits` bits, which are rounded to a whole number."""
    from PIL import ImageOps

    return ImageOps.posterize(image, round(bits))


def solarize(image: Any, threshold: float) -> Any:
    """Values from `threshold` up are inverted, 255 − value."""
    from PIL import ImageOps

    return ImageOps.solarize(image, math.ceil(threshold))


def autocontrast(image: Any, _: float) -> Any:
    """The values of each channel stretched over 0…255."""
    from PIL import ImageOps

    return ImageOps.autocontrast(image)


def equalize(image: Any, _: float) -> Any:
    """The histogram of each channel made flat."""
    from PIL import ImageOps

    return ImageOps.equalize(image)


# What ColorJitter changes, by the name of the choice that says how much.
JITTERED: dict[str, Callable[[Any, float], Any]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}
DRAWS = 2 * len(JITTERED)  # for each image: how much, and in which order


def jittered(image: Any, amounts: dict[str, float], draws: Array) -> Any:
    """The image with brightness, contrast and saturation multiplied by 1 ± at most their amount, and the hue moved by
    at most its amount, in an order that is random, too.

    draws  (DRAWS,), uniform in [0, 1)
    """
    signed, keys = 2 * draws[: len(JITTERED)].astype(float) - 1, draws[len(JITTERED) :]
    for index in keys.argsort(kind="stable"):
        name = [*JITTERED][index]
        if amounts[name]:
            amount = amounts[name] * float(signed[index])
            image = JITTERED[name](image, amount if name == "hue" else 1 + amount)
    return image
