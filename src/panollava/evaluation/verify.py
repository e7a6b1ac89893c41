"""`panollava eval --verify metrics.json`: does everything that it records still hold?

Each check of a metrics.json holds, differs, or could not be made here. Digests are
those of the files that lie where they lay; scores, intervals and blind control are computed again from the predictions;
on demand the predictions themselves are made again from the checkpoint.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from panollava.checkpoints.folder import weights_digest
from panollava.config.names import RESULT_FILES
from panollava.errors import EvaluationError, PanollavaError
from panollava.evaluation.metrics import LABELS, MetricResult
from panollava.evaluation.predictions import read_predictions, rows_of_control
from panollava.evaluation.protocols import apply_protocol
from panollava.evaluation.rescoring import (
    TOLERANCE,
    custom_metrics_of,
    measure_files,
    measured_again,
    place_of,
    predictions_path,
    read_document,
    rescore,
)
from panollava.evaluation.score import versions
from panollava.provenance import read_digest
from panollava.trust import find_inside

State = Literal["holds", "differs", "not checked"]
_MARKS: dict[State, str] = {"holds": "✓", "differs": "✗", "not checked": "–"}
_COUNTS = ("num_samples", "num_references", "num_empty", "num_errors", "num_without_reference", "num_differing")
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One statement of metrics.json and what became of it."""

    what: str
    state: State
    detail: str = ""

    def __str__(self) -> str:
        return f"{_MARKS[self.state]} {self.what}" + (f": {self.detail}" if self.detail else "")


def verify(
    path: Path, predict_again: bool = False, max_samples: int | None = None, custom_metrics: Collection[str] = ()
) -> list[Finding]:
    """Finding a metrics.json; with `predict_again` also the answers (of the first `max_samples`), by the checkpoint.

    Custom metrics are computed again where the user's own project or `custom_metrics` names them, never because the
    file does. Raises EvaluationError where the file is no metrics.json.
    """
    document = read_document(path)
    provenance = document["provenance"]
    predictions = predictions_path(document, path)
    checks = [_digest(RESULT_FILES["predict"], predictions, provenance.get("predictions"), needed=True)]
    controls = {
        name: path.with_name(RESULT_FILES[f"predict_{name}"])
        for name in ("blind", "text_only")
        if document["controls"].get(name) is not None
    }
    for name, file in controls.items():
        checks.append(_digest(file.name, file, provenance.get(f"predictions_{name}"), needed=True))
    checks += [
        _digest(file.name, file, recorded, needed=True) for file, recorded in measure_files(document, path).items()
    ]
    checks += _sources(document, path)
    if predictions is not None:
        checks += _scores(document, path, predictions, controls, custom_metrics)
    checks += _versions(provenance)
    if predict_again:
        checks.append(_answers(document, path, predictions, max_samples))
    return checks


def summary(checks: list[Finding]) -> str:
    counts = {state: sum(check.state == state for check in checks) for state in _MARKS}
    return ", ".join(f"{count} {state.replace('holds', 'hold')}" for state, count in counts.items() if count)


def _digest(what: str, path: Path | None, recorded: str | None, needed: bool = False) -> Finding:
    """Whether a file is still the one that was recorded. One that scores come from must be there."""
    if path is None or not path.exists():
        return Finding(what, "differs" if needed else "not checked", "it is not there any more")
    if recorded is None:
        return Finding(what, "not checked", "metrics.json records no digest")
    found = weights_digest(path)
    if found == recorded:
        return Finding(what, "holds")
    return Finding(what, "differs", f"its SHA-256 is {found[:16]}…, metrics.json records {recorded[:16]}…")


