"""Collect the rows of a finished ablation: one per cell, from its metrics and stage state. No torch.

`ablation_table` writes the rows. They never contain scores of another configuration than the present one. (For the
state of a grid that is running or has failed see `dag.records`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panollava.errors import EvaluationError
from panollava.files import read_json


@dataclass(frozen=True)
class CellRow:
    """One cell. `settings` are those in which cells differ; `metrics` is its metrics.json, if that is current."""

    experiment: str
    settings: dict[str, Any]
    status: str
    metrics: dict[str, Any] | None = None
    best_val_loss: float | None = None
    trainable_parameters: int | None = None
    minutes: float | None = None
    error: str | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        return {} if self.metrics is None else {key: m["value"] for key, m in self.metrics["metrics"].items()}

    @property
    def blind(self) -> dict[str, float | None]:
        return {} if self.metrics is None else self.metrics["controls"]["blind"] or {}


def compare_cells(
    slice_document: Mapping[str, Any], metrics: Sequence[Path], states: Sequence[Path], root: Path
) -> list[CellRow]:
    """Rows of finished cells, whose files come in the slice's order.

    Raises EvaluationError for metrics of another configuration than the cell's.
    """
    rows = []
    for cell, metrics_path, state_path in zip(slice_document["cells"], metrics, states, strict=True):
        document = read_json(metrics_path)
        found = document["provenance"].get("config")
        if found != cell["metrics"]:
            raise EvaluationError(
                f"{metrics_path} was computed for another configuration (digest {found}) than {cell['experiment']} "
                f"has now ({cell['metrics']}). Remove it and run the same command again."
            )
        stages = list(read_json(state_path)["stages"].values())
        if stages and stages[-1]["config_digest"] != document["provenance"]["checkpoint"]["config_digest"]:
            raise EvaluationError(
                f"{state_path} and {metrics_path} belong to different trainings of {cell['experiment']}. Remove the "
                "former and run the same command again."
            )
        settings = dict(zip(slice_document["settings"], cell["values"], strict=True))
        rows.append(CellRow(cell["experiment"], settings, "completed", document, **facts_of_stages(stages, root)))
    return rows


def facts_of_stages(stages: Sequence[Mapping[str, Any]], root: Path) -> dict[str, Any]:
    """Facts of the stages' records: minutes of all, loss and trainable parameters of the last."""
    if not stages:  # a native model that answers as it comes
        return {"best_val_loss": None, "trainable_parameters": None, "minutes": None}
    last = stages[-1]
    minutes = [stage["elapsed_minutes"] for stage in stages if stage["elapsed_minutes"] is not None]
    metadata = root / (last["artifact_dir"] or "") / "checkpoint_metadata.json"
    return {
        "best_val_loss": last["best_val_loss"],
        "trainable_parameters": read_json(metadata).get("trainable_parameters") if metadata.is_file() else None,
        "minutes": round(sum(minutes), 2) if minutes else None,
    }
