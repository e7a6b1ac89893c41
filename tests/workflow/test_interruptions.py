"""Interrupted in every way, in each stage and in prediction: the same command ends with the undisturbed numbers."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from conftest import Project
from kill_test import WAYS, Running, outcome
from plans import targets
from trouble import FAULTS

pytestmark = pytest.mark.workflow

# Every stage is stale; each has enough steps to be cut in the middle of an epoch.
CHANGES: dict[str, object] = {
    "training.num_workers": 1,
    "training.checkpoint_every_n_steps": 1,
    "training.log_every_n_steps": 1,
    "training.eval_batch_size": 2,
    **{f"training.stage_configs.{stage}.epochs": 3 for stage in ("vision", "resampler", "finetune")},
    **{f"training.stage_configs.{stage}.batch_size": 4 for stage in ("resampler", "finetune")},
    "training.stage_configs.vision.batch_size": 3,
}


@pytest.fixture(scope="session")
def undisturbed(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The changed experiment, run without interruption; shared by the workers. Do not change it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with (base / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "undisturbed.done").exists():
            calm = finished.copy_to(base / "undisturbed")
            calm.configure(CHANGES)
            calm.panollava("run", "SMALL")
            (base / "undisturbed.done").touch()
    return Project(base / "undisturbed")


def progress_of(project: Project, stage: str) -> int:
    """The step at which a running stage is; 0 before its first."""
    record = project.root / f"runs/SMALL/.state/{stage}/anyres-e2p_mlp/record.json"
    try:
        document = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return int((document.get("progress") or {}).get("step", 0)) if document["status"] == "running" else 0


def in_stage(stage: str, step: int) -> Callable[[Project], bool]:
    return lambda project: progress_of(project, stage) >= step


def in_prediction(answers: int) -> Callable[[Project], bool]:
    """Once so many answers are kept, whichever of predict and predict_blind comes first."""

    def some_answers(project: Project) -> bool:
        kept = 0
        for path in (project.root / "runs/SMALL/.state").glob("predict*/*.jsonl"):
            with suppress(FileNotFoundError):  # it goes when its job ends
                kept += path.read_bytes().count(b"\n")
        return kept >= answers

    return some_answers


def interrupt(project: Project, when: Callable[[Project], bool], way: str) -> None:
    running = Running(project.root, "SMALL")
    deadline = time.monotonic() + 300
    while not when(project):
        assert not running.ended and time.monotonic() < deadline, "the moment to interrupt did not come"
        time.sleep(0.01)
    running.interrupt(way)
    assert running.leader.returncode != 0


@pytest.mark.parametrize(
    ("moments", "stage"),
    [
        ([(in_stage("vision", 2), "ctrl-c"), (in_stage("vision", 4), "kill job")], "vision"),
        ([(in_stage("resampler", 7), "kill all"), (in_stage("resampler", 14), "sigterm")], "resampler"),
        ([(in_stage("finetune", 5), "kill snakemake"), (in_stage("finetune", 11), "kill front door")], "finetune"),
        ([(in_prediction(2), "kill all"), (in_prediction(8), "sigterm")], None),
    ],
    ids=["vision", "resampler", "finetune", "prediction"],
)
def test_the_same_command_goes_on(
    project: Project, undisturbed: Project, moments: list[tuple[Callable[[Project], bool], str]], stage: str | None
) -> None:
    """Twice interrupted, mid-epoch, with a data-loader worker: resumed, and equal to the undisturbed run."""
    start_before(project, undisturbed, stage)
    for when, way in moments:
        interrupt(project, when, way)
        assert not (project.root / "results/SMALL/metrics.json").exists()
    project.panollava("run", "SMALL")
    if stage is not None:
        row = json.loads((project.root / "runs/SMALL_stage_state.json").read_text())["stages"][stage]
        assert row["resumed_from_step"] and row["status"] == "completed"
        assert differing_tensors(undisturbed, project, stage) == {}, row
    assert outcome(project.root, "SMALL") == outcome(undisturbed.root, "SMALL")
    assert project.plan() == []


def start_before(project: Project, undisturbed: Project, stage: str | None) -> None:
    """The undisturbed run's project as it was before `stage` (None: before the predictions)."""
    shutil.rmtree(project.root)
    shutil.copytree(undisturbed.root, project.root, symlinks=True)
    stages = ["vision", "resampler", "finetune"]
    for later in stages[stages.index(stage) :] if stage else []:
        shutil.rmtree(project.root / f"runs/SMALL/{later}")
        shutil.rmtree(project.root / f"runs/SMALL/.state/{later}")
    for name in ("predict", "predict_blind"):
        shutil.rmtree(project.root / f"runs/SMALL/.state/{name}")
    (project.root / "runs/SMALL_stage_state.json").unlink()
    shutil.rmtree(project.root / "results/SMALL")


