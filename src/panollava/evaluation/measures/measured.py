"""What a measure found: scores, the same for shuffled pictures, and the samples they are made of. No torch.

A job writes it as JSON; `compute_metrics` reads it back and puts the scores that `evaluation.extra` asks for into
metrics.json, with intervals by image like those of the other metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.result import MetricResult
from panollava.evaluation.metrics.sums import Array, SampleSums, ratio
from panollava.evaluation.protocols import KEY
from panollava.evaluation.resampling import interval_of, units_of
from panollava.evaluation.score import ScoreReport
from panollava.files import read_json, write_json
from panollava.settings.choices import JUDGE_NAMES

# The columns of `samples` whose sums' quotient the score is (None: their number); of perplexity e to its power.
_COLUMNS: dict[str, tuple[str, str | None]] = {
    "perplexity": ("nll", "tokens"),
    "overlap_consistency": ("overlap_consistency", None),
    "dino_similarity": ("dino_similarity", None),
    "yaw_equivariance": ("yaw_equivariance", None),
    "yaw_agreement": ("yaw_agreement", None),
}
OF_PICTURES = ("overlap_consistency", "dino_similarity")
"""Scores of pictures, whatever is asked about them."""
EXTRA = tuple(_COLUMNS)
"""The scores' keys in `evaluation.extra` and metrics.json, in the order of the table."""
JUDGED = JUDGE_NAMES[:2]
"""The scores of `evaluation.judge`'s models. Their agreement is reported beside them, and is no sum over samples."""
_COLUMNS |= {key: (key, f"{key}_scored") for key in JUDGED}


@dataclass(frozen=True)
class Measured:
    """`metrics` and `blind` have the same keys. `samples` are the measurements, one row for each question or picture,
    all with the same columns, `image_path` among them. `details` is for plots and the curious. `text_only` is for
    measures of answers, which know that control too."""

    metrics: dict[str, MetricResult]
    blind: dict[str, float | None]
    samples: list[dict[str, Any]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    text_only: dict[str, float | None] | None = None

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Write it atomically, the samples by column."""
        columns = {name: [row[name] for row in self.samples] for name in (self.samples[0] if self.samples else ())}
        document = {
            "metrics": {key: result.to_json() for key, result in self.metrics.items()},
            "blind": self.blind,
            **({} if self.text_only is None else {"text_only": self.text_only}),
            "details": self.details,
            "samples": columns,
            "provenance": dict(provenance),
        }
        write_json(path, document)

    @classmethod
    def read(cls, path: str | Path) -> Measured:
        """What `write` wrote. Raises EvaluationError for any other file."""
        try:
            document = read_json(path)
            columns = document["samples"]
            rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            metrics = {key: MetricResult.from_json(found) for key, found in document["metrics"].items()}
            return cls(metrics, document["blind"], rows, document["details"], document.get("text_only"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"{path} is not what a measure writes ({type(error).__name__}: {error}). Remove it and run the same "
                "command again."
            ) from error

    def result(self, key: str, draws: int) -> MetricResult:
        """The score under `key`, with an interval by image where `draws` asks for one."""
        result = self.metrics[key]
        if result.value is None or not draws or not self.is_sum(key):
            return result
        return replace(result, interval=interval_of(self.sums(key), units_of(self.samples), draws))

    def is_sum(self, key: str) -> bool:
        """Whether the score under `key` is made of sums over samples, and so has an interval and can be tested."""
        return key in _COLUMNS

    def sums(self, key: str) -> SampleSums:
        """The score as sums over `samples`, for intervals and tests."""
        above, below = _COLUMNS[key]
        parts = [(row[above], 1.0 if below is None else row[below]) for row in self.samples]
        value = exp_ratio if key == "perplexity" else ratio
        return SampleSums(np.asarray(parts, dtype=np.float64).reshape(-1, 2), value)

    def aligned(self, key: str, rows: Sequence[Mapping[str, str]]) -> SampleSums:
        """The same sums by scored sample: a measurement is shared out evenly among the rows that it is about.

        Measurements of pictures belong to all questions about the picture. Rows without one add nothing.
        """
        names = KEY if self.samples and KEY[1] in self.samples[0] else KEY[:1]
        places: dict[tuple[str, ...], list[int]] = {}
        for index, row in enumerate(rows):
            places.setdefault(tuple(row.get(name, "") for name in names), []).append(index)
        found = np.zeros((len(rows), 2))
        sums = self.sums(key)
        for one, parts in zip(self.samples, sums.per_sample, strict=True):
            about = places.get(tuple(one[name] for name in names), [])
            found[about] += parts / max(1, len(about))
        return SampleSums(found, sums.value)


def with_measures(report: ScoreReport, extra: Sequence[str], measured: Iterable[Measured], draws: int) -> ScoreReport:
    """The report with the scores of `extra` that were measured, and those of judges.

    Raises EvaluationError where a key is taken.
    """
    several = list(measured)
    found = {key: one for one in several for key in one.metrics}
    keys = [key for key in EXTRA if key in extra and key in found]
    keys += [key for key in JUDGE_NAMES if key in found]
    if taken := [key for key in keys if key in report.metrics]:
        raise EvaluationError(f"{taken[0]} is measured, and a custom metric has the same key: rename the latter.")
    metrics = {**report.metrics, **{key: found[key].result(key, draws) for key in keys}}
    blind = None if report.blind is None else {**report.blind, **{key: found[key].blind[key] for key in keys}}
    text_only = report.text_only
    if text_only is not None:
        text_only = {**text_only, **{key: (found[key].text_only or {}).get(key) for key in keys}}
    unjudged = [one.details["num_unjudged"] for one in several if "num_unjudged" in one.details]
    num_unjudged = sum(unjudged) if unjudged else None
    return replace(report, metrics=metrics, blind=blind, text_only=text_only, num_unjudged=num_unjudged)


def without_value(about: Mapping[str, MetricResult], reason: str) -> Measured:
    """No value under any key of `about`, which says scale and origin, for one reason."""
    metrics = {key: replace(result, value=None, reason=" ".join(reason.split())) for key, result in about.items()}
    return Measured(metrics, dict.fromkeys(metrics))


def exp_ratio(sums: Array) -> Array:
    """e to the power of the first sum over the second; inf where that is beyond all numbers."""
    with np.errstate(over="ignore"):
        value: Array = np.exp(ratio(sums))
    return value
