"""Compute the scores of metrics.json from predictions and references.

Takes rows of a predictions CSV (`score_predictions`) or two lists (`compute_text_metrics`), and returns metrics with
their scale and origin. A metric whose part is missing has no value and gives the reason; no metric ever replaces
another. The blind control is scored on the same references by the same metrics.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from panollava.answers.grading import Tolerances
from panollava.config.schema import SCORE_NAMES
from panollava.errors import EvaluationError
from panollava.evaluation.accuracy import Graded, accuracy_metrics, grade_samples, only
from panollava.evaluation.metrics import LABELS, METRICS, MetricResult, MetricUnavailable, TextSet
from panollava.evaluation.metrics.custom import check_names, run_custom
from panollava.evaluation.metrics.java import java_version
from panollava.evaluation.metrics.ptb import PtbTokens
from panollava.evaluation.metrics.spice_run import DEFAULT_HEAP
from panollava.evaluation.protocols import KEY, ScoredTexts, apply_protocol
from panollava.evaluation.resampling import CONFIDENCE, SEED, difference_of, interval_of, too_few, units_of
from panollava.files import write_json
from panollava.logs import LOGGER
from panollava.versions import OF_SCORES, package_versions

Rows = Sequence[Mapping[str, str]]
_CONTROLS = {"blind": "blind control", "text_only": "text-only control"}
_NO_TEXT = "no row wants a text: every answer is right or wrong"


@dataclass(frozen=True)
class ScoreReport:
    """Everything that metrics.json says but its provenance.

    `blind` and `text_only` have the keys of `metrics`, or are None. `num_unreadable` is None where no answer is right
    or wrong, `num_unjudged` where there is no judge. `intervals` says how they were made; None where there are none.
    `distance` holds the 95 % interval of a score less its blind control, both from the same draws of panoramas, of the
    scores that have one.
    """

    metrics: dict[str, MetricResult]
    protocol: str
    num_samples: int
    num_references: int
    num_empty: int
    num_errors: int
    num_without_reference: int
    num_differing: int = 0
    blind: dict[str, float | None] | None = None
    text_only: dict[str, float | None] | None = None
    num_unreadable: int | None = None
    num_unjudged: int | None = None
    intervals: dict[str, Any] | None = None
    distance: dict[str, tuple[float, float]] | None = None

    def to_json(self, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """metrics.json's document; `provenance` (digests) is joined by the versions of what computed it."""
        return {
            "metrics": {name: result.to_json() for name, result in self.metrics.items()},
            "protocol": self.protocol,
            "num_samples": self.num_samples,
            "num_references": self.num_references,
            "num_empty": self.num_empty,
            "num_errors": self.num_errors,
            **({} if self.num_unreadable is None else {"num_unreadable": self.num_unreadable}),
            **({} if self.num_unjudged is None else {"num_unjudged": self.num_unjudged}),
            "num_without_reference": self.num_without_reference,
            "num_differing": self.num_differing,
            "intervals": self.intervals,
            "controls": {
                "blind": self.blind,
                **({} if not self.distance else {"distance_interval": {k: list(v) for k, v in self.distance.items()}}),
                **({} if self.text_only is None else {"text_only": self.text_only}),
            },
            "provenance": {**(provenance or {}), "versions": versions()},
        }


