"""Parts for data that has none: by the content of the images, so that an image is in the same part wherever it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from juanji.checks import share as check_share
from juanji.data.download import Progress, silent
from juanji.data.labelled import Samples
from juanji.data.parallel import chunks
from juanji.errors import DataError
from juanji.graph import Array
from juanji.kernels import cache

SHARE = 0.2  # held out


def digests(samples: Samples, keep: bool = True, progress: Progress = silent) -> Array:
    """A digest of the content of each image, uint64 (N,); 0 for one that cannot be read.

    Equal content has an equal digest. Different content has one too with probability 2⁻⁶⁴ for each pair.

    keep  in the cache: to find them every file has to be read
    """
    if not keep:
        return found_digests(samples, progress)
    name = cache.key("digests of images", samples.identity)
    known = cache.load(name)
    if known is None or len(known) != 8 * len(samples):
        known = found_digests(samples, progress).tobytes()
        cache.save(name, known)
    return np.frombuffer(known, np.uint64)


def found_digests(samples: Samples, progress: Progress) -> Array:
    def digest(i: int) -> int:
        try:
            content = samples.content(i)
        except DataError:
            return 0
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")

    found, done = np.zeros(len(samples), np.uint64), 0
    for part in chunks(lambda part: [digest(int(i)) for i in part], np.arange(len(samples))):
        found[done : done + len(part)] = part
        done += len(part)
        progress("comparing images", done, len(samples))
    return found


def groups(keys: Array) -> Iterator[Array]:
    """The places of equal keys, where there are several of one that is not 0."""
    order = np.argsort(keys, kind="stable")
    values = keys[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(keys) else np.zeros(0, np.int64)
    ends = np.r_[starts[1:], len(keys)]
    several = np.flatnonzero(ends - starts > 1) if len(keys) else starts
    for start, end in zip(starts[several], ends[several], strict=True):
        if values[start]:
            yield order[start:end]


def split(y: Array, digests: Array, seed: int = 0, share: float = SHARE) -> Array:
    """True (N,) for the images that are held out: in each class the share with the smallest digests, mixed with `seed`.

    y        classes (N,)
    digests  of the images' content (N,), uint64

    Whether an image is held out depends on its content and, at the edge, on how many there are in its class; not on its
    name or place. Copies of an image stay together, but for a class of nothing else; those in several classes are to
    train on unless all are held out. A class of two or more has at least one on each side, but for such copies; one
    image alone is to train on.
    """
    check_share("split", share=share)
    held = np.zeros(len(y), bool)
    mixed = mix(digests, seed)
    for label in np.unique(y):
        places = np.flatnonzero(y == label)
        held[places[smallest(mixed[places], share)]] = True
    return together(held, y, digests)


def smallest(keys: Array, share: float) -> Array:
    """The places of about that share of a class's keys: the smallest, but no copies without the others, unless there is
    nothing else, and no more than half, or than the share where that is more: copies that are most of a class stay."""
    _, group, counts = np.unique(keys, return_inverse=True, return_counts=True)
    wanted = held_out(len(keys), share)
    most = max(wanted, len(keys) // 2)
    order = np.lexsort((keys, counts[group] > most))
    edges = np.flatnonzero(np.diff(group[order])) + 1
    edges = edges[edges <= most]
    return order[: edges[np.abs(edges - wanted).argmin()] if len(edges) else wanted]


def together(held: Array, y: Array, keys: Array) -> Array:
    """`held`, but of copies that lie in several classes only where all of them are: no class loses what it has to train
    on, and the order does not matter."""
    for places in groups(keys):
        if (y[places] != y[places[0]]).any():
            held[places] = held[places].all()
    return held


def held_out(count: int, share: float = SHARE) -> int:
    """How many of so many images of a class are held out, but for copies."""
    return min(max(round(share * count), 1), count - 1) if count > 1 else 0


def mix(digests: Array, seed: int) -> Array:
    """The digests in another order for each seed: the mixing of splitmix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    key = np.frombuffer(hashlib.blake2b(f"split/{seed}".encode(), digest_size=8).digest(), "<u8")
    z = digests.astype(np.uint64) ^ key
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    mixed: Array = z ^ (z >> np.uint64(31))
    return mixed
