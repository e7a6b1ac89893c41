"""From predictions.csv to metrics.json: the job behind the rule `compute_metrics`, and the end of `panollava eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panollava.evaluation.console import metric_lines, summary_line
from panollava.evaluation.predictions import COLUMNS, read_predictions
from panollava.evaluation.report import write_metrics_page, write_samples_page
from panollava.evaluation.score import score_predictions, write_metrics_json
from panollava.files import digest_of, sha256_file
from panollava.logs import LOGGER


def metrics_of_run(
    slice_document: dict[str, Any],
    predictions: Path,
    blind: Path | None,
    checkpoint: dict[str, Any],
    output: Path,
    metrics_page: Path,
    samples_page: Path,
) -> None:
    """Score the DAG's predictions and their blind control: metrics.json, and the same for the report's readers.

    The table goes to the log too.
    """
    document = score_files(
        predictions,
        blind,
        slice_document["config"]["evaluation"],
        output,
        {
            "config": digest_of(slice_document),
            "inputs": slice_document.get("inputs"),
            "checkpoint": {k: checkpoint[k] for k in ("folder", "file", "epoch", "step", "sha256", "config_digest")},
        },
    )
    for line in [*metric_lines(document), summary_line(document)]:
        LOGGER.info(line)
    experiment = checkpoint["experiment_name"]
    write_metrics_page(document, metrics_page, experiment)
    write_samples_page(
        read_predictions(predictions),
        _blind_rows(blind),
        "exact_match" in document["metrics"],
        samples_page,
        experiment,
    )


def score_files(
    predictions: Path, blind: Path | None, evaluation: dict[str, Any], output: Path, provenance: dict[str, Any]
) -> dict[str, Any]:
    """Score a predictions CSV (and its blind control) by `evaluation.*`, write metrics.json, return its document."""
    report = score_predictions(
        read_predictions(predictions),
        protocol=evaluation["protocol"],
        metrics=evaluation["metrics"],
        custom_metrics=evaluation["custom_metrics"],
        blind_rows=_blind_rows(blind),
        bootstrap_samples=evaluation["bootstrap_samples"],
    )
    return write_metrics_json(output, report, {**provenance, "predictions": sha256_file(predictions)})


def _blind_rows(path: Path | None) -> list[dict[str, str]] | None:
    """None without a blind control, and for one of a header only: with one picture there is nothing to shuffle."""
    if path is None or path.read_text(encoding="utf-8").strip() == ",".join(COLUMNS):
        return None
    return read_predictions(path)
