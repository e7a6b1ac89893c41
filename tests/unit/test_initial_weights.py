"""Weights that a stage starts from are those that the stage before chose, trained upon the same backbones."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from panollava.checkpoints.folder import METADATA
from panollava.checkpoints.weights import save_weights
from panollava.errors import TrainingError
from panollava.files import relative_link, sha256_file, write_json
from panollava.training.run_stage import _check_upstream

DIGEST = "0123456789abcdef"


@pytest.fixture
def vision(tmp_path: Path) -> Path:
    """The folder of a finished vision stage with two checkpoints."""
    entries = []
    for epoch in (0, 1):
        path = tmp_path / f"x_epoch0{epoch}_loss1.0000.ckpt"
        save_weights(path, {"a": torch.full((2,), float(epoch))}, {"stage": "vision", "config_digest": DIGEST})
        entries.append({"file": path.name, "epoch": epoch, "step": epoch, "val_loss": 1.0, "sha256": sha256_file(path)})
    relative_link(tmp_path / "best.ckpt", tmp_path / entries[0]["file"])
    document = {
        "experiment_name": "E", "stage": "vision", "backbones": {"vision": "v"},
        "checkpoint_info": {"config_digest": DIGEST},
        "model_config": {"vision_name": "models/v", "vlm_name": None},
        "epoch_info": {"best_epoch": 0, "checkpoints": entries},
    }  # fmt: skip
    write_json(tmp_path / METADATA, document)
    return tmp_path


def job(folder: Path | None, checkpoint: Path | None = None, **models: Any) -> Any:
    inputs = {"init_checkpoint": {"sha256": sha256_file(checkpoint)}} if checkpoint else {}
    own = {"vision_name": "models/v", "language_model_name": "l", "vlm_name": None, "adapter": None}
    return SimpleNamespace(
        stage="resampler", init_folder=folder, init_checkpoint=checkpoint, config={"models": {**own, **models}},
        slice={"upstream": {"train_vision": DIGEST}, "inputs": inputs},
    )  # fmt: skip


def test_the_stage_before_is_continued_from_its_own_choice(vision: Path) -> None:
    best = vision / "x_epoch00_loss1.0000.ckpt"
    assert _check_upstream(job(vision), {"vision": "v"}) == sha256_file(best)
    relative_link(vision / "best.ckpt", vision / "x_epoch01_loss1.0000.ckpt")  # somebody prefers another epoch
    with pytest.raises(TrainingError, match=r"best\.ckpt is not the checkpoint that its stage chose \(x_epoch00_loss"):
        _check_upstream(job(vision), {"vision": "v"})
    relative_link(vision / "best.ckpt", best)
    save_weights(best, {"a": torch.full((2,), 7.0)}, {"stage": "vision", "config_digest": DIGEST})
    with pytest.raises(TrainingError, match="it was changed or leads elsewhere"):
        _check_upstream(job(vision), {"vision": "v"})


def test_a_checkpoint_from_outside_was_trained_upon_the_same_backbones(vision: Path) -> None:
    checkpoint = vision / "x_epoch01_loss1.0000.ckpt"
    assert _check_upstream(job(None, checkpoint), {"vision": "v", "language": "l"}) == sha256_file(checkpoint)
    cases: tuple[tuple[dict[str, Any], dict[str, str], str], ...] = (
        ({"vision_name": "models/w"}, {"vision": "v"}, "vision_name 'models/v', here 'models/w'"),
        ({}, {"vision": "other"}, "the vision backbone had other content"),
        ({"vlm_name": "owner/model"}, {"vlm": "v"}, "vlm_name None, here 'owner/model'"),
    )
    for models, backbones, why in cases:
        with pytest.raises(TrainingError, match=f"was trained upon another backbone: {why}"):
            _check_upstream(job(None, checkpoint, **models), backbones)