def _sources(document: Mapping[str, Any], path: Path) -> Iterator[Finding]:
    """The CSVs with the questions, and the checkpoint with the configuration that trained it."""
    provenance = document["provenance"]
    csvs = [provenance["csv"]] if isinstance(provenance.get("csv"), dict) else []
    csvs += [csv for csv in (provenance.get("inputs") or {}).get("csvs", []) if "sha256" in csv]
    for csv in csvs:
        yield _digest(str(csv["path"]), place_of(str(csv["path"]), path), csv.get("sha256"))
    checkpoint = provenance.get("checkpoint")
    if not isinstance(checkpoint, dict) or checkpoint.get("folder") is None:
        return
    folder = place_of(checkpoint["folder"], path)
    file = None if folder is None else find_inside(checkpoint["file"], [folder])
    yield _digest(Path(checkpoint["folder"], checkpoint["file"]).as_posix(), file, checkpoint.get("sha256"))
    metadata = None if folder is None else folder / "checkpoint_metadata.json"
    if metadata is not None and metadata.is_file():
        found = read_digest(metadata)
        same = found == checkpoint.get("config_digest")
        detail = "" if same else f"the folder says {found}, metrics.json {checkpoint.get('config_digest')}"
        yield Finding("configuration of the checkpoint", "holds" if same else "differs", detail)


def _scores(
    document: Mapping[str, Any],
    path: Path,
    predictions: Path,
    controls: Mapping[str, Path],
    chosen: Collection[str],
) -> Iterator[Finding]:
    """Everything that follows from the predictions and from what the measures left, computed again."""
    draws = (document.get("intervals") or {}).get("draws", 0)
    custom, refused = custom_metrics_of(document, chosen)
    try:
        rows = read_predictions(predictions)
        there = {name: rows_of_control(file) for name, file in controls.items() if file.is_file()}
        report = rescore(document, rows, there.get("blind"), draws, custom, there.get("text_only"))
        further = measured_again(document, path, rows, apply_protocol(rows, document["protocol"]))
    except EvaluationError as error:
        yield Finding("scores", "differs", f"they cannot be computed again: {error}")
        return
    for key in _COUNTS:
        count = getattr(report, key)
        same = count == document.get(key, 0 if key == "num_differing" else None)  # older files do not have it
        yield Finding(
            key,
            "holds" if same else "differs",
            str(count) if same else f"recorded {document.get(key)}, recomputed {count}",
        )
    for key, recorded in document["metrics"].items():
        found = report.metrics.get(key) or further.get(key)
        if found is None and (why := refused.get(str(recorded["library"]))):
            yield Finding(LABELS.get(key, key), "not checked", why)
            continue
        yield _score(LABELS.get(key, key), recorded, found)
        interval, other = (
            (document["controls"].get("distance_interval") or {}).get(key),
            (report.distance or {}).get(key),
        )
        if interval and other and not all(_close(one, two) for one, two in zip(interval, other, strict=True)):
            what = f"{LABELS.get(key, key)}, distance from the blind control"
            yield Finding(what, "differs", f"interval recorded {list(interval)}, recomputed {list(other)}")
        for name, values in (("blind", report.blind), ("text_only", report.text_only)):
            value, again = (document["controls"].get(name) or {}).get(key), (values or {}).get(key)
            if value is not None and again is not None:
                yield _number(f"{LABELS.get(key, key)}, {name.replace('_', ' ')}", value, again)


def _score(label: str, recorded: Mapping[str, Any], found: MetricResult | None) -> Finding:
    if recorded["value"] is None:
        return Finding(label, "not checked", f"null: {recorded['reason']}")
    if found is None:
        return Finding(label, "not checked", "it does not follow from the files that are there")
    if found.value is None:
        return Finding(label, "not checked", f"it cannot be computed here: {found.reason}")
    check = _number(label, recorded["value"], found.value)
    if check.state == "holds" and recorded.get("interval") and found.interval:
        pairs = zip(recorded["interval"], found.interval, strict=True)
        if not all(_close(one, two) for one, two in pairs):
            return Finding(
                label, "differs", f"interval recorded {list(recorded['interval'])}, recomputed {list(found.interval)}"
            )
    if check.state == "differs" and (recorded["version"], recorded["signature"]) != (found.version, found.signature):
        return Finding(
            label, "differs",
            f"{check.detail}; recorded by {recorded['library']} {recorded['version']} ({recorded['signature']}), "
            f"here {found.version} ({found.signature})",
        )  # fmt: skip
    return check


