"""From predictions.csv to metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.answers.grading import Tolerances
from panollava.config.schema import EvaluationSettings
from panollava.evaluation.measures.measured import Measured, with_measures
from panollava.evaluation.measures.rolled import equivariance, read_rolled
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.score import score_predictions, write_metrics_json
from panollava.files import sha256_file


def score_files(
    predictions: Path,
    blind: Path | None,
    evaluation: dict[str, Any],
    output: Path,
    provenance: dict[str, Any],
    measures: Sequence[Path] = (),
    rolled: Path | None = None,
    text_only: Path | None = None,
) -> dict[str, Any]:
    """Score a predictions CSV (and its blind control) by `evaluation.*`, write metrics.json, return its document.

    `evaluation["not_run"]`, where it is there, are custom metrics that get no value, with the reason of each.
    """
    rows, blind_rows = read_predictions(predictions), rows_of_control(blind)
    report = score_predictions(
        rows,
        protocol=evaluation["protocol"],
        metrics=evaluation["metrics"],
        custom_metrics=evaluation["custom_metrics"],
        blind_rows=blind_rows,
        bootstrap_samples=evaluation["bootstrap_samples"],
        spice_heap=evaluation["spice_heap"],
        not_run=evaluation.get("not_run"),
        text_only_rows=rows_of_control(text_only),
        tolerances=tolerances_of(evaluation),
    )
    measured = [Measured.read(path) for path in measures]
    if rolled is not None:
        measured.append(equivariance(rows, read_rolled(rolled), blind_rows))
    report = with_measures(report, evaluation["extra"], measured, evaluation["bootstrap_samples"])
    made = {
        **provenance,
        "predictions": sha256_file(predictions),
        "predictions_blind": sha256_file(blind) if blind is not None and blind_rows is not None else None,
        "evaluation": {key: evaluation[key] for key in ("metrics", "custom_metrics", "bootstrap_samples")},
    }
    if report.num_unreadable is not None:
        tolerances = tolerances_of(evaluation)
        made["evaluation"] |= {"number_tolerance": tolerances.number, "angle_tolerance_deg": tolerances.angle_deg}
    if report.text_only is not None:
        assert text_only is not None
        made["predictions_text_only"] = sha256_file(text_only)
    if further := [*measures, *([rolled] if rolled else [])]:
        made["measures"] = {path.name: sha256_file(path) for path in further}
    return write_metrics_json(output, report, made)


def rows_of_control(path: Path | None) -> list[dict[str, str]] | None:
    """None without that control, and for a file of a header only: with one picture there is nothing to shuffle."""
    if path is None or len(path.read_text(encoding="utf-8").splitlines()) <= 1:
        return None
    return read_predictions(path)


def tolerances_of(evaluation: Mapping[str, Any]) -> Tolerances:
    """When an answer counts as right: `evaluation.number_tolerance` and `angle_tolerance_deg`, or their defaults."""
    default = EvaluationSettings()
    return Tolerances(
        number=evaluation.get("number_tolerance", default.number_tolerance),
        angle_deg=evaluation.get("angle_tolerance_deg", default.angle_tolerance_deg),
    )
