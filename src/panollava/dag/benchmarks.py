"""What the jobs behind an experiment took: seconds and memory, from Snakemake's benchmark files beside their logs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from panollava.dag.nodes import RULES
from panollava.dag.tasks import own_nodes, tasks_behind, with_shards

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

COLUMNS = ("rule", "jobs", "seconds", "peak memory (MiB)")


@dataclass(frozen=True)
class Used:
    """What the jobs of a rule took when they last ran: seconds of all, memory of the largest (None: too short)."""

    rule: str
    jobs: int
    seconds: float
    memory_mib: float | None

    @property
    def row(self) -> list[str]:
        """Its cells under COLUMNS."""
        memory = "" if self.memory_mib is None else f"{self.memory_mib:.0f}"
        return [self.rule, str(self.jobs), f"{self.seconds:.1f}", memory]


def used_by(experiments: Sequence[WorkflowConfig]) -> list[Used]:
    """A row per rule, in the order of the DAG, of those whose jobs have a benchmark file; shared jobs count once."""
    files: dict[str, dict[Path, tuple[float, float | None]]] = {}
    looked_at: set[Path] = set()  # many nodes have the same ones behind them
    for experiment in experiments:
        for name in own_nodes(experiment):
            for task in with_shards(tasks_behind(experiment, name)):
                path = experiment.root / task.fill(task.node.benchmark_template)
                if path not in looked_at and (found := _read(path)) is not None:
                    files.setdefault(task.node.rule, {})[path] = found
                looked_at.add(path)
    rows = []
    for rule in RULES:
        if (jobs := files.get(rule)) is None:
            continue
        memory = [mib for _, mib in jobs.values() if mib is not None]
        rows.append(Used(rule, len(jobs), sum(s for s, _ in jobs.values()), max(memory) if memory else None))
    return rows


def _read(path: Path) -> tuple[float, float | None] | None:
    """Seconds and peak resident memory of a benchmark file; None where there is none, or it is not Snakemake's."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            row = next(csv.DictReader(stream, delimiter="\t"))
        return float(row["s"]), None if row["max_rss"] in ("NA", "-") else float(row["max_rss"])
    except (OSError, StopIteration, KeyError, ValueError):
        return None