def score_predictions(
    rows: Rows,
    protocol: str | None = None,
    metrics: str | Sequence[str] = "auto",
    custom_metrics: Sequence[str] = (),
    blind_rows: Rows | None = None,
    bootstrap_samples: int = 0,
    lenient: bool = False,
    spice_heap: str = DEFAULT_HEAP,
    not_run: Mapping[str, str] | None = None,
    text_only_rows: Rows | None = None,
    tolerances: Tolerances | None = None,
) -> ScoreReport:
    """Score rows with `prediction` and `reference` (and `image_path`, `original_query`, `error` where there).

    `protocol` None means grouped where the columns allow it, else per-annotation. `metrics` is "auto" (all of them,
    those that cannot run without a value) or a list of keys, each of which must run unless `lenient`.
    `custom_metrics` are dotted names `package.module:function`. `blind_rows` are the same samples answered with
    shuffled pictures, `text_only_rows` without any. With `bootstrap_samples` a score has an interval from as many draws
    of the images (`resampling`). `spice_heap` is the most memory that SPICE's Java takes ("2500m"). `not_run` are
    custom metrics that are listed without a value, and the reason of each. Rows with an `answer_type` are right or
    wrong (`accuracy`, by `tolerances`); the standard metrics score those that want a text.

    Raises EvaluationError for unknown names, for a listed metric that cannot run, and for a blind control whose
    samples or references differ from the predictions'.
    """
    names = metric_names(metrics) if metrics or not lenient else []
    check_names(custom_metrics, taken=SCORE_NAMES)
    scored = apply_protocol(rows, protocol)
    tolerances = tolerances or Tolerances()
    graded = grade_samples(scored, tolerances)
    controls = {
        name: apply_protocol(given, scored.protocol)
        for name, given in (("blind", blind_rows), ("text_only", text_only_rows))
        if given is not None
    }
    if scored.num_differing:
        LOGGER.warning(
            "%d of %d samples have rows with different predictions: the first of each is scored",
            scored.num_differing, scored.num_samples,
        )  # fmt: skip
    for name, control in controls.items():
        _same_samples(scored, control, _CONTROLS[name])
    results, others = _caption_metrics(
        names, scored, graded, controls, must_run=metrics != "auto" and not lenient, spice_heap=spice_heap
    )
    results |= accuracy_metrics(graded, tolerances)
    for name, control in controls.items():
        right = accuracy_metrics(grade_samples(control, tolerances), tolerances)
        others[name] |= right
    for dotted in custom_metrics:
        for key, result in run_custom(dotted, scored, taken=results).items():
            results[key] = result
        for name, control in controls.items():
            others[name] |= run_custom(dotted, control, taken=others[name])
    for dotted, why in (not_run or {}).items():
        key = dotted.partition(":")[2]
        results[dotted if key in results else key] = MetricResult(None, "unknown", dotted, None, reason=why)
    intervals = _add_intervals(results, scored, bootstrap_samples) if bootstrap_samples else None
    distance = _distances(results, others.get("blind", {}), scored, bootstrap_samples) if bootstrap_samples else None
    return ScoreReport(
        metrics=results,
        protocol=scored.protocol,
        num_samples=scored.num_samples,
        num_references=scored.num_references,
        num_empty=scored.num_empty,
        num_errors=scored.num_errors,
        num_without_reference=scored.num_without_reference,
        num_differing=scored.num_differing,
        blind=_values(results, others.get("blind")),
        text_only=_values(results, others.get("text_only")),
        num_unreadable=graded.num_unreadable if graded else None,
        intervals=intervals,
        distance=distance,
    )


def _values(
    results: Mapping[str, MetricResult], control: Mapping[str, MetricResult] | None
) -> dict[str, float | None] | None:
    """A control's values under the keys of `results`."""
    if control is None:
        return None
    return {key: control[key].value if key in control else None for key in results}


def _caption_metrics(
    names: Sequence[str],
    scored: ScoredTexts,
    graded: Graded,
    controls: Mapping[str, ScoredTexts],
    must_run: bool,
    spice_heap: str,
) -> tuple[dict[str, MetricResult], dict[str, dict[str, MetricResult]]]:
    """The standard metrics of the samples that want a text, and the same of each control."""
    places = [place for place, wants_text in enumerate(graded.texts()) if wants_text]
    found: dict[str, dict[str, MetricResult]] = {name: {} for name in controls}
    if not places:
        return {name: METRICS[name].without_value(_NO_TEXT) for name in names}, found

    def of_all(result: MetricResult) -> MetricResult:
        if result.samples is None or len(places) == scored.num_samples:
            return result
        return replace(result, samples=only(result.samples, places, scored.num_samples))

    tokens = PtbTokens()
    texts = _texts_of(scored, places, tokens)
    others = {name: _texts_of(control, places, tokens) for name, control in controls.items()}
    if texts.coco_tokens and others:
        _tokenize_together(names, texts, *others.values())
    options = {"spice": {"heap": spice_heap, "also": others.get("blind")}}
    results: dict[str, MetricResult] = {}
    for name in names:
        result = _run(name, texts, must_run, options.get(name, {}))
        results[name] = of_all(result)
        for control, other in others.items():
            if result.value is not None:
                found[control][name] = of_all(_run(name, other, must_run, options.get(name, {})))
    return results, found


