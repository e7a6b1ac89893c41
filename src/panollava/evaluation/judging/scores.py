"""From judges' replies to scores of metrics.json: each judge's mean, its controls, and whether two judges agree.

The mean is that of the replies that hold a score; those that hold none are counted (`num_unjudged`), never replaced.
An empty answer scores 0 without being asked about, as with every other metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from panollava.evaluation.judging.prompt import Request
from panollava.evaluation.judging.reading import read_score
from panollava.evaluation.measures.measured import JUDGED, Measured
from panollava.evaluation.metrics.result import MetricResult
from panollava.evaluation.protocols import KEY, ScoredTexts
from panollava.extras import install
from panollava.settings.choices import JUDGE_NAMES
from panollava.versions import package_version

_SCALE = "0-100"
_AGREEMENT = JUDGE_NAMES[2:]
_EXTRA = f"{install('judge')}, then --forcerun judge"


@dataclass(frozen=True)
class Judged:
    """One judge's replies: `replies[name][i]` to answer i of `predictions`, `blind` or `text_only`.

    A reply is None where the answer is empty, and where the judge could not be asked (`errors` says why).
    """

    signature: str
    replies: Mapping[str, Sequence[str | None]]
    errors: Mapping[str, int]


def scores_of(requests: Sequence[Request], replies: Sequence[str | None]) -> list[float | None]:
    """The score of each answer; None where the reply holds none."""
    return [
        0.0 if not request.answer else None if reply is None else read_score(reply)
        for request, reply in zip(requests, replies, strict=True)
    ]


def measured(scored: ScoredTexts, requests: Mapping[str, Sequence[Request]], judges: Sequence[Judged]) -> Measured:
    """The scores of one judge or two as `compute_metrics` reads them."""
    metrics: dict[str, MetricResult] = {}
    controls: dict[str, dict[str, float | None]] = {name: {} for name in ("blind", "text_only") if name in requests}
    samples: list[dict[str, Any]] = [{name: row.get(name, "") for name in KEY} for row in scored.rows]
    columns, unjudged = [], 0
    for key, judge in zip(JUDGED, judges, strict=False):
        found = {name: scores_of(asked, judge.replies[name]) for name, asked in requests.items()}
        own = found["predictions"]
        columns.append(own)
        unjudged += own.count(None)
        metrics[key] = _mean(own, judge)
        for name, values in controls.items():
            values[key] = _mean(found[name], judge).value
        for sample, value, reply in zip(samples, own, judge.replies["predictions"], strict=True):
            sample |= {key: value or 0.0, f"{key}_scored": float(value is not None), f"{key}_reply": reply}
    if len(columns) == 2:
        metrics |= agreement(columns[0], columns[1])
    for values in controls.values():
        values |= {key: None for key in metrics if key not in values}
    return Measured(
        metrics,
        controls.get("blind") or dict.fromkeys(metrics),
        samples,
        {"num_unjudged": unjudged, "errors": {key: dict(one.errors) for key, one in zip(JUDGED, judges, strict=False)}},
        controls.get("text_only"),
    )


def agreement(one: Sequence[float | None], other: Sequence[float | None]) -> dict[str, MetricResult]:
    """Spearman's rank correlation and Cohen's kappa, weighted by the square of the difference, of two judges' scores.

    Over the answers that both scored; a value is None, with the reason, where it does not exist.
    """
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    spearman = _result("scipy", "Spearman's rank correlation of two judges' scores")
    kappa = _result("scikit-learn", "Cohen's kappa of two judges' whole scores, quadratic weights")
    if len(pairs) < 2:
        why = f"both judges scored {len(pairs)} answers: there is nothing to compare"
        return dict(zip(_AGREEMENT, (spearman(None, why), kappa(None, why)), strict=True))
    if len(set(first)) == 1 or len(set(second)) == 1:
        why = "a judge gave every answer the same score"
        return dict(zip(_AGREEMENT, (spearman(None, why), kappa(None, why)), strict=True))
    from scipy.stats import spearmanr

    results = [spearman(float(spearmanr(first, second).statistic), None)]
    try:
        from sklearn.metrics import cohen_kappa_score
    except ImportError:
        results.append(kappa(None, f"scikit-learn is not installed: {_EXTRA}"))
    else:
        whole = [[round(value) for value in values] for values in (first, second)]
        value = float(cohen_kappa_score(*whole, labels=range(101), weights="quadratic"))
        results.append(
            kappa(value, None) if math.isfinite(value) else kappa(None, "it is not defined for these scores")
        )
    return dict(zip(_AGREEMENT, results, strict=True))


def _result(library: str, signature: str) -> Any:
    def made(value: float | None, reason: str | None) -> MetricResult:
        return MetricResult(value, "-1 to 1", library, package_version(library), signature, reason)

    return made


def _mean(values: Sequence[float | None], judge: Judged) -> MetricResult:
    there = [value for value in values if value is not None]
    reason = None if there else f"none of {len(values)} replies holds a score from 0 to 100"
    value = math.fsum(there) / len(there) if there else None
    return MetricResult(value, _SCALE, "panollava", package_version("panollava"), judge.signature, reason)
