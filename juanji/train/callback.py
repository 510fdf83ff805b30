"""What may be done besides training, at the moments when it can."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from juanji.train.history import Epoch, Step

if TYPE_CHECKING:
    from juanji.train.trainer import Trainer


class Callback:
    """Base of whatever watches a training. Override what you need; the rest does nothing::

    class Losses(jj.train.Callback):
        def on_step(self, trainer, step):
            print(step.loss)

    for row in jj.train.fit(model, dataset, callbacks=[Losses()]): ...
    """

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step, of a training that is resumed too."""

    def on_step(self, trainer: Trainer, step: Step) -> None:
        """After each update."""

    def on_epoch(self, trainer: Trainer, row: Epoch) -> None:
        """After each epoch. The model holds what is to be used: averaged weights, or the best, where that is chosen."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """After a checkpoint has been written."""

    def on_end(self, trainer: Trainer) -> None:
        """After the last epoch."""
