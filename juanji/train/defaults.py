"""What is chosen where nobody has: from the data, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from juanji.data import BUILT_IN, PRESETS, Augment, survey
from juanji.data.download import Progress, silent
from juanji.data.findings import FEW
from juanji.data.loader import FEWEST, number_of_batches
from juanji.data.split import held_out
from juanji.models.registry import entry
from juanji.train.recipe import OPTIMIZERS, Recipe

SMALL = 32  # pixels up to which images are drawings, digits or thumbnails, and networks have no strided stem
LARGE = 96  # pixels that photographs are brought to: more cost more than they tell, with some thousand images
SEEN = 120_000  # images that a training looks at, changed ones counted each time
LEAST = 16  # pixels that a network needs that pools three times
MANY = 10_000  # images from where on networks are trained after published recipes
UNEVEN = 2.0  # times as many images of one class as of another, from where on they are weighted
KEPT = 3.0  # times as slowly a network learns that begins with weights: on a few hundred images better than 1 and 10
Reason = tuple[Any, str]


@dataclass(frozen=True)
class Facts:
    """What the choices depend on.

    name    of a built-in dataset; "" for files
    counts  training images of each class, as far as is known before any is read
    size    (H, W) of the images, in the median
    grey    whether all of them are
    """

    name: str
    counts: tuple[int, ...]
    size: tuple[int, int]
    grey: bool

    @classmethod
    def of(cls, data: str, data_dir: str | None = None, progress: Progress = silent) -> Facts:
        """What a look at the data that `find` takes shows. Raises DataError where no image can be read."""
        looked = survey(data, data_dir, progress)
        counts = looked.counts.get("train") or tuple(n - held_out(n) for n in looked.counts.get("all", ()))
        counts = counts or (0,) * len(looked.classes)
        return cls(data if data in BUILT_IN else "", counts, looked.size, looked.channels == 1)

    @property
    def images(self) -> int:
        return sum(self.counts)

    @property
    def side(self) -> int:
        return min(self.size)


@dataclass(frozen=True)
class Default:
    """A choice and why it is made."""

    name: str
    value: Any
    reason: str

    def __str__(self) -> str:
        return f"{self.name} {shown(self.value)}: {self.reason}"


def shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{key}={item}" for key, item in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(f"{key}={item:g}" for key, item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def choose(facts: Facts, given: Mapping[str, Any]) -> list[Default]:
    """The choices that are not among the given ones, in the order in which they depend on each other.

    Their names are those of `Recipe`'s fields, and "size", "model" and "options" of the model.
    """
    known, found = dict(given), []
    rules = DIGITS if facts.name == "digits" else RULES
    for name in (*rules, *PUBLISHED):
        if name in known:
            continue
        choice = published(name, facts, known) or (rules[name](facts, known) if name in rules else None)
        if choice is not None:
            known[name] = choice[0]
            found.append(Default(name, *choice))
    return found


# Each takes the facts and what is known already; None leaves the choice to the recipe.


def size(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    own = entry(known["model"])["input_size"] if "model" in known else None
    if own is not None and own <= SMALL:
        return own, "the network's own"
    side, median = facts.side, f"the images have {facts.size[1]}×{facts.size[0]} pixels in the median"
    if side <= SMALL:
        return (28 if facts.grey and side <= 28 else SMALL), median
    return (64, median) if side < LARGE else (LARGE, f"{median}; more of them cost more than they tell")


def model(facts: Facts, known: Mapping[str, Any]) -> Reason:
    if known["size"] > SMALL:
        return "resnet18", "a residual network, for photographs"
    if facts.grey:
        return "lenet5", "small and grey images"
    many = facts.images >= MANY and known["size"] >= LEAST
    return ("airbench94", "many small images in colour") if many else ("resnet20", "small images in colour")


def options(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    if known["model"] != "resnet18" or known.get("weights"):
        return None
    if known["size"] <= 64:
        return {"stem": "small", "width": 0.25}, "small images keep their size in the first layer"
    return {"width": 0.5}, "half as many channels, a quarter of the work, are enough for some thousand images"


def epochs(facts: Facts, known: Mapping[str, Any]) -> Reason:
    number = min(max(round(SEEN / max(facts.images, 1)), 15), 100)
    return number, f"{facts.images:,} images to train on, each seen so often"


def batch(facts: Facts, known: Mapping[str, Any]) -> Reason:
    power = 1 << max(facts.images // 16, 1).bit_length() - 1
    number = min(max(power, 8), 128)
    most = "at most " if known.get("patience") else ""  # some images are to validate then
    return number, f"{most}{number_of_batches(facts.images, number, FEWEST)} steps an epoch"


def optimizer(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    return ("sgd", "finds flatter minima with batch normalisation") if residual(known) else None


def lr(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    if residual(known) and known["optimizer"] == "sgd":
        rate = 0.1 * min(known["batch"], max(facts.images, 1)) / 128
        return slower(rate, known) or (rate, "0.1 for 128 images a step, in proportion")
    return own_lr(facts, known)


def own_lr(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    """A third of the optimiser's own where there are weights to keep. A name that there is not the recipe refuses."""
    name = known.get("optimizer", Recipe.optimizer)
    return slower(OPTIMIZERS[name][1], known) if name in OPTIMIZERS else None