def test_every_way_is_tried() -> None:
    marks = test_the_same_command_goes_on.pytestmark  # type: ignore[attr-defined]
    cases = next(mark for mark in marks if mark.name == "parametrize").args[1]
    assert {way for moments, _ in cases for _, way in moments} == set(WAYS)


def test_a_changed_setting_starts_the_stage_afresh(project: Project, undisturbed: Project) -> None:
    start_before(project, undisturbed, "finetune")
    interrupt(project, in_stage("finetune", 5), "kill all")
    project.configure({**CHANGES, "training.stage_configs.finetune.lr": 0.00123})
    project.panollava("run", "SMALL")
    state = json.loads((project.root / "runs/SMALL_stage_state.json").read_text())
    assert state["stages"]["finetune"]["resumed_from_step"] is None


def test_two_commands_at_once(project: Project) -> None:
    """The second one waits, says for whom, and finds the work done."""
    project.configure({"training.stage_configs.finetune.lr": 0.00234})
    first = Running(project.root, "SMALL")
    lock = project.root / ".snakemake/panollava.lock"
    deadline = time.monotonic() + 60
    while not first.jobs():
        assert not first.ended and time.monotonic() < deadline
        time.sleep(0.05)
    owner = lock.read_text().split()[0]
    second = project.panollava("run", "SMALL")
    assert first.leader.wait() == 0
    assert f"waiting for process {owner} (snakemake" in second.stderr
    assert "Nothing to be done" in second.stdout + second.stderr
    assert project.plan() == []


def test_a_dry_run_waits_for_nobody_and_leaves_living_locks(project: Project) -> None:
    project.configure({"training.stage_configs.finetune.lr": 0.00345})
    running = Running(project.root, "SMALL")
    deadline = time.monotonic() + 60
    while not running.jobs():
        assert not running.ended and time.monotonic() < deadline
        time.sleep(0.05)
    assert "train_finetune" in project.plan() and not running.ended
    assert any((project.root / ".snakemake/locks").iterdir())
    running.interrupt("sigterm")


@pytest.mark.parametrize("command", ["snakemake", "panollava"])
def test_sigterm_as_a_job_finishes_does_not_hang(local: Project, command: str) -> None:
    """Snakemake holds a lock in that moment, for which its own handler would wait."""
    for name in ("prepared/val.csv", "prepared/rejected.csv", "metrics.json", "checkpoint.json"):
        (local.root / "results/LOCAL" / name).unlink()
    words = (
        ["snakemake", "--cores", "1", "--", *targets("LOCAL")] if command == "snakemake" else [command, "run", "LOCAL"]
    )
    done = local.call(*words, check=False, timeout=60, env={"PYTHONPATH": str(FAULTS), "FAULT_SIGTERM": "1"})
    said = done.stdout + done.stderr
    finished = "Finished jobid" if command == "snakemake" else "[1/4] "
    assert done.returncode == 1 and finished in said, said
    assert "Will exit after finishing currently running jobs" in said
    local.call(*words, timeout=120)
    assert local.plan() == []


def differing_tensors(calm: Project, wild: Project, stage: str) -> dict[str, dict[str, float]]:
    """By checkpoint of the undisturbed run: the tensors that the other one trained differently, and by how much."""
    folders = [project.root / f"runs/SMALL/{stage}/anyres-e2p_mlp" for project in (calm, wild)]
    metadata = json.loads((folders[0] / "checkpoint_metadata.json").read_text())
    found: dict[str, dict[str, float]] = {}
    for entry in metadata["epoch_info"]["checkpoints"]:
        paths = [folder / entry["file"] for folder in folders]
        if not paths[1].is_file():
            found[entry["file"]] = {"absent": 1.0}
            continue
        ours, theirs = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
        apart = {k: float((ours[k] - theirs[k]).abs().max()) for k in ours if not torch.equal(ours[k], theirs[k])}
        if apart:
            found[entry["file"]] = apart
    return found