def _texts_of(scored: ScoredTexts, places: Sequence[int], tokens: PtbTokens) -> TextSet:
    return TextSet(
        [scored.predictions[place] for place in places],
        [scored.references[place] for place in places],
        scored.protocol,
        tokens,
    )


def compute_text_metrics(
    predictions: Sequence[str],
    references: Sequence[str] | Sequence[Sequence[str]],
    protocol: str = "grouped",
    metrics: str | Sequence[str] = "auto",
    custom_metrics: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Score `predictions[i]` against `references[i]`, one text or several; returns metrics.json's "metrics".

    With "grouped" all references of a prediction count together; "per-annotation" and "original" score the
    prediction once per reference. A prediction without any reference is dropped.
    Raises TypeError and ValueError for what is not text or does not pair up, EvaluationError as `score_predictions`.

    >>> scores = compute_text_metrics(
    ...     ["a red box behind you", "nothing"],
    ...     [["a red box behind you", "behind you is a red box"], ["a blue ball"]],
    ...     metrics=["rouge_l"],
    ... )
    >>> scores["rouge_l"]["value"], scores["rouge_l"]["library"]
    (0.5, 'rouge-score')
    """
    return score_predictions(
        _rows(predictions, references), protocol, metrics=metrics, custom_metrics=custom_metrics
    ).to_json()["metrics"]


def write_metrics_json(
    path: str | Path, report: ScoreReport, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write metrics.json atomically and return its document."""
    document = report.to_json(provenance)
    write_json(path, document)
    return document


def metric_names(metrics: str | Sequence[str]) -> list[str]:
    """Keys of the metrics that `evaluation.metrics` asks for, in the order of the table."""
    if metrics == "auto":
        return list(METRICS)
    asked = [metrics] if isinstance(metrics, str) else list(metrics)
    if unknown := [name for name in asked if name not in METRICS]:
        raise EvaluationError(
            f"evaluation.metrics must be auto or a list of {', '.join(METRICS)}; got {', '.join(map(repr, unknown))}."
        )
    if not asked:
        raise EvaluationError(f"evaluation.metrics is empty: write auto, or some of {', '.join(METRICS)}.")
    return [name for name in METRICS if name in asked]


def require_metrics(metrics: str | Sequence[str], protocol: str | None) -> None:
    """Before anything is predicted: raise EvaluationError where a listed metric lacks a part of this machine."""
    from panollava.evaluation.environment import check_environment

    labels = set() if metrics == "auto" else {LABELS[name] for name in metric_names(metrics)}
    for check in check_environment() if labels else ():
        stopped = labels & set(check.needed_for.split(", "))
        if check.name == "Java" and protocol == "original":
            stopped -= {one.label for one in METRICS.values() if one.java == "for tokens"}  # no PTB tokens there
        if stopped and not check.ok:
            raise EvaluationError(
                f"evaluation.metrics lists {', '.join(sorted(stopped))}, which cannot run: {check.name} "
                f"{check.found or 'is not installed'}. {check.remedy}, or write evaluation.metrics: auto."
            )


def versions() -> dict[str, str | None]:
    """Versions of what can change a number: our package, the models' libraries, the metrics', Python and Java."""
    return {"python": sys.version.split()[0], **package_versions(OF_SCORES), "java": java_version()}


def _run(name: str, texts: TextSet, must_run: bool, options: Mapping[str, Any]) -> MetricResult:
    try:
        return METRICS[name].compute(texts, **options)
    except MetricUnavailable as missing:
        if must_run:
            raise EvaluationError(
                f"evaluation.metrics lists {name}, which cannot run: {missing}. "
                "With evaluation.metrics: auto its value would be null."
            ) from missing
        return METRICS[name].without_value(str(missing))
    except EvaluationError as failure:
        if must_run:
            raise
        LOGGER.error("%s failed: %s", LABELS[name], failure)
        return METRICS[name].without_value(str(failure))


def _add_intervals(results: dict[str, MetricResult], scored: ScoredTexts, draws: int) -> dict[str, Any]:
    """Give `results` their intervals (a metric that brought its own keeps it) and say how they were made."""
    units = units_of(scored.rows)
    for key, result in results.items():
        if result.value is not None and result.samples is not None and result.interval is None:
            results[key] = replace(result, interval=interval_of(result.samples, units, draws))
    by_image = any(row.get(KEY[0]) for row in scored.rows)
    note = too_few(max(units) + 1, "panoramas" if by_image else "rows")
    if note is not None:
        LOGGER.warning("%s", note)
    return {
        "method": "percentile bootstrap",
        "confidence": CONFIDENCE,
        "resampled": "images" if by_image else "rows",
        "units": max(units) + 1,
        "draws": draws,
        "seed": SEED,
        "note": note,
    }


def _distances(
    results: Mapping[str, MetricResult], blind: Mapping[str, MetricResult], scored: ScoredTexts, draws: int
) -> dict[str, tuple[float, float]]:
    """The interval of each score less its blind control, from draws of the panoramas that both have in common."""
    units, found = units_of(scored.rows), {}
    for key, result in results.items():
        other = blind.get(key)
        if result.samples is None or other is None or other.samples is None:
            continue
        interval = difference_of(other.samples, result.samples, units, draws, test=False).interval
        if interval is not None:
            found[key] = interval
    return found


def _tokenize_together(names: Sequence[str], *sets: TextSet) -> None:
    """Start Java once for the answers and the blind control; without Java each metric says so itself."""
    if any(METRICS[name].java != "not" for name in names):
        try:
            sets[0].tokens.add(text for texts in sets for text in texts.captions())
        except (MetricUnavailable, EvaluationError) as error:
            LOGGER.debug("tokenizing together failed, each metric reports it: %s", error)


def _same_samples(scored: ScoredTexts, blind: ScoredTexts, what: str) -> None:
    keys = [[tuple(row.get(name, "") for name in KEY) for row in one.rows] for one in (scored, blind)]
    if keys[0] != keys[1] or scored.references != blind.references:
        raise EvaluationError(
            f"The {what} holds {blind.num_samples} samples with {blind.num_references} references, the "
            f"predictions {scored.num_samples} with {scored.num_references}, and they are not the same ones in the "
            "same order: make both from the same CSV."
        )


def _rows(predictions: Sequence[str], references: Sequence[Any]) -> list[dict[str, str]]:
    for name, value in (("predictions", predictions), ("references", references)):
        if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
            raise TypeError(f"{name} must be a list, got {type(value).__name__}.")
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} references do not pair up.")
    if not len(predictions):
        raise ValueError("predictions is empty: there is nothing to score.")
    rows: list[dict[str, str]] = []
    for index, (prediction, refs) in enumerate(zip(predictions, references, strict=True)):
        texts = [refs] if isinstance(refs, str) else refs
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in (prediction, *texts)):
            raise TypeError(
                f"Sample {index}: expected a str and a str or list of str, got {type(prediction).__name__} and "
                f"{refs!r}."
            )
        rows += [
            {"image_path": str(index), "original_query": "", "prediction": prediction, "reference": text}
            for text in texts
        ]
    if not rows:
        raise ValueError("No prediction has a reference: there is nothing to score.")
    return rows
