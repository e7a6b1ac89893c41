"""The DAG on a real Slurm: interrupted in every way, the same command ends with the undisturbed weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import one_node_slurm
import pytest
from conftest import Project
from one_node_slurm import OneNodeSlurm

from panollava.processes import die_with_parent

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(one_node_slurm.why_not() is not None, reason=str(one_node_slurm.why_not())),
]

FINETUNE = "runs/SMALL/finetune/anyres-e2p_mlp"
# A stage long enough to be cut; state is saved when a signal asks for it, after an epoch, and else never.
CHANGES: dict[str, object] = {
    "training.num_workers": 1,
    "training.checkpoint_every_n_steps": 100_000,
    "training.log_every_n_steps": 1,
    "training.stage_configs.finetune.epochs": 4,
    "training.stage_configs.finetune.batch_size": 1,  # 24 steps an epoch
    "evaluation.blind_control": False,
}
# What a cluster without a database and a test without patience need; a user has no use for them.
OPTIONS = [
    "--workflow-profile=profiles/slurm", "--slurm-no-account", "--slurm-status-command=squeue",
    "--slurm-init-seconds-before-status-checks=1", "--seconds-between-status-checks=1", "--latency-wait=5",
    "--retries=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def slurm() -> Iterator[OneNodeSlurm]:
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    try:
        with OneNodeSlurm.running(folder) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def undisturbed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The changed stage, trained on this machine without Slurm. Do not change it."""
    calm = finished.copy_to(tmp_path_factory.mktemp("calm") / "project")
    calm.configure(CHANGES)
    calm.call("snakemake", "--cores", "all", "--", f"{FINETUNE}/best.ckpt")
    return calm


class Command:
    """`panollava run TARGET…` on Slurm, in the background."""

    def __init__(self, project: Project, *targets: str) -> None:
        self.log = project.root / "command.log"
        parent = os.getpid()
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "panollava", "run", *OPTIONS, "--", *targets],
                cwd=project.root, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
            )  # fmt: skip

    def end(self) -> int:
        return self.process.wait(timeout=900)

    def kill(self) -> None:
        """kill -9, as when the machine that it runs on is lost."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")


def record(project: Project) -> dict[str, Any]:
    path = project.root / "runs/SMALL/.state/finetune/anyres-e2p_mlp/record.json"
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document


def wait_for_step(project: Project, command: Command, step: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        now = record(project)
        if now.get("status") == "running" and (now.get("progress") or {}).get("step", 0) >= step:
            return
        assert command.process.poll() is None, command.text[-3000:]
        assert time.monotonic() < deadline, command.text[-3000:]
        time.sleep(0.01)


def weights(project: Project) -> dict[str, bytes]:
    folder = project.root / FINETUNE
    return {
        name: (folder / name).read_bytes()
        for name in ("best.ckpt", "last.ckpt", "lora_weights/adapter_model.safetensors")
    }


def test_cancelled_and_lost_with_its_node(project: Project, undisturbed: Project, slurm: OneNodeSlurm) -> None:
    """To the metrics: a job that is cancelled, then a node that dies together with the command. The same one again."""
    project.configure(CHANGES)
    command = Command(project, "SMALL")
    wait_for_step(project, command, 30)
    (job,) = slurm.jobs("running")
    subprocess.run(["scancel", job], check=True)
    slurm.wait_until(lambda: record(project)["status"] == "pending", "a saved state")
    assert "stopped by SIGTERM; state saved at step" in record(project)["error"]
    command.process.terminate()  # it would notice by itself, half a minute later
    assert command.end() != 0

    command = Command(project, "SMALL")
    wait_for_step(project, command, 75)
    assert record(project)["resumed_from_step"] >= 24
    slurm.kill_node()
    command.kill()
    slurm.start_node()
    command = Command(project, "SMALL")
    assert command.end() == 0, command.text[-3000:]
    assert "cancelling Slurm jobs that an earlier command left" in command.text
    row = json.loads((project.root / "runs/SMALL_stage_state.json").read_text())["stages"]["finetune"]
    assert row["status"] == "completed" and row["resumed_from_step"] == 72
    assert weights(project) == weights(undisturbed)
    metrics = json.loads((project.root / "results/SMALL/metrics.json").read_text())["metrics"]
    assert metrics["bleu4"]["value"] is not None
    assert project.plan() == []


def test_edited_while_pending_and_preempted(project: Project, undisturbed: Project, slurm: OneNodeSlurm) -> None:
    """The job trains what was submitted, and goes on by itself after it had to make way; the edit waits."""
    project.configure(CHANGES)
    slurm.hold_new_jobs(True)
    command = Command(project, f"{FINETUNE}/best.ckpt")
    slurm.wait_until(lambda: bool(slurm.jobs("pending")), "a pending job")
    (job,) = slurm.jobs("pending")
    project.configure({**CHANGES, "training.stage_configs.finetune.lr": 0.5})
    slurm.hold_new_jobs(False)
    wait_for_step(project, command, 30)
    slurm.control("requeue", job)  # what Slurm does itself where PreemptMode=REQUEUE
    slurm.wait_until(lambda: slurm.state_of(job) == "PENDING", "a requeued job")
    slurm.control("update", f"JobId={job}", "StartTime=now")
    assert command.end() == 0, command.text[-3000:]
    assert slurm.state_of(job) == "COMPLETED"
    assert record(project)["resumed_from_step"] >= 24
    assert weights(project) == weights(undisturbed)
    assert "train_finetune" in project.plan()


def test_shards_answer_as_one_process(project: Project, finished: Project, slurm: OneNodeSlurm) -> None:
    """Three jobs for the answers and three for each control; joined they are those of one process, to the byte."""
    project.configure({"evaluation.shards": 3})
    assert project.plan() == []  # shards change no answer
    for path in (project.root / "results/SMALL").glob("predictions*.csv"):
        path.unlink()
    command = Command(project, "SMALL")
    assert command.end() == 0, command.text[-3000:]
    parts = {path.name for path in (project.root / "results/SMALL/shards").glob("*.json")}
    assert parts == {f"{step}_{one}-of-3.json" for step in ("predict", "predict_blind") for one in (1, 2, 3)}
    for name in ("predictions.csv", "predictions_blind.csv"):
        joined, whole = (one.root / "results/SMALL" / name for one in (project, finished))
        assert joined.read_bytes() == whole.read_bytes()
    assert project.plan() == []
