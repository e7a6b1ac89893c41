"""What the Snakefile plans with: which inputs a rule waits for, and how it calls its job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL, with_changes
from snakemake.io import is_flagged

from panollava.config import WorkflowConfig
from panollava.config.dotted import differences
from panollava.config.job_options import STAGE_OUTPUTS
from panollava.files import digest_of_text, write_json
from panollava.job_functions import JOBS
from panollava.jobs import JSON_OPTIONS, LIST_OPTIONS, TEXT_OPTIONS
from panollava.planning import inputs, options
from panollava.planning.presence import Presence


class Snakemake:
    """What `Presence` asks Snakemake, answered here."""

    def __init__(self, remembered: Collection[str] | None = None, forced: bool = False) -> None:
        self.remembered, self.forced, self.again = remembered, forced, list[str]()
        self.present = Presence(lambda path: self.remembered, self.again.append, lambda: self.forced)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def small(changes: dict[str, Any] | None = None) -> WorkflowConfig:
    return WorkflowConfig.from_dict(with_changes(SMALL, changes or {}))


def write_result(path: str, slice_json: str) -> None:
    place = "checkpoint_info" if path.endswith("checkpoint_metadata.json") else "provenance"
    key = "config_digest" if place == "checkpoint_info" else "config"
    write_json(Path(path), {place: {key: digest_of_text(slice_json)}})


def write_stages(experiment: WorkflowConfig) -> None:
    for stage in experiment.settings.training.stages:
        for name in STAGE_OUTPUTS[:-1]:
            path = Path(inputs.stage_file(experiment, stage, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        write_result(inputs.stage_file(experiment, stage, STAGE_OUTPUTS[-1]), experiment.slice_json(f"train_{stage}"))


def test_differences_name_keys_and_values() -> None:
    before = {"config": {"a": 1, "b": {"c": [1]}}, "inputs": {"x": "1"}}
    after = {"config": {"a": 2, "b": {"c": [1]}}, "inputs": {}}
    assert list(differences(before, after)) == [("config.a", 1, 2), ("inputs.x", "1", None)]


# ---- presence ------------------------------------------------------------------------------------
NOW, BEFORE = '{"node": "predict", "config": 2}', '{"node": "predict", "config": 1}'


@pytest.mark.parametrize(
    ("made_by", "remembered", "current", "again"),
    [
        (None, None, False, False),  # not there: Snakemake plans it by itself
        (NOW, None, True, False),
        (NOW, [repr(BEFORE)], True, False),
        (BEFORE, None, False, True),  # copied without .snakemake
        (BEFORE, [repr(NOW)], False, True),  # somebody put another file there
        (BEFORE, [repr(BEFORE)], False, False),  # Snakemake knows, and gives the reason
    ],
)
def test_a_result_is_current_where_it_says_so_itself(
    made_by: str | None, remembered: list[str] | None, current: bool, again: bool
) -> None:
    if made_by:
        write_result("result.json", made_by)
    snakemake = Snakemake(remembered)
    assert snakemake.present.is_current("result.json", NOW) is current
    assert snakemake.again == (["result.json"] if again else [])
    assert snakemake.present.is_current("result.json", NOW) is current
    assert len(snakemake.again) <= 1, "asked twice, planned once"


@pytest.mark.parametrize("removed", ["resampler/best.ckpt", "finetune/loss_curves.csv", "vision/last.ckpt"])
def test_a_stage_is_current_with_all_files_of_its_own_and_of_those_before(removed: str) -> None:
    experiment = small()
    write_stages(experiment)
    assert all(Snakemake().present.is_current_stage(experiment, stage) for stage in ("vision", "finetune"))
    stage, name = removed.split("/")
    Path(inputs.stage_file(experiment, stage, name)).unlink()
    stages = list(experiment.settings.training.stages)
    found = [Snakemake().present.is_current_stage(experiment, one) for one in stages]
    assert found == [one < stages.index(stage) for one in range(3)]


def test_stages_of_other_settings_are_all_planned_again() -> None:
    write_stages(small())
    changed, snakemake = small({"training.stage_configs.vision.lr": 0.5}), Snakemake()
    assert not snakemake.present.is_current_stage(changed, "finetune")
    assert [path.split("/")[2] for path in snakemake.again] == ["vision", "resampler", "finetune"]


def test_what_changed_is_told_by_its_key_and_what_merely_follows_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    write_stages(small())
    before = {node: small().slice_json(node) for node in ("train_vision", "train_resampler", "train_finetune")}
    changed = small({"training.stage_configs.resampler.lr": 0.25, "lora.rank": 4})
    for node, slice_json in before.items():
        stage = node.removeprefix("train_")
        path = inputs.stage_file(changed, stage, STAGE_OUTPUTS[-1])
        Snakemake([repr("mem_mb"), "17", repr(slice_json)]).present.is_current(path, changed.slice_json(node))
    said = capsys.readouterr().err.splitlines()
    assert [line.split("/")[2] for line in said] == ["resampler", "finetune"]
    was = SMALL["training"]["stage_configs"]["resampler"]["lr"], SMALL["lora"]["rank"]
    assert said[0].endswith(f"json: training.stage_configs.resampler.lr: was {was[0]}, is 0.25")
    assert said[1].endswith(f"json: lora.rank: was {was[1]}, is 4")


def test_a_link_to_weights_that_are_gone_is_removed() -> None:
    experiment = small()
    write_stages(experiment)
    link = Path(inputs.stage_file(experiment, "vision", "best.ckpt"))
    link.unlink()
    link.symlink_to("gone.ckpt")
    assert not Snakemake().present.is_current_stage(experiment, "vision")
    assert not link.is_symlink()


def test_a_current_job_waits_only_for_what_is_there() -> None:
    Path("there").touch()
    files = {"one": "there", "two": "gone"}
    present = Snakemake().present
    assert present.inputs_if(True, files) == {"one": "there"}
    assert present.inputs_if(True, list(files.values())) == ["there"]
    assert present.inputs_if(False, files) == files
    assert Snakemake(forced=True).present.inputs_if(True, files) == files


# ---- inputs --------------------------------------------------------------------------------------
def test_a_stage_starts_from_the_weights_of_the_one_before() -> None:
    experiment, present = small(), Snakemake().present
    vision, finetune = (inputs.of_stage(experiment, present, stage) for stage in ("vision", "finetune"))
    assert vision.keys() == {"vision", "train_csv", "train_views", "val_csv", "val_views"}
    assert finetune.keys() == vision.keys() | {"language", "init", "init_metadata"}
    assert finetune["init"] == f"{experiment.names.stage_dir('resampler')}/best.ckpt"
    shared = {name for name, path in finetune.items() if is_flagged(path, "ancient")}
    assert shared == finetune.keys() - {"init", "init_metadata"}, "the age of a shared file says nothing"


def test_what_a_current_stage_was_made_of_may_be_gone() -> None:
    experiment = small()
    write_stages(experiment)
    found = inputs.of_stage(experiment, Snakemake().present, "finetune")
    assert found.keys() == {"init", "init_metadata"}, "the caches are not there, and nobody needs them"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, {"blind", "measure_overlap"}),
        ({"evaluation.blind_control": False}, {"measure_overlap"}),
        ({"evaluation.extra": []}, {"blind"}),
        ({"evaluation.extra": ["yaw_equivariance", "perplexity"]}, {"blind", "predict_rolled", "measure_perplexity"}),
    ],
)
def test_metrics_wait_for_what_they_are_made_of(changes: dict[str, Any], more: set[str]) -> None:
    found = inputs.of_metrics(small({"evaluation.extra": ["dino_similarity"]} | changes), Snakemake().present)
    assert found.keys() == {"predictions", "checkpoint", "state", "prepared"} | more


def test_only_jobs_that_open_panoramas_wait_for_the_drawn_ones() -> None:
    experiment, present = small(), Snakemake().present
    nodes = ("predict", "predict_blind", "predict_rolled", "measure_perplexity", "measure_overlap")
    found = [node for node in nodes if "scenes" in inputs.of_prediction(experiment, present, node)]
    assert found == ["predict_rolled", "measure_overlap"]


# ---- options -------------------------------------------------------------------------------------
def test_options_survive_the_shell() -> None:
    experiment = small({"paths.runs_dir": "my runs; rm", "system_messages.default": "It's a 360° photo"})
    given = shlex.split(options.of_stage(experiment, "finetune"))
    assert f"--out={experiment.names.stage_dir('finetune')}" in given
    assert [text for text in given if not text.startswith("--")] == []
    assert shlex.split(options.of_prediction(experiment, "predict_blind")) == [
        f"--views=cache/views/{experiment.views_key('test')}",
        "--state=my runs; rm/SMALL/.state/predict_blind",
        "--blind",
    ]


def test_metrics_are_called_with_the_scores_that_there_are() -> None:
    experiment = small({"evaluation.spice_heap": "3g"})
    assert options.of_metrics(experiment, {"predictions": "p.csv"}) == "--spice-heap=3g"
    files = {"blind": "b.csv", "measure_overlap": "o.json", "predict_rolled": "r.csv", "measure_perplexity": "p.json"}
    assert shlex.split(options.of_metrics(experiment, files)) == [
        "--spice-heap=3g", "--blind-predictions=b.csv", "--rolled-predictions=r.csv", "--measures", "p.json", "o.json",
    ]  # fmt: skip


@pytest.mark.parametrize(("devices", "planned"), [("auto", 1), (1, 1), (4, 4)])
def test_every_device_has_a_process_with_threads_and_workers(devices: Any, planned: int) -> None:
    experiment = small({"training.devices": devices, "training.cpu_threads": 3, "training.num_workers": 2})
    assert options.devices(experiment) == planned
    assert options.threads(experiment) == 3 * planned
    assert options.cores(experiment) == 5 * planned


def test_rules_call_jobs_that_there_are_with_options_that_they_take() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "workflow/rules").glob("*.smk"))
    assert set(re.findall(r"\{JOB\} (\w+)", text)) == set(JOBS)
    experiment = small()
    files = dict.fromkeys(("blind", "predict_rolled", "measure_overlap"), "file")
    stage = options.of_stage(experiment, "finetune")
    text += f" {stage} {options.of_prediction(experiment, 'predict_blind')} {options.of_metrics(experiment, files)}"
    known = {*JSON_OPTIONS, *LIST_OPTIONS, *TEXT_OPTIONS, "blind"}
    assert set(re.findall(r"[ \"]--([a-z][a-z-]+)", text)) <= known
