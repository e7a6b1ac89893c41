"""Read a finished evaluation for a comparison: its document, and its scores as sums over samples.

Accepts a results folder, its metrics.json or an experiment's name. The scores are computed again from predictions.csv
by the document's own protocol, since a test needs every sample's part in them; a predictions.csv that is not the one
behind metrics.json is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from panollava.errors import EvaluationError, PanollavaError
from panollava.evaluation.metrics import LABELS, MetricResult
from panollava.evaluation.metrics.result import lower_is_better
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.protocols import ScoredTexts, apply_protocol
from panollava.evaluation.rescoring import (
    TOLERANCE,
    custom_metrics_of,
    measured_again,
    predictions_path,
    read_document,
    rescore,
)
from panollava.files import sha256_file
from panollava.logs import LOGGER


@dataclass(frozen=True)
class Result:
    """One evaluation. `metrics` are computed again here; one of them may lack `samples`, and then is not tested."""

    name: str
    folder: Path
    document: dict[str, Any]
    scored: ScoredTexts
    metrics: dict[str, MetricResult]

    @property
    def protocol(self) -> str:
        return self.scored.protocol

    def control(self, kind: str, metric: str) -> float | None:
        """What a metric says of a control (`blind`, `text_only`); None where it was not made."""
        value: float | None = (self.document["controls"].get(kind) or {}).get(metric)
        return value

    @property
    def predictions_folder(self) -> Path:
        """The folder of the predictions, which relative paths of their pictures may start from."""
        found = predictions_path(self.document, self.folder / "metrics.json")
        return found.parent if found is not None else self.folder


def read_results(paths: Sequence[Path], custom_metrics: Collection[str] = ()) -> list[Result]:
    """Read evaluations by their metrics.json, named by as much of their folders as distinguishes them.

    Custom metrics are computed again where the user's own project or `custom_metrics` names them; else the value is as
    recorded, and is not tested.
    Raises EvaluationError for a file that is missing, damaged or not made from the predictions beside it.
    """
    return [_read(path, name, custom_metrics) for path, name in zip(paths, names_of(paths), strict=True)]


def metrics_path(word: str, root: Path = Path()) -> Path:
    """The metrics.json that a user means: the file, its folder, or an experiment's name. Raises EvaluationError."""
    path = root / word
    if path.is_file():
        if path.suffix != ".json":
            raise EvaluationError(
                f"{word} is no metrics.json. Score predictions first, then compare the folders that this writes beside "
                f"them: panollava eval --csv-input {word}; panollava compare {path.with_suffix('')}_eval …"
            )
        return path
    if (path / "metrics.json").is_file():
        return path / "metrics.json"
    by_name = None
    if not path.exists():
        by_name = _path_of_experiment(word, root)
        if by_name is not None and by_name.is_file():
            return by_name
    if path.is_dir():
        problem = f"{word} holds no metrics.json"
    elif by_name is not None:
        problem = f"experiment {word} has no {by_name} yet: panollava run {word}"
    else:
        problem = f"{word} is neither a results folder nor a metrics.json nor an experiment"
    raise EvaluationError(f"{problem}. Expected for instance results/EXP1")


def names_of(paths: Sequence[Path]) -> list[str]:
    """The last parts of each folder, as many as it takes to distinguish all of them. Raises EvaluationError.

    An evaluation in `EXP1/eval/test/` is called so, since `test` alone says nothing.
    """
    folders = [path.resolve().parent.parts for path in paths]
    if len(set(folders)) < len(folders):
        raise EvaluationError(f"{', '.join(map(str, paths))}: one of them is listed twice")
    for more in range(max(map(len, folders))):
        least = [3 if "eval" in parts[-2:-1] else 1 for parts in folders]
        names = ["/".join(parts[-(count + more) :]) for parts, count in zip(folders, least, strict=True)]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different folders have different paths")


def _path_of_experiment(word: str, root: Path) -> Path | None:
    from panollava.config import WorkflowConfig

    try:
        return root / WorkflowConfig.load(word, root, warn=False).names.metrics
    except (PanollavaError, OSError):  # no project here, or no such experiment
        return None


def _read(path: Path, name: str, chosen: Collection[str]) -> Result:
    document = read_document(path)
    predictions = predictions_path(document, path)
    if predictions is None:
        raise EvaluationError(f"{path.parent} holds no predictions.csv: a comparison needs every sample's answer")
    if sha256_file(predictions) != document["provenance"].get("predictions"):
        raise EvaluationError(
            f"{predictions} is not the file that {path} was computed from. Compute the scores again: panollava run "
            "EXPERIMENT --forcerun compute_metrics, or panollava eval."
        )
    rows = read_predictions(predictions)
    custom, refused = custom_metrics_of(document, chosen)
    report = rescore(document, rows, custom_metrics=custom)
    for why in refused.values():
        LOGGER.warning("%s: %s", name, why)
    there = {key: found for key, found in document["metrics"].items() if found["value"] is not None}
    scored = apply_protocol(rows, document["protocol"])
    again = {**report.metrics, **measured_again(document, path, rows, scored)}
    metrics = {key: _again(name, key, found, again.get(key), refused) for key, found in there.items()}
    return Result(name, path.parent, document, scored, metrics)


def _again(
    name: str, key: str, recorded: Mapping[str, Any], found: MetricResult | None, refused: Mapping[str, str]
) -> MetricResult:
    """The metric as computed here, with the interval as recorded; else all as recorded, without samples."""
    interval = (recorded["interval"][0], recorded["interval"][1]) if recorded.get("interval") else None
    if found is not None and found.value is not None:
        if abs(found.value - recorded["value"]) > TOLERANCE:
            LOGGER.warning(
                "%s: %s is %.9f here and %.9f in metrics.json (%s %s here, %s %s there): the former is compared",
                name, LABELS.get(key, key), found.value, recorded["value"], found.library, found.version,
                recorded["library"], recorded["version"],
            )  # fmt: skip
            interval = None
        return replace(found, interval=interval)
    reason = "its parts are not in predictions.csv" if found is None else str(found.reason)
    if found is None:
        reason = refused.get(str(recorded["library"]), reason)
    return MetricResult(
        recorded["value"], recorded["scale"], recorded["library"], recorded["version"], recorded["signature"], reason,
        interval,
        lower_is_better=lower_is_better(recorded),
    )  # fmt: skip
