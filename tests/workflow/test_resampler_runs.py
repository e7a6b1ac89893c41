"""Every resampler through the stages' own code, on the small experiment's caches: metadata, selection, reload."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from conftest import Project

from panollava.checkpoints.folder import read_metadata
from panollava.checkpoints.loading import load_stage
from panollava.config import WorkflowConfig
from panollava.dag.job_slice import complete
from panollava.dag.nodes import TABLE
from panollava.dag.options import untracked
from panollava.dag.parents import backbone_folder
from panollava.data.dataset import Collator
from panollava.data.samples import read_rows
from panollava.models.shapes import count_image_tokens
from panollava.training.job import StageJob
from panollava.training.run_stage import run_stage
from panollava.views.cache import ViewCache

pytestmark = pytest.mark.workflow

CHANGES = {
    "qformer": {"models.qformer.num_queries": 4, "models.qformer.layers": 1},
    "perceiver": {
        "models.perceiver.num_queries": 4,
        "models.perceiver.layers": 3,
        "training.stage_configs.vision.loss": "densecl",
    },
    "bimamba": {"models.bimamba.state_size": 8, "training.stage_configs.vision.vicreg_mode": "batchwise"},
}


def job_of(config: WorkflowConfig, stage: str, init: Path | None) -> StageJob:
    language = backbone_folder(config, "language")
    vision = backbone_folder(config, "vision")
    assert language and vision
    return StageJob(
        stage=stage,  # type: ignore[arg-type]
        slice=complete(config.slice_of(f"train_{stage}"), TABLE[f"train_{stage}"].reads),
        digest=config.digest(f"train_{stage}"),
        train_csv=Path(f"cache/csv/{config.csv_key('train')}/prepared.csv"),
        val_csv=Path(f"cache/csv/{config.csv_key('val')}/prepared.csv"),
        train_views=Path(f"cache/views/{config.views_key('train')}"),
        val_views=Path(f"cache/views/{config.views_key('val')}"),
        stage_folder=Path(config.names.stage_dir(stage)),
        state_folder=Path(config.names.state_dir(stage)),
        cache=Path("cache"),
        root=Path.cwd(),
        init_folder=init,
        vision_folder=Path(vision),
        language_folder=None if stage == "vision" else Path(language),
        naming={
            "experiment": "SMALL", "checkpoint_prefix": config.names.checkpoint_prefix(stage), "wandb_run": "",
            "remembered": {"generation": config.to_dict()["generation"]},
        },
        untracked=untracked(config),
    )  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_three_stages_and_the_folder_alone(
    name: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last stage's folder, copied away, gives the validation loss that its training recorded."""
    monkeypatch.chdir(project.root)
    project.configure({"models.resampler_type": name, **CHANGES[name]})
    config = WorkflowConfig.load(project.yaml, ".")
    folder: Path | None = None
    for stage in ("vision", "resampler", "finetune"):
        run_stage(job_of(config, stage, folder))
        folder = Path(config.names.stage_dir(stage))
        assert folder.name == f"anyres-e2p_{name}"
    assert folder is not None
    metadata = read_metadata(folder)
    last = job_of(config, "finetune", None)
    rows, views = read_rows(last.val_csv), ViewCache.open(last.val_views)
    pictures = [(views[row.image_path], row) for row in rows]

    shutil.copytree(folder, tmp_path / "elsewhere", symlinks=True)
    monkeypatch.chdir(tmp_path)
    loaded = load_stage(tmp_path / "elsewhere")
    for key, value in CHANGES[name].items():
        section, _, option = key.removeprefix("models.").partition(".")
        if key.startswith("models."):
            assert metadata["model_config"][section][option] == value == loaded.model.config.resampler_options[option]
    assert loaded.model.num_image_tokens == count_image_tokens(loaded.model.config)
    collate = Collator(loaded.processor, loaded.model.prompt, metadata["training_config"]["max_text_length"], False)
    size = metadata["training_config"]["batch_size"]
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(rows), size):
            batch = collate(pictures[start : start + size])
            supervised = int((batch["labels"] != -100).sum())
            total += float(loaded.model(**batch, stage="finetune")["loss"]) * supervised
            tokens += supervised
    assert total / tokens == pytest.approx(metadata["epoch_info"]["best_val_loss"], abs=1e-5)
