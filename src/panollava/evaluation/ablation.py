"""How the cells of an ablation stand: one row per cell, whether it is finished or not. No torch.

Enters: the cells' metrics and stage states (the job `compare_ablation`, when all of them are done), or their
configurations (how a grid stands that runs or has failed). Leaves: rows, which `ablation_table` writes. Scores of
another configuration than the present one never stand in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.dotted import value_at
from panollava.config.slices import measures_of
from panollava.errors import EvaluationError
from panollava.files import read_json
from panollava.job_logs import INTERRUPTED, read_job_log
from panollava.stage_state import stage_state

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig
    from panollava.config.ablations import Ablation

SUMMARY_VERSION = 1
"""Raise it when the table's meaning changes."""

_SHARED_RULES = {
    "synthetic": "draw_synthetic",
    "miniature_vision": "pretrain_vision",
    "miniature_language": "pretrain_language",
}


@dataclass(frozen=True)
class Row:
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


# ---- all cells are done --------------------------------------------------------------------------
def summary_slice(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> dict[str, Any]:
    """What the table depends on: the cells, in what they differ, and the digest of each one's metrics."""
    settings = differing_settings(ablation, configs)
    return {
        "node": "compare_ablation",
        "code_version": SUMMARY_VERSION,
        "name": ablation.name,
        "settings": list(settings[0]),  # canonical JSON sorts keys, and the columns keep the file's order
        "cells": [
            {"experiment": config.names.experiment, "values": list(own.values()), "metrics": config.digest("metrics")}
            for config, own in zip(configs, settings, strict=True)
        ],
    }


def differing_settings(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> list[dict[str, Any]]:
    """Each cell's values of the settings in which cells differ (of all varied ones, where there is one cell)."""
    documents = [config.to_dict() for config in configs]
    found: list[dict[str, Any]] = [{} for _ in configs]
    columns = {"model": [cell.model for cell in ablation.cells]}
    columns |= {key: [value_at(document, key) for document in documents] for key in ablation.varied}
    for name, values in columns.items():
        if any(value != values[0] for value in values) or (len(configs) == 1 and name != "model"):
            for own, value in zip(found, values, strict=True):
                own[name] = value
    return found


def compare_cells(
    slice_document: Mapping[str, Any], metrics: Sequence[Path], states: Sequence[Path], root: Path
) -> list[Row]:
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
        if stages[-1]["config_digest"] != document["provenance"]["checkpoint"]["config_digest"]:
            raise EvaluationError(
                f"{state_path} and {metrics_path} belong to different trainings of {cell['experiment']}. Remove the "
                "former and run the same command again."
            )
        settings = dict(zip(slice_document["settings"], cell["values"], strict=True))
        rows.append(Row(cell["experiment"], settings, "completed", document, **_of_stages(stages, root)))
    return rows


# ---- how the cells stand now ---------------------------------------------------------------------
def rows_so_far(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> list[Row]:
    """A row per cell from what lies on the disk now: completed, failed, running or pending."""
    settings = differing_settings(ablation, configs)
    return [_row_so_far(config, own) for config, own in zip(configs, settings, strict=True)]


def _row_so_far(config: WorkflowConfig, settings: dict[str, Any]) -> Row:
    names, root = config.names, config.root
    records = {stage: str(root / names.state_dir(stage) / "record.json") for stage in names.stages}
    stages = [
        stage
        for stage in stage_state(names.experiment, records, live=True)["stages"].values()
        if stage["config_digest"] == config.digest(f"train_{stage['stage']}")
    ]
    about = _of_stages(stages, root) if stages else {}
    document = _current_metrics(root / names.metrics, config.digest("metrics"))
    if document is not None:
        return Row(names.experiment, settings, "completed", document, **about)
    status, error = _standing(config)
    return Row(names.experiment, settings, status, None, **about, error=error)


def _current_metrics(path: Path, digest: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = read_json(path)
        return document if document["provenance"]["config"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not what this version writes: not current
        return None


def _standing(config: WorkflowConfig) -> tuple[str, str | None]:
    """Status and error of an unfinished cell, from the logs of the jobs that it needs."""
    status = "pending"
    for rule, path, digests in job_logs_of(config):
        log = read_job_log(config.root / path)
        if log is None or log.digest not in digests:
            continue
        if log.running:
            status = "running"
        elif log.error not in (None, INTERRUPTED):
            return "failed", f"{rule}: {log.error}"
    return status, None


def job_logs_of(config: WorkflowConfig) -> Iterator[tuple[str, str, set[str]]]:
    """(rule, log, digests of its slice) of the jobs behind an experiment's metrics, in the DAG's order."""
    names, stages = config.names, config.names.stages
    shared: dict[str, str] = {}  # digest -> rule
    for split in ("train", "val", "test"):
        for stage in (None, *stages):
            for node, rule in ((f"prepare_{split}", "prepare_csv"), (f"views_{split}", "cache_views")):
                upstream = config.slice_of(node, stage)["upstream"]
                shared |= {key: _SHARED_RULES[kind] for kind, key in upstream.items() if kind in _SHARED_RULES}
                shared[config.digest(node, stage)] = rule
    for stage in stages:
        upstream = config.slice_of(f"train_{stage}")["upstream"]
        shared |= {key: _SHARED_RULES[kind] for kind, key in upstream.items() if kind in _SHARED_RULES}
    for digest, rule in shared.items():
        yield rule, f"{names.logs_dir}/shared/{rule}_{digest}.log", {digest}
    for stage in stages:
        yield (
            f"train_{stage}",
            names.log(f"train_{stage}_{names.variant}"),
            {config.digest(f"train_{stage}")},
        )
    predicted = {config.digest(node) for node in ("predict", "predict_blind")}
    yield "select_checkpoint", names.log("select_checkpoint"), {config.digest("select_checkpoint")}
    yield "predict", names.log("predict"), predicted
    yield "predict_blind", names.log("predict_blind"), predicted
    for measure in measures_of(config.settings.evaluation.extra):
        yield measure, names.log(measure), {config.digest(measure)}
    yield "compute_metrics", names.log("compute_metrics"), {config.digest("metrics")}


def _of_stages(stages: Sequence[Mapping[str, Any]], root: Path) -> dict[str, Any]:
    """Facts of the stages' records: minutes of all, loss and trainable parameters of the last."""
    last = stages[-1]
    minutes = [stage["elapsed_minutes"] for stage in stages if stage["elapsed_minutes"] is not None]
    metadata = root / (last["artifact_dir"] or "") / "checkpoint_metadata.json"
    return {
        "best_val_loss": last["best_val_loss"],
        "trainable_parameters": read_json(metadata).get("trainable_parameters") if metadata.is_file() else None,
        "minutes": round(sum(minutes), 2) if minutes else None,
    }
