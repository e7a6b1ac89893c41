"""Benchmarks that compare with other libraries still run, and still get equal results."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_INSTALLED = 75
pytestmark = pytest.mark.end_to_end


def test_a_native_step_against_trl_and_transformers() -> None:
    pytest.importorskip("torchvision", reason="native models need the extra `native`")
    done = subprocess.run(
        [sys.executable, "benchmarks/native_step.py", "--smoke"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode == NOT_INSTALLED:
        pytest.skip("no package index: TRL cannot be installed")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "answers, 8.0 tokens each: equal" in done.stdout
    assert re.search(r"losses apart by \S+ of theirs", done.stdout)
    assert len(re.findall(r"^  panollava .* times", done.stdout, re.M)) == 2
