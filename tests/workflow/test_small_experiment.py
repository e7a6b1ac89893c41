"""The real DAG on a small experiment: what it leaves behind, and what a change makes stale."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Project, new_project

from panollava.checkpoints.loading import load_stage
from panollava.config import WorkflowConfig
from panollava.errors import CheckpointError

pytestmark = pytest.mark.workflow

TRAINING = {stage: f"train_{stage}" for stage in ("vision", "resampler", "finetune")}


def stage_folder(project: Project, stage: str) -> Path:
    return project.root / f"runs/SMALL/{stage}/anyres-e2p_mlp"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_file_of_the_contract_is_there(finished: Project) -> None:
    root = finished.root
    for stage in TRAINING:
        folder = stage_folder(finished, stage)
        metadata = json.loads((folder / "checkpoint_metadata.json").read_text())
        for link in ("best.ckpt", "last.ckpt"):
            assert (folder / link).is_symlink() and not os.path.isabs(os.readlink(folder / link))
        best = metadata["epoch_info"]["best_epoch"]
        loss = metadata["epoch_info"]["best_val_loss"]
        assert (
            os.readlink(folder / "best.ckpt") == f"siglip_mlp_anyres-e2p_synthetic_epoch{best:02d}_loss{loss:.4f}.ckpt"
        )
        assert metadata["stage"] == stage and metadata["experiment_name"] == "SMALL"
        model = metadata["model_config"]
        assert (model["vision_name"], model["language_model_name"]) == ("miniature/siglip", "miniature/qwen3")
        assert model["use_lora"] == (stage == "finetune")
        # Four rows a panorama, which a stage that reads no text takes once.
        counts = (6, 2) if stage == "vision" else (24, len(rows(root / "results/SMALL/prepared/val.csv")))
        assert (metadata["dataset"]["num_train_samples"], metadata["dataset"]["num_val_samples"]) == counts
        assert (folder / "loss_curves.png").stat().st_size > 1000
        assert (root / f"logs/SMALL/train_{stage}_anyres-e2p_mlp.log").read_text().count("peak memory") == 1
    assert (stage_folder(finished, "finetune") / "lora_weights/adapter_model.safetensors").is_file()
    state = json.loads((root / "runs/SMALL_stage_state.json").read_text())
    assert {stage: row["status"] for stage, row in state["stages"].items()} == dict.fromkeys(TRAINING, "completed")
    assert [row["resumed_from_step"] for row in state["stages"].values()] == [None] * 3
    assert state["stages"]["resampler"]["upstream_checkpoint"] == "runs/SMALL/vision/anyres-e2p_mlp/best.ckpt"


def test_metrics_and_predictions(finished: Project) -> None:
    results = finished.root / "results/SMALL"
    document = json.loads((results / "metrics.json").read_text())
    assert list(document["metrics"])[:5] == ["bleu4", "meteor", "rouge_l", "spice", "cider"]
    for name, metric in document["metrics"].items():
        assert metric["value"] is not None or metric["reason"], name
        assert document["controls"]["blind"].keys() == document["metrics"].keys()
    predictions, prepared = rows(results / "predictions.csv"), rows(results / "prepared/test.csv")
    assert document["num_references"] == len(predictions) == len(prepared)
    asked = {(row["image_path"], row["query"]) for row in prepared}
    assert {(row["image_path"], row["original_query"]) for row in predictions} == asked
    assert document["num_samples"] == len(asked)
    for key in (
        "config",
        "csv",
        "predictions",
        "predictions_blind",
        "checkpoint",
        "seed",
        "device",
        "dtype",
        "versions",
    ):
        assert document["provenance"][key]


@pytest.mark.spice
def test_real_spice_of_a_finished_experiment(spice_cache: str, project: Project) -> None:
    """Once its parts are installed: computed by the DAG, and again from the CSV alone, which parses nothing."""
    assert (
        "setup-metrics"
        in json.loads((project.root / "results/SMALL/metrics.json").read_text())["metrics"]["spice"]["reason"]
    )
    project.panollava("run", "SMALL", "--forcerun", "compute_metrics")
    document = json.loads((project.root / "results/SMALL/metrics.json").read_text())
    found = document["metrics"]["spice"]
    assert found["reason"] is None and 0 <= found["value"] <= 1 and "corenlp:3.6.0" in found["signature"]
    assert 0 <= document["controls"]["blind"]["spice"] <= 1
    done = project.panollava("eval", "--csv-input", "results/SMALL/predictions.csv", "--output-dir", "again")
    again = json.loads((project.root / "again/metrics.json").read_text())["metrics"]["spice"]
    assert again["value"] == found["value"]
    assert (match := re.search(r"(\d+) captions, (\d+) of them parsed before", done.stderr)) and match[1] == match[2]


def test_checkpoints_hold_all_that_was_trained_and_nothing_else(finished: Project) -> None:
    states = {
        stage: torch.load(stage_folder(finished, stage) / "best.ckpt", weights_only=True)["state_dict"]
        for stage in TRAINING
    }
    blocks = {name for name in states["vision"] if name.startswith("vision.")}
    assert blocks and all(torch.equal(states["vision"][n], states["finetune"][n]) for n in blocks)
    assert any(".lora_" in name for name in states["finetune"])
    assert not any(".lora_" in name for name in states["resampler"])
    assert not any(name.startswith("language.") and ".lora_" not in name for name in states["finetune"])


def test_views_of_the_vision_models_own_size(project: Project) -> None:
    """image_size unset: the job asks the miniature encoder, which the DAG has built."""
    project.configure({"image_processing.image_size": None})
    cfg = WorkflowConfig.load("SMALL", project.root, warn=False)
    index = f"cache/views/{cfg.views_key('val')}/index.json"
    project.call("snakemake", "--cores", "1", "--", index)
    assert json.loads((project.root / index).read_text())["image_size"] == [32, 32]


def test_the_longest_name_may_repeat_itself(tmp_path: Path) -> None:
    """Snakemake by itself takes xxxxx… for an endless recursion of rules."""
    project, name = new_project(tmp_path), "x" * 100
    project.configure({"experiment.name": name})
    project.call("snakemake", "-n", "--", f"results/{name}/metrics.json", f"runs/{name}_stage_state.json")


def test_wrong_experiments_are_one_line(project: Project) -> None:
    done = project.call("snakemake", "-n", "--", "results/SMAL/metrics.json", check=False)
    assert done.returncode != 0 and "Did you mean SMALL?" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    project.configure({"training.stage_configs.finetune.lrr": 1})
    done = project.call("snakemake", "-n", "--", "results/SMALL/metrics.json", check=False)
    assert done.returncode != 0 and "lrr" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_folder_alone_gives_the_same_answers_elsewhere(finished: Project, tmp_path: Path) -> None:
    """Copied away, evaluated from another working folder, without configuration: equal predictions and scores."""
    folder = tmp_path / "elsewhere/finetune"
    shutil.copytree(stage_folder(finished, "finetune"), folder, symlinks=True)
    away = Project(tmp_path)
    (source,) = finished.root.glob("cache/synthetic/*/test.csv")
    away.panollava("eval", "--checkpoint-dir", str(folder), "--csv-input", str(source), "--output-dir", "out")
    ours, theirs = rows(tmp_path / "out/predictions.csv"), rows(finished.root / "results/SMALL/predictions.csv")
    columns = ("original_query", "prediction", "reference", "error")
    assert [[row[c] for c in columns] for row in ours] == [[row[c] for c in columns] for row in theirs]
    scores = [
        json.loads(p.read_text()) for p in (tmp_path / "out/metrics.json", finished.root / "results/SMALL/metrics.json")
    ]
    assert scores[0]["metrics"] == scores[1]["metrics"] and scores[0]["controls"] == scores[1]["controls"]


def test_a_folder_with_other_weights_is_refused(finished: Project, tmp_path: Path) -> None:
    """Weights of another stage, half a checkpoint, damaged metadata: an error, never random weights."""
    folder = tmp_path / "finetune"
    shutil.copytree(stage_folder(finished, "finetune"), folder, symlinks=True)
    best = folder / "best.ckpt"
    document = torch.load(best, weights_only=True)
    shutil.copy(stage_folder(finished, "vision") / "best.ckpt", best.resolve())
    with pytest.raises(CheckpointError, match="holds weights of stage vision"):
        load_stage(folder, root=finished.root)
    state = {key: tensor for key, tensor in document["state_dict"].items() if not key.startswith("projection.")}
    torch.save({**document, "state_dict": state}, best.resolve())
    with pytest.raises(CheckpointError, match="projection"):
        load_stage(folder, root=finished.root)
    best.resolve().write_text("hi\n")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_stage(folder, root=finished.root)
    for text in ("", "{}", "[]", "\x00\xff"):
        (folder / "checkpoint_metadata.json").write_text(text, encoding="latin-1")
        with pytest.raises(CheckpointError, match="checkpoint_metadata"):
            load_stage(folder, root=finished.root)
