"""How sure a score is, and whether two differ: intervals and paired tests by resampling images.

Computes intervals, differences and p values from metrics as sums over samples and the image of each sample. The
resampling unit is an image with all its questions and references, never a row: answers about one picture stand or fall
together, and rows drawn singly would make intervals too narrow. Seeded: equal inputs give equal numbers.

Intervals: percentile bootstrap (Efron and Tibshirani 1993, chapter 13). Test: paired approximate randomization (Noreen
1989; Riezler and Maxwell 2005), two-sided: if both systems were alike, exchanging their answers about an image would
change nothing. CIDEr's document frequencies stay those of the whole set, so that a sample keeps its score.

Few panoramas drawn again vary too little: a percentile interval of them holds the true score less often than 95 times
in 100. From ten on it is near enough; below, a note says so (`too_few`); below six there is none.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from panollava.evaluation.metrics.sums import Array, SampleSums

CONFIDENCE = 0.95
SEED = 0
_CELLS = 2_000_000  # of one block of weights [draws, images]: 16 MB
_LEAST_SCORED = 0.95  # share of draws that must have a score
LEAST_UNITS, ENOUGH_UNITS = 6, 10


@dataclass(frozen=True)
class Difference:
    """`value` is the second score minus the first; `interval` and `p` are None where there is nothing to draw from.

    NaN where one of the two is no score.
    """

    value: float
    interval: tuple[float, float] | None
    p: float | None


def units_of(rows: Sequence[Mapping[str, str]]) -> list[int]:
    """The unit (an image, counted from 0) that each sample belongs to; a row without an image is one by itself."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(row.get("image_path") or ("row", i), len(numbers)) for i, row in enumerate(rows)]


def too_few(units: int, what: str = "panoramas") -> str | None:
    """What is to be known of intervals made of so few units, None where there are enough of them."""
    if units >= ENOUGH_UNITS:
        return None
    if units < LEAST_UNITS:
        counted = f"{units} {what.removesuffix('s') if units == 1 else what}"
        return f"no intervals: the test set has {counted}, they need at least {LEAST_UNITS}"
    return f"intervals of {units} {what} are too narrow: 95 % needs at least {ENOUGH_UNITS}"


def interval_of(samples: SampleSums, units: Sequence[int], draws: int) -> tuple[float, float] | None:
    """The 95 % interval of a score; None with fewer than six units, or where too many draws have no score."""
    sums = by_unit(samples, units)
    if len(sums) < LEAST_UNITS or draws < 1:
        return None
    return _interval(np.concatenate([samples.value(weights @ sums) for weights in _draws(len(sums), draws)]))


def difference_of(
    first: SampleSums, second: SampleSums, units: Sequence[int], draws: int, test: bool = True
) -> Difference:
    """Compare two systems that answered the same samples, in the same order; without `test` there is no p.

    The interval needs six units as any other; p knows itself how little few units can show.
    """
    one, other = by_unit(first, units), by_unit(second, units)
    value = float(second.value(other.sum(axis=0)) - first.value(one.sum(axis=0)))
    if len(one) < 2 or draws < 1:
        return Difference(value, None, None)
    p = _p_value(value, one, other, first, second, draws) if test else None
    if len(one) < LEAST_UNITS:
        return Difference(value, None, p)
    drawn = [second.value(weights @ other) - first.value(weights @ one) for weights in _draws(len(one), draws)]
    return Difference(value, _interval(np.concatenate(drawn)), p)


def by_unit(samples: SampleSums, units: Sequence[int]) -> Array:
    """The sums of each unit's samples [units, k]."""
    found = np.zeros((max(units) + 1, samples.per_sample.shape[1]))
    np.add.at(found, np.asarray(units), samples.per_sample)
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) correction: p values of several comparisons as if each had been the only one."""
    adjusted = [0.0] * len(p_values)
    so_far = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = so_far
    return adjusted


def _p_value(value: float, one: Array, other: Array, first: SampleSums, second: SampleSums, draws: int) -> float:
    """Share of exchanges of answers that give a difference as large; the one that was observed counts too."""
    rng, found, done = np.random.default_rng(SEED), 0, 0
    step, both = max(1, _CELLS // len(one)), one + other
    while done < draws:
        exchanged = rng.integers(0, 2, size=(min(step, draws - done), len(one))).astype(np.float64)
        first_sums = one.sum(axis=0) + exchanged @ (other - one)
        differences = second.value(both.sum(axis=0) - first_sums) - first.value(first_sums)
        found += int(np.count_nonzero(~(np.abs(differences) < abs(value) - 1e-12)))
        done += len(exchanged)
    return (found + 1) / (draws + 1)


def _draws(units: int, draws: int) -> Iterator[Array]:
    """How often each unit is drawn [draws, units], with replacement, in blocks."""
    rng, step = np.random.default_rng(SEED), max(1, _CELLS // units)
    for start in range(0, draws, step):
        count = min(step, draws - start)
        drawn = rng.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        yield np.bincount(drawn.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)


def _interval(scores: Array) -> tuple[float, float] | None:
    scored = scores[np.isfinite(scores)]
    if len(scored) < _LEAST_SCORED * len(scores):
        return None
    low, high = np.quantile(scored, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
