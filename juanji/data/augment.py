"""Which random changes the images of the training part go through, so that a network does not learn them by heart."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from juanji.checks import bad, nonnegative, numbers, one_of, share, truth
from juanji.data.jitter import Jitter
from juanji.data.randaugment import STRONGEST
from juanji.errors import ArgumentError, unknown_name

CROPS = ("centre", "shift", "random")
FLIPS = ("none", "random", "alternating")
ROOM = 256 / 224  # as images are stored for ImageNet
STILL = Jitter()


@dataclass(frozen=True)
class Augment:
    """All random changes of an image before a network sees it (002 §4.6), in the order in which they are made.

    crop           how the network's size is cut from the stored image, which may be larger: "centre"; "shift", moved by
                   whole pixels, beyond the edge reflected; "random", a box of random area and shape, stretched
    shift          for "shift": at most this part of the height or width, each way
    scale          for "random": part of the stored image's area that the box covers, from … to
    ratio          for "random": width / height of the box, from … to
    flip           left and right exchanged: "none"; "random", half of the images; "alternating", each image in every
                   second epoch, half of them in the first
    vertical_flip  whether top and bottom are exchanged in a random half of the images
    rotation       at most so many degrees, each way; what comes in from outside is black
    brightness, contrast, saturation
                   multiplied by 1 ± at most this; 0 to 1
    hue            moved by at most this part of the circle of colours; 0 to ½
    randaugment    so many operations of RandAugment for each image
    magnitude      their strength, 0 to 30
    jitter         a small affine change, `Jitter`, that keeps shades between black and white exactly
    erasing        probability that a box is replaced by noise
    mixup, cutmix  α of Beta(α, α), the share of another image that is mixed in, or pasted as a box; 0 for never, and
                   where both are above 0 each image takes one of them

    Rotation, colours, RandAugment and the random box work on bytes, to which images in 0…1 are rounded; everything that
    moves pixels is composed, so that they are resampled once (and once more by `jitter`). docs/augmentation.md has the
    formulas and their sources.

    Raises ArgumentError for a choice out of range.
    """

    crop: str = "centre"
    shift: float = 0.125
    scale: tuple[float, float] = (0.25, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: str = "none"
    vertical_flip: bool = False
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    randaugment: int = 0
    magnitude: float = 9.0
    jitter: Jitter = STILL
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        one_of("augment", "crop", self.crop, CROPS)
        one_of("augment", "flip", self.flip, FLIPS)
        if not isinstance(self.jitter, Jitter):
            raise bad("augment", "jitter", self.jitter, "a Jitter, as in Jitter(turn=5)")
        truth("augment", "vertical_flip", self.vertical_flip)
        interval("scale", self.scale, 1.0)
        interval("ratio", self.ratio, math.inf)
        share("augment", shift=self.shift, erasing=self.erasing)
        share("augment", brightness=self.brightness, contrast=self.contrast, saturation=self.saturation)
        numbers("augment", {"hue": self.hue}, lambda x: 0 <= x <= 0.5, "from 0 to 0.5")
        numbers("augment", {"rotation": self.rotation}, lambda x: 0 <= x <= 180, "from 0 to 180 degrees")
        numbers("augment", {"magnitude": self.magnitude}, lambda x: 0 <= x <= STRONGEST, f"from 0 to {STRONGEST}")
        numbers(
            "augment", {"randaugment": self.randaugment}, lambda x: x >= 0 and x % 1 == 0, "a whole number, 0 or more"
        )
        nonnegative("augment", mixup=self.mixup, cutmix=self.cutmix)

    @property
    def room(self) -> float:
        """How much larger than the network's images they should be stored, for `load`: "random" wants something to cut
        from."""
        return ROOM if self.crop == "random" else 1.0

    @property
    def mixes(self) -> bool:
        """Whether labels become shares, (n, classes)."""
        return bool(self.mixup or self.cutmix)

    @property
    def colours(self) -> dict[str, float]:
        """How much each property of colours is changed, as `colours.jittered` takes it."""
        return {name: getattr(self, name) for name in ("brightness", "contrast", "saturation", "hue")}

    @property
    def changes_colours(self) -> bool:
        return bool(self.randaugment) or any(self.colours.values())

    @property
    def paints(self) -> bool:
        """Whether images are resampled, or their colours changed, in bytes."""
        return self.crop == "random" or bool(self.rotation) or self.changes_colours

    def __str__(self) -> str:
        """What differs from no change at all: "crop=shift, flip=random"."""
        chosen = [(field.name, getattr(self, field.name), field.default) for field in fields(self)]
        return ", ".join(f"{name}={value}" for name, value, default in chosen if value != default) or "no change"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Augment:
        """What `to_dict` gave, after JSON, too. A name that is missing has its default."""
        return PRESETS["none"].changed(**values)

    @classmethod
    def of(cls, text: str) -> Augment:
        """The name of one of `PRESETS`, or that and changes of it: "standard,hue=0.1,scale=0.5:1,jitter.turn=5".

        Raises UnknownNameError for a name of neither, ArgumentError for a value that cannot be read or is out of range.
        """
        name, *changes = text.split(",")
        if name not in PRESETS:
            raise unknown_name("augmentation", name, PRESETS)
        augment = PRESETS[name]
        for change in changes:
            key, equals, value = change.partition("=")
            if not equals:
                raise ArgumentError(
                    "augment: bad change", received=repr(change), rule="NAME=VALUE", fix=f"{name},rotation=10"
                )
            whole, _, part = key.strip().partition(".")
            read = value_of(key, value)
            augment = augment.changed(**{whole: {part: read} if part else read})
        return augment

    def changed(self, **values: Any) -> Augment:
        """The same with other values; lists stand for pairs, and a mapping for changes of the jitter.

        Raises UnknownNameError for a name that is none of them.
        """
        known(values, Augment)
        for name, value in values.items():
            if isinstance(value, Mapping):
                values[name] = dataclasses.replace(self.jitter, **known(value, Jitter))
            elif isinstance(value, list):
                values[name] = tuple(value)
        return dataclasses.replace(self, **values)


def known(values: Mapping[str, Any], kind: type[Any]) -> Mapping[str, Any]:
    names = [field.name for field in fields(kind)]
    for name in values:
        if name not in names:
            raise unknown_name(f"choice of {kind.__name__}", name, names)
    return values


def value_of(name: str, text: str) -> Any:
    """A value as it is written behind a name: a number, two with a colon between, true, false, or a word."""
    words = {"true": True, "false": False}
    parts = [number(part) for part in text.split(":")]
    if len(parts) == 1:
        return words.get(text.lower(), parts[0])
    if any(isinstance(part, str) for part in parts):
        raise ArgumentError(
            f"augment: bad {name}", received=repr(text), rule="numbers with a colon between, as in 0.5:1"
        )
    return parts


def number(text: str) -> float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text.strip()


def interval(name: str, value: Any, largest: float) -> None:
    """Raise ArgumentError unless `value` is a pair of numbers above 0, the larger one last and not above `largest`."""
    try:
        low, high = map(float, value)
        holds = 0 < low <= high <= largest and high < math.inf
    except (TypeError, ValueError):
        holds = False
    if not holds:
        above = f", at most {largest:g}" if largest < math.inf else ""
        raise ArgumentError(
            f"augment: bad {name}",
            received=f"{name}={value!r}",
            rule=f"two numbers above 0, the larger one last{above}",
        )


# By name. "handwriting" is for digits, letters, signs: whatever a mirror would make something else.
PRESETS: dict[str, Augment] = {
    "none": Augment(),
    "handwriting": Augment(jitter=Jitter(shift=0.1, turn=12, zoom=0.12, slant=0.12)),
    "light": Augment(crop="shift", flip="random"),
    "standard": Augment(
        crop="random", scale=(0.35, 1.0), flip="random", brightness=0.2, contrast=0.2, saturation=0.2
    ),
    "strong": Augment(
        crop="random", scale=(0.25, 1.0), flip="random", randaugment=2, erasing=0.25, mixup=0.2, cutmix=1.0
    ),
}  # fmt: skip
