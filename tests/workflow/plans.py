"""What a dry run would do, job by job; and copies of a finished experiment under other names."""

from __future__ import annotations

import os
import re
import shutil
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import SMALL, Project, with_changes


@dataclass(frozen=True)
class Job:
    """A job of a plan: its rule and its files."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def targets(name: str, results: str = "results", runs: str = "runs") -> list[str]:
    return [f"{results}/{name}/metrics.json", f"{runs}/{name}_stage_state.json"]


def planned_jobs(project: Project, files: Iterable[str], **options: Any) -> list[Job]:
    """The jobs that the real Snakemake would run for `files`."""
    done = project.call("snakemake", "-n", "--", *files, **options)
    text = done.stdout + done.stderr
    blocks = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)+)", text, re.MULTILINE)
    assert bool(blocks) != ("Nothing to be done" in text), text[-3000:]
    return [Job(rule, _files(body, "input"), _files(body, "output")) for rule, body in blocks]


def plan(project: Project, files: Iterable[str] | None = None, **options: Any) -> dict[str, int]:
    """How often each rule would run."""
    return counts(planned_jobs(project, files or targets(project.name), **options))


def counts(jobs: Iterable[Job]) -> dict[str, int]:
    return dict(sorted(Counter(job.rule for job in jobs).items()))


def jobs_of(name: str, jobs: list[Job]) -> list[Job]:
    """The jobs of one experiment in a plan for several: those that write its files, and all that these need."""
    maker = {output: job for job in jobs for output in job.outputs}
    found = [job for job in jobs if any(name in re.split(r"/|_stage_state", output) for output in job.outputs)]
    for job in found:  # grows while it is walked
        found += {maker[i] for i in job.inputs if i in maker and maker[i] not in found}
    return found


def _files(body: str, kind: str) -> tuple[str, ...]:
    line = re.search(rf"^    {kind}: (.*)$", body, re.MULTILINE)
    return tuple(line[1].split(", ")) if line else ()


def add_twin(project: Project, name: str, changes: dict[str, Any]) -> None:
    """Another experiment, finished like SMALL (its files, and what Snakemake remembers of them), then changed."""
    root = project.root
    document = with_changes(SMALL, {"experiment.name": name, **changes})
    (root / f"config/experiments/{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    for folder in ("results", "runs"):
        shutil.copytree(root / folder / "SMALL", root / folder / name, symlinks=True, copy_function=os.link)
    os.link(root / "runs/SMALL_stage_state.json", root / f"runs/{name}_stage_state.json")
    for record in _records(root):
        path = urlsafe_b64decode(record.name).decode()
        if "SMALL" in path:
            twin = urlsafe_b64encode(path.replace("SMALL", name).encode()).decode()
            record.with_name(twin).write_text(record.read_text().replace("SMALL", name))


def _records(root: Path) -> list[Path]:
    """Snakemake's memory: one file for each output, named by the output's path."""
    return [record for record in (root / ".snakemake/metadata").iterdir() if record.is_file()]
