"""The DAG as a module of another workflow: its rules, its scripts from where they lie, its settings by `config:`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, SMALL

pytestmark = pytest.mark.workflow

REJECTED = "results/SMALL/prepared/rejected.csv"


def other_workflow(root: Path, config: str) -> None:
    """A project with a Snakefile of its own; the checkout is elsewhere."""
    (root / "config/experiments").mkdir(parents=True, exist_ok=True)
    (root / "config/experiments/SMALL.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    (root / "Snakefile").write_text(
        f'module panollava:\n    snakefile: "{ROOT}/Snakefile"\n    config: {config}\n\n'
        "use rule * from panollava as panollava_*\n\n"
        f'rule count:\n    input: "{REJECTED}"\n    output: "rows.txt"\n    shell: "wc -l <{{input}} >{{output}}"\n',
        encoding="utf-8",
    )


def snakemake(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)


def test_another_workflow_uses_the_rules_and_gives_settings(tmp_path: Path) -> None:
    other_workflow(tmp_path, '{"data": {"synthetic": {"test_scenes": 2}}}')
    done = snakemake(tmp_path, "--cores", "1", "--", "rows.txt")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "rows.txt").read_text().strip() == "1"
    rows = (tmp_path / "results/SMALL/prepared/test.csv").read_text(encoding="utf-8").splitlines()
    assert len({row.split(",")[0] for row in rows[1:]}) == 2, "the panoramas that the module's settings ask for"
    again = snakemake(tmp_path, "-n", "--", "rows.txt")
    assert "Nothing to be done" in again.stdout + again.stderr

    other_workflow(tmp_path, '{"traning": {"seed": 3}}')
    refused = snakemake(tmp_path, "-n", "--", "rows.txt")
    assert refused.returncode == 2 and "traning is not a key" in refused.stderr
