"""Names against SPEC 2's table, and experiments found by their resolved names."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.config.names import auto_name, checkpoint_name, dataset_token, language_token, vision_token
from panollava.dag.local import Pipeline

BASE = {
    "experiment": {"name": "ADDDATA_S2Q3_1_latent768_PE"},
    "models": {"vision_name": "google/siglip2-so400m-patch16-256", "language_model_name": "Qwen/Qwen3-0.6B"},
    "image_processing": {"crop_strategy": "anyres_e2p"},
    "data": {"dataset_name": "quic360"},
}


def project(root: Path, **files: str) -> Project:
    folder = root / "config/experiments"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return Project(root)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("google/siglip2-so400m-patch16-256", "siglip2"), ("google/siglip-base-patch16-224", "siglip"),
        ("miniature/siglip", "siglip"), ("openai/clip-vit-base-patch32", "clip"), ("facebook/dinov2-base", "dinov2"),
        ("/models/siglip2_local/", "siglip2"), ("DeepGlint-AI/rice-vit-large-patch14-560", "rice"),
        ("./my enc", "my-enc"),
    ],
)  # fmt: skip
def test_vision_token(model: str, expected: str) -> None:
    assert vision_token(model) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("google/siglip2-so400m-patch16-256", "siglip2-so400m_p16_256"),
        ("google/siglip-base-patch16-224", "siglip-base_p16_224"),
        ("google/siglip2-base-patch16-naflex", "siglip2-base_p16_naflex"),
        ("google/siglip2-giant-opt-patch16-384", "siglip2-giant-opt_p16_384"),
        ("google/siglip-base-patch16-256-multilingual", "siglip-base_p16_256"),
        ("openai/clip-vit-base-patch32", "clip"),
        ("miniature/siglip", "siglip"),
    ],
)
def test_siglip_with_patch_and_resolution(model: str, expected: str) -> None:
    assert vision_token(model, patch_and_resolution=True) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen3-0.6B", "Qwen3"), ("Qwen/Qwen2.5-0.5B", "Qwen2.5"), ("Qwen/Qwen2.5-3B-Instruct", "Qwen2.5"),
        ("meta-llama/Llama-3.2-1B-Instruct", "Llama-3.2"), ("google/gemma-2-2b-it", "gemma-2"),
        ("miniature/qwen3", "qwen3"), ("mistralai/Mistral-7B-v0.3", "Mistral-v0.3"), ("gpt2", "gpt2"),
        ("HuggingFaceTB/SmolLM2-135M", "SmolLM2"), ("Qwen/Qwen3-4B-Instruct-2507", "Qwen3"),
        ("microsoft/Phi-3-mini-4k-instruct", "Phi-3"),
        ("models/lm dir/", "lm-dir"),
    ],
)  # fmt: skip
def test_language_token(model: str, expected: str) -> None:
    assert language_token(model) == expected


@pytest.mark.parametrize(
    ("name", "csvs", "expected"),
    [
        ("quic360", "data/x.csv", "quic360"), (None, "data/quic360/train.csv", "train"),
        (None, ["a/train.csv", "b.csv"], "train_plus1"), (None, ["a.csv", "b.csv", "c.csv"], "a_plus2"),
        (None, "synthetic", "synthetic"), ("my data/é", "x.csv", "my-data--"),
    ],
)  # fmt: skip
def test_dataset_token(name: str | None, csvs: str | list[str], expected: str) -> None:
    assert dataset_token(name, csvs) == expected


def test_auto_name() -> None:
    common = ("google/siglip2-so400m-patch16-256", "Qwen/Qwen3-0.6B", "mlp", "anyres_e2p")
    assert auto_name(*common, positional_encoding=True) == "siglip2_Qwen3_mlp_anyres-e2p_PE"
    assert auto_name(*common, positional_encoding=False) == "siglip2_Qwen3_mlp_anyres-e2p"
    detailed = auto_name(*common, positional_encoding=True, siglip_include_patch_res=True)
    assert detailed == "siglip2-so400m_p16_256_Qwen3_mlp_anyres-e2p_PE"


def test_paths_of_the_table() -> None:
    names = WorkflowConfig.from_dict(BASE).names
    folder = "runs/ADDDATA_S2Q3_1_latent768_PE/vision/anyres-e2p_mlp"
    assert names.experiment == "ADDDATA_S2Q3_1_latent768_PE"
    assert names.stage_dir("vision") == folder
    assert (
        checkpoint_name(names.checkpoint_prefix("vision"), 3, 0.45234)
        == "siglip2_mlp_anyres-e2p_quic360_epoch03_loss0.4523.ckpt"
    )
    assert Path(checkpoint_name(names.checkpoint_prefix("finetune"), 0, 12)).match(names.checkpoint_pattern("finetune"))
    started = datetime(2025, 10, 15, 14, 30)
    assert names.wandb_run("vision", started).endswith("PE/vision/siglip2_mlp_anyres-e2p_quic360_1015-1430")
    assert names.stage_state == "runs/ADDDATA_S2Q3_1_latent768_PE_stage_state.json"
    assert names.metrics == "results/ADDDATA_S2Q3_1_latent768_PE/metrics.json"
    assert names.prepared("val") == "results/ADDDATA_S2Q3_1_latent768_PE/prepared/val.csv"
    assert names.log("train_vision") == "logs/ADDDATA_S2Q3_1_latent768_PE/train_vision.log"
    document = names.as_json()
    assert list(document) == ["experiment", "stages", "stage_state", "metrics", "predictions"]
    assert list(document["stages"]) == ["vision", "resampler", "finetune"]
    assert list(document["stages"]["vision"]) == ["dir", "checkpoint_pattern", "wandb_run"]


def test_folders_and_skipped_stages_follow_the_configuration() -> None:
    changed = {**BASE, "paths": {"runs_dir": "out/", "results_dir": "res"}, "training": {"stages": ["finetune"]}}
    names = WorkflowConfig.from_dict(changed).names
    assert names.stage_dir("finetune").startswith("out/ADD") and names.metrics.startswith("res/ADD")
    assert list(names.as_json()["stages"]) == ["finetune"]


@pytest.mark.parametrize("written", ["out", "out/", "./out", "./out//"])
def test_one_folder_has_one_way_to_be_written(written: str) -> None:
    """The rules' outputs and the names that fill them are composed apart: `out/` would match no rule."""
    config = WorkflowConfig.from_dict({**BASE, "paths": {"runs_dir": written}})
    assert config.settings.paths.runs_dir == "out" == config.names.runs_dir


