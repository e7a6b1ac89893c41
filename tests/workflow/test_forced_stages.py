"""A stage that is asked for anew, and one whose backbone changed: never old weights under new metadata."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Project
from test_resampler_runs import job_of

from panollava.checkpoints.loading import load_stage
from panollava.config import WorkflowConfig
from panollava.errors import CheckpointError, FileChanged, TrainingError
from panollava.files import sha256_file, sha256_folder
from panollava.training import run_stage as module
from panollava.training.backbone_digests import backbone_digests
from panollava.training.job import StageJob
from panollava.training.run_stage import run_stage

pytestmark = pytest.mark.workflow


@pytest.fixture
def job(project: Project, monkeypatch: pytest.MonkeyPatch) -> StageJob:
    """The finished experiment's last stage."""
    monkeypatch.chdir(project.root)
    config = WorkflowConfig.load(project.yaml, ".")
    return job_of(config, "finetune", Path(config.names.stage_dir("resampler")))


def resumed_from(job: StageJob) -> int | None:
    """Run the stage; the step at which it went on, None if it began afresh."""
    run_stage(job)
    found: int | None = json.loads((job.state_folder / "record.json").read_text())["resumed_from_step"]
    return found


def test_a_forced_stage_begins_afresh_and_goes_on_where_its_own_command_was(job: StageJob) -> None:
    assert resumed_from(job) is not None
    best = (job.stage_folder / "best.ckpt").resolve()
    weights = best.read_bytes()
    assert resumed_from(replace(job, forced="first command")) is None
    assert best.read_bytes() == weights  # the same training, once more
    assert resumed_from(replace(job, forced="first command")) is not None  # started again by a scheduler
    assert resumed_from(job) is not None
    assert resumed_from(replace(job, forced="second command")) is None
    best.write_bytes(b"another run's weights under the same name")
    assert resumed_from(job) is None and best.read_bytes() == weights
    metadata = json.loads((job.stage_folder / "checkpoint_metadata.json").read_text())
    assert [entry["sha256"] for entry in metadata["epoch_info"]["checkpoints"]] == [sha256_file(best)]


def test_another_backbone_is_another_stage(job: StageJob, monkeypatch: pytest.MonkeyPatch) -> None:
    assert job.language_folder is not None and job.vision_folder is not None
    digests = {"vision": sha256_folder(job.vision_folder), "language": sha256_folder(job.language_folder)}
    assert backbone_digests(job) == digests
    planned = {**job.slice, "inputs": {"language_folder": "another digest"}}
    with pytest.raises(FileChanged, match=rf"^{job.language_folder} changed after this job was planned"):
        backbone_digests(replace(job, slice=planned))

    (job.language_folder / "generation_config.json").write_text('{"do_sample": false}')
    rules = "train_vision train_resampler train_finetune"
    with pytest.raises(CheckpointError, match=rf"language backbone .* panollava run SMALL --forcerun {rules}$"):
        load_stage(job.stage_folder)
    with pytest.raises(TrainingError, match=r"was trained upon another language backbone .* or remove runs/SMALL/res"):
        run_stage(job)
    alone = replace(job, init_folder=None, init_checkpoint=None)
    assert resumed_from(alone) is None and resumed_from(alone) is not None

    build = module.build_stage

    def edited(job: StageJob) -> object:
        (job.language_folder / "generation_config.json").write_text("{}")  # type: ignore[operator]
        return build(job)

    monkeypatch.setattr(module, "build_stage", edited)
    with pytest.raises(TrainingError, match="a backbone of stage finetune changed while it was trained"):
        run_stage(alone)


@pytest.mark.parametrize(
    ("options", "forced"),
    [
        ([], []),
        (["--forcerun", "train_finetune"], ["finetune"]),
        (["-R", "runs/SMALL/resampler/anyres-e2p_mlp/best.ckpt"], ["resampler"]),
        (["--force"], []),  # of the metrics alone
        (["--forceall"], ["finetune", "resampler", "vision"]),
    ],
)
def test_what_the_command_asks_for_is_forced(finished: Project, options: list[str], forced: list[str]) -> None:
    """Stages that run because of a forced one before it go on where they were, if they can."""
    done = finished.call("snakemake", "-n", "-p", "results/SMALL/metrics.json", *options)
    names = dict(re.findall(r"train_(\w+)\.py .*--forced=(\w+)", done.stdout + done.stderr))
    assert sorted(names) == forced and len(set(names.values())) <= 1
