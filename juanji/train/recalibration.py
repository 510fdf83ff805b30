"""Running statistics of batch normalisation for weights that no batch has gone through, such as averaged ones."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from juanji.cell import Cell
from juanji.engine.compiled import Compiled
from juanji.graph import Array
from juanji.nn.module import Module
from juanji.nn.norm import BatchNormNd
from juanji.tensor import Tensor
from juanji.train.stepper import restore
from juanji.train.threads import one_thread

STATISTICS = ("running_mean", "running_var")


def normalisations(model: Module) -> list[BatchNormNd]:
    """The layers that keep running statistics and move them, which those in evaluation mode (frozen ones) do not."""
    layers = (module for module in model.modules().values() if isinstance(module, BatchNormNd))
    return [layer for layer in layers if layer.track_running_stats and layer.training]


class Recalibration:
    """Gives every batch normalisation the mean of its statistics over some batches.

    Source: Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018, §3.2.
    """

    def __init__(self, model: Module, precision: str = "float32") -> None:
        self.model = model
        self.run = Compiled(model, precision=precision)  # its plans are made while the momentum is 1

    def __call__(self, images: Iterable[Array]) -> None:
        """Over batches x (N, H, W, C), standardised. Everything else that the network holds stays as it is.

        Without batch normalisation in training mode no image is asked for.
        """
        layers = normalisations(self.model)
        if not layers:
            return
        kept = {cell: cell.read() for cell in self.model.cells().values() if cell.kind != "parameter"}
        momenta = [layer.momentum for layer in layers]
        try:
            for layer in layers:
                layer.momentum = 1.0  # running statistics become those of the batch
            means = self.means([layer._cells[name] for layer in layers for name in STATISTICS], images)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
            restore(kept)
        restore(means)

    def means(self, statistics: list[Cell], images: Iterable[Array]) -> dict[Cell, Tensor]:
        sums, batches = dict.fromkeys(statistics, np.zeros(())), 0
        with one_thread():
            for x in images:
                self.run(Tensor(x))
                sums, batches = {cell: total + cell.read().array for cell, total in sums.items()}, batches + 1
        return {cell: Tensor(total / batches, cell.dtype) for cell, total in sums.items()}
