"""Test whether experiments differ from the first one: differences, their intervals, p values and verdicts.

Turns results (`results`) into a `Comparison`: a line per metric and experiment, and the same per type of query. The
first experiment is the baseline. Only what was scored by its protocol on its test set is tested; the rest is listed
with the reason. p values are corrected for the number of experiments tested on a metric (Holm); nothing corrects for
the number of metrics, and differences per type of query come without a verdict.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from panollava.errors import EvaluationError
from panollava.evaluation.comparison.query_types import types_of
from panollava.evaluation.comparison.results import Result
from panollava.evaluation.measures.measured import OF_PICTURES
from panollava.evaluation.metrics.sums import SampleSums
from panollava.evaluation.protocols import KEY, ScoredTexts, further_of
from panollava.evaluation.resampling import CONFIDENCE, difference_of, holm, interval_of, units_of

ALL = "all"
DRAWS = 10_000
DRAWS_BY_TYPE = 1000
BASELINE, BETTER, WORSE, UNDECIDED = "baseline", "better", "worse", "no difference shown"
Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """One experiment's score. `p` is corrected; `verdict` is None where nothing was tested, `note` then says why."""

    metric: str
    query_type: str
    experiment: str
    num_samples: int
    value: float | None
    interval: Interval = None
    blind: float | None = None
    text_only: float | None = None
    difference: float | None = None
    difference_interval: Interval = None
    p: float | None = None
    verdict: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Comparison:
    """`lines` by metric, then experiment. `refused` says by experiment why it cannot be compared with the baseline.

    `order[e][i]` is the sample of experiment e that answers what the baseline's sample i answers (comparable ones
    only); `types[i]` is the type of its query.
    """

    results: list[Result]
    lines: list[Line]
    by_type: list[Line]
    refused: dict[str, str]
    order: dict[str, list[int]]
    types: list[str]
    units: int
    draws: int

    @property
    def baseline(self) -> Result:
        return self.results[0]


def compare_results(results: Sequence[Result], draws: int) -> Comparison:
    """Test every result against the first, with `draws` resamplings of the images."""
    first = results[0]
    order: dict[str, list[int]] = {first.name: list(range(first.scored.num_samples))}
    refused: dict[str, str] = {}
    for result in results[1:]:
        try:
            matched = matching_samples(first.scored, result.scored)
            refuse_other_pictures(first, result)
            order[result.name] = matched
        except EvaluationError as why:
            refused[result.name] = str(why)
    types = types_of(first.scored.rows)
    counted = Counter(types).most_common() if len(set(types)) > 1 else []
    kinds = [kind for kind, _ in sorted(counted, key=lambda one: (one[0].startswith("("), -one[1], one[0]))]
    units = units_of(first.scored.rows)
    metrics = list(dict.fromkeys(key for result in results for key in result.metrics))
    aligned = {one.name: _aligned(one, order[one.name]) for one in results if one.name in order}
    lines, by_type = [], []
    for metric in metrics:
        lines += _lines(metric, results, aligned, refused, units, draws)
        for kind in () if metric in OF_PICTURES else kinds:
            chosen = [i for i, found in enumerate(types) if found == kind]
            by_type += _lines_of_type(metric, kind, chosen, aligned, units, min(draws, DRAWS_BY_TYPE))
    return Comparison(list(results), lines, by_type, refused, order, types, max(units) + 1, draws)


def matching_samples(first: ScoredTexts, second: ScoredTexts) -> list[int]:
    """For each sample of `first` the one of `second` with the same picture, query and references.

    Pictures count as the same by their path, or by their file name where that is as good. Raises EvaluationError that
    says how the two differ.
    """
    if first.protocol != second.protocol:
        raise EvaluationError(
            f"protocol {second.protocol}, not {first.protocol}: numbers of two protocols cannot be compared"
        )
    whole, other = _keys(first, short=False), _keys(second, short=False)
    if set(whole) != set(other):
        here, there = _keys(first, short=True), _keys(second, short=True)
        if set(here) == set(there) and _renamed_only(first, second, here, there):
            whole, other = here, there
    common = set(whole) & set(other)
    if len(common) < max(len(whole), len(other)):
        raise EvaluationError(
            f"another test set: {len(common):,} of its {len(other):,} samples (image, query, references) are among "
            f"the baseline's {len(whole):,}"
        )
    places = {key: index for index, key in enumerate(other)}
    return [places[key] for key in whole]


def refuse_other_pictures(first: Result, second: Result) -> None:
    """Raise EvaluationError where pictures of equal paths, or of equal names, are others by the digests that both
    metrics.json record: of the pictures that were shown, or, in older files, of the CSVs and of what they named.
    """
    one, other = (result.document["provenance"] for result in (first, second))
    shown, others = one.get("pictures"), other.get("pictures")
    if shown and others:
        paths = [{row.get(KEY[0], "") for row in result.scored.rows} for result in (first, second)]
        by = "by_path" if paths[0] == paths[1] else "by_content"
        differ = shown[by] != others[by]
    else:
        digests = [[(csv.get("sha256"), csv.get("images")) for csv in _csvs(provenance)] for provenance in (one, other)]
        known = all(images for csvs in digests for _, images in csvs)
        same_csvs = [csv for csv, _ in digests[0]] == [csv for csv, _ in digests[1]]
        differ = known and same_csvs and digests[0] != digests[1]
    if differ:
        raise EvaluationError(
            "other panoramas: the pictures behind its paths are not the baseline's, by the digests of both metrics.json"
        )


