"""How the tensors of a weight file fit the cells of a model; and what to do about those that do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cache

import numpy as np

from juanji import models
from juanji.cell import Cell, Stateful
from juanji.checks import same_names
from juanji.errors import WeightsError
from juanji.graph import Graph
from juanji.interop.contents import Contents, naming
from juanji.interop.torchlayout import Layout, as_they_lie, for_other_images, layouts
from juanji.interop.torchnames import AUXILIARY, UNUSED, matched
from juanji.nn import Conv1d, Conv2d, Conv3d, Module
from juanji.tensor import Tensor

HEAD = "head=False leaves a classifier for other classes out"
STEM = "adapt_channels=True sums or repeats the first kernels for images of other channels"


class Fit:
    """How the tensors of a file fit some cells of a model, by path.

    places  how each cell lies in the file
    names   in the file, of each of its tensors by the path in the model
    """

    def __init__(
        self,
        model: Stateful,
        cells: Mapping[str, Cell],
        source: Contents,
        places: Mapping[str, Layout],
        names: Mapping[str, str],
    ) -> None:
        self.model, self.cells, self.source = model, cells, source
        self.places, self.names = dict(places), names

    def misfit(self, path: str) -> str:
        """How a tensor differs from the cell of its name; "" for not at all."""
        cell, place, tensor = self.cells[path], self.places[path], self.source.tensors[self.names[path]]
        if place.fits(tensor.shape) and tensor.kind == cell.dtype.kind:
            return ""
        name = "" if self.names[path] == path else f" ({self.names[path]} in the file)"
        return f"misfitting {path}{name} {tensor.dtype}{tensor.shape}, the model's {cell.dtype}{place.shape}"

    def holds(self, paths: Collection[str]) -> bool:
        """Whether the file has tensors that fit for all of them."""
        return all(path in self.names and not self.misfit(path) for path in paths)

    def has_same_names(self, left: Collection[str] = ()) -> bool:
        """Whether file and model have the same names, but for those `left` out."""
        return not (self.cells.keys() ^ self.names.keys()).difference(left)

    def fits(self, left: Collection[str] = ()) -> bool:
        """Whether the file has a tensor that fits for every cell, and no other, but for those `left` out."""
        return self.has_same_names(left) and self.holds(self.cells.keys() - set(left))

    def check(self, left: Collection[str] = (), remedies: Mapping[str, Collection[str]] | None = None) -> None:
        """WeightsError, with the differences and what to do about them, unless all but the paths `left` out fit.

        remedies  what can be said to the function that reads the file, and the paths that need not fit then
        """
        with naming(self.source.path):
            same_names(
                WeightsError,
                f"the weights do not fit {self.model.class_name}",
                {path: self.places[path].shape for path in self.cells if path not in left},
                {path: self.source.tensors[name].shape for path, name in self.names.items() if path not in left},
                misfit=self.misfit,
                fix=lambda: self.advice(left, remedies or {}),
            )

    def advice(self, left: Collection[str], remedies: Mapping[str, Collection[str]]) -> str:
        """What to do about a file that does not fit."""
        for fix, paths in remedies.items():
            if self.fits({*left, *paths}):
                return fix
        if self.fits({*left, *(path for paths in remedies.values() for path in paths)}):
            return "; ".join(remedies)
        if self.has_same_names(left):
            return "the network as it was saved: classes, in_channels, input_size and options decide on the shapes"
        return nearest(self.source)

    def value(self, path: str) -> Tensor:
        """What the cell is to hold. WeightsError for numbers that are too large for its dtype."""
        array, dtype = self.source.read(self.names[path]), self.cells[path].dtype
        with naming(self.source.path), np.errstate(over="raise", invalid="ignore"):
            return Tensor(np.asarray(self.places[path].ours(array), dtype, order="C"), dtype)

    # Images of another number of channels

    def other_images(self) -> dict[str, Layout]:
        """The layout of the first convolution's weight, by its path, if the file's differs in nothing but the images'
        channels; else nothing."""
        path = first_kernels(self.model)
        if path not in self.names or path not in self.cells:
            return {}
        place = for_other_images(self.places[path], self.source.tensors[self.names[path]].shape)
        return {} if place is None else {path: place}

    def adapt(self) -> tuple[str, ...]:
        """Let the first convolution take what is for other images. The paths of what is adapted, none or one."""
        places = self.other_images()
        self.places |= places
        return tuple(places)


def first_kernels(model: Stateful) -> str:
    """The path of the weight of the first convolution in a model, "" for none."""
    found = (path for path, layer in model.walk() if isinstance(layer, Conv1d | Conv2d | Conv3d) and layer.groups == 1)
    path = next(found, None)
    return "" if path is None else f"{path}.weight".removeprefix(".")


# Which network a file is of


def fit_of(model: Module, source: Contents, graphs: Sequence[Graph] = ()) -> Fit:
    """How a file of any program fits a model, names translated; `graphs` as for `layouts`."""
    cells = {path: cell for path, cell in model.cells("parameter", "buffer").items() if not UNUSED.search(path)}
    places = as_they_lie(model) if source.own else layouts(model, graphs)
    with naming(source.path):
        return Fit(model, cells, source, places, matched(source.tensors, cells))


@cache
def networks() -> dict[str, Module]:
    """Juanji's networks by name: their cells are never read, so they stay empty."""
    return {name: models.create(name) for name in models.MODELS}


def nearest(source: Contents) -> str:
    """What to do about a file whose names are not the model's: the network it is of, if it is one of juanji's."""
    alike = {}
    for name, network in networks().items():
        with suppress(WeightsError):  # where two names of the file would be one of that network's
            fit = fit_of(network, source)
            if fit.has_same_names(left_out(fit)):
                alike[name] = fit
    for name, fit in alike.items():
        if fit.fits({*left_out(fit), *fit.adapt()}):
            return f"this is a file of {name}: models.create({name!r}), or --model {name}"
    if alike:
        return f"the names are those of {' or '.join(alike)}, the shapes those of other options, or images"
    return "the network that was saved: `juanji models` lists those with names; one of your own needs the same names"


def left_out(fit: Fit) -> set[str]:
    """What may differ between two files of a network: its classifiers, and the parts that only training uses."""
    heads = tuple(f"{path}." for path in getattr(fit.model, "heads", ()))
    return {path for path in {*fit.cells, *fit.names} if path.startswith(heads) or AUXILIARY.search(path)}
