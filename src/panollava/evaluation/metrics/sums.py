"""A metric as sums over its samples, so that any set of samples can be scored again without reading a text.

Each sample has one row of numbers; the rows of a set are added up, and `value` computes the score from the sums. Means
are sums and counts; corpus BLEU adds up its n-gram counts and lengths (Papineni et al. 2002, section 2.1). This is what
intervals, tests between experiments and scores per kind of query are made of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ORDERS = 4
"""Lengths of n-grams that BLEU and CIDEr count, from 1."""


@dataclass(frozen=True)
class SampleSums:
    """`per_sample` [n, k] and `value`, which maps sums [..., k] to scores [...] (NaN where there is no score)."""

    per_sample: Array
    value: Callable[[Array], Array]

    def total(self) -> float:
        """The score of all samples."""
        return float(self.value(self.per_sample.sum(axis=0)))


def means(scores: Sequence[float] | Array) -> SampleSums:
    """Of a metric that is the mean of its samples' scores [n]."""
    values = np.asarray(scores, dtype=np.float64)
    return SampleSums(np.stack([values, np.ones_like(values)], axis=1), ratio)


def ratios(parts: Sequence[tuple[float, float]]) -> SampleSums:
    """Of a metric that is one sum over another; a sample gives its part of both."""
    return SampleSums(np.asarray(parts, dtype=np.float64).reshape(-1, 2), ratio)


def ratio(sums: Array) -> Array:
    """First sum over the second; NaN where that is 0."""
    divisor = sums[..., 1]
    return np.divide(sums[..., 0], divisor, out=np.full(divisor.shape, np.nan), where=divisor != 0)


def sacrebleu_value(sums: Array) -> Array:
    """sacrebleu's BLEU-4 (exponential smoothing) / 100, at most 1, of sums [..., 10].

    The ten are length of the predictions, of the references, 4 counts of matching n-grams, 4 of all n-grams.
    """
    from sacrebleu.metrics.bleu import BLEU

    def score(counts: Array) -> float:
        length, wanted, *rest = (int(count) for count in counts)
        return float(BLEU.compute_bleu(rest[:ORDERS], rest[ORDERS:], length, wanted, smooth_method="exp").score)

    return np.minimum(np.apply_along_axis(score, -1, sums) / 100, 1.0)


def nltk_bleu_value(sums: Array) -> Array:
    """NLTK's corpus BLEU-4 with `SmoothingFunction().method1` of the same sums [..., 10]."""
    length, wanted, matches, counts = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:10]
    smoothed = np.where(matches == 0, 0.1, matches)
    return _geometric_mean(smoothed, counts) * _brevity(length, wanted) * (matches[..., 0] > 0)


def _geometric_mean(matches: Array, counts: Array) -> Array:
    """Of the precisions; 0 where an order has no n-gram or no match."""
    there = (matches > 0) & (counts > 0)
    shares = np.divide(matches, counts, out=np.ones_like(matches), where=there)
    mean: Array = np.exp(np.log(shares).mean(axis=-1)) * there.all(axis=-1)
    return mean


def _brevity(length: Array, wanted: Array) -> Array:
    """The penalty for predictions that are shorter than their references."""
    missing = 1 - np.divide(wanted, length, out=np.full(length.shape, np.inf), where=length > 0)
    penalty: Array = np.exp(np.minimum(0.0, missing))
    return penalty
