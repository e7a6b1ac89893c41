"""The stage table says what trains; here each of those tensors moves, and no other one does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.data.dataset import Collator
from panollava.data.samples import Row
from panollava.models.choices import STAGES, Stage
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import STAGE_TABLE, freeze_for_stage, stage_table_text
from panollava.models.vlm import PanoramaVLM
from panollava.training.module import StageModule


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backbones")
    vision_folder(root, "siglip")
    language_folder(root, "qwen3")
    return root


def build(folders: Path, stage: Stage) -> PanoramaVLM:
    torch.manual_seed(0)
    config = tiny_config(folders, use_lora=stage == "finetune")
    return PanoramaVLM(config, with_language=stage != "vision")


def batch_for(model: PanoramaVLM, stage: Stage) -> dict[str, torch.Tensor]:
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    views = np.random.default_rng(0).integers(0, 255, (2, len(model.views), *processor.image_size, 3), dtype=np.uint8)
    collate = Collator(processor, None if stage == "vision" else model.prompt, 64, features=False)
    return collate([(picture, Row(f"{n}.png", "what is behind you?", "a red box")) for n, picture in enumerate(views)])


@pytest.mark.parametrize("blocks", [0, 1, -1])
@pytest.mark.parametrize("stage", STAGES)
def test_every_trainable_tensor_moves_and_no_other(folders: Path, stage: Stage, blocks: int) -> None:
    model = build(folders, stage)
    counts = freeze_for_stage(model, stage, blocks)
    module = StageModule(
        model, stage, kept=set(model.trained_state_dict()), total_steps=4, optimizer="adamw", lr=1e-2, muon_lr=0.02,
        weight_decay=0.0, warmup_ratio=0.0,
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = module.configure_optimizers()["optimizer"]
    for _ in range(2):  # LoRA's A gets its first gradient when B has left zero
        optimizer.zero_grad()
        model(**batch_for(model, stage), stage=stage)["loss"].backward()
        optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert moved == trainable
    assert {c.part for c in counts if c.trainable} == set(STAGE_TABLE[stage].trains) | (
        {"vision_encoder"} if blocks else set()
    )
    assert sum(c.trainable for c in counts) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_a_later_stage_keeps_what_an_earlier_one_trained(folders: Path) -> None:
    vision = build(folders, "vision")
    freeze_for_stage(vision, "vision", 1)
    with torch.no_grad():
        for parameter in vision.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    finetune = build(folders, "finetune")
    finetune.load_trained(vision.trained_state_dict())
    freeze_for_stage(finetune, "finetune", 0)
    kept = finetune.trained_state_dict()
    for name, tensor in vision.trained_state_dict().items():
        assert torch.equal(kept[name], tensor), name


def test_the_table_names_every_part_with_its_counts(folders: Path) -> None:
    model = build(folders, "finetune")
    text = stage_table_text("finetune", freeze_for_stage(model, "finetune", 0))
    for part in ("vision_encoder", "resampler", "positional", "projection", "language_model", "lora", "total"):
        assert part in text
