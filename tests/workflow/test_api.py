"""The Python API on the small experiment: what it leaves is what the DAG leaves, and the DAG goes on from it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Project, with_changes
from plans import plan
from safetensors.torch import save_file

from panollava import (
    CheckpointResolver,
    EvaluationRunner,
    PanoramaVLM,
    ThreeStageTrainer,
    WorkflowConfig,
    resolve_model_dir,
)
from panollava.checkpoints.loading import load_stage
from panollava.checkpoints.weights import load_weights
from panollava.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.workflow

STAGES = ("vision", "resampler", "finetune")


def load(project: Project) -> WorkflowConfig:
    return WorkflowConfig.load(project.yaml, project.root, warn=False)


def stage_folder(root: Path, stage: str) -> Path:
    return root / f"runs/SMALL/{stage}/anyres-e2p_mlp"


def test_trained_and_evaluated_in_this_process_as_by_the_dag(
    finished: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights, records and scores; then the DAG has only its own predictions to make."""
    project = finished.copy_to(tmp_path / "project")
    for name in ("runs", "results", "logs", ".snakemake", "cache/csv", "cache/views", "cache/features"):
        shutil.rmtree(project.root / name, ignore_errors=True)
    cfg = load(project)
    checkpoint = ThreeStageTrainer(cfg).run()
    for stage in STAGES:
        ours, theirs = (stage_folder(root, stage) / "best.ckpt" for root in (project.root, finished.root))
        assert ours.read_bytes() == theirs.read_bytes(), stage
        assert (project.root / f"logs/SMALL/train_{stage}_anyres-e2p_mlp.log").read_text().count("peak memory") == 1
    assert checkpoint == stage_folder(project.root, "finetune") / (checkpoint.parent / "best.ckpt").readlink()
    state = json.loads((project.root / "runs/SMALL_stage_state.json").read_text())
    assert {row["status"] for row in state["stages"].values()} == {"completed"}
    assert plan(project) == {"cache_views": 1, "predict": 1, "predict_blind": 1, "compute_metrics": 1}

    before = (checkpoint.parent / "checkpoint_metadata.json").stat().st_mtime_ns
    assert ThreeStageTrainer(cfg).run() == checkpoint  # all is current: nothing is done
    assert (checkpoint.parent / "checkpoint_metadata.json").stat().st_mtime_ns == before

    runner = EvaluationRunner(cfg)
    metrics = runner.run(checkpoint_dir=checkpoint.parent, output_dir=tmp_path / "out")
    expected = json.loads((finished.root / "results/SMALL/metrics.json").read_text())
    assert metrics == expected["metrics"] and runner.document is not None
    assert runner.document["controls"] == expected["controls"]
    assert runner.path == tmp_path / "out/metrics.json" and json.loads(runner.path.read_text()) == runner.document
    assert capsys.readouterr().out == ""


def test_a_changed_copy_trains_what_is_stale(finished: Project, tmp_path: Path) -> None:
    project = finished.copy_to(tmp_path / "project")
    cfg = load(project).with_values({"training.stage_configs.finetune.lr": 2e-3})
    vision = stage_folder(project.root, "vision") / "checkpoint_metadata.json"
    before = vision.read_text()
    ThreeStageTrainer(cfg).run()
    assert vision.read_text() == before
    metadata = json.loads((stage_folder(project.root, "finetune") / "checkpoint_metadata.json").read_text())
    assert metadata["training_config"]["learning_rate"] == 2e-3
    assert metadata["checkpoint_info"]["config_digest"] == cfg.digest("train_finetune")


