"""Two processes train a stage: the losses of one process, one set of files, no orphan, an exact resume."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Project

from panollava import config
from panollava.dag.job_slice import complete
from panollava.dag.nodes import TABLE
from panollava.dag.script import command_line
from panollava.errors import TrainingError
from panollava.files import canonical_json, digest_of
from panollava.models.choices import Stage
from panollava.training.build import build_stage
from panollava.training.features import FeatureStore
from panollava.training.job import StageJob
from panollava.training.run_stage import run_stage

pytestmark = pytest.mark.workflow

# 21 rows in batches of 4: of the last batch, and of the last one in validation, the second process gets no row.
TRAIN_ROWS, VAL_ROWS = 21, 9  # about six panoramas and one
BATCH = {"vision": 2, "resampler": 4, "finetune": 4}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def stage_job(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., StageJob]:
    """A stage of the small experiment on some of its rows, in folders of its own, without dropout."""
    root, base = finished.root, tmp_path_factory.mktemp("devices")
    experiment = config.Project(root).experiment("SMALL")

    def build(stage: Stage, devices: int, name: str, **settings: Any) -> StageJob:
        document = complete(experiment.slice_of(f"train_{stage}"), TABLE[f"train_{stage}"].reads)
        document["config"]["training"] |= {"devices": devices, "cpu_threads": 1}
        document["config"]["training"]["stage_configs"][stage] |= {"batch_size": BATCH[stage], **settings}
        if stage == "finetune":
            document["config"]["lora"]["dropout"] = 0.0
        upstream = document["upstream"]
        previous = [node.removeprefix("train_") for node in upstream if node.startswith("train_")]
        csvs = {}
        for split, rows in (("train", TRAIN_ROWS), ("val", VAL_ROWS)):
            lines = (root / f"cache/csv/{experiment.csv_key(split, stage)}/prepared.csv").read_text().splitlines()
            csvs[split] = base / f"{split}.csv"
            csvs[split].write_text("\n".join(lines[: rows + 1]) + "\n")
        return StageJob(
            stage=stage, slice=document, digest=digest_of(document),
            train_csv=csvs["train"], val_csv=csvs["val"],
            train_views=root / "cache/views" / experiment.views_key("train", stage),
            val_views=root / "cache/views" / experiment.views_key("val", stage),
            stage_folder=base / name / stage, state_folder=base / name / f".state/{stage}", cache=root / "cache",
            root=root, init_folder=root / experiment.names.stage_dir(previous[0]) if previous else None,
            vision_folder=root / "cache/miniature/vision" / upstream["miniature_vision"],
            language_folder=root / "cache/miniature/language" / upstream.get("miniature_language", ""),
            naming={"experiment": "SMALL", "checkpoint_prefix": "x", "remembered": {}},
            untracked={
                "log_every_n_steps": 1, "checkpoint_every_n_steps": 2, "num_workers": 0,
                "gradient_checkpointing": False,
            },
        )  # fmt: skip

    return build


def losses(job: StageJob) -> list[tuple[str, str, float]]:
    with (job.state_folder / "history.csv").open(newline="") as stream:
        return [(row["step"], row["split"], float(row["loss"])) for row in csv.DictReader(stream)]


def weights(job: StageJob) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(job.stage_folder / "last.ckpt", weights_only=True)["state_dict"]
    return state


def files(job: StageJob) -> list[str]:
    """What is there, without losses in names and without what a kill -9 in the middle of a write leaves."""
    found = [path.name for folder in (job.stage_folder, job.state_folder) for path in folder.iterdir()]
    return sorted(name.partition("_loss")[0] for name in found if not name.startswith("."))


@pytest.mark.parametrize(
    ("stage", "batches"), [("vision", "mixed"), ("finetune", "mixed"), ("finetune", "group_by_image")]
)
def test_two_processes_train_as_one(stage: Stage, batches: str, stage_job: Callable[..., StageJob]) -> None:
    jobs = [stage_job(stage, count, f"{batches}{count}", epochs=2, accumulate_grad_batches=2) for count in (1, 2)]
    for job in jobs:
        job.config["training"]["batches"] = batches
        run_stage(job)  # in this process, one after the other: as a notebook would
    one, two = (losses(job) for job in jobs)
    steps = 2 if stage == "vision" else 3  # an epoch, the last of half the batches
    assert len(one) == 2 * (steps + 1)
    assert [row[:2] for row in one] == [row[:2] for row in two]
    assert [row[2] for row in two] == pytest.approx([row[2] for row in one], rel=1e-5)
    one_weights, two_weights = map(weights, jobs)
    for name, tensor in one_weights.items():
        torch.testing.assert_close(two_weights[name], tensor, rtol=1e-4, atol=1e-4, msg=name)
    assert files(jobs[0]) == files(jobs[1])
    assert not _followers(os.getpid())


def test_interrupted_processes_leave_together_and_go_on_exactly(stage_job: Callable[..., StageJob]) -> None:
    calm, wild = (stage_job("resampler", 2, name, epochs=4) for name in ("calm", "wild"))  # 6 steps an epoch
    run_stage(calm)

    killer = threading.Thread(target=lambda: os.kill(_at_step(wild, 3, os.getpid())[0], signal.SIGKILL))
    killer.start()
    with pytest.raises(TrainingError, match="training process 1 ended with code -9"):
        run_stage(wild)
    killer.join()
    assert _record(wild)["status"] == "failed"

    job = _start(wild)  # kill -9 of rank 0: the other dies with it
    (other,) = _at_step(wild, 8, job.pid)
    job.kill()
    assert job.wait() == -signal.SIGKILL
    _wait(lambda: not Path(f"/proc/{other}").exists(), seconds=10)

    job = _start(wild)  # SIGTERM to both, as Slurm sends it: both leave after the same step
    (other,) = _at_step(wild, 14, job.pid)
    for process in (other, job.pid):
        os.kill(process, signal.SIGTERM)
    _, log = job.communicate(timeout=60)
    assert job.returncode == 143 and "stopped by SIGTERM; state saved at step" in log, log
    assert not Path(f"/proc/{other}").exists() and _record(wild)["status"] == "pending"

    run_stage(wild)
    assert _record(wild)["resumed_from_step"] >= 12
    for name, tensor in weights(calm).items():
        assert torch.equal(weights(wild)[name], tensor), name
    assert losses(wild) == losses(calm) and files(wild) == files(calm)


def _start(job: StageJob) -> subprocess.Popen[str]:
    """The stage as the DAG's rule starts it."""
    given = {
        "train_csv": job.train_csv, "val_csv": job.val_csv, "train_views": job.train_views / "index.json",
        "val_views": job.val_views / "index.json", "metadata": job.stage_folder / "checkpoint_metadata.json",
        "state": job.state_folder, "cache": job.cache, "naming": job.naming, "untracked": job.untracked,
        **{name: folder / "model.safetensors" for name, folder in
           (("vision", job.vision_folder), ("language", job.language_folder)) if folder},
        **({"init": job.init_folder / "best.ckpt"} if job.init_folder else {}),
    }  # fmt: skip
    command = [sys.executable, str(ROOT / f"workflow/scripts/train_{job.stage}.py"), *command_line(given)]
    command += [f"--slice={canonical_json(job.slice)}", f"--log={job.state_folder.parent / 'job.log'}"]
    return subprocess.Popen(command, cwd=job.root, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def _record(job: StageJob) -> dict[str, Any]:
    with contextlib.suppress(OSError):
        record: dict[str, Any] = json.loads((job.state_folder / "record.json").read_text())
        return record
    return {}


def _at_step(job: StageJob, step: int, parent: int) -> list[int]:
    """The followers of a running job, once it is in the epoch of `step` and past it."""
    _wait(lambda: (_record(job).get("progress") or {}).get("step", 0) >= step and bool(_followers(parent)), seconds=120)
    return _followers(parent)


def _followers(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", f"{parent}"], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "panollava.training.distributed" in line]


def _wait(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_the_log_tells_which_answers_are_cut(
    stage_job: Callable[..., StageJob], caplog: pytest.LogCaptureFixture
) -> None:
    job = stage_job("resampler", 1, "cut", max_text_length=3)
    with caplog.at_level(logging.WARNING, "panollava"):
        build_stage(job, leads=False)
        assert not caplog.messages
        build_stage(job)
    assert [line.split(" (")[0] for line in caplog.messages if "are cut" in line] == [
        f"{rows} of {rows} answers are cut at max_text_length 3 and lose the token that ends them"
        for rows in (TRAIN_ROWS, VAL_ROWS)
    ]


def test_speed_settings_reach_the_model_and_the_batches(stage_job: Callable[..., StageJob]) -> None:
    job = stage_job("resampler", 1, "speed")
    plain = build_stage(job)
    job.config["training"]["batches"] = "group_by_length"
    fast = build_stage(replace(job, untracked={**job.untracked, "gradient_checkpointing": True}))
    for parts, on in ((plain, False), (fast, True)):
        assert parts.model.language is not None
        assert parts.model.language.model.is_gradient_checkpointing is on
        assert (parts.data.compose is not None) is on
        assert isinstance(parts.data.train.pictures, FeatureStore)  # type: ignore[attr-defined]
