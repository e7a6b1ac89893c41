"""Slices hold what a node reads and nothing else. (What each setting makes stale: tests/workflow/golden_plans.yaml.)"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panollava.config import ConfigError, Project, Settings, WorkflowConfig
from panollava.config import fingerprints as fingerprints_module
from panollava.config.fingerprints import csv_fingerprint, folder_fingerprint
from panollava.config.schema import KEYS, STAGES
from panollava.dag import nodes
from panollava.dag.always import ALWAYS
from panollava.dag.job_slice import JobSlice
from panollava.dag.nodes import NODES, earliest_node, node_kind
from panollava.dag.settings import THROUGH_INPUTS, UNTRACKED
from panollava.dag.tasks import Tasks
from panollava.errors import DataError
from panollava.files import canonical_json, digest_of

# Every part of the configuration is at work here, so that each setting can be seen to reach its node.
BUSY: dict[str, Any] = {
    "experiment": {"name": "BUSY"},
    "data": {"csv_train": "synthetic", "csv_val": "synthetic", "csv_test": "synthetic"},
    "models": {"vision_name": "miniature/siglip", "language_model_name": "miniature/qwen3"},
    "image_processing": {"crop_strategy": "anyres", "image_size": 64},
    "generation": {"do_sample": True},
    "evaluation": {"extra": ["perplexity", "overlap_consistency", "yaw_equivariance"]},
    "training": {"stage_configs": {stage: {"optimizer": "muon"} for stage in ("vision", "resampler", "finetune")}},
}


@pytest.fixture
def busy(tmp_path: Path) -> WorkflowConfig:
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.csv").write_text("url,query,annotation\nhttp://x/a.jpg,q,a\n", encoding="utf-8")
    return WorkflowConfig.from_dict(BUSY, tmp_path)


def nodes_of(config: WorkflowConfig) -> dict[str, str]:
    """The digest of every node, those of stages with data of their own included."""
    stages = config.settings.training.stages
    found = {
        node: config.digest(node)
        for node in NODES
        if not node.startswith("train_") or node.removeprefix("train_") in stages
    }
    for kind in ("prepare", "views"):
        for split in ("train", "val"):
            for stage in STAGES:
                found[f"{kind}_{split}"] += config.digest(f"{kind}_{split}", stage)
    return found


def stale(before: WorkflowConfig, after: WorkflowConfig) -> list[str]:
    one, two = nodes_of(before), nodes_of(after)
    return [node for node in NODES if node in two and one.get(node) != two[node]]


def test_every_setting_is_tracked_or_untracked_with_a_reason() -> None:
    keys = set(KEYS)
    assert set(UNTRACKED) <= keys and set(THROUGH_INPUTS) <= keys and not set(UNTRACKED) & set(THROUGH_INPUTS)
    assert all(reason for reason in UNTRACKED.values())
    for key in keys:
        assert (earliest_node(key) in NODES) != (key in UNTRACKED)
    with pytest.raises(KeyError):
        earliest_node("training.nonsense")
    assert {node_kind(node) for node in NODES} == {n.name for n in nodes.TABLE.values() if n.document is None}
    assert all(nodes.TABLE[node_kind(node)].code_version for node in NODES)


PREDICTIONS = ["predict", "predict_blind", "predict_text_only", "predict_rolled"]
READ_ANSWERS = ["judge", "metrics"]
ANSWERS = [*PREDICTIONS, "measure_perplexity", "measure_overlap", *READ_ANSWERS]
AFTER_FINETUNE = ["train_finetune", "select_checkpoint", *ANSWERS]
AFTER_VISION = ["train_vision", "train_resampler", *AFTER_FINETUNE]
TABLE = {
    "training.stage_configs.finetune.lr=0.000123": AFTER_FINETUNE,
    "training.stage_configs.vision.lr=0.000123": AFTER_VISION,
    "lora.rank=3": AFTER_FINETUNE,
    "training.seed=5": AFTER_VISION,
    'system_messages.default="Say it."': ["train_resampler", *AFTER_FINETUNE],
    "models.miniature.language.max_steps=9": ["miniature_language", "train_resampler", *AFTER_FINETUNE],
    "models.miniature.vision.steps=9": ["miniature_vision", *AFTER_VISION],
    "generation.max_new_tokens=17": [*PREDICTIONS, *READ_ANSWERS],
    "training.eval_batch_size=3": [*PREDICTIONS, "measure_perplexity", *READ_ANSWERS],
    'evaluation.extra=["overlap_consistency"]': ["metrics"],
    'evaluation.extra=[]': ["metrics"],
    'evaluation.protocol="original"': ["judge", "metrics"],
    "evaluation.blind_control=false": ["judge", "metrics"],
    "evaluation.text_only_control=true": ["judge", "metrics"],
    "evaluation.angle_tolerance_deg=10": ["metrics"],
    "evaluation.shuffle_options=true": [*PREDICTIONS, "measure_perplexity", *READ_ANSWERS],
    "evaluation.answer_instruction=false": [
        "prepare_train", "prepare_val", "prepare_test", "views_train", "views_val", "views_test", *AFTER_VISION],
    'data.synthetic.question_types=["number"]': [
        node for node in NODES if node not in ("miniature_vision", "miniature_vlm")
    ],
    "data.synthetic.seed=3": [node for node in NODES if not node.startswith("miniature")],
    "image_processing.antialias=false": ["views_train", "views_val", "views_test", *AFTER_VISION],
    'image_processing.view_cache="jpeg"': ["views_train", "views_val", "views_test", *AFTER_VISION],
    "image_processing.use_vision_processor=false": AFTER_VISION,
    'models.resampler_type="bimamba"': AFTER_VISION,
    'training.stage_configs.vision.loss="densecl"': AFTER_VISION,
    'image_processing.stitching_mode="resample"': ["train_resampler", *AFTER_FINETUNE],
    'data.csv_test="test.csv"': ["prepare_test", "views_test", *ANSWERS],
    'training.stage_configs.finetune.data.csv_train="train.csv"': ["prepare_train", "views_train", *AFTER_FINETUNE],
    "training.num_workers=3": [],
    "training.checkpoint_every_n_steps=7": [],
    "data.dataset_name=\"renamed\"": [],
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), TABLE.items(), ids=list(TABLE))
def test_staleness_table(busy: WorkflowConfig, change: str, expected: list[str]) -> None:
    key, _, value = change.partition("=")
    assert stale(busy, busy.with_values({key: json.loads(value)})) == expected


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({"image_processing.crop_strategy": "e2p"}, {"image_processing.anyres_max_patches": 5}),
        ({"image_processing.crop_strategy": "e2p"}, {"image_processing.cubemap_poles": False}),
        (
            {"image_processing.crop_strategy": "resize", "training.stages": ["finetune"]},
            {"image_processing.fov_deg": 60, "image_processing.overlap_ratio": 0.3},
        ),
        ({"generation.do_sample": False}, {"generation.temperature": 0.3, "generation.top_p": 0.5}),
        ({"models.resampler_type": "mlp"}, {"models.qformer.layers": 3, "models.bimamba.state_size": 8}),
        ({"models.resampler_type": "qformer"}, {"models.perceiver.num_queries": 3, "models.bimamba.expand": 1}),
        ({}, {"training.stage_configs.vision.densecl_temperature": 0.5}),
        (
            {"training.stage_configs.vision.loss": "densecl"},
            {"training.stage_configs.vision.vicreg_similarity_weight": 1.0},
        ),
        ({"lora.use_lora": False}, {"lora.rank": 3, "lora.target_modules": ["q_proj"]}),
        ({"training.stage_configs.finetune.optimizer": "adamw"}, {"training.stage_configs.finetune.muon_lr": 0.5}),
        ({"image_processing.image_size": 64}, {"image_processing.image_size": [64, 64]}),
        ({"models.vicreg_projector_dim": None}, {"models.vicreg_projector_dim": 768}),
        ({"image_processing.fov_deg": 90}, {"image_processing.fov_deg": 90.0}),
    ],
)
def test_settings_that_say_the_same_or_are_switched_off_make_nothing_stale(
    busy: WorkflowConfig, base: dict[str, Any], change: dict[str, Any]
) -> None:
    before = busy.with_values(base)
    assert stale(before, before.with_values(change)) == []


@pytest.mark.parametrize(
    ("node", "key"),
    [("measure_perplexity", "perplexity"), ("measure_overlap", "dino_similarity"), ("predict_rolled", "yaw_agreement")],
)
def test_metrics_depend_on_the_measures_that_are_asked_for_and_on_no_others(
    busy: WorkflowConfig, monkeypatch: pytest.MonkeyPatch, node: str, key: str
) -> None:
    asked, silent = busy.with_values({"evaluation.extra": [key]}), busy.with_values({"evaluation.extra": []})
    before = asked.digest("metrics"), silent.digest("metrics")
    monkeypatch.setitem(nodes.TABLE, node, replace(nodes.TABLE[node], code_version=99))
    after = asked.with_values({}).digest("metrics"), silent.with_values({}).digest("metrics")
    assert before[0] != after[0] and before[1] == after[1]


def test_a_stages_slice_holds_its_own_settings_only(busy: WorkflowConfig) -> None:
    vision = busy.slice_of("train_vision")["config"]
    assert set(vision["training"]["stage_configs"]) == {"vision"}
    assert not {"language_model_name", "use_projection_positional_encoding"} & set(vision["models"])
    assert not {"lora", "system_messages", "generation", "evaluation", "paths", "experiment"} & set(vision)
    assert busy.slice_of("train_finetune")["config"]["lora"]["rank"] == 16
    assert busy.slice_of("train_finetune")["config"]["system_messages"]["default"]
    assert set(busy.slice_of("prepare_train")["config"]) == {"data"}


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `lora.rank`, which a stage reads, had joined the schema after its first results."""
    monkeypatch.setattr("panollava.dag.slices.ALWAYS", ALWAYS - {"lora.rank"})
    monkeypatch.setattr("panollava.dag.job_slice.ALWAYS", ALWAYS - {"lora.rank"})


