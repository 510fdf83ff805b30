"""RandAugment: a few operations, chosen anew for each image, all of one strength.

Source: Cubuk, Zoph, Shlens and Le, "RandAugment: practical automated data augmentation with a reduced search space",
2020 (arXiv 1909.13719). The operations and their ranges are those of torchvision's RandAugment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from juanji.data import affine, colours
from juanji.graph import Array

STRONGEST = 30  # the magnitude at which an operation has the far end of its range

Matrix = Callable[[float, tuple[int, int]], Array]
Colour = Callable[[Any, float], Any]


@dataclass(frozen=True)
class Operation:
    """One operation: either a map of the plane, of (amount, (H, W)), or a change of colours, of (image, amount).

    range   the amount at magnitude 0 and at magnitude 30, linear in between
    signed  whether half of all images get it with a minus
    """

    range: tuple[float, float]
    signed: bool = False
    matrix: Matrix | None = None
    colour: Colour | None = None

    def amount(self, magnitude: float, draw: float = 0.0) -> float:
        """What a magnitude means for this operation; `draw` in [0, 1) chooses the sign."""
        low, high = self.range
        amount = low + (high - low) * magnitude / STRONGEST
        return -amount if self.signed and draw >= 0.5 else amount


def enhanced(colour: Colour) -> Operation:
    return Operation((0, 0.9), signed=True, colour=lambda image, amount: colour(image, 1 + amount))


# Shears and shifts that are said in parts of the image are of its width for X and its height for Y.
OPERATIONS = {
    "Identity": Operation((0, 0)),
    "ShearX": Operation((0, 0.3), signed=True, matrix=lambda amount, size: affine.shear(x=amount)),
    "ShearY": Operation((0, 0.3), signed=True, matrix=lambda amount, size: affine.shear(y=amount)),
    "TranslateX": Operation(
        (0, 150 / 331), signed=True, matrix=lambda amount, size: affine.translation(x=amount * size[1])
    ),
    "TranslateY": Operation(
        (0, 150 / 331), signed=True, matrix=lambda amount, size: affine.translation(y=amount * size[0])
    ),
    "Rotate": Operation((0, 30), signed=True, matrix=affine.rotation),
    "Brightness": enhanced(colours.brightness),
    "Color": enhanced(colours.saturation),
    "Contrast": enhanced(colours.contrast),
    "Sharpness": enhanced(colours.sharpness),
    "Posterize": Operation((8, 4), colour=colours.posterize),
    "Solarize": Operation((255, 0), colour=colours.solarize),
    "AutoContrast": Operation((0, 0), colour=colours.autocontrast),
    "Equalize": Operation((0, 0), colour=colours.equalize),
}


def chosen(draws: Array, magnitude: float) -> list[tuple[Operation, float]]:
    """The operations of an image with their amounts, one for each row of draws (n, 2), uniform in [0, 1)."""
    known = [*OPERATIONS.values()]
    operations = [(known[int(which * len(known))], float(sign)) for which, sign in draws]
    return [(operation, operation.amount(magnitude, sign)) for operation, sign in operations]
