"""Weights that hold a NaN or an infinity are refused where they are read, with their names."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import language_folder, vision_folder
from tiny_vlms import vlm_folder

from panollava.checkpoints.weights import load_weights, save_weights
from panollava.errors import CheckpointError, PromptTooLong
from panollava.models.build import build_model
from panollava.models.config import LoraSettings, ModelConfig
from panollava.models.finite import refuse_not_finite
from panollava.models.language import LanguageModel
from panollava.models.native import NativeVLM
from panollava.models.saving import _read
from panollava.models.vision import VisionEncoder


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_among_many_is_found(value: float, dtype: torch.dtype) -> None:
    whole = {f"layer.{n}.weight": torch.randn(40, 7).to(dtype) for n in range(9)}
    refuse_not_finite("f", whole.items())
    for n in range(2, 8):
        whole[f"layer.{n}.weight"][n, 3] = value
    told = (
        r"f holds weights that are not finite \(NaN or infinite\).*: layer.2.weight, .*, layer.5.weight and 2 more\. "
    )
    with pytest.raises(CheckpointError, match=told):
        refuse_not_finite("f", whole.items())


def test_what_can_hold_none_is_passed_over() -> None:
    refuse_not_finite("f", {"a": torch.tensor([1, 2]), "b": torch.zeros(0), "c": torch.zeros(3, device="meta")}.items())


def test_trained_weights(tmp_path: Path) -> None:
    """As `eval`, `infer`, `serve`, prediction and the next stage read them."""
    weights = {"resampler.weight": torch.ones(3), "projection.bias": torch.tensor([0.0, math.nan])}
    save_weights(tmp_path / "a.ckpt", weights, {"stage": "finetune"})
    save_file(weights, tmp_path / "a.safetensors")
    for read, name in ((load_weights, "a.ckpt"), (load_weights, "a.safetensors"), (_read, "a.safetensors")):
        with pytest.raises(CheckpointError, match=rf"{name} holds weights that are not finite.*projection\.bias\. Bri"):
            read(tmp_path / name)


@pytest.mark.parametrize("part", ["vision", "language"])
def test_backbones(part: str, tmp_path: Path) -> None:
    folder = vision_folder(tmp_path, "siglip") if part == "vision" else language_folder(tmp_path, "qwen3")
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(
        key for key in tensors if key.endswith("layers.0.mlp.fc1.weight" if part == "vision" else "q_proj.weight")
    )
    tensors[name].view(-1)[0] = math.inf
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{folder} holds weights that are not finite.*{name.split('.')[-2]}"):
        VisionEncoder(str(folder), None) if part == "vision" else LanguageModel(str(folder))


def test_a_native_models_adapters_and_its_positions(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="native models need the extra `native`")
    folder = vlm_folder(tmp_path, "llava")
    settings: dict[str, Any] = {"vlm_name": str(folder), "crop_strategy": "e2p", "fov_deg": 150.0, "overlap_ratio": 0.2}
    model = build_model(
        ModelConfig(**settings, lora=LoraSettings(rank=2, alpha=4.0, dropout=0.0, parts=["language"]))
    ).eval()
    assert isinstance(model, NativeVLM) and model.positions is not None
    batch = model.prompt.collate([model.prompt.training("where? " * model.positions, "there", 9)], side="right")
    features = torch.zeros(1, *model.feature_shape)
    with pytest.raises(PromptTooLong, match=rf"leaves the language model's {model.positions:,} positions"):
        model(vision_features=features, stage="finetune", **batch)
    adapter = next(value for key, value in model.named_parameters() if "lora_B" in key)
    with torch.no_grad():
        adapter[0, 0] = math.nan
    model.save_adapter(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=r"adapter holds weights that are not finite.*lora_B"):
        build_model(ModelConfig(**settings, adapter=str(tmp_path / "adapter")))
