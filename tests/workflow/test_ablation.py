"""A grid of two through the real DAG, one of which fails: what stands in the table, and when."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import open_report
from conftest import Project

from panollava.config import Project as Configuration
from panollava.dag.job_logs import read_job_log
from panollava.dag.records import job_logs_of

pytestmark = pytest.mark.workflow

GRID = """\
experiment_name: tiny
base: SMALL
training: {stages: [finetune]}
evaluation: {metrics: [bleu4], custom_metrics: []}
lora_configs:
  - {lora_r: 2, lora_alpha: 4}
  - {lora_r: 4, lora_alpha: 8, target_modules: %s}
"""
SHARED = ("draw_synthetic", "pretrain_vision", "pretrain_language", "prepare_csv", "cache_views")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_log_says_for_which_configuration_it_was(finished: Project) -> None:
    """`panollava status` and the table read them: a job that writes another log would be overlooked."""
    config = Configuration(finished.root).experiment("SMALL")
    seen = [(rule, read_job_log(finished.root / path), digests) for rule, path, digests in job_logs_of(config)]
    assert {rule for rule, _, _ in seen} >= {*SHARED, "train_vision", "train_finetune", "predict_blind"}
    for rule, log, digests in seen:
        assert log is not None and log.digest in digests and not log.running and log.error is None, rule


def test_a_grid_with_a_failing_cell(project: Project, tmp_path: Path) -> None:
    folder = project.root / "results/ablations/tiny"
    grid = project.root / "config/ablations/tiny.yaml"
    grid.parent.mkdir()
    (grid.parent / "broken.yaml").write_text("lora_configs: [{lora_r: 3}]\n")

    grid.write_text(GRID % "[no_such_module]")
    done = project.panollava("run", "tiny", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said
    assert "ablation tiny: 1 of 2 cells completed, table: results/ablations/tiny/summary_so_far.csv" in said
    assert not any(f"] {rule} " in said for rule in SHARED), "common work is shared"
    assert [path.name for path in folder.glob("[!.]*")] == ["summary_so_far.csv"]
    good, bad = rows(folder / "summary_so_far.csv")
    assert (good["status"], bad["status"]) == ("completed", "failed")
    assert good["bleu4"] and good["blind_bleu4"] and not bad["bleu4"] and not bad["blind_bleu4"]
    assert bad["error"].startswith("train_finetune: lora.target_modules names ['no_such_module']")
    assert "tiny_r4a8  failed     train_finetune: lora" in project.panollava("status", "tiny").stdout

    # Corrected: the finished cell stays finished; the other one's error was that of another configuration.
    grid.write_text(GRID % "auto")
    before = json.loads(project.panollava("status", "tiny", "--json").stdout)
    assert [(row["status"], row["error"]) for row in before] == [("completed", None), ("pending", None)]
    done = project.panollava("run", "tiny")
    assert (done.stdout + done.stderr).count("] train_finetune ") == 1
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["summary.csv", "summary.html", "summary.png"]
    table = rows(folder / "summary.csv")
    assert [row["experiment"] for row in table] == ["tiny_r2a4", "tiny_r4a8"]
    assert [(row["lora.rank"], row["lora.alpha"], row["status"]) for row in table] == [
        ("2", "4", "completed"),
        ("4", "8", "completed"),
    ]
    counts = [int(row["trainable_parameters"]) for row in table]
    assert counts[0] < counts[1] and all(float(row["best_val_loss"]) > 0 for row in table)
    assert project.panollava("run", "tiny", "-n").stdout.count("Nothing to be done") == 1

    project.call("snakemake", "--report", "r.html", "--", "results/ablations/tiny/summary.csv")
    # Changed and killed: no handler runs after kill -9, so what is not current must be gone before the first job.
    grid.write_text(GRID % "auto" + "generation: {max_new_tokens: 3}\n")
    kill_once_begun(project, folder / "summary_so_far.csv")
    assert [path.name for path in folder.glob("[!.]*")] == ["summary_so_far.csv"]
    left = rows(folder / "summary_so_far.csv")
    assert {row["status"] for row in left} == {"pending"} and "bleu4" not in left[0]

    entries = open_report(project.root / "r.html", tmp_path)["entries"]
    seen = {entry["label"]: entry for entry in entries if entry["category"] == "Ablations"}
    assert seen["plot"]["width"] > 500 and "tiny_r4a8" in seen["scores"]["text"] and "blind" in seen["scores"]["text"]


def kill_once_begun(project: Project, sign: Path) -> None:
    """`panollava run tiny`, ended by kill -9 (which runs no handler) as soon as `sign` is there."""
    child = subprocess.Popen(
        [sys.executable, "-m", "panollava", "run", "tiny"], cwd=project.root, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not sign.exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_a_broken_ablation_hinders_no_experiment_and_is_one_line(project: Project) -> None:
    (project.root / "config/ablations").mkdir()
    (project.root / "config/ablations/broken.yaml").write_text(
        "base: SMALL\nlora_configs: [{lora_r: 0, lora_alpha: 1}]\n"
    )
    (project.root / "config/ablations/worse.yaml").write_text("lora_configs: [\n")
    assert project.plan() == []
    for name, message in [
        ("broken", "config/ablations/broken.yaml:2: lora.rank must be"),
        ("worse", "config/ablations/worse.yaml:1: not valid YAML"),
        ("brokn", "there is no ablation brokn in config/ablations. Did you mean broken?"),
    ]:
        done = project.call("snakemake", "-n", "--", f"results/ablations/{name}/summary.csv", check=False)
        assert done.returncode != 0 and f"error: {message}" in done.stdout + done.stderr, name
        assert "Traceback" not in done.stdout + done.stderr
