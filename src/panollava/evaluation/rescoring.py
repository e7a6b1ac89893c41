"""Recompute the scores of a metrics.json from its predictions, for comparisons and for `eval --verify`.

Returns, for a document and rows, a `ScoreReport` and the further scores from the files that the measures wrote.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from panollava.config.names import RESULT_FILES
from panollava.errors import EvaluationError
from panollava.evaluation.measures.measured import Measured
from panollava.evaluation.measures.rolled import equivariance, read_rolled
from panollava.evaluation.metrics import METRICS, MetricResult
from panollava.evaluation.metrics_shape import complaints
from panollava.evaluation.protocols import ScoredTexts
from panollava.evaluation.score import Rows, ScoreReport, score_predictions
from panollava.evaluation.score_files import tolerances_of
from panollava.files import read_json, sha256_file
from panollava.logs import LOGGER
from panollava.trust import find_inside, project_of, runnable_metrics

TOLERANCE = 1e-9
ROLLED = RESULT_FILES["predict_rolled"]


def read_document(path: Path) -> dict[str, Any]:
    """A metrics.json. Raises EvaluationError where it is none."""
    try:
        document: dict[str, Any] = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} cannot be read as a metrics.json ({type(error).__name__}: {error})") from error
    if wrong := complaints(document):
        raise EvaluationError(f"{path} cannot be read as a metrics.json ({'; '.join(wrong)})")
    return document


def custom_metrics_of(document: Mapping[str, Any], chosen: Collection[str] = ()) -> tuple[list[str], dict[str, str]]:
    """The custom metrics behind a document's scores that may run here, and why each other one may not (see `trust`)."""
    libraries = [str(found["library"]) for found in document["metrics"].values() if found["value"] is not None]
    return runnable_metrics([library for library in libraries if ":" in library], chosen)


def rescore(
    document: Mapping[str, Any],
    rows: Rows,
    blind_rows: Rows | None = None,
    bootstrap_samples: int = 0,
    custom_metrics: Sequence[str] = (),
    text_only_rows: Rows | None = None,
) -> ScoreReport:
    """Score `rows` by the document's protocol and by those of its metrics that have a value and come from answers.

    Of custom metrics only those in `custom_metrics` run (`custom_metrics_of`): a document alone runs no code.
    """
    there = {key: found for key, found in document["metrics"].items() if found["value"] is not None}
    return score_predictions(
        rows,
        document["protocol"],
        metrics=[key for key in METRICS if key in there],
        custom_metrics=custom_metrics,
        blind_rows=blind_rows,
        bootstrap_samples=bootstrap_samples,
        lenient=True,
        text_only_rows=text_only_rows,
        tolerances=tolerances_of(document["provenance"].get("evaluation") or {}),
    )


def measure_files(document: Mapping[str, Any], path: Path) -> dict[Path, str]:
    """The files of `evaluation.extra` beside a metrics.json, there or not, with the digests that it records."""
    recorded: Mapping[str, str] = document["provenance"].get("measures") or {}
    folder = path.parent
    return {folder / name if name == ROLLED else folder / "measures" / name: recorded[name] for name in recorded}


def measured_again(document: Mapping[str, Any], path: Path, rows: Rows, scored: ScoredTexts) -> dict[str, MetricResult]:
    """Scores of `evaluation.extra`, from those of their files that are still the ones behind metrics.json."""
    found: dict[str, MetricResult] = {}
    for file, digest in measure_files(document, path).items():
        if not file.is_file() or sha256_file(file) != digest:
            LOGGER.warning("%s is not the file behind metrics.json: its scores are not computed again", file)
            continue
        measured = equivariance(rows, read_rolled(file), None) if file.name == ROLLED else Measured.read(file)
        for key, result in measured.metrics.items():
            if result.value is not None:
                samples = measured.aligned(key, scored.rows) if measured.is_sum(key) else None
                found[key] = replace(result, samples=samples)
    return found


def predictions_path(document: Mapping[str, Any], path: Path) -> Path | None:
    """The predictions behind a metrics.json: beside it, or what `eval --csv-input` scored; None where they are gone."""
    if (beside := find_inside(RESULT_FILES["predict"], [path.parent])) is not None and beside.is_file():
        return beside
    csv = document["provenance"].get("csv")
    if not isinstance(csv, Mapping) or "checkpoint" in document["provenance"]:  # its CSV holds questions
        return None
    return place_of(str(csv.get("path", "")), path)


def place_of(recorded: str, metrics_json: Path) -> Path | None:
    """What a path in a metrics.json means: in the working folder, beside the file, or in the project that it lies in.

    None where it is not there; nothing outside of these is opened.
    """
    own, beside = project_of(metrics_json), metrics_json.parent
    scored = [beside.parent] if beside.resolve().name.endswith("_eval") else []  # `eval` writes it beside its CSV
    return find_inside(recorded, [Path(), beside, *scored, *([own] if own else [])])
