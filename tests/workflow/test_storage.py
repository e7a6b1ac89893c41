"""Read-only folders and a full disk below the whole project: one clear message, and the same command goes on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import Project
from plans import plan
from trouble import FAULTS, mounted, read_only, unmount

pytestmark = pytest.mark.workflow

CHANGES = {
    "results": ({"generation.max_new_tokens": 5}, {"predict": 1, "compute_metrics": 1}),
    "runs": (
        {"lora.rank": 1},
        {"train_finetune": 1, "write_stage_state": 1, "select_checkpoint": 1, "predict": 1, "compute_metrics": 1},
    ),
    "logs": ({"evaluation.metrics": ["rouge_l"]}, {"compute_metrics": 1}),
    "cache": (
        {"training.stage_configs.finetune.data.csv_val": "data/train.csv"},
        {"train_finetune": 1, "write_stage_state": 1, "select_checkpoint": 1, "predict": 1, "compute_metrics": 1},
    ),
    ".": ({"evaluation.metrics": ["rouge_l"]}, {"compute_metrics": 1}),
}


@pytest.mark.parametrize("folder", CHANGES)
def test_a_read_only_folder_is_told_in_one_message(local: Project, folder: str) -> None:
    changes, expected = CHANGES[folder]
    before = (local.root / "results/LOCAL/metrics.json").read_bytes()
    local.configure(changes)
    with read_only(local.root / folder):
        done = local.panollava("run", "LOCAL", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0 and "Traceback" not in text and 'File "/' not in text.replace(str(local.root), "")
    told = {
        "results": "Write-protected output files for rule",
        "runs": "Write-protected output files for rule",
        "logs": "error: logs may not be written: it is read-only or not yours. Allow writing there, then run",
        "cache": "error: cache may not be written: it is read-only or not yours. Allow writing there, then run",
        ".": "panollava.lock: Read-only file system. Allow writing there, then run the same command again.",
    }
    assert text.count(told[folder]) == 1, text
    assert (local.root / "results/LOCAL/metrics.json").read_bytes() == before
    assert plan(local) == expected


def test_a_full_disk_below_the_whole_project(finished_local: Project, tmp_path: Path) -> None:
    """Not even Snakemake can write then: the job's message is the only one, and so it is with the next command."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted("-t", "tmpfs", "-o", "size=24m", "panollava-test", str(disk)):
        pytest.skip("mounting a file system is not allowed here")
    try:
        local = finished_local.copy_to(disk / "local")
        local.configure({"evaluation.metrics": ["rouge_l"]})
        faults = {"PYTHONPATH": str(FAULTS), "FAULTS": "compute_metrics:full", "FAULT_DISK": str(disk)}
        done = local.panollava("run", "LOCAL", check=False, env=faults)
        text = done.stdout + done.stderr
        message = "No space left on device. Make room there, then run the same command again."
        assert done.returncode != 0 and text.count(message) == 1 and "Traceback" not in text, text
        assert not (local.root / "results/LOCAL/metrics.json").exists()
        done = local.panollava("run", "LOCAL", check=False)
        text = done.stdout + done.stderr
        assert done.returncode != 0 and text.count(message) == 1 and "Traceback" not in text, text
        (disk / "filling").unlink()
        assert plan(local) == {"compute_metrics": 1}
        local.panollava("run", "LOCAL")
        assert plan(local) == {}
    finally:
        unmount(disk)
        shutil.rmtree(disk, ignore_errors=True)
