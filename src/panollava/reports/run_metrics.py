"""The DAG's scores: metrics.json and the two pages that show it, the job behind the rule `compute_metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.evaluation.accuracy import grade_samples
from panollava.evaluation.console import metric_lines, summary_lines
from panollava.evaluation.predictions import read_predictions, rows_of_control
from panollava.evaluation.protocols import apply_protocol
from panollava.evaluation.score_files import score_files, tolerances_of
from panollava.logs import LOGGER
from panollava.provenance import note_beside
from panollava.reports.metrics_page import write_metrics_page
from panollava.reports.samples_page import write_samples_page

_OF_CHECKPOINT = ("folder", "file", "epoch", "step", "sha256", "config_digest", "weights", "model_config")


def metrics_of_run(
    files: Mapping[str, Path],
    inputs: dict[str, Any],
    evaluation: dict[str, Any],
    digest: str,
    checkpoint: dict[str, Any],
    output: Path,
    metrics_page: Path,
    samples_page: Path,
    spice_heap: str,
) -> None:
    """Score what the DAG's steps left (`score_files`): metrics.json, and the same for the report's readers.

    `inputs`, `evaluation` and `digest` are the slice's: fingerprints of what was tested on, and `evaluation.*`. The
    table goes to the log too.
    """
    predictions = files["predict"]
    provenance = {
        "config": digest,
        "inputs": inputs,
        **note_beside(predictions),
        "checkpoint": {k: checkpoint[k] for k in _OF_CHECKPOINT if k in checkpoint},
    }
    document = score_files(files, {**evaluation, "spice_heap": spice_heap}, output, provenance)
    for line in [*metric_lines(document), *summary_lines(document)]:
        LOGGER.info(line)
    experiment = checkpoint["experiment_name"]
    rows = read_predictions(predictions)
    graded = grade_samples(apply_protocol(rows, document["protocol"]), tolerances_of(evaluation))
    write_metrics_page(document, metrics_page, experiment, graded)
    write_samples_page(
        rows,
        rows_of_control(files.get("predict_blind")),
        "exact_match" in document["metrics"],
        samples_page,
        experiment,
        tolerances=tolerances_of(evaluation),
    )
