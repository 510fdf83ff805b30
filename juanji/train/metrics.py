"""Figures of merit, from answers that are known to be right or wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from juanji.checks import counts
from juanji.graph import Array

BINS = 15  # of confidence, as Guo et al. (2017) take


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Array:
    """How often a class (the row) was taken for a class (the column): labels and predicted (N,), (classes, classes)."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def ratios(parts: Array, wholes: Array) -> list[float | None]:
    """parts / wholes; None where there is nothing to be divided by."""
    return [float(part / whole) if whole else None for part, whole in zip(parts, wholes, strict=True)]


def mean(values: list[float | None]) -> float:
    """The mean of what is known."""
    return float(np.mean([value for value in values if value is not None]))


def wilson(right: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """From where to where a share may truly lie of which `right` of `of` trials were seen, with probability `level`.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    counts("wilson", of=of)
    z, share = NormalDist().inv_cdf((1 + level) / 2), right / of
    centre = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (centre - half) / (1 + z * z / of)), min(1.0, (centre + half) / (1 + z * z / of))


def mcnemar(first: Array, second: Array) -> float:
    """How likely two networks that are equally good would differ as much as these: McNemar's exact test, two-sided.

    first, second  (N,), whether each of the two answered each image rightly

    Only images that one of them got right and the other wrong count; if both are equally good, either is the one with
    probability ½: p = min(1, 2·Σ C(n, i)/2ⁿ, i = 0 … the smaller count), n the number of such images. Sources: Q.
    McNemar, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12 (1947); for
    classifiers, T. Dietterich, "Approximate statistical tests", Neural Computation 10 (1998).
    """
    ours, theirs = int((first & ~second).sum()), int((second & ~first).sum())
    trials = ours + theirs
    taken = np.arange(min(ours, theirs))
    # Logarithms of the terms, each from the one before: C(n, i + 1) = C(n, i)·(n − i)/(i + 1).
    steps = np.log(trials - taken) - np.log(taken + 1)
    terms = np.cumsum([-trials * math.log(2), *steps])
    return min(1.0, 2 * float(np.exp(terms).sum()))


@dataclass(frozen=True, eq=False)
class Calibration:
    """How far the network's confidence can be believed: answers in bins by their confidence, ](b − 1)/B, b/B].

    count       (B,), how many answers each bin holds
    confidence  (B,), their mean confidence; NaN for an empty bin
    accuracy    (B,), which part of them is right; NaN for an empty bin

    Source: Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017, equations 1 to 3.
    """

    count: Array
    confidence: Array
    accuracy: Array

    @classmethod
    def of(cls, confidence: Array, right: Array, bins: int = BINS) -> Calibration:
        """From the confidence (N,) in each answer, its probability, and whether it is right (N,)."""
        counts("calibration", bins=bins)
        place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
        count = np.bincount(place, minlength=bins)
        empty = np.where(count, count, np.nan)
        sums = (np.bincount(place, values, minlength=bins) for values in (confidence, right))
        return cls(count, *(total / empty for total in sums))

    @property
    def error(self) -> float:
        """The expected calibration error (ECE): Σ count/N·|accuracy − confidence|."""
        gaps = np.where(self.count, np.abs(self.accuracy - self.confidence), 0)
        return float(gaps @ self.count / self.count.sum())

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: the error, and what is in each bin that is not empty."""
        edges = np.arange(len(self.count) + 1) / len(self.count)
        rows = zip(edges, edges[1:], self.count, self.confidence, self.accuracy, strict=False)
        names = ("above", "to", "images", "confidence", "accuracy")
        bins = [dict(zip(names, map(float, row), strict=True)) for row in rows]
        bins = [{**values, "images": int(values["images"])} for values in bins if values["images"]]
        return {"error": self.error, "bins": bins}
