"""The table of the DAG and what follows from it: rules, scripts, inputs, arguments, what is current."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, SMALL, with_changes
from snakemake.io import is_flagged

from panollava.config import ConfigError, WorkflowConfig
from panollava.config.dotted import differences
from panollava.dag import options
from panollava.dag.freshness import ResultCache
from panollava.dag.inputs import stage_file
from panollava.dag.node import Files, flat
from panollava.dag.nodes import RULES, TABLE
from panollava.dag.script import _parser, command_line
from panollava.dag.tasks import shard_task, task_of, tasks_behind
from panollava.files import digest_of_text, write_json

STAGE_OUTPUTS = ("best.ckpt", "last.ckpt", "loss_curves.csv", "loss_curves.png", "checkpoint_metadata.json")


class Snakemake:
    """What `ResultCache` asks Snakemake, answered here."""

    def __init__(self, remembered: Collection[str] | None = None, forced: bool = False) -> None:
        self.remembered, self.forced, self.again = remembered, forced, list[str]()
        self.present = ResultCache(lambda path: self.remembered, self.again.append, lambda: self.forced)


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
            path = Path(stage_file(experiment, stage, name))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        write_result(stage_file(experiment, stage, STAGE_OUTPUTS[-1]), experiment.slice_json(f"train_{stage}"))


def is_current(experiment: WorkflowConfig, stage: str) -> bool:
    return Snakemake().present.is_current_task(task_of(experiment, f"train_{stage}"))


def inputs_of(experiment: WorkflowConfig, node: str) -> Files:
    return Snakemake().present.inputs_of(task_of(experiment, node))


def test_differences_name_keys_and_values() -> None:
    before = {"config": {"a": 1, "b": {"c": [1]}}, "inputs": {"x": "1"}}
    after = {"config": {"a": 2, "b": {"c": [1]}}, "inputs": {}}
    assert list(differences(before, after)) == [("config.a", 1, 2), ("inputs.x", "1", None)]


# ---- presence ------------------------------------------------------------------------------------
NOW, BEFORE = '{"node": "predict", "config": 2}', '{"node": "predict", "config": 1}'


@pytest.mark.parametrize(
    ("read_digest", "remembered", "current", "again"),
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
    read_digest: str | None, remembered: list[str] | None, current: bool, again: bool
) -> None:
    if read_digest:
        write_result("result.json", read_digest)
    snakemake = Snakemake(remembered)
    assert snakemake.present.is_current("result.json", NOW) is current
    assert snakemake.again == (["result.json"] if again else [])
    assert snakemake.present.is_current("result.json", NOW) is current
    assert len(snakemake.again) <= 1, "asked twice, planned once"


@pytest.mark.parametrize("removed", ["resampler/best.ckpt", "finetune/loss_curves.csv", "vision/last.ckpt"])
def test_a_stage_is_current_with_all_files_of_its_own_and_of_those_before(removed: str) -> None:
    experiment = small()
    write_stages(experiment)
    assert all(is_current(experiment, stage) for stage in ("vision", "finetune"))
    stage, name = removed.split("/")
    Path(stage_file(experiment, stage, name)).unlink()
    stages = list(experiment.settings.training.stages)
    found = [is_current(experiment, one) for one in stages]
    assert found == [one < stages.index(stage) for one in range(3)]


def test_stages_of_other_settings_are_all_planned_again() -> None:
    write_stages(small())
    changed, snakemake = small({"training.stage_configs.vision.lr": 0.5}), Snakemake()
    assert not snakemake.present.is_current_task(task_of(changed, "train_finetune"))
    assert [path.split("/")[2] for path in snakemake.again] == ["vision", "resampler", "finetune"]


def test_what_changed_is_told_by_its_key_and_what_merely_follows_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    write_stages(small())
    before = {node: small().slice_json(node) for node in ("train_vision", "train_resampler", "train_finetune")}
    changed = small({"training.stage_configs.resampler.lr": 0.25, "lora.rank": 4})
    for node, slice_json in before.items():
        stage = node.removeprefix("train_")
        path = stage_file(changed, stage, STAGE_OUTPUTS[-1])
        Snakemake([repr("mem_mb"), "17", repr(slice_json)]).present.is_current(path, changed.slice_json(node))
    said = capsys.readouterr().err.splitlines()
    assert [line.split("/")[2] for line in said] == ["resampler", "finetune"]
    was = SMALL["training"]["stage_configs"]["resampler"]["lr"], SMALL["lora"]["rank"]
    assert said[0].endswith(f"json: training.stage_configs.resampler.lr: was {was[0]}, is 0.25")
    assert said[1].endswith(f"json: lora.rank: was {was[1]}, is 4")


def test_a_link_to_weights_that_are_gone_is_removed() -> None:
    experiment = small()
    write_stages(experiment)
    link = Path(stage_file(experiment, "vision", "best.ckpt"))
    link.unlink()
    link.symlink_to("gone.ckpt")
    assert not is_current(experiment, "vision")
    assert not link.is_symlink()


def test_a_current_job_waits_only_for_what_is_there() -> None:
    Path("there").touch()
    files = {"one": "there", "two": "gone"}
    present = Snakemake().present
    assert present.inputs_if(True, files) == {"one": "there"}
    assert present.inputs_if(True, {"both": list(files.values())}) == {"both": ["there"]}
    assert present.inputs_if(False, files) == files
    assert Snakemake(forced=True).present.inputs_if(True, files) == files


# ---- inputs --------------------------------------------------------------------------------------
def test_a_stage_starts_from_the_weights_of_the_one_before() -> None:
    experiment = small()
    vision, finetune = (inputs_of(experiment, f"train_{stage}") for stage in ("vision", "finetune"))
    assert vision.keys() == {"vision", "train_csv", "train_views", "val_csv", "val_views"}
    assert finetune.keys() == vision.keys() | {"language", "init", "init_metadata"}
    assert finetune["init"] == f"{experiment.names.stage_dir('resampler')}/best.ckpt"
    shared = {name for name, path in finetune.items() if is_flagged(path, "ancient")}
    assert shared == finetune.keys() - {"init", "init_metadata"}, "the age of a shared file says nothing"


def test_what_a_current_stage_was_made_of_may_be_gone() -> None:
    experiment = small()
    write_stages(experiment)
    found = inputs_of(experiment, "train_finetune")
    assert found.keys() == {"init", "init_metadata"}, "the caches are not there, and nobody needs them"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, {"blind", "measure_overlap"}),
        ({"evaluation.blind_control": False}, {"measure_overlap"}),
        ({"evaluation.extra": []}, {"blind"}),
        ({"evaluation.text_only_control": True}, {"blind", "text_only", "measure_overlap"}),
        ({"data.synthetic.question_types": ["text", "choice"]}, {"blind", "text_only", "measure_overlap"}),
        (
            {"data.synthetic.question_types": ["choice"], "evaluation.text_only_control": False},
            {"blind", "measure_overlap"},
        ),
        ({"evaluation.extra": ["yaw_equivariance", "perplexity"]}, {"blind", "predict_rolled", "measure_perplexity"}),
    ],
)
def test_metrics_wait_for_what_they_are_made_of(changes: dict[str, Any], more: set[str]) -> None:
    found = inputs_of(small({"evaluation.extra": ["dino_similarity"]} | changes), "metrics")
    assert found.keys() == {"predictions", "checkpoint", "state", "prepared"} | more


def test_only_jobs_that_open_panoramas_wait_for_the_drawn_ones() -> None:
    nodes = ("predict", "predict_blind", "predict_rolled", "measure_perplexity", "measure_overlap")
    found = [node for node in nodes if "scenes" in inputs_of(small(), node)]
    assert found == ["predict_rolled", "measure_overlap"]


def test_answers_wait_for_the_parts_that_other_jobs_make() -> None:
    whole, shared = small(), small({"evaluation.shards": 3})
    assert whole.digest("metrics") == shared.digest("metrics"), "how many jobs share the answers changes no result"
    assert "shards" not in inputs_of(whole, "predict") and "shards" not in inputs_of(shared, "predict_rolled")
    for control in ("predict", "predict_blind", "predict_text_only"):
        tasks = [shard_task(shared, control, f"{number}-of-3") for number in (1, 2, 3)]
        assert inputs_of(shared, control)["shards"] == [task.recorded_by for task in tasks]
        assert len({task.digest for task in tasks}) == len({task.log for task in tasks}) == 3
        assert {task.document["answers"] for task in tasks} == {shared.digest(control)}
        assert inputs_of(shared, control)["views"] == tasks[0].node.inputs(tasks[0])["views"]
    other = small({"evaluation.shards": 3, "generation.max_new_tokens": 5})
    assert shard_task(other, "predict", "1-of-3").digest != shard_task(shared, "predict", "1-of-3").digest
    for control, shard in (("predict", "4-of-3"), ("predict", "1-of-2"), ("predict_rolled", "1-of-3")):
        with pytest.raises(ConfigError, match=f"{control}_{shard} is no shard of SMALL: evaluation.shards is 3"):
            shard_task(shared, control, shard)


# ---- arguments -----------------------------------------------------------------------------------
def test_every_job_is_given_what_its_function_asks_for_and_its_script_reads_it_back() -> None:
    changes = {"paths.runs_dir": "my runs; rm", "system_messages.default": "It's a 360° photo\n",
               "evaluation.extra": ["perplexity", "dino_similarity", "yaw_agreement"],
               "evaluation.text_only_control": True, "evaluation.judge.model": "miniature/qwen3"}  # fmt: skip
    experiment = small(changes)
    tasks = [*tasks_behind(experiment, "metrics"), *tasks_behind(experiment, "stage_state"),
             *tasks_behind(experiment, "prepare_experiment")]  # fmt: skip
    (blind,) = (task for task in tasks if task.node.name == "predict_blind")
    drawn = dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic")
    for stages in ([], ["vision", "finetune"]):  # a native model, as it comes and trained
        native = {"experiment": {"name": "N"}, "models": {"vlm_name": "miniature/vlm"}, "data": drawn}
        tasks += tasks_behind(WorkflowConfig.from_dict({**native, "training": {"stages": stages}}), "metrics")
    tasks.append(shard_task(small({"evaluation.shards": 2}), "predict_blind", "2-of-2"))
    tasks.append(task_of(small({"evaluation.shards": 2}), "predict"))
    assert {task.node.name for task in tasks} == TABLE.keys() - {"compare", "compare_ablation"}
    for task in tasks:
        words = shlex.split(shlex.join(command_line(task.arguments())))
        options = _parser(task.node.rule).parse_args(["--slice={}", "--log=x.log", *words])
        read = {name: value for name, value in vars(options).items() if name not in ("slice", "log")}
        for name, value in read.items():
            given = task.arguments().get(name)
            given = given and ([Path(one) for one in given] if isinstance(given, list) else given)
            assert value == (Path(given) if isinstance(value, Path) else given), f"{task.node.rule}: {name}"
    assert blind.arguments()["answers"] == "my runs; rm/SMALL/.state/predict_blind"


@pytest.mark.parametrize(("devices", "planned"), [("auto", 1), (1, 1), (4, 4)])
def test_every_device_has_a_process_with_threads_and_workers(devices: Any, planned: int) -> None:
    changes = {"training.devices": devices, "training.cpu_threads": 3, "training.num_workers": 2}
    experiment = small({**changes, "training.stage_configs.vision.batch_size": 4})
    assert options.devices(experiment) == planned
    assert options.threads(experiment) == 3 * planned
    assert options.cores(experiment) == 5 * planned


def test_jobs_of_miniatures_ask_for_less_memory() -> None:
    document = yaml.safe_load((ROOT / "config/experiments/EXP3.yaml").read_text(encoding="utf-8"))
    stages = ("train_finetune", "predict", "measure_overlap")
    for experiment, memory in (
        (small(), 4000),
        (WorkflowConfig.from_dict(document), 4000),
        (WorkflowConfig.from_dict(with_changes(document, {"models.vlm_name": "Qwen/Qwen2.5-VL-3B-Instruct"})), 16000),
        (small({"models.language_model_name": "Qwen/Qwen3-0.6B"}), 16000),
        (small({"models.vision_name": "google/siglip2-base-patch16-224"}), 16000),
    ):
        for rule, planned in (*((stage, memory) for stage in stages), ("judge", 16000)):
            takes = RULES[rule].resources
            assert takes is not None and options.memory_mb(takes, experiment) == planned, rule


# ---- the table -----------------------------------------------------------------------------------
def test_a_rule_and_a_script_a_node_each_by_one_name() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "workflow/rules").glob("*.smk"))
    rules = dict(re.findall(r"^rule (\w+):\n((?:    .*\n|\n)+)", text, re.MULTILINE))
    scripts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "workflow/scripts").glob("*.py")}
    assert rules.keys() == RULES.keys() == scripts.keys()
    for name, body in rules.items():
        named = set(re.findall(r'\w+_of\("(\w+)"\)|script\("(\w+)"\)', body))
        assert {one for pair in named for one in pair if one} == {name}, "a rule says what its own node has"
        assert (RULES[name].resources is None) == ("localrule: True" in body), name
        assert (RULES[name].threads is not None) == ("threads:" in body), name
        assert f"`{name}`" in scripts[name]


def test_outputs_are_said_once() -> None:
    paths = [path for node in TABLE.values() for path in flat({k: list(v) if isinstance(v, tuple) else v
             for k, v in node.outputs.items()})]  # fmt: skip
    assert len(set(paths)) == len(paths)
    for node in TABLE.values():
        told = {*node.links, *node.folders, *node.not_empty, *node.report, *filter(None, [node.recorded_by])}
        assert told <= node.outputs.keys(), node.name
        assert (node.recorded_by is None) == (node.cache is not None), node.name