def test_a_later_setting_enters_a_slice_only_where_it_is_set(busy: WorkflowConfig, later: None) -> None:
    assert busy.settings.lora.rank == Settings().lora.rank
    default, other = busy.with_values({}), busy.with_values({"lora.rank": 3})
    assert "rank" not in default.slice_of("train_finetune")["config"]["lora"]
    assert other.slice_of("train_finetune")["config"]["lora"]["rank"] == 3
    assert stale(default, other) == AFTER_FINETUNE
    reads = nodes.TABLE["train_finetune"].reads
    given = JobSlice(default.slice_json("train_finetune"), reads)
    assert given.config["lora"]["rank"] == Settings().lora.rank, "its job finds it all the same"
    assert given.digest == default.digest("train_finetune")
    assert JobSlice(other.slice_json("train_finetune"), reads).config["lora"]["rank"] == 3


def test_slices_are_canonical_and_their_digest_names_the_caches(busy: WorkflowConfig) -> None:
    text = busy.slice_json("train_vision")
    assert text == canonical_json(json.loads(text)) and busy.digest("train_vision") == digest_of(json.loads(text))
    assert busy.csv_key("train") == busy.digest("prepare_train") and len(busy.views_key("val")) == 16


def test_equal_content_has_one_key_whatever_it_serves(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("url,query,annotation\nhttp://x/a.jpg,q,a\n", encoding="utf-8")
    data = {"csv_train": "a.csv", "csv_val": "a.csv", "csv_test": None}
    one = WorkflowConfig.from_dict({"experiment": {"name": "A"}, "data": data}, tmp_path)
    two = WorkflowConfig.from_dict({"experiment": {"name": "B"}, "data": {**data, "csv_test": "a.csv"}}, tmp_path)
    assert len({c.csv_key(split) for c in (one, two) for split in ("train", "val", "test")}) == 1
    assert len({c.views_key(split) for c in (one, two) for split in ("train", "val", "test")}) == 1


def test_synthetic_splits_differ_and_a_missing_test_csv_is_the_validation_split(busy: WorkflowConfig) -> None:
    assert len({busy.csv_key(split) for split in ("train", "val", "test")}) == 3
    without = busy.with_values({"data.csv_test": None})
    assert without.csv_key("test") == busy.csv_key("val")


def test_the_vision_models_own_size_makes_views_depend_on_it(busy: WorkflowConfig) -> None:
    unset = busy.with_values({"image_processing.image_size": None})
    document = unset.slice_of("views_train")
    assert document["config"]["models"]["vision_name"] == "miniature/siglip"
    assert document["upstream"]["miniature_vision"] == unset.digest("miniature_vision")
    assert "models" not in busy.slice_of("views_train")["config"]


def test_a_local_model_folder_enters_by_content(busy: WorkflowConfig, tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm/config.json").write_text("{}", encoding="utf-8")
    changed = {"models.language_model_name": "lm"}
    before = busy.with_values(changed)
    digests = nodes_of(before)
    (tmp_path / "lm/config.json").write_text("{ }", encoding="utf-8")
    after = nodes_of(before.with_values({}))
    assert [n for n in NODES if digests[n] != after[n]] == ["train_resampler", *AFTER_FINETUNE]


def test_skipped_stages_leave_the_chain(busy: WorkflowConfig) -> None:
    last = busy.with_stages(["finetune"])
    upstream = last.slice_of("train_finetune")["upstream"]
    assert not any(node in upstream for node in ("train_vision", "train_resampler"))
    with pytest.raises(ConfigError, match="does not train the stage vision"):
        last.slice_of("train_vision")
    with pytest.raises(ConfigError, match="not a node of the DAG"):
        last.slice_of("train_nothing")


def test_keys_of_the_caches_can_be_looked_up_backwards(tmp_path: Path) -> None:
    folder = tmp_path / "config/experiments"
    folder.mkdir(parents=True)
    exp1 = (Path(__file__).parents[2] / "config/experiments/EXP1.yaml").read_text(encoding="utf-8")
    (folder / "EXP1.yaml").write_text(exp1, encoding="utf-8")
    (folder / "BAD.yaml").write_text("experiment: {name: BAD}\nlora: {rank: 0}\n", encoding="utf-8")
    planner, job = Project(tmp_path), Tasks(Project(tmp_path))
    config = planner.experiment("EXP1")
    for rule, node in [("prepare_csv", "prepare_val"), ("cache_views", "views_test"), ("draw_synthetic", "synthetic")]:
        assert job.by_key(rule, config.digest(node)).slice_json == config.slice_json(node)
    with pytest.raises(ConfigError, match="no experiment has a views cache with the key 0000"):
        job.slice_by_key("views", "0000")


def test_round_trip_of_the_merged_configuration(busy: WorkflowConfig) -> None:
    document = json.loads(json.dumps(busy.to_dict()))
    assert WorkflowConfig.from_dict(document, busy.root).to_dict() == busy.to_dict()
    assert stale(busy, WorkflowConfig.from_dict(document, busy.root)) == []


def test_with_dataset_replaces_the_data_and_its_label() -> None:
    own = {"stage_configs": {"finetune": {"data": {"csv_train": "own.csv"}}}}
    config = WorkflowConfig.from_dict({"data": {"dataset_name": "old"}, "training": own})
    changed = config.with_dataset(csv_train="new.csv", csv_val=Path("v.csv"))
    assert changed.csvs("train", "finetune") == ["new.csv"] and changed.csvs("val") == ["v.csv"]
    assert changed.names.datasets["finetune"] == "new" and config.names.datasets["finetune"] == "old"
    assert changed.settings.data.csv_test == config.settings.data.csv_test
    with pytest.raises(TypeError, match="csv_train must be a path or a list of paths, got 3"):
        config.with_dataset(csv_train=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be a list, each one of vision, resampler, finetune, got 'finetune'"):
        config.with_stages("finetune")


# ---- fingerprints --------------------------------------------------------------------------------
def settle(*paths: Path) -> None:
    """Make files look old enough to be remembered."""
    for path in paths:
        os.utime(path, ns=(time.time_ns() - 10**11, time.time_ns() - 10**11))


@pytest.fixture
def pictured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fingerprints_module, "_SETTLED_NS", -(10**18))
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.jpg").write_bytes(b"one")
    (tmp_path / "b.jpg").write_bytes(b"two")
    (tmp_path / "d/t.csv").write_text(
        "url,query,annotation\na.jpg,q,x\nb.jpg,q,y\na.jpg,r,z\nhttp://h/c.jpg,q,w\nmissing.jpg,q,v\n", encoding="utf-8"
    )
    return tmp_path


def test_a_changed_picture_or_csv_changes_the_fingerprint_and_a_touch_does_not(pictured: Path) -> None:
    first = csv_fingerprint("d/t.csv", pictured)
    assert first["path"] == "d/t.csv" and first["images"]
    settle(pictured / "d/a.jpg", pictured / "d/t.csv")
    assert csv_fingerprint("d/t.csv", pictured) == first
    (pictured / "d/a.jpg").write_bytes(b"ONE")
    second = csv_fingerprint("d/t.csv", pictured)
    assert second["sha256"] == first["sha256"] and second["images"] != first["images"]
    (pictured / "missing.jpg").write_bytes(b"here now")
    third = csv_fingerprint("d/t.csv", pictured)
    assert third["images"] != second["images"]
    (pictured / "d/b.jpg").write_bytes(b"beside the CSV comes first")
    assert csv_fingerprint("d/t.csv", pictured)["images"] != third["images"]


def test_a_source_that_could_not_be_read_once_is_read_again(pictured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Parquet before its package is installed: else nobody would ever see that one of its pictures changed."""

    def refuse(*_: Any) -> None:
        raise DataError("a package is missing")

    with monkeypatch.context() as context:
        context.setattr("panollava.data.formats.read_source", refuse)
        settle(pictured / "d/t.csv")
        assert csv_fingerprint("d/t.csv", pictured)["images"] is None
        assert csv_fingerprint("d/t.csv", pictured)["images"] is None
    first = csv_fingerprint("d/t.csv", pictured)["images"]
    (pictured / "d/a.jpg").write_bytes(b"another")
    assert first is not None and csv_fingerprint("d/t.csv", pictured)["images"] != first


def test_a_change_that_keeps_size_and_time_is_seen(pictured: Path) -> None:
    image = pictured / "d/a.jpg"
    first = csv_fingerprint("d/t.csv", pictured)
    stat = image.stat()
    image.write_bytes(b"eno")
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert csv_fingerprint("d/t.csv", pictured)["images"] != first["images"]


def test_unchanged_files_are_not_read_again(pictured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = csv_fingerprint("d/t.csv", pictured)
    folder_fingerprint("d", pictured)

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(fingerprints_module, "sha256_file", refuse)
    assert csv_fingerprint("d/t.csv", pictured) == first
    folder_fingerprint("d", pictured)


def test_the_clones_place_does_not_enter(pictured: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "d").mkdir(parents=True)
    for name in ("d/a.jpg", "b.jpg", "d/t.csv"):
        (copy / name).write_bytes((pictured / name).read_bytes())
    assert csv_fingerprint("d/t.csv", copy) == csv_fingerprint("d/t.csv", pictured)


def test_a_csv_that_cannot_be_read_is_left_to_preparation_and_a_missing_one_is_an_error(pictured: Path) -> None:
    (pictured / "odd.csv").write_bytes(b"a;b\n\xff;2\n")
    assert csv_fingerprint("odd.csv", pictured)["images"] is None
    with pytest.raises(ConfigError, match=r"data\.csv_train: no\.csv does not exist"):
        csv_fingerprint("no.csv", pictured, key="data.csv_train")
    config = WorkflowConfig.from_dict(
        {"data": {"csv_train": "no.csv", "csv_val": "d/t.csv", "csv_test": None}}, pictured
    )
    assert config.missing_csvs() == ["data.csv_train: no.csv"]
    with pytest.raises(ConfigError, match=r"data\.csv_train: no\.csv does not exist"):
        config.slice_json("metrics")


def test_a_broken_index_is_only_a_lost_memory(pictured: Path) -> None:
    first = csv_fingerprint("d/t.csv", pictured)
    for index in (pictured / "cache/fingerprints").glob("*.json"):
        index.write_text("{", encoding="utf-8")
    assert csv_fingerprint("d/t.csv", pictured) == first


# ---- the schema mirrors what the builders take ---------------------------------------------------
def test_a_chosen_resampler_reaches_the_models_configuration(busy: WorkflowConfig) -> None:
    from panollava.models.config import ModelConfig
    from panollava.training.job import StageJob, model_config_of

    changed = busy.with_values({
        "models.resampler_type": "perceiver", "models.perceiver.num_queries": 9, "models.qformer.layers": 5,
        "training.stage_configs.vision.loss": "densecl", "training.stage_configs.vision.densecl_temperature": 0.3,
    })  # fmt: skip
    nowhere = Path("none")
    configs: dict[str, ModelConfig] = {}
    for stage in STAGES:
        slice_document = changed.slice_of(f"train_{stage}")
        job = StageJob(stage, slice_document, "", *[nowhere] * 7, nowhere)
        configs[stage] = model_config_of(job, (64, 64))
        assert configs[stage].resampler_options == {"num_queries": 9, "layers": 2, "heads": 8}
        assert configs[stage].qformer.layers == 2  # switched off: as if it had not been written
    assert (configs["vision"].vision_loss, configs["vision"].densecl_temperature) == ("densecl", 0.3)