def slower(rate: float, known: Mapping[str, Any]) -> Reason | None:
    """A third of a learning rate for a network that begins with weights, which it would forget; else None."""
    head_only = known.get("freeze") == "all" and not known.get("unfreeze_at")
    if not known.get("weights") or head_only:
        return None
    return rate / KEPT, "a third of what a network that knows nothing takes"


def weight_decay(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    if known.get("optimizer") == "muon":
        return 5e-4, "which is added to gradients, as by SGD"
    if residual(known) and known["optimizer"] == "sgd":
        return 5e-4, "as residual networks were published with"
    return None


def class_weights(facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    most, fewest = max(facts.counts), max(min(facts.counts), 1)
    if most < UNEVEN * fewest:
        return None
    if fewest < FEW:
        return "none", f"the smallest class has {fewest} of the images, too few to count as much as the others do"
    return "balanced", f"the largest class has {most} images, the smallest {fewest}"


def augment(facts: Facts, known: Mapping[str, Any]) -> Reason:
    if facts.grey and known["size"] <= SMALL:
        return PRESETS["handwriting"], "small grey images may be signs, of which the mirror image is another"
    if known["size"] <= SMALL:
        return PRESETS["light"], "small images in colour"
    return PRESETS["standard"], "photographs"


def residual(known: Mapping[str, Any]) -> bool:
    return "resnet" in known["model"]


def published(name: str, facts: Facts, known: Mapping[str, Any]) -> Reason | None:
    """What the network's own recipe says, where images are like those it was found for: its learning rates are those of
    the optimiser, in proportion to the batch."""
    network, optimizer = known.get("model"), known.get("optimizer")
    recipe = RECIPES.get(network, {}) | RATES.get((network, optimizer), {})
    if name not in recipe or facts.images < MANY or facts.grey or known["size"] > SMALL:
        return None
    if name == "eval_every" and known.get("patience"):
        return None  # which looks after every epoch
    reason = "after its author's recipes"
    if name != "lr":
        return recipe[name], reason
    rate = recipe[name] * known["batch"] / recipe["batch"]
    return slower(rate, known) or (rate, reason)


RULES: dict[str, Callable[[Facts, Mapping[str, Any]], Reason | None]] = {
    "size": size,
    "model": model,
    "options": options,
    "epochs": epochs,
    "batch": batch,
    "optimizer": optimizer,
    "lr": lr,
    "weight_decay": weight_decay,
    "class_weights": class_weights,
    "augment": augment,
}
# After what networks were published with: `airbench94` in arXiv 2404.00498, but with kernels that learn by Muon, as in
# its author's later airbench94_muon. Instead of a triangle there is half a cosine, instead of Lookahead an average.
RECIPES: dict[str | None, dict[str, Any]] = {
    "airbench94": {
        "epochs": 15,
        "batch": 1024,
        "optimizer": "muon",
        "label_smoothing": 0.2,
        "ema": 0.98,
        "augment": Augment(crop="shift", shift=1 / 16, flip="alternating"),
        "freeze": "whiten",
        "tta": "shifts",
        "eval_every": 15,  # six views of 10,000 images take half an epoch
        "precision": "auto",
    },
}
# And what goes with the optimiser. The published 1.5 of SGD with momentum 0.85 goes as far as 1.0 with 0.9.
RATES: dict[tuple[str | None, str | None], dict[str, Any]] = {
    ("airbench94", "muon"): {
        "lr": 0.25,
        "warmup": 0.1,
        "weight_decay": 1.33e-3,
        "lr_multipliers": (("*norm?.bias", 256.0), ("head.weight", 4.0)),
    },
    ("airbench94", "sgd"): {
        "lr": 1.0,
        "warmup": 0.23,
        "weight_decay": 1.33e-3,
        "lr_multipliers": (("*norm?.bias", 64.0),),
    },
}
PUBLISHED = tuple(dict.fromkeys(name for recipe in (*RECIPES.values(), *RATES.values()) for name in recipe))
IN_PROPORTION = ("sgd", "muon")  # optimisers whose learning rate is chosen for the batch
# The recipe's own defaults were found for LeNet-5 on the digits.
DIGITS: dict[str, Callable[[Facts, Mapping[str, Any]], Reason | None]] = {
    "model": lambda facts, known: ("lenet5", "the first network that read digits"),
    "size": lambda facts, known: (entry(known["model"])["input_size"], "the network's own"),
    "lr": own_lr,
}
