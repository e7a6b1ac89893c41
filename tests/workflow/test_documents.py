"""What the documents show is what the project does: the README's picture of the DAG."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT, new_project

pytestmark = pytest.mark.workflow
Arrows = set[tuple[str, str]]


def follows_from_others(arrow: tuple[str, str], arrows: Arrows) -> bool:
    """Whether another way leads from an arrow's start to its end."""
    reached, waiting = set(), [arrow[0]]
    while waiting:
        start = waiting.pop()
        ends = {b for a, b in arrows if a == start and (a, b) != arrow} - reached
        reached |= ends
        waiting += ends
    return arrow[1] in reached


def test_the_readmes_picture_is_the_dag_of_exp1(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (picture,) = re.findall(r"```mermaid\nflowchart LR\n(.*?)```", readme, flags=re.DOTALL)
    shown = {arrow for line in picture.splitlines() for arrow in pairwise(line.strip().split(" --> "))}

    (tmp_path / "project").mkdir()
    project = new_project(tmp_path / "project")
    shutil.copy(ROOT / "config/experiments/EXP1.yaml", project.root / "config/experiments/EXP1.yaml")
    drawn = project.call("snakemake", "--rulegraph", "mermaid-js", "--", "results/EXP1/metrics.json").stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", drawn))
    arrows = {(names[a], names[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", drawn)}
    assert shown == {arrow for arrow in arrows if not follows_from_others(arrow, arrows)}
