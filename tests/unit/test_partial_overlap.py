"""Finetune with an overlap loss beside the answers': views that a partial panorama hardly covers take no part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder
from tiny_vlms import vlm_folder

from panollava.config import WorkflowConfig
from panollava.data.dataset import Collator
from panollava.data.samples import Row
from panollava.models.build import build_model
from panollava.models.config import ModelConfig
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.training.module import StageModule


@pytest.mark.parametrize("share_image_prefix", [False, True])
@pytest.mark.parametrize("kind", ["composed", "native"])
def test_the_overlap_loss_of_finetune_leaves_uncovered_views_out(
    tmp_path: Path, kind: str, share_image_prefix: bool
) -> None:
    """Its loss is that of the views that are kept, also where each row gets a picture of its own."""
    settings: dict[str, Any] = {"crop_strategy": "e2p", "fov_deg": 150.0, "overlap_ratio": 0.2, "use_lora": False,
                                "overlap_loss_weight": 1.0}  # fmt: skip
    if kind == "native":
        model = build_model(ModelConfig(vlm_name=str(vlm_folder(tmp_path, "llava")), **settings))
    else:
        vision_folder(tmp_path, "siglip")
        language_folder(tmp_path, "qwen3")
        model = PanoramaVLM(tiny_config(tmp_path, **settings))
    assert model.prompt is not None
    views = len(model.views)
    kept = {"half.png": [place != 1 for place in range(views)]}
    processor = PanoramaProcessor.for_model(model.config)
    rows = [Row("whole.png", "q", "a"), Row("half.png", "q", "a"), Row("whole.png", "r", "b")]
    noise = np.random.default_rng(0)
    pictures = {name: noise.integers(0, 255, (views, *processor.image_size, 3), np.uint8) for name in
                ("whole.png", "half.png")}  # fmt: skip
    module = StageModule(model, "finetune", kept=set(), total_steps=1, optimizer="adamw", lr=1e-3, muon_lr=0.02,
                         weight_decay=0.0, warmup_ratio=0.0)  # fmt: skip

    def overlap(kept_views: dict[str, list[bool]]) -> float:
        collate = Collator(processor, model.prompt, 64, features=False, kept_views=kept_views)
        model.train()
        with torch.no_grad():
            module._share(collate([(pictures[row.image_path], row) for row in rows]), share_image_prefix)
        assert module._overlap is not None
        return float(module._overlap)

    assert overlap({}) != overlap(kept)
    nothing = {name: [False] * views for name in pictures}
    assert overlap(nothing) == 0.0


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_slice_of_finetune_holds_the_coverage_only_with_an_overlap_loss(weight: float, tmp_path: Path) -> None:
    def digests(least: float) -> list[str]:
        document = {
            "experiment": {"name": "E"}, "image_processing": {"min_coverage": least},
            "data": dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic"),
            "training": {"stages": ["finetune"], "stage_configs": {"finetune": {"overlap_loss_weight": weight}}},
            "models": {"vision_name": "miniature/siglip", "language_model_name": "miniature/qwen3"},
        }  # fmt: skip
        cfg = WorkflowConfig.from_dict(document, tmp_path)
        assert ("min_coverage" in cfg.slice_of("train_finetune")["config"]["image_processing"]) == (
            bool(weight) and least != 0.5
        )
        return [cfg.digest("train_finetune")]

    assert (digests(0.5) != digests(0.25)) == bool(weight)
