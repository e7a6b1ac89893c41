"""The DAG with data as people have them: odd paths, rows that cannot be used, addresses that nobody answers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import SMALL, Project, new_project, with_changes
from PIL import Image

pytestmark = pytest.mark.workflow
ODD = "a b;$(touch pwned)'\"&|`x`-사진.csv"


@pytest.fixture
def odd(tmp_path: Path) -> Project:
    project = new_project(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)).save(tmp_path / "$(id) 사진.png")
    return project


def prepare(project: Project, path: str, rows: str) -> tuple[int, str]:
    (project.root / path).write_text(f"url,query,annotation\n{rows}", encoding="utf-8")
    changes = {"experiment.name": "SMALL", "data.csv_train": path, "data.csv_val": path, "data.csv_test": path}
    project.yaml.write_text(yaml.safe_dump(with_changes(SMALL, dict(changes)), allow_unicode=True), encoding="utf-8")
    done = project.call("snakemake", "--cores", "2", "--", "results/SMALL/prepared/rejected.csv", check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_shell_never_sees_a_path(odd: Project) -> None:
    code, said = prepare(odd, ODD, "$(id) 사진.png,q,x\n" * 30 + "gone.png,q,y\n")
    assert code == 0, said
    assert not list(odd.root.rglob("pwned"))
    with (odd.root / "results/SMALL/prepared/rejected.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [["source_csv", "source_line", "reason", "url", "query", "annotation"],
                    [ODD, "32", "image missing", "gone.png", "q", "y"]]  # fmt: skip


def test_without_a_network_the_rows_and_the_reason_survive(odd: Project) -> None:
    code, said = prepare(odd, "web.csv", "".join(f"http://no.invalid/{n}.jpg,q,x\n" for n in range(50)))
    assert code == 1 and "no.invalid cannot be found" in said and "run the same command again" in said
    (kept,) = odd.root.glob("logs/shared/rejected_*.csv")
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 51
    assert not list(odd.root.glob("cache/csv/*/prepared.csv"))