def test_checkpoints_are_found(finished: Project) -> None:
    find = CheckpointResolver(load(finished)).find
    folder = stage_folder(finished.root, "resampler").resolve()
    entries = json.loads((folder / "checkpoint_metadata.json").read_text())["epoch_info"]["checkpoints"]
    assert find(stage="resampler") == (folder / "best.ckpt").resolve()
    for entry in entries:
        assert find(stage="resampler", epoch=entry["epoch"]) == folder / entry["file"]
        assert find(stage="resampler", step=entry["step"]) == folder / entry["file"]
    assert find().parent == stage_folder(finished.root, "finetune").resolve()
    assert find(experiment="SMALL", stage="resampler") == find(stage="resampler", crop="anyres_e2p", resampler="mlp")
    for wrong, said in (({"epoch": 9}, "epochs 0"), ({"crop": "e2p"}, "looked for"), ({"experiment": "X"}, "Train it")):
        with pytest.raises(CheckpointError, match=said):
            find(**wrong)  # type: ignore[arg-type]


def test_several_variants_are_listed(finished: Project, tmp_path: Path) -> None:
    cfg = WorkflowConfig.from_dict(with_changes(SMALL, {"experiment.name": "MINE"}), tmp_path)
    for variant in ("anyres-e2p_mlp", "e2p_mlp"):
        shutil.copytree(stage_folder(finished.root, "finetune"), tmp_path / "runs/OTHER/finetune" / variant)
    with pytest.raises(CheckpointError, match=r"anyres-e2p_mlp.*e2p_mlp"):
        resolve_model_dir(cfg, experiment="OTHER")
    assert resolve_model_dir(cfg, experiment="OTHER", crop="e2p").name == "e2p_mlp"


@pytest.mark.parametrize(
    "layout", ["SMALL_anyres_e2p_finetune_mlp", "SMALL_anyres-e2p_finetune_mlp", "vlm_finetune/checkpoints"]
)
def test_old_layouts_are_found_and_load_with_a_configuration(finished: Project, tmp_path: Path, layout: str) -> None:
    source = stage_folder(finished.root, "finetune")
    folder = tmp_path / "runs" / layout
    folder.mkdir(parents=True)
    shutil.copy(source / "best.ckpt", folder / "epoch=0.ckpt")
    (tmp_path / "cache").symlink_to(finished.root / "cache")
    cfg = WorkflowConfig.from_dict(SMALL, tmp_path)
    assert resolve_model_dir(cfg) == folder
    with pytest.raises(CheckpointError, match="--config"):
        load_stage(folder)
    loaded, theirs = load_stage(folder, config=cfg), load_stage(source)
    assert loaded.processor == theirs.processor
    pairs = zip(loaded.model.named_parameters(), theirs.model.named_parameters(), strict=True)
    assert all(
        name == other and (name.startswith("vicreg_projector.") or torch.equal(ours, its))
        for (name, ours), (other, its) in pairs
    )


def test_the_final_model_of_the_old_layout(finished: Project, tmp_path: Path) -> None:
    """As it is, and with keys that do not fit, which are listed."""
    folder = tmp_path / "runs/vlm_finetune"
    folder.mkdir(parents=True)
    (tmp_path / "cache").symlink_to(finished.root / "cache")
    cfg = WorkflowConfig.from_dict(SMALL, tmp_path)
    tensors = load_weights(stage_folder(finished.root, "finetune") / "best.ckpt")[1]
    save_file(tensors, folder / "model_final.safetensors")
    assert resolve_model_dir(cfg) == folder
    assert isinstance(load_stage(folder, config=cfg).model, PanoramaVLM)
    first = next(key for key in tensors if key.startswith("resampler."))
    save_file({f"model.{key}": tensor for key, tensor in tensors.items()}, folder / "model_final.safetensors")
    with pytest.raises(CheckpointError) as told:
        load_stage(folder, config=cfg)
    assert f"model.{first}" in str(told.value) and "unexpected" in str(told.value) and "missing" in str(told.value)


def test_wrong_use_is_told(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"WorkflowConfig\.load"):
        ThreeStageTrainer("config/experiments/EXP1.yaml")  # type: ignore[arg-type]
    cfg = WorkflowConfig.from_dict({"experiment": {"name": "X"}}, tmp_path)
    with pytest.raises(ConfigError, match=r"data/quic360/train\.csv"):
        ThreeStageTrainer(cfg).run()
