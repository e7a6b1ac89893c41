"""`panollava run` asked to stop: what does not end by itself is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# In the place of snakemake: deaf to SIGTERM, with a job that is deaf or not, and that may end before the signal.
SNAKEMAKE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: None)
job = "import signal, time; {deaf}; print('job', flush=True); time.sleep({seconds})"
children = [subprocess.Popen([sys.executable, "-c", job]) for _ in range({jobs})]
print("ready", flush=True)
for child in children:
    child.wait()
print("no job left", flush=True)
time.sleep(60)
"""
FRONT_DOOR = """
import sys
from panollava.cli import workflow
workflow.JOBS_END_S, workflow.SNAKEMAKE_ENDS_S = {times}
sys.exit(workflow.run_snakemake(["all"]))
"""


@pytest.mark.parametrize(
    ("jobs", "deaf", "times", "said"),
    [
        (0, "", (60, 0.5), "snakemake does not end after its jobs: it is killed"),
        (1, "", (60, 0.5), "snakemake does not end after its jobs: it is killed"),
        (
            1,
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
            (0.5, 0.5),
            "jobs did not end within 0 s: they are killed",
        ),
    ],
    ids=["a hanging snakemake", "a hanging snakemake behind its job", "a job that does not end"],
)
def test_what_does_not_end_is_killed(
    tmp_path: Path, jobs: int, deaf: str, times: tuple[float, float], said: str
) -> None:
    (tmp_path / "snakemake.py").write_text(SNAKEMAKE.format(jobs=jobs, deaf=deaf or "pass", seconds=60))
    process = subprocess.Popen(
        [sys.executable, "-c", FRONT_DOOR.format(times=times)],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(1 + jobs):
        assert process.stdout.readline()
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=50)[1]
    assert process.returncode == 128 + signal.SIGKILL and said in err and "Traceback" not in err, err
    assert time.monotonic() - started < 20
