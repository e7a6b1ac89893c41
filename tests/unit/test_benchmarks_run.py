"""Each benchmark with `--smoke` runs to its end at its smallest size: none of them rots."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMOKED = sorted(path.name for path in BENCHMARKS.glob("*.py") if '"--smoke"' in path.read_text(encoding="utf-8"))


def test_the_benchmarks_that_compare_builds_are_among_them() -> None:
    assert {"dag.py", "large.py", "start_up.py", "train_step.py", "views.py"} <= set(SMOKED)


@pytest.mark.parametrize("name", SMOKED)
def test_it_runs(name: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--smoke"],
        cwd=BENCHMARKS.parent, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(character.isdigit() for character in done.stdout), done.stdout
