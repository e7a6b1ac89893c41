"""From predictions.csv to metrics.json: the job behind the rule `compute_metrics`, and the end of `panollava eval`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panollava.evaluation.console import metric_lines, summary_lines
from panollava.evaluation.measures.measured import Measured, with_measures
from panollava.evaluation.measures.rolled import equivariance, read_rolled
from panollava.evaluation.predictions import COLUMNS, read_predictions
from panollava.evaluation.score import score_predictions, write_metrics_json
from panollava.files import digest_of, sha256_file
from panollava.logs import LOGGER
from panollava.provenance import told_beside
from panollava.reports.metrics_page import write_metrics_page
from panollava.reports.samples_page import write_samples_page


def metrics_of_run(
    slice_document: dict[str, Any],
    predictions: Path,
    blind: Path | None,
    checkpoint: dict[str, Any],
    output: Path,
    metrics_page: Path,
    samples_page: Path,
    spice_heap: str,
    measures: Sequence[Path] = (),
    rolled: Path | None = None,
) -> None:
    """Score the DAG's predictions and their blind control: metrics.json, and the same for the report's readers.

    `measures` and `rolled` (predictions about rolled panoramas) are what `evaluation.extra` asked for. The table goes
    to the log too.
    """
    document = score_files(
        predictions,
        blind,
        {**slice_document["config"]["evaluation"], "spice_heap": spice_heap},
        output,
        {
            "config": digest_of(slice_document),
            "inputs": slice_document.get("inputs"),
            **told_beside(predictions),
            "checkpoint": {k: checkpoint[k] for k in ("folder", "file", "epoch", "step", "sha256", "config_digest")},
        },
        measures,
        rolled,
    )
    for line in [*metric_lines(document), *summary_lines(document)]:
        LOGGER.info(line)
    experiment = checkpoint["experiment_name"]
    write_metrics_page(document, metrics_page, experiment)
    write_samples_page(
        read_predictions(predictions),
        blind_rows_of(blind),
        "exact_match" in document["metrics"],
        samples_page,
        experiment,
    )


def score_files(
    predictions: Path,
    blind: Path | None,
    evaluation: dict[str, Any],
    output: Path,
    provenance: dict[str, Any],
    measures: Sequence[Path] = (),
    rolled: Path | None = None,
) -> dict[str, Any]:
    """Score a predictions CSV (and its blind control) by `evaluation.*`, write metrics.json, return its document."""
    rows, blind_rows = read_predictions(predictions), blind_rows_of(blind)
    report = score_predictions(
        rows,
        protocol=evaluation["protocol"],
        metrics=evaluation["metrics"],
        custom_metrics=evaluation["custom_metrics"],
        blind_rows=blind_rows,
        bootstrap_samples=evaluation["bootstrap_samples"],
        spice_heap=evaluation["spice_heap"],
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
    if further := [*measures, *([rolled] if rolled else [])]:
        made["measures"] = {path.name: sha256_file(path) for path in further}
    return write_metrics_json(output, report, made)


def blind_rows_of(path: Path | None) -> list[dict[str, str]] | None:
    """None without a blind control, and for one of a header only: with one picture there is nothing to shuffle."""
    if path is None or path.read_text(encoding="utf-8").strip() == ",".join(COLUMNS):
        return None
    return read_predictions(path)