def test_each_stage_is_named_for_its_own_training_data() -> None:
    own = {"stage_configs": {"finetune": {"data": {"csv_train": ["more/extra.csv", "b.csv"]}}}}
    names = WorkflowConfig.from_dict({**BASE, "data": {"csv_train": "d/train.csv"}, "training": own}).names
    assert names.checkpoint_prefix("vision").endswith("_train")
    assert names.checkpoint_prefix("finetune").endswith("_extra_plus1")
    assert names.prepared("train", "finetune").endswith("prepared/finetune_train.csv")
    assert names.prepared("val", "finetune").endswith("prepared/val.csv")


def test_siglip_details_stand_in_the_auto_name_only() -> None:
    config = {**BASE, "experiment": {"auto_name": True, "siglip_include_patch_res": True}}
    names = WorkflowConfig.from_dict(config).names
    assert names.experiment == "siglip2-so400m_p16_256_Qwen3_mlp_anyres-e2p_PE"
    assert names.checkpoint_prefix("vision") == "siglip2_mlp_anyres-e2p_quic360"


def test_an_explicit_name_wins_over_auto_name() -> None:
    assert WorkflowConfig.from_dict({"experiment": {"name": "X", "auto_name": True}}).names.experiment == "X"


# ---- finding experiments -------------------------------------------------------------------------
def test_experiments_are_found_by_resolved_name_not_by_the_files_stem(tmp_path: Path) -> None:
    found = project(tmp_path, a="experiment: {name: B}", b="experiment: {name: auto}", c="training: {prefix: OLD}")
    assert found.experiments() == ["B", "OLD", "siglip_Qwen2.5_mlp_anyres-e2p_PE"]
    assert found.experiment("B").source == tmp_path / "config/experiments/a.yaml"
    assert found.experiment("B") is found.experiment("B")
    assert all(found.experiment(name).names.experiment == name for name in found.experiments())
    with pytest.raises(ConfigError, match=r"there is no experiment a in config/experiments.* Experiments: B, OLD"):
        found.experiment("a")
    with pytest.raises(
        ConfigError, match=r"experiments/a\.yaml holds the experiment B: write experiment\.name: a there"
    ):
        found.experiment("a")


def test_two_files_of_one_name_are_an_error_that_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = "experiment: {name: auto}\nmodels: {language_model_name: Qwen/Qwen2.5-0.5B}"
    found = project(tmp_path, small=small, large=small.replace("0.5B", "3B"), other="experiment: {name: O}")
    both = r"large\.yaml and config/experiments/small\.yaml both .* experiment\.name"
    with pytest.raises(ConfigError, match=both):
        found.experiment("siglip_Qwen2.5_mlp_anyres-e2p_PE")
    assert found.experiment("O").names.experiment == "O"
    monkeypatch.chdir(tmp_path)  # neither is trained without the DAG, where a path names one of them
    Pipeline(found.experiment("O"))
    with pytest.raises(ConfigError, match=both):
        Pipeline(WorkflowConfig.load("config/experiments/small.yaml"))


def test_a_broken_file_hinders_nobody_else_and_is_named_where_it_matters(tmp_path: Path) -> None:
    found = project(
        tmp_path,
        ok="experiment: {name: OK}",
        bad="a: [1",
        odd="experiment: 5",
        wrong="lora: {rank: 0}\nexperiment: {name: W}",
    )
    assert found.experiment("OK").names.experiment == "OK"
    assert found.experiments() == ["OK", "W"]
    with pytest.raises(ConfigError, match=r"wrong\.yaml:1: lora\.rank"):
        found.experiment("W")
    with pytest.raises(ConfigError) as caught:
        found.experiment("bad")
    assert "bad.yaml:1: not valid YAML" in str(caught.value) and "odd.yaml:1: experiment must hold" in str(caught.value)


def test_folders_of_the_dag_cannot_be_moved_by_one_experiment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml: paths\.runs_dir belongs in config/default\.yaml"):
        project(tmp_path, a="experiment: {name: A}\npaths: {runs_dir: elsewhere}").experiment("A")


def test_300_experiments_are_named_in_a_moment(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "config/experiments/EXP1.yaml").read_text(encoding="utf-8")
    found = project(tmp_path, **{f"e{n}": text.replace("name: EXP1", f"name: E{n}", 1) for n in range(300)})
    started = time.process_time()
    assert len(found.experiments()) == 300
    assert time.process_time() - started < 2


def test_importing_the_configuration_is_light() -> None:
    code = (
        "import sys; from panollava.config import Project; c = Project('.').experiment('EXP1');"
        "c.slice_json('metrics');"
        "print([m for m in ('torch', 'pandas', 'numpy', 'transformers', 'cv2') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    assert run.stdout.strip() == "[]"
