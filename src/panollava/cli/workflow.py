"""`run` and `status`: the DAG's front door, and what the stages of an experiment are doing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from panollava.cli.common import load_experiment
from panollava.processes import die_with_parent


def add_to(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)
    app.command()(status)


def run(
    context: typer.Context,
    targets: Annotated[list[str] | None, typer.Argument(metavar="TARGET…", help="Files or experiments' names.")] = None,
) -> None:
    """Run the DAG: `snakemake --cores all` with the default profile, or with yours; all options passed on.

    A TARGET is a file (results/EXP1/metrics.json) or an experiment's name, which stands for its metrics and its stage
    state. Without one, every experiment of workflow.experiments is built. Example: panollava run EXP1 -n
    """
    words = [*(targets or []), *context.args]
    arguments = [file for word in words for file in _files_of(word)]
    elsewhere = any(word.startswith(("--workflow-profile", "--profile", "--executor")) for word in words)
    if not elsewhere and not any(word.startswith(("--cores", "--jobs", "-c", "-j")) for word in words):
        arguments = ["--cores", "all", *arguments]
    parent = os.getpid()
    # SIGKILL: a snakemake that outlives its front door would wait for its jobs while the next run finds it locked.
    child = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments],
        preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
    )

    def stop(number: int, _: object) -> None:
        """Jobs save their state and end; snakemake, told as well, starts no more (and cancels those of a cluster)."""
        child.send_signal(signal.SIGINT if elsewhere else signal.SIGTERM)
        for pid in _children_of(child.pid):
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    # A terminal sends Ctrl-C to snakemake and the jobs as well; a lone SIGINT from elsewhere stops them like SIGTERM.
    signal.signal(signal.SIGINT, (lambda *_: None) if sys.stdin.isatty() else stop)
    code = child.wait()
    raise typer.Exit(code if code >= 0 else 128 - code)


def _files_of(word: str) -> list[str]:
    """An experiment's name, or its YAML's path, stands for its metrics and its stage state."""
    if word.startswith("-") or not Path("config/experiments").is_dir():
        return [word]
    from panollava.config import Project

    if word.endswith((".yaml", ".yml")) or word in Project(".").experiments():
        names = load_experiment(word).names
        return [names.metrics, names.stage_state]
    return [word]


def _children_of(pid: int) -> list[int]:
    """PIDs of the direct children of `pid` (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def status(
    experiment: Annotated[str, typer.Argument(help="An experiment's name or its YAML's path.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What the stages of an experiment did or are doing, from their own records."""
    from panollava.stage_state import stage_state

    found = load_experiment(experiment)
    records: dict[str, str] = {s: f"{found.names.state_dir(s)}/record.json" for s in found.settings.training.stages}
    document = stage_state(found.names.experiment, records, live=True)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    for stage, row in document["stages"].items():
        parts = [f"{stage:<10}", f"{row['status']:<10}"]
        if row.get("progress"):
            progress = row["progress"]
            parts.append(f"epoch {progress['epoch']}, step {progress['step']} of {progress['total_steps']}")
        if row["best_val_loss"] is not None:
            parts.append(f"best validation loss {row['best_val_loss']:.4f}")
        if row["elapsed_minutes"] is not None:
            parts.append(f"{row['elapsed_minutes']:.1f} min")
        if row["error"]:
            parts.append(row["error"])
        print("  ".join(parts))
