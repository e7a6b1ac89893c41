"""The current state of experiments and grids, finished or not, from the files on disk. No torch.

Rows for `ablation_table` are made from configurations, with the logs behind them. What another configuration
than the present one has left says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.dag.job_logs import INTERRUPTED, read_job_log
from panollava.dag.several import differing_settings
from panollava.dag.tasks import tasks_behind, with_shards
from panollava.evaluation.ablation import CellRow, facts_of_stages
from panollava.files import read_json
from panollava.stage_state import stage_state

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig
    from panollava.config.ablations import Ablation


def rows_so_far(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> list[CellRow]:
    """A row per cell from what lies on the disk now: completed, failed, running or pending."""
    settings = differing_settings(ablation, configs)
    return [_row_so_far(config, own) for config, own in zip(configs, settings, strict=True)]


def _row_so_far(config: WorkflowConfig, settings: dict[str, Any]) -> CellRow:
    names, root = config.names, config.root
    records = {stage: str(root / names.state_dir(stage) / "record.json") for stage in names.stages}
    stages = [
        stage
        for stage in stage_state(names.experiment, records, live=True)["stages"].values()
        if stage["config_digest"] == config.digest(f"train_{stage['stage']}")
    ]
    about = facts_of_stages(stages, root) if stages else {}
    document = _current_metrics(root / names.metrics, config.digest("metrics"))
    if document is not None:
        return CellRow(names.experiment, settings, "completed", document, **about)
    status, error = _standing(config)
    return CellRow(names.experiment, settings, status, None, **about, error=error)


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
    for task in with_shards(tasks_behind(config, "metrics")):
        yield task.node.rule, task.log, {task.digest}
