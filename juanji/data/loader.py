"""Batches of images, prepared by threads while the network is busy with those before."""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from juanji import random
from juanji.checks import counts
from juanji.data.augment import Augment
from juanji.data.dataset import Images
from juanji.data.preparation import Batch, Change, Preparation
from juanji.data.preprocessing import Preprocessing
from juanji.engine import platform
from juanji.errors import ArgumentError, DataError
from juanji.graph import Array

FEWEST = 2  # images of a training's last step: one has no variance, which batch normalisation divides by
THREADS = 4  # at most: each holds a batch, and the network wants the processors too


class Loader(Iterator[Batch]):
    """Goes once through parts of the data; a few parts ahead are being prepared, and never more.

    waited  seconds that the consumer has spent waiting for a batch

    An exception of the preparation arrives at the consumer, in its turn. Threads begin with the first batch and end
    with the last, at `close`, or when the loader is let go of; so a loop may be left at any time.
    """

    def __init__(self, prepare: Callable[[slice], Batch], parts: Iterable[slice], threads: int) -> None:
        self.waited = 0.0
        self.prepare, self.parts = prepare, iter(parts)
        self.pool = ThreadPoolExecutor(threads, "juanji-loader")
        self.ahead = threads + 1
        self.pending: deque[Future[Batch]] = deque()
        # Nothing is waited for, as the garbage collector may call this anywhere.
        self.finalizer = weakref.finalize(self, self.pool.shutdown, wait=False, cancel_futures=True)

    def __next__(self) -> Batch:
        while len(self.pending) < self.ahead and (part := next(self.parts, None)) is not None:
            self.pending.append(self.pool.submit(self.prepare, part))
        if not self.pending:
            self.close()
            raise StopIteration
        start = time.perf_counter()
        try:
            return self.pending.popleft().result()
        except BaseException:
            self.close()
            raise
        finally:
            self.waited += time.perf_counter() - start

    def close(self) -> None:
        """Stop: what was being prepared is finished and let go of, and the threads have ended."""
        self.parts = iter(())
        self.pending.clear()
        self.finalizer.detach()
        self.pool.shutdown(wait=True, cancel_futures=True)


def batches(
    images: Images,
    size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    change: Augment | Change | str | None = None,
    start: int = 0,
    fewest: int = 1,
    preprocessing: Preprocessing | None = None,
    classes: int | None = None,
    threads: int | None = None,
) -> Loader:
    """Go through the images once: x (n, H, W, C) in 0…1 and y (n,) with n = size, the last batch smaller where need be.

    seed, epoch    fix the order and the changes, and nothing else does: there is no hidden generator
    change         an `Augment`, or what `Augment.of` reads; or a function, such as `Jitter`: `(x, draws)` returns x
                   changed, by numbers `draws` (n, 8) in [0, 1) that belong to each image and epoch, whatever the order
    start          how many batches to leave out: those that follow are the same as ever
    fewest         fewer images than these that are left over at the end make no batch, unless they are all
    preprocessing  x comes in its size and standardised, as by `preprocessing(x)`; by default in the size the images
                   have, in 0…1
    classes        how many there are, which has to be known where `change` mixes images; y is then (n, classes) of
                   float32
    threads        how many prepare the next batches; by default 4, or as many as there are processors. `images.x` is
                   read, and a function called, by all of them at once

    Returns an iterator that says how long it was waited for, `Loader`. Raises, before the first batch is asked for,
    ArgumentError for a number under 1 and for a start beyond the end, UnknownNameError for a change that is none,
    DataError for no images and for labels that are none of the classes, ShapeError for images that the change cannot be
    made to.
    """
    counts("batches", size=size, fewest=fewest, threads=1 if threads is None else threads)
    if not len(images):
        raise DataError("the dataset is empty", received="no image", rule="at least one")
    count = number_of_batches(len(images), size, fewest)
    if not 0 <= start <= count:
        raise ArgumentError(
            "batches: bad start", received=f"start={start}", rule=f"0 to {count}, the number of batches"
        )
    order = epoch_order(len(images), seed, epoch) if shuffle else np.arange(len(images))
    change = Augment.of(change) if isinstance(change, str) else change
    prepare = Preparation(images, order, seed, epoch, change, preprocessing, classes)
    parts = (slice(i * size, (i + 1) * size) for i in range(start, count))
    return Loader(prepare, parts, threads or min(THREADS, platform.threads()))


def number_of_batches(images: int, size: int, fewest: int = 1) -> int:
    """How many batches so many images make, as `batches` has them."""
    whole, left = divmod(images, size)
    return whole + (left >= fewest) or 1


def epoch_order(count: int, seed: int, epoch: int) -> Array:
    """In which order an epoch goes through so many images."""
    return random.permutation(random.state(seed, "data/order", epoch), count)
