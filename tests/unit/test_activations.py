"""Gradient checkpointing: who wants it, and gradients that are bit by bit those of a step without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.data.dataset import Collator
from panollava.data.samples import Row
from panollava.models.config import LoraSettings
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.training.activations import activation_bytes, choose_checkpointing, wants_checkpointing


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backbones")
    vision_folder(root, "siglip")
    for family in ("qwen3", "gemma2"):
        language_folder(root, family)
    return root


@pytest.mark.parametrize("family", ["qwen3", "gemma2"])
def test_gradients_are_the_same_to_the_last_bit(folders: Path, family: str) -> None:
    """With dropout: the second pass repeats the first one's noise. So the key makes nothing stale."""
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = tiny_config(folders, language=family, use_lora=True, lora=LoraSettings(rank=4, alpha=8, dropout=0.3))
        model = PanoramaVLM(config)
        freeze_for_stage(model, "finetune", 1)
        choose_checkpointing(model, checkpointing, 2, 200, "32-true")
        assert model.language is not None and model.language.model.is_gradient_checkpointing == checkpointing
        for adapter in model.named_part_parameters()["lora"].values():
            adapter.data.normal_(std=0.1)  # B starts at zero, which hides A's gradient
        processor = PanoramaProcessor.for_model(config, model.vision)
        views = np.random.default_rng(0).integers(0, 255, (2, 9, *processor.image_size, 3), dtype=np.uint8)
        batch = Collator(processor, model.prompt, 64, False)(
            [(view, Row(f"{n}.png", "what?", "a box")) for n, view in enumerate(views)]
        )
        torch.manual_seed(1)
        model(**batch, stage="finetune")["loss"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradient, gradients[1][name]), name


def test_activations_are_those_of_blocks_that_have_gradients(folders: Path) -> None:
    model = PanoramaVLM(tiny_config(folders))
    freeze_for_stage(model, "resampler", 0)
    language = 100 * 32 * 2  # positions, width, blocks
    assert activation_bytes(model, 3, 100, "32-true") == 80 * language
    assert activation_bytes(model, 3, 100, "bf16-mixed") == 50 * language
    freeze_for_stage(model, "resampler", 2)
    assert activation_bytes(model, 3, 100, "bf16-mixed") == 50 * (language + 3 * 9 * 16 * 16 * 2)


@pytest.mark.parametrize(
    ("choice", "needed", "memory", "wanted"),
    [("auto", 51, 100, True), ("auto", 50, 100, False), ("auto", 10**15, None, False), (True, 0, None, True),
     (False, 10**15, 100, False)],
)  # fmt: skip
def test_who_wants_it(choice: bool | str, needed: int, memory: int | None, wanted: bool) -> None:
    assert wants_checkpointing(choice, needed, memory) is wanted