def _csvs(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = (provenance.get("inputs") or {}).get("csvs", [])
    return found


def _keys(scored: ScoredTexts, short: bool) -> list[tuple[object, ...]]:
    """What each sample is about, and which one of equal ones it is."""
    seen: dict[tuple[object, ...], int] = {}
    found: list[tuple[object, ...]] = []
    for row, references in zip(scored.rows, scored.references, strict=True):
        image = row.get(KEY[0], "")
        name = image.rpartition("/")[2] if short else image
        key = (name, row.get(KEY[1], ""), further_of(row), tuple(sorted(references)))
        seen[key] = seen.get(key, 0) + 1
        found.append((*key, seen[key]))
    return found


def _renamed_only(
    first: ScoredTexts, second: ScoredTexts, keys: Sequence[tuple[object, ...]], others: Sequence[tuple[object, ...]]
) -> bool:
    """Whether one picture here is always one picture there: file names alone could mix up two of a name."""
    images = {key: row.get(KEY[0], "") for key, row in zip(others, second.rows, strict=True)}
    pairs = {(row.get(KEY[0], ""), images[key]) for key, row in zip(keys, first.rows, strict=True)}
    return len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def _aligned(result: Result, order: Sequence[int]) -> dict[str, SampleSums]:
    return {
        key: SampleSums(metric.samples.per_sample[list(order)], metric.samples.value)
        for key, metric in result.metrics.items()
        if metric.samples is not None
    }


def _lines(
    metric: str, results: Sequence[Result], aligned: dict[str, dict[str, SampleSums]], refused: dict[str, str],
    units: Sequence[int], draws: int,
) -> list[Line]:  # fmt: skip
    """One metric's lines, the tests' p values corrected together."""
    first, lines = aligned[results[0].name].get(metric), []
    lower = any(result.metrics[metric].lower_is_better for result in results if metric in result.metrics)
    for result in results:
        name, found = result.name, result.metrics.get(metric)
        line = Line(metric, ALL, name, result.scored.num_samples, None if found is None else found.value)
        line = replace(line, blind=result.control("blind", metric), text_only=result.control("text_only", metric))
        if found is None:
            lines.append(replace(line, note="has no such score"))
            continue
        if found.interval is not None:  # as metrics.json records it, so that one score has one interval
            line = replace(line, interval=found.interval)
        elif found.samples is not None:
            line = replace(line, interval=interval_of(found.samples, units_of(result.scored.rows), draws))
        second = aligned.get(name, {}).get(metric)
        if result is results[0]:
            line = replace(line, verdict=BASELINE)
        elif name in refused:
            line = replace(line, note="not compared")
        elif found.signature != results[0].metrics.get(metric, found).signature:
            line = replace(line, note=f"not tested: measured otherwise than the baseline's ({found.signature})")
        elif first is None or second is None:
            line = replace(line, note=f"not tested: {found.reason or 'the baseline has no such score'}")
        else:
            tested = difference_of(first, second, units, draws)
            line = replace(line, difference=tested.value, difference_interval=tested.interval, p=tested.p)
            if tested.p is None:
                line = replace(line, note="not tested: there is one picture only")
        lines.append(line)
    tested_lines = [i for i, line in enumerate(lines) if line.p is not None]
    corrected = holm([p for line in lines if (p := line.p) is not None])
    for i, p in zip(tested_lines, corrected, strict=True):
        lines[i] = replace(lines[i], p=p, verdict=_verdict(lines[i].difference or 0.0, p, lower))
    return lines


def _lines_of_type(
    metric: str, kind: str, chosen: Sequence[int], aligned: dict[str, dict[str, SampleSums]], units: Sequence[int],
    draws: int,
) -> list[Line]:  # fmt: skip
    """The scores of one type's samples: differences with intervals, no verdicts."""
    lines, first = [], None
    rows = [{"image_path": str(units[i])} for i in chosen]
    for name, sums in aligned.items():
        if metric not in sums:
            continue
        part = SampleSums(sums[metric].per_sample[list(chosen)], sums[metric].value)
        value = part.total()
        if math.isnan(value):  # no score: place_thing_f1 where nothing is to be described
            continue
        line = Line(metric, kind, name, len(chosen), value, interval_of(part, units_of(rows), draws))
        if first is None:
            first = part
        else:
            found = difference_of(first, part, units_of(rows), draws, test=False)
            line = replace(line, difference=found.value, difference_interval=found.interval)
        lines.append(line)
    return lines


def _verdict(difference: float, p: float, lower: bool) -> str:
    if p >= 1 - CONFIDENCE or difference == 0:
        return UNDECIDED
    return BETTER if (difference > 0) != lower else WORSE