def _number(what: str, recorded: float, found: float) -> Finding:
    if _close(recorded, found):
        return Finding(what, "holds", f"{found:.6f}")
    return Finding(what, "differs", f"recorded {recorded!r}, recomputed {found!r}")


def _close(recorded: float, found: float) -> bool:
    return math.isclose(recorded, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _versions(provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Other versions make no number wrong: they explain one that differs."""
    here = versions()
    other = [
        f"{name}: recorded {recorded}, here {here.get(name)}"
        for name, recorded in (provenance.get("versions") or {}).items()
        if here.get(name) != recorded
    ]
    if other:
        yield Finding("versions", "not checked", "; ".join(other))


def _answers(document: Mapping[str, Any], path: Path, predictions: Path | None, max_samples: int | None) -> Finding:
    """Predict again, with the document's settings, and compare the texts."""
    what = "answers, predicted again"
    try:
        again = _predict_again(document, path, max_samples)
    except PanollavaError as error:
        return Finding(what, "not checked", str(error))
    if predictions is None:
        return Finding(what, "not checked", "there are none to compare with")
    recorded = {_turn_of(row): row["prediction"] for row in read_predictions(predictions)}
    found = {_turn_of(row): row["prediction"] for row in again}
    wrong = [turn for turn, text in found.items() if recorded.get(turn) != text]
    if not wrong:
        return Finding(what, "holds", f"{len(found):,} samples")
    first = "; ".join(
        f"sample {turn[0]}: recorded {recorded.get(turn, 'none')!r}, predicted now {found[turn]!r}"
        for turn in wrong[:_SHOWN]
    )
    return Finding(what, "differs", f"{len(wrong):,} of {len(found):,}. {first}")


def _turn_of(row: Mapping[str, str]) -> tuple[str, str, str]:
    """A row's sample; the turns of a conversation, which may have its identifier in common, apart."""
    return row.get("sample_id", ""), row.get("image_path", ""), row.get("original_query", "")


def _predict_again(document: Mapping[str, Any], path: Path, max_samples: int | None) -> list[dict[str, str]]:
    from panollava.checkpoints.folder import checkpoints_of, read_metadata
    from panollava.evaluation.of_folder import EvalRequest, evaluate_folder

    provenance = document["provenance"]
    if not isinstance(provenance.get("generation"), dict) or not isinstance(provenance.get("checkpoint"), dict):
        raise EvaluationError("metrics.json does not tell how its answers were made")
    checkpoint, csv, generation = provenance["checkpoint"], provenance["csv"], dict(provenance["generation"])
    if checkpoint.get("folder") is None:
        raise EvaluationError("these answers are a model's that no stage has trained: run the experiment again instead")
    folder, questions = place_of(checkpoint["folder"], path), place_of(csv["path"], path)
    if folder is None or questions is None:
        raise EvaluationError(f"{checkpoint['folder'] if folder is None else csv['path']} is not there any more")
    epoch = None
    if checkpoint["file"] != ".":  # not an exported model, which is one checkpoint
        entries = checkpoints_of(read_metadata(folder))
        epoch = next((entry["epoch"] for entry in entries if entry["file"] == checkpoint["file"]), None)
        if epoch is None:
            raise EvaluationError(f"{folder} lists no {checkpoint['file']}")
    limits = [one for one in (max_samples, csv.get("max_samples")) if one is not None]
    training = {"eval_batch_size": generation.pop("batch_size"), "seed": provenance["seed"]}
    scoring = {"metrics": ["bleu4"], "custom_metrics": [], "blind_control": False, "bootstrap_samples": 0, "extra": []}
    with tempfile.TemporaryDirectory(prefix="panollava-verify-") as scratch:
        request = EvalRequest(
            folder, csv_input=questions, max_samples=min(limits, default=None), epoch=epoch, output_dir=Path(scratch)
        )
        evaluate_folder(request, settings={"generation": generation, "training": training, "evaluation": scoring})
        return read_predictions(Path(scratch) / RESULT_FILES["predict"])
