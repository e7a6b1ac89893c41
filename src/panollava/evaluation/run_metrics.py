"""From predictions.csv to metrics.json: the job behind the rule `compute_metrics`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panollava.evaluation.console import console_lines
from panollava.evaluation.predictions import COLUMNS, read_predictions
from panollava.evaluation.score import score_predictions, write_metrics_json
from panollava.files import digest_of, sha256_file
from panollava.logs import LOGGER


def metrics_of_run(
    slice_document: dict[str, Any],
    predictions: Path,
    blind: Path | None,
    checkpoint: dict[str, Any],
    output: Path,
) -> None:
    """Score the DAG's predictions and their blind control and write metrics.json; the table goes to the log."""
    evaluation = slice_document["config"]["evaluation"]
    blind_rows = None
    if blind is not None and not _is_empty(blind):
        blind_rows = read_predictions(blind)
    report = score_predictions(
        read_predictions(predictions),
        protocol=evaluation["protocol"],
        metrics=evaluation["metrics"],
        custom_metrics=evaluation["custom_metrics"],
        blind_rows=blind_rows,
    )
    provenance = {
        "config": digest_of(slice_document),
        "csv": slice_document.get("inputs"),
        "predictions": sha256_file(predictions),
        "checkpoint": {key: checkpoint[key] for key in ("folder", "file", "epoch", "step", "sha256", "config_digest")},
    }
    write_metrics_json(output, report, provenance)
    for line in console_lines(report):
        LOGGER.info(line)


def _is_empty(path: Path) -> bool:
    """Whether the blind control holds a header only: with one picture there is nothing to shuffle."""
    return path.read_text(encoding="utf-8").strip() == ",".join(COLUMNS)
