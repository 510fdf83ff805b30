"""A network as an estimator of scikit-learn: `ImageClassifier`.

The only file that imports scikit-learn, an extra of juanji; `jj.ImageClassifier` imports it when it is asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from juanji import models
from juanji.cell import Stateful
from juanji.checks import per_axis
from juanji.data import Augment, Dataset, Images, Jitter, Preprocessing, batches
from juanji.data.dataset import Pixels
from juanji.data.images import stretch
from juanji.data.loader import FEWEST
from juanji.engine.compiled import precision_here
from juanji.engine.platform import threads
from juanji.errors import ArgumentError, DataError, ShapeError, describe
from juanji.graph import Array
from juanji.models.network import Network
from juanji.models.registry import entry
from juanji.tensor import Tensor
from juanji.train.evaluation import predict, slices
from juanji.train.history import Epoch
from juanji.train.recipe import Objective, Recipe
from juanji.train.stepper import Stepper
from juanji.train.trainer import fit

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ArgumentError(
        "ImageClassifier needs the package scikit-learn, 1.6 or newer",
        rule="an extra of juanji, because few programs want it",
        fix="pip install scikit-learn",
    ) from None

NAME = "ImageClassifier"


@dataclass(frozen=True)
class Weighted(Recipe):
    """A recipe whose loss counts classes by their weights."""

    weights: tuple[float, ...] = ()

    def make_loss(self, images: Sequence[int] = ()) -> Objective:
        return Objective(self.label_smoothing, np.array(self.weights, np.float32))


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A convolutional network that scikit-learn can fit, search, validate and put into pipelines::

        from sklearn.model_selection import cross_val_score

        cross_val_score(jj.ImageClassifier("lenet5", epochs=10, image_size=28), x, y)

    model          a name from `juanji.models.list("classification")`
    options        of the network, as `juanji.models.create` takes them: {"width": 0.5}
    epochs, batch, optimizer, lr, warmup, weight_decay, label_smoothing, precision   as in `juanji.train.Recipe`
    augment        random changes of the training images, a `juanji.data.Augment`, what
                   `Augment.of` reads, such as "light", or a `Jitter`; None for none
    image_shape    (H, W) or (H, W, C) of images that come as rows of features; one number may be −1. By default a row
                   is a square image, grey or else of three colours, or else one line of grey pixels
    image_size     height and width, or (H, W), to bring all images to; by default arrays keep their size, and image
                   files get the network's own
    class_weight   None; "balanced", which weighs each class by 1/its share of the images; or {label: weight}
    random_state   a number, a RandomState or None: initial weights, order and changes of the images follow from it
    verbose        1 prints a line for each epoch

    X, wherever it is taken, is one of

    - an array of images (N, H, W, C) or (N, H, W), or (N, features), of any numeric dtype. Bytes are taken as 0…255;
      of other numbers those in the training data decide what is black and what is white, and what lies outside is cut
      off.
    - a list of paths of image files. They become grey if no training image has colour.

    y holds labels of any type that scikit-learn takes: numbers, strings.

    Fitted, it has `classes_`, `n_features_in_` (H·W·C), `model_` (the network), `preprocessing_`, `history_` (a
    `juanji.train.Epoch` for each epoch) and `n_iter_`. It can be pickled: as the network's configuration and plain
    arrays.

    Raises what scikit-learn's estimators raise for arrays that do not fit, and JuanjiErrors, most of which are
    ValueErrors too, for options out of range and images that the network does not take.
    """

    def __init__(
        self,
        model: str = "lenet5",
        *,
        options: Mapping[str, Any] | None = None,
        epochs: int = Recipe.epochs,
        batch: int = Recipe.batch,
        optimizer: str = Recipe.optimizer,
        lr: float | None = None,
        warmup: float = Recipe.warmup,
        weight_decay: float = Recipe.weight_decay,
        label_smoothing: float = Recipe.label_smoothing,
        precision: str = Recipe.precision,
        augment: Augment | Jitter | str | None = None,
        image_shape: Sequence[int] | None = None,
        image_size: int | tuple[int, int] | None = None,
        class_weight: Any = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.options = options
        self.epochs = epochs
        self.batch = batch
        self.optimizer = optimizer
        self.lr = lr
        self.warmup = warmup
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.precision = precision
        self.augment = augment
        self.image_shape = image_shape
        self.image_size = image_size
        self.class_weight = class_weight
        self.random_state = random_state
        self.verbose = verbose

    # Training

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network on images X (N, …) with labels y (N,). Returns the estimator."""
        images = self._counted(self._begin(X, y))
        dataset = Dataset("X", images, images[:0], tuple(map(str, self.classes_)))
        recipe = self._recipe()
        self.history_: list[Epoch] = []
        for row in fit(self.model_, dataset, recipe, preprocessing=self.preprocessing_):
            self.history_.append(row)
            if self.verbose:
                print(
                    f"epoch {row.epoch}/{recipe.epochs}  loss {row.train_loss:.4f}  accuracy {row.train_accuracy:.2%}"
                )
        self.n_iter_ = len(self.history_)
        self.model_.eval()
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train once through images X (N, …) with labels y (N,), at the full learning rate. Returns the estimator.

        The first call, also one after `fit`, begins a new network; others go on with it and with what the optimiser
        remembers. What is standardised by, and what is black and white, stays as in the first call.

        classes  all labels that may come, which the first call has to know; by default those in its y
        """
        if hasattr(self, "_stepper"):
            images = Images(self._pixels(X), self._labels(y, len(X)))
        else:
            images = self._begin(X, y, classes)
            self._stepper = self._make_stepper()
            self.n_iter_ = 0
        self.n_iter_ += 1
        images = self._counted(images)
        self.model_.train()
        change, classes = as_augment(self.augment), len(self.classes_)
        options = {"seed": self._seed, "epoch": self.n_iter_, "change": change, "classes": classes}
        for x, labels in batches(images, self.batch, fewest=FEWEST, **options):
            self._stepper.step(self.preprocessing_(x), labels, f"call {self.n_iter_} of partial_fit")
        self.model_.eval()
        return self

    def _begin(self, X: Any, y: Any, classes: Any = None) -> Images:
        """A new network, and all else that is learnt from data before training. Returns the images."""
        self.__dict__.pop("_stepper", None)
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        pixels, y = self._first_pixels(X, y)
        self.classes_ = np.unique(y if classes is None else classes)
        if len(self.classes_) < 2:
            raise DataError(
                f"{NAME}: there is only 1 class",
                received=repr(self.classes_.tolist()[0]),
                rule="two classes or more",
            )
        images = Images(pixels, self._numbers(y))
        self.preprocessing_ = Preprocessing.of(images)
        self.model_ = self._create(*images.x.shape[1:])
        if self.class_weight == "balanced" and (missing := set(self.classes_.tolist()) - set(np.unique(y).tolist())):
            raise DataError(
                f"{NAME}: classes cannot be weighed by images that have not come yet",
                received=f"class_weight='balanced', no image of {', '.join(sorted(map(repr, missing)))}",
                rule="a class weighs 1/its share of the images",
                fix="class_weight={label: weight}, or images of every class in the first partial_fit",
            )
        weights = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
        self._weights = tuple(weights.tolist())
        return images

    def _counted(self, images: Images) -> Images:
        """The images of classes that count for anything: those of weight 0 are not learnt from."""
        counts = np.asarray(self._weights)[images.y] > 0
        return images if counts.all() else images[counts]

    def _create(self, height: int, width: int, channels: int) -> Network:
        try:
            return models.create(
                self.model,
                classes=len(self.classes_),
                in_channels=channels,
                input_size=(height, width),
                seed=self._seed,
                **(self.options or {}),
            )
        except ShapeError as error:
            error.fix = error.fix.replace("input_size", "image_size")  # as it is called here
            raise

    def _recipe(self) -> Recipe:
        choices: dict[str, Any] = {
            name: getattr(self, name) for name in set(self.get_params()) & {field.name for field in fields(Recipe)}
        }
        choices |= {"augment": as_augment(self.augment), "seed": self._seed}
        return Recipe(**choices) if self.class_weight is None else Weighted(**choices, weights=self._weights)

    def _make_stepper(self) -> Stepper:
        recipe = self._recipe()
        optimizer, precision = recipe.make_optimizer(self.model_), precision_here(recipe.precision)
        return Stepper(self.model_, optimizer, recipe.make_loss(), recipe.batch, precision)

    # Prediction

    def predict_proba(self, X: Any) -> Array:
        """The probabilities (N, classes) of `classes_` for images X (N, …), float64."""
        check_is_fitted(self)
        pixels = self._pixels(X)
        images = Images(pixels, np.zeros(pixels.shape[0], np.int64))
        parts = (predict(self.model_, self.preprocessing_(images.read(part))) for part in slices(pixels.shape))
        return np.concatenate([*parts]).astype(np.float64)

    def predict(self, X: Any) -> Array:
        """The likeliest label of each image X (N, …): (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    # What comes in

    def _first_pixels(self, X: Any, y: Any) -> tuple[Pixels, Array]:
        """The images and labels that are trained on first: they decide what images are like from now on."""
        if is_paths(X):
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit
            size = self._size() or per_axis(self.model, "input_size", entry(self.model)["input_size"], 2)
            self._reading = Reading.of_files(X, size)
            self.n_features_in_ = math.prod(self._reading.shape)
            pixels: Pixels = Files(X, self._reading)[:]
        else:
            rows, shape = as_rows(X)
            rows, y = validate_data(self, rows, y)
            shape = shape or shape_of(rows.shape[1], self.image_shape)
            self._reading = Reading.of_rows(rows, shape, self._size() or shape[:2])
            pixels = self._reading(rows)
        check_classification_targets(y)
        return pixels, y

    def _size(self) -> tuple[int, ...] | None:
        return None if self.image_size is None else per_axis(NAME, "image_size", self.image_size, 2, least=1)

    def _pixels(self, X: Any) -> Pixels:
        """Images like those that were trained on."""
        if is_paths(X):
            return Files(X, self._reading)
        rows, shape = as_rows(X)
        rows = validate_data(self, rows, reset=False)
        if shape not in (None, self._reading.shape):
            raise ShapeError(
                f"{NAME}: these images are not of the shape of those that were trained on",
                received=describe(shape, "HWC"),
                rule=describe(self._reading.shape, "HWC"),
            )
        return self._reading(rows)

    def _labels(self, y: Any, images: int) -> Array:
        y = column_or_1d(y, warn=True)
        check_consistent_length(y, np.empty(images))
        return self._numbers(y)

    def _numbers(self, y: Array) -> Array:
        """Labels as numbers of classes. Raises DataError for one that is no class."""
        if unknown := sorted(set(np.unique(y).tolist()) - set(self.classes_.tolist()), key=str):
            raise DataError(
                f"{NAME}: there are labels that are no classes",
                received=", ".join(map(repr, unknown)),
                rule=", ".join(map(repr, self.classes_.tolist())),
                fix="give all of them to the first partial_fit: classes=[…]",
            )
        return np.searchsorted(self.classes_, y).astype(np.int64)

    # What scikit-learn and pickle ask for

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        """The network and the optimiser as configuration and plain arrays."""
        state = {**super().__getstate__()}
        if "model_" in state:
            state["model_"] = {"config": self.model_.config, "arrays": arrays_of(self.model_)}
        if "_stepper" in state:
            state["_stepper"] = arrays_of(self._stepper.optimizer)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in state:
            self.model_ = models.create(**state["model_"]["config"]).eval()
            write_arrays(self.model_, state["model_"]["arrays"])
        if "_stepper" in state:
            self._stepper = self._make_stepper()
            write_arrays(self._stepper.optimizer, state["_stepper"])


def as_augment(changes: Augment | Jitter | str | None) -> Augment:
    if isinstance(changes, str):
        return Augment.of(changes)
    return Augment(jitter=changes) if isinstance(changes, Jitter) else changes or Augment()


def arrays_of(owner: Stateful) -> dict[str, Array]:
    return {path: np.asarray(cell.read()) for path, cell in owner.cells().items()}


def write_arrays(owner: Stateful, arrays: Mapping[str, Array]) -> None:
    for path, cell in owner.cells().items():
        cell.write(Tensor(arrays[path], cell.dtype))


# Images in the forms that scikit-learn hands on


@dataclass(frozen=True)
class Reading:
    """What images are like: the shape (H, W, C) in which they come, the numbers that are black and white, unless they
    are bytes, and the size (H, W) that they are brought to."""

    shape: tuple[int, ...]
    black: float
    white: float
    size: tuple[int, ...]

    @classmethod
    def of_rows(cls, rows: Array, shape: tuple[int, ...], size: tuple[int, ...]) -> Reading:
        """By the images (N, H·W·C) that are trained on."""
        black, white = (0.0, 255.0) if rows.dtype == np.uint8 else (float(rows.min()), float(rows.max()))
        within = rows.dtype.kind == "f" and black >= 0 and white <= 1  # as images in 0…1 are
        black, white = (0.0, 1.0) if within else (black, white if white > black else black + 1)
        return cls(shape, black, white, size)

    @classmethod
    def of_files(cls, paths: Sequence[str], size: tuple[int, ...]) -> Reading:
        """By the image files that are trained on: grey, if none has colour."""
        colour = cls((*size, 3), 0.0, 1.0, size)
        files = Files(paths, colour)
        grey = all((x == x[..., :1]).all() for x in map(files.__getitem__, slices(files.shape)))
        return replace(colour, shape=(*size, 1)) if grey else colour

    def __call__(self, rows: Array) -> Array:
        """Images (N, H·W·C), numbers of any kind, as (N, *size, C), bytes or float32 in 0…1."""
        x = rows.reshape(-1, *self.shape)
        if x.dtype != np.uint8:
            x = np.clip((x.astype(np.float64) - self.black) / (self.white - self.black), 0, 1).astype(np.float32)
        if self.size == self.shape[:2]:
            return x
        x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x
        height, width = self.size
        return np.clip(np.stack([stretch(image, (height, width)) for image in x]), 0, 1)


@dataclass(frozen=True)
class Files:
    """Image files, which are read, as bytes (n, H, W, C), when they are asked for."""

    paths: Sequence[str]
    reading: Reading

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.paths), *self.reading.size, self.reading.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.uint8)

    def __getitem__(self, chosen: Any, /) -> Array:
        _, height, width, channels = self.shape
        plain = Preprocessing((height, width), channels, (0.0,) * channels, (1.0,) * channels)
        with ThreadPoolExecutor(threads()) as pool:
            read = pool.map(plain.read, [self.paths[i] for i in np.arange(len(self.paths))[chosen]])
            return np.stack([np.round(x * 255).astype(np.uint8) for x in read])


def is_paths(X: Any) -> bool:
    """Whether X is a list, an array or a column of paths, rather than of numbers."""
    one = isinstance(X, list | tuple) or getattr(X, "ndim", 0) == 1
    return one and len(X) > 0 and all(isinstance(path, str | os.PathLike) for path in X)


def as_rows(X: Any) -> tuple[Any, tuple[int, ...] | None]:
    """Images as scikit-learn wants them, (N, features), and their shape (H, W, C), where that is known."""
    if not hasattr(X, "ndim"):
        X = np.asarray(X)
    if X.ndim not in (3, 4):
        return X, None
    x = np.asarray(X)
    return x.reshape(len(x), math.prod(x.shape[1:])), (*x.shape[1:], 1)[:3]


def shape_of(features: int, given: Sequence[int] | None) -> tuple[int, ...]:
    """(H, W, C) of images that are rows of so many features."""
    if given is not None:
        return reshaped(features, given)
    for channels in (1, 3):
        side = math.isqrt(features // channels)
        if side * side * channels == features:
            return side, side, channels
    return 1, features, 1


def reshaped(features: int, given: Sequence[int]) -> tuple[int, ...]:
    try:
        shape = np.empty(features, bool).reshape(given).shape
    except (TypeError, ValueError):
        shape = ()
    if len(shape) not in (2, 3):
        raise ArgumentError(
            f"{NAME}: bad image_shape",
            received=f"image_shape={given!r}, {features} features",
            rule="(H, W) or (H, W, C), whose product is the number of features; one of them may be −1",
        )
    return (*shape, 1)[:3]
