"""From what the steps of an evaluation left, or from a predictions CSV of anybody's, to metrics.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.answers.grading import Tolerances
from panollava.config.names import RESULT_FILES
from panollava.config.schema import EvaluationSettings, TrainingSettings
from panollava.errors import ConfigError, EvaluationError
from panollava.evaluation.measures import EXTRA_NODES
from panollava.evaluation.measures.measured import Measured, with_measures
from panollava.evaluation.measures.rolled import equivariance, read_rolled
from panollava.evaluation.predictions import missing_or_doubled, read_predictions, rows_of_control
from panollava.evaluation.protocols import apply_protocol
from panollava.evaluation.score import score_predictions, write_metrics_json
from panollava.files import refuse_overwriting, sha256_file
from panollava.logs import LOGGER

DEFAULTS = EvaluationSettings().model_dump(mode="json")
"""Of `evaluation.*`: for predictions alone, and for folders that lack a newer key."""


def score_files(
    files: Mapping[str, Path], evaluation: Mapping[str, Any], output: Path, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Score what the steps left by `evaluation.*`, write metrics.json, return its document.

    `files` are by the steps' nodes (`config.names.RESULT_FILES`): `predict`, perhaps its controls, what
    `evaluation.extra` asks for, and a judge's replies. `evaluation["not_run"]`, where it is there, are custom metrics
    that get no value, with the reason of each.
    """
    rows = read_predictions(files["predict"])
    controls = {name: rows_of_control(files.get(f"predict_{name}")) for name in ("blind", "text_only")}
    tolerances = tolerances_of(evaluation)
    report = score_predictions(
        rows,
        protocol=evaluation["protocol"],
        metrics=evaluation["metrics"],
        custom_metrics=evaluation["custom_metrics"],
        blind_rows=controls["blind"],
        bootstrap_samples=evaluation["bootstrap_samples"],
        spice_heap=evaluation["spice_heap"],
        not_run=evaluation.get("not_run"),
        text_only_rows=controls["text_only"],
        tolerances=tolerances,
    )
    measures = {step: path for step, path in files.items() if step in (*EXTRA_NODES.values(), "judge")}
    measured = [
        equivariance(rows, read_rolled(path), controls["blind"]) if step == "predict_rolled" else Measured.read(path)
        for step, path in measures.items()
    ]
    report = with_measures(report, evaluation["extra"], measured, evaluation["bootstrap_samples"])
    made = {
        **provenance,
        "predictions": sha256_file(files["predict"]),
        "predictions_blind": sha256_file(files["predict_blind"]) if controls["blind"] is not None else None,
        "evaluation": {key: evaluation[key] for key in ("metrics", "custom_metrics", "bootstrap_samples")},
    }
    if report.num_unreadable is not None:
        made["evaluation"] |= {"number_tolerance": tolerances.number, "angle_tolerance_deg": tolerances.angle_deg}
    if report.text_only is not None:
        made["predictions_text_only"] = sha256_file(files["predict_text_only"])
    if measures:
        made["measures"] = {path.name: sha256_file(path) for path in measures.values()}
    return write_metrics_json(output, report, made)


def score_csv(
    predictions: Path,
    protocol: str | None = None,
    output_dir: Path | None = None,
    custom_metrics: Sequence[str] = (),
    judge: Mapping[str, Any] | None = None,
    replies: Path = Path("cache/judge"),
) -> tuple[Path, dict[str, Any]]:
    """Score a CSV that has `prediction` and `reference` columns as it is; `judge` holds keys of `evaluation.judge`."""
    output = output_dir or predictions.parent / f"{predictions.stem}_eval"
    judged = output / RESULT_FILES["judge"]
    check_output(output, predictions, ("metrics.json", RESULT_FILES["judge"]))
    try:
        rows = read_predictions(predictions)  # what cannot be read or scored so leaves an older result as it is
    except EvaluationError as error:
        hint = " To have questions answered first, pass --checkpoint-dir or --config." if predictions.is_file() else ""
        raise EvaluationError(f"{error}{hint}") from error
    apply_protocol(rows, protocol)
    for line in missing_or_doubled(rows):
        LOGGER.warning("%s: %s", predictions, line)
    for file in (output / "metrics.json", judged):
        file.unlink(missing_ok=True)
    # No model, so nothing extra.
    evaluation: dict[str, Any] = {**DEFAULTS, "protocol": protocol, "custom_metrics": list(custom_metrics)}
    source = {"csv": {"path": str(predictions), "sha256": sha256_file(predictions)}}
    files = {"predict": predictions}
    if judge is not None:
        from panollava.evaluation.run_judge import judge_files, judges_of  # torch: only who judges waits for it

        evaluation["judge"] = {**DEFAULTS["judge"], **judge}
        settings = judges_of(evaluation, TrainingSettings().model_dump(mode="json"))
        judge_files(settings, predictions, {}, judged, replies, {})
        files["judge"] = judged
    document = score_files(files, evaluation, output / "metrics.json", source)
    return output / "metrics.json", document


def check_output(output: Path, source: Path, names: Sequence[str]) -> None:
    """Refuse to write over the input, or over what the DAG keeps. Raises ConfigError."""
    if (output / "checkpoint.json").is_file():
        raise ConfigError(
            f"{output} holds the results of an experiment, which only the DAG writes: choose another --output-dir"
        )
    refuse_overwriting([output / name for name in names], [source])


def tolerances_of(evaluation: Mapping[str, Any]) -> Tolerances:
    """When an answer counts as right: `evaluation.number_tolerance` and `angle_tolerance_deg`, or their defaults."""
    default = EvaluationSettings()
    return Tolerances(
        number=evaluation.get("number_tolerance", default.number_tolerance),
        angle_deg=evaluation.get("angle_tolerance_deg", default.angle_tolerance_deg),
    )
