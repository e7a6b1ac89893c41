"""Metrics that users bring: `package.module:function`, called with what the other metrics are given.

    def function(predictions: list[str], references: list[list[str]], rows: list[dict[str, str]]) -> ...

`rows[i]` is the predictions CSV's row that `predictions[i]` came from. It returns a number, a `MetricResult`, a dict
with "value" (and "scale", "signature", "reason", "interval", "samples"), or a dict of several of these by their key.
"samples" holds a number per prediction, whose mean the value is, or (numerator, denominator), whose sums' quotient it
is; then "value" may be left out, and the score has an interval and is tested where experiments are compared.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Container, Mapping, Sequence
from importlib import import_module
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.result import MetricResult, package_version
from panollava.evaluation.metrics.sums import SampleSums, means, ratios
from panollava.logs import LOGGER

if TYPE_CHECKING:
    from panollava.evaluation.protocols import ScoredTexts


def check_names(dotted_names: Sequence[str], taken: Container[str]) -> None:
    """Raise EvaluationError for a malformed or doubled name, or one whose key a standard metric has."""
    seen: set[str] = set()
    for dotted in dotted_names:
        module, colon, function = dotted.partition(":")
        if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
            raise EvaluationError(f"evaluation.custom_metrics: {dotted!r} is not of the form package.module:function.")
        if function in taken or function in seen:
            raise EvaluationError(
                f"evaluation.custom_metrics: {dotted!r} would stand under {function!r}, which another metric has: "
                "rename the function."
            )
        seen.add(function)


def run_custom(dotted: str, texts: ScoredTexts, taken: Container[str]) -> dict[str, MetricResult]:
    """Run one custom metric. What it raises or returns wrongly becomes its own reason, and is logged."""
    module, _, function = dotted.partition(":")
    library_version = None

    def failed(problem: str) -> dict[str, MetricResult]:
        return {function: MetricResult(None, "unknown", dotted, library_version, reason=f"{dotted} {problem}")}

    folder = str(Path.cwd())  # a module of the project itself, whatever started this process
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        call = getattr(import_module(module), function)
        library_version = package_version(module.partition(".")[0])
        returned = call(
            list(texts.predictions), [list(refs) for refs in texts.references], [dict(row) for row in texts.rows]
        )
    except Exception as error:  # theirs: any failure, told as it is, must not take the other scores with it
        LOGGER.exception("Custom metric %s failed", dotted)
        return failed(f"raised {type(error).__name__}: {error}")
    several = isinstance(returned, Mapping) and not {"value", "samples"} & returned.keys()
    parts: Mapping[str, Any] = returned if several else {function: returned}
    results: dict[str, MetricResult] = {}
    for key, part in parts.items():
        if key in taken:
            return failed(f"returned the key {key!r}, which another metric has")
        try:
            results[key] = _result(part, dotted, library_version, len(texts.predictions))
        except (TypeError, ValueError) as error:
            return failed(f"returned {error}")
    return results or failed("returned an empty dict")


def _result(part: Any, dotted: str, library_version: str | None, count: int) -> MetricResult:
    if isinstance(part, MetricResult):
        fields: Mapping[str, Any] = part.to_json()
        samples = part.samples
    elif isinstance(part, Mapping):
        fields = part
        samples = _samples(part["samples"]) if "samples" in part else None
    else:
        fields, samples = {"value": part}, None
    value, reason, interval = fields.get("value"), fields.get("reason"), fields.get("interval")
    if samples is not None and len(samples.per_sample) != count:
        raise ValueError(f"{len(samples.per_sample)} samples for {count} predictions")
    if value is None and samples is not None and not reason:
        value = samples.total()
    if value is None and not reason:
        raise ValueError("neither a value nor a reason")
    if value is not None:
        value = _finite(value)
    return MetricResult(
        value=value,
        scale=str(fields.get("scale", "unknown")),
        library=dotted,
        version=library_version,
        signature=None if fields.get("signature") is None else str(fields["signature"]),
        reason=None if reason is None else str(reason),
        interval=None if interval is None else (_finite(interval[0]), _finite(interval[1])),
        samples=samples,
    )


def _samples(parts: Sequence[Any]) -> SampleSums:
    """Numbers become a mean, pairs a quotient of sums."""
    if len(parts) and isinstance(parts[0], (tuple, list)):
        return ratios([(_finite(above), _finite(below)) for above, below in parts])
    return means([_finite(one) for one in parts])


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{value!r} instead of a finite number")
    return float(value)
