"""Metrics that users bring: `package.module:function`, called with what the other metrics are given.

    def function(predictions: list[str], references: list[list[str]], rows: list[dict[str, str]]) -> ...

`rows[i]` is the predictions CSV's row that `predictions[i]` came from. It returns a number, a `MetricResult`, a dict
with "value" (and "scale", "signature", "reason", "interval", "samples"), or a dict of several of these by their key.
"samples" holds a number per prediction, whose mean the value is, or (numerator, denominator), whose sums' quotient it
is; then "value" may be left out, and the score has an interval and is tested where experiments are compared.

Whatever goes wrong in it - it cannot be imported, raises, exits, returns something else - is the reason of its own null
value, says whose fault it is, and leaves the other scores alone.
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
from panollava.evaluation.metrics.result import MetricResult, lower_is_better
from panollava.evaluation.metrics.sums import SampleSums, means, ratios
from panollava.logs import LOGGER
from panollava.versions import package_version

if TYPE_CHECKING:
    from panollava.evaluation.protocols import ScoredTexts


_LONGEST_REASON = 300


def check_names(dotted_names: Sequence[str], taken: Container[str]) -> None:
    """Raise EvaluationError for a malformed or doubled name, or one whose key a standard metric has."""
    seen: set[str] = set()
    for dotted in dotted_names:
        module, colon, function = dotted.partition(":")
        if not colon or not all(part.isidentifier() for part in (*module.split("."), function)):
            raise EvaluationError(f"evaluation.custom_metrics: {dotted!r} is not of the form package.module:function.")
        if function in taken or function in seen:
            raise EvaluationError(
                f"evaluation.custom_metrics: {dotted!r} would be stored under {function!r}, which another metric has: "
                "rename the function."
            )
        seen.add(function)


def run_custom(dotted: str, texts: ScoredTexts, taken: Container[str]) -> dict[str, MetricResult]:
    """Run one custom metric. What it raises or returns wrongly becomes its own reason, and is logged."""
    module, _, function = dotted.partition(":")
    library_version = None

    def failed(problem: str) -> dict[str, MetricResult]:
        key = dotted if function in taken else function  # another custom metric may have returned that key
        return {key: MetricResult(None, "unknown", dotted, library_version, reason=_shortened(f"{dotted} {problem}"))}

    folder = str(Path.cwd())  # a module of the project itself, whatever started this process
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        call = getattr(import_module(module), function)
        library_version = package_version(module.partition(".")[0])
        returned = call(
            list(texts.predictions), [list(refs) for refs in texts.references], [dict(row) for row in texts.rows]
        )
    except (Exception, SystemExit) as error:  # the user's: reported as it is, it must not take the other scores with it
        LOGGER.exception("Custom metric %s failed", dotted)
        return failed(f"raised {type(error).__name__}: {error}")
    several = isinstance(returned, Mapping) and not {"value", "samples"} & returned.keys()
    parts: Mapping[str, Any] = returned if several else {function: returned}
    results: dict[str, MetricResult] = {}
    for key, part in parts.items():
        if not isinstance(key, str) or not key:
            return failed(f"returned the key {key!r} instead of a name")
        if key in taken:
            return failed(f"returned the key {key!r}, which another metric has")
        try:
            results[key] = _result(part, dotted, library_version, len(texts.predictions), texts.protocol)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            return failed(f"returned {error}")
    return results or failed("returned an empty dict")


def _result(part: Any, dotted: str, library_version: str | None, count: int, protocol: str) -> MetricResult:
    if isinstance(part, MetricResult):
        fields: Mapping[str, Any] = part.to_json()
        samples = part.samples
    elif isinstance(part, Mapping):
        fields = part
        samples = None if part.get("samples") is None else _samples(part["samples"])
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
        if reason:
            raise ValueError("both a value and a reason why there is none")
        if samples is not None and not math.isclose(value, total := samples.total(), rel_tol=1e-6, abs_tol=1e-9):
            raise ValueError(f"the value {value} with samples that make {total}")
    own = [str(fields["signature"])] if fields.get("signature") else []
    return MetricResult(
        value=value,
        scale=str(fields.get("scale") or "unknown"),
        library=dotted,
        version=library_version,
        signature="|".join([*own, f"protocol:{protocol}", f"version:{library_version}"]),
        reason=None if reason is None else _shortened(str(reason)),
        interval=None if interval is None else _interval(interval),
        samples=samples,
        lower_is_better=lower_is_better(fields),
    )


def _samples(parts: Sequence[Any]) -> SampleSums:
    """Numbers become a mean, pairs a quotient of sums; arrays will do as well as lists."""
    if isinstance(parts, (str, bytes, Mapping)) or not hasattr(parts, "__len__"):
        raise TypeError(f"samples of type {type(parts).__name__} instead of a list")
    parts = parts.tolist() if hasattr(parts, "tolist") else list(parts)
    if len(parts) and isinstance(parts[0], (tuple, list)):
        return ratios([(_finite(above), _finite(below)) for above, below in parts])
    return means([_finite(one) for one in parts])


def _interval(interval: Any) -> tuple[float, float]:
    low, high = (_finite(one) for one in interval) if hasattr(interval, "__len__") and len(interval) == 2 else (1, 0)
    if low > high:
        raise ValueError(f"the interval {interval!r} instead of [low, high]")
    return low, high


def _shortened(text: str) -> str:
    """One line that a table can hold."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else f"{line[: _LONGEST_REASON - 1]}…"


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"{value!r} instead of a finite number")
    return float(value)
