"""The vision encoder's families: which tokens come out, from which checkpoints, at which sizes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_config, vision_folder
from transformers import AutoModel, CLIPVisionConfig, SiglipVisionConfig, ViTConfig, dynamic_module_utils
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches, pad_along_first_dim

from panollava.errors import CheckpointError, ConfigError
from panollava.models.processor import PanoramaProcessor
from panollava.models.vision import VisionEncoder, describe_vision

FAMILIES = {"siglip": 0, "naflex": 0, "clip": 1, "dinov2": 1, "dinov2-registers": 4, "mlcd": 1, "rice": 1}
FULL = ("siglip", "naflex", "clip")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    for family in (*FAMILIES, *(f"{family}-full" for family in FULL)):
        vision_folder(folder, family)
    return folder


def own_tokens(folder: Path, pixels: torch.Tensor, tower: bool = False) -> torch.Tensor:
    """The last hidden state as the family itself computes it, position embeddings of other sizes included."""
    model = AutoModel.from_pretrained(folder).eval()
    model = model.vision_model if tower else model
    inputs: dict[str, Any] = {"pixel_values": pixels}
    if model.config.model_type == "siglip2_vision_model":
        size = model.config.patch_size
        patches = [convert_image_to_patches(one.numpy(), size) for one in pixels]
        grid = [pixels.shape[2] // size, pixels.shape[3] // size]
        # two rows of padding, which the mask hides: what a batch of pictures of several shapes would bring
        inputs = {
            "pixel_values": torch.from_numpy(np.stack([pad_along_first_dim(p, len(p) + 2, 7)[0] for p in patches])),
            "pixel_attention_mask": torch.tensor([[1] * (grid[0] * grid[1]) + [0] * 2] * len(pixels)),
            "spatial_shapes": torch.tensor([grid] * len(pixels)),
        }
    elif isinstance(model.config, (CLIPVisionConfig, SiglipVisionConfig)):
        inputs["interpolate_pos_encoding"] = True
    hidden: torch.Tensor = model(**inputs).last_hidden_state
    return hidden[:, :-2] if "spatial_shapes" in inputs else hidden


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [None, (24, 16), (8, 32)])
def test_patch_tokens_are_the_familys_own(root: Path, family: str, size: tuple[int, int] | None) -> None:
    encoder = VisionEncoder(str(root / family), size).eval()
    height, width = size or (16, 16)
    pixels = torch.randn(2, 3, height, width)
    tokens = encoder(pixels)
    assert encoder.spec.num_prefix_tokens == FAMILIES[family]
    assert encoder.spec.image_size == (height, width) and encoder.spec.grid == (height // 4, width // 4)
    assert tokens.shape == (2, encoder.spec.num_tokens, 16) == (2, height * width // 16, 16)
    whole = own_tokens(root / family, pixels)
    assert whole.shape[1] == FAMILIES[family] + encoder.spec.num_tokens
    assert torch.allclose(tokens, whole[:, FAMILIES[family] :], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_stand_row_by_row(root: Path, family: str) -> None:
    """A change in one patch changes its own token most: what positions and overlap loss rely on."""
    encoder = VisionEncoder(str(root / family), (24, 16)).eval()
    pixels = torch.randn(1, 3, 24, 16)
    changed = pixels.clone()
    changed[:, :, 4:8, 12:16] += 3.0
    moved = (encoder(changed) - encoder(pixels)).norm(dim=2)[0]
    assert int(moved.argmax()) == 1 * 4 + 3


@pytest.mark.parametrize("family", FULL)
def test_the_tower_of_a_full_checkpoint(root: Path, family: str) -> None:
    source = root / f"{family}-full"
    pixels = torch.randn(2, 3, 16, 16)
    whole = own_tokens(source, pixels, tower=True)
    encoder = VisionEncoder(str(source)).eval()
    assert torch.allclose(encoder(pixels), whole[:, FAMILIES[family] :], atol=1e-6)
    assert not any(name.startswith(("head.", "text_model.")) for name, _ in encoder.model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [0, 1, -1])
def test_each_trainable_parameter_gets_a_gradient(root: Path, family: str, count: int) -> None:
    encoder = VisionEncoder(str(root / family))
    encoder.set_trainable_blocks(count)
    tokens = encoder(torch.randn(2, 3, 16, 16))
    assert tokens.requires_grad == (count != 0)
    if count:
        tokens.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    trained = [b for b in encoder.blocks() if all(p.requires_grad for p in b.parameters())]
    assert len(trained) == (3 if count == -1 else count)


def test_too_many_blocks(root: Path) -> None:
    with pytest.raises(ValueError, match="1 to 3, got 4"):
        VisionEncoder(str(root / "siglip")).set_trainable_blocks(4)


def test_a_size_that_no_patch_divides(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[18, 16\] is not a multiple of the patch \[4, 4\].*nearest: \[16, 16\]"):
        describe_vision(str(root / "siglip"), (18, 16))


def test_what_is_no_known_encoder(tmp_path: Path) -> None:
    ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model type 'vit'; known vision encoders: clip_vision_model, dinov2, "):
        describe_vision(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "eyes"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="eyes"):
        describe_vision(str(tmp_path))


def test_code_of_its_own_runs_only_for_who_trusts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = vision_folder(tmp_path, "own-code")
    with pytest.raises(ConfigError, match=r"own-code brings Python code of its own.*models\.trust_remote_code: true"):
        describe_vision(str(folder))
    encoder = VisionEncoder(str(folder), (24, 16), trust_remote_code=True).eval()
    assert encoder.spec.num_prefix_tokens is None and encoder.spec.grid == (6, 4)
    pixels = torch.randn(2, 3, 24, 16)
    plain = VisionEncoder(str(vision_folder(tmp_path, "mlcd")), (24, 16)).eval()
    assert torch.equal(encoder(pixels), plain(pixels))
    encoder.set_trainable_blocks(1)
    encoder(pixels).square().sum().backward()
    assert {name.split(".")[3] for name, p in encoder.named_parameters() if p.grad is not None} == {"2"}
    config = tiny_config(tmp_path, "own-code", trust_remote_code=True, use_vision_processor=False)
    with pytest.raises(ConfigError, match=r"no mean and std are known for tiny/own-code.*use_vision_processor: true"):
        PanoramaProcessor.for_model(config)


def test_another_number_of_tokens_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = VisionEncoder(str(root / "clip"))
    monkeypatch.setattr(encoder, "spec", dataclasses.replace(encoder.spec, num_prefix_tokens=0))
    with pytest.raises(ConfigError, match=r"returns \[17, 16\] for a view of \[16, 16\] pixels; expected 0 prefix"):
        encoder(torch.randn(1, 3, 16, 16))


def test_a_checkpoint_that_lacks_weights(root: Path, tmp_path: Path) -> None:
    folder = vision_folder(tmp_path, "clip")
    tensors = load_file(folder / "model.safetensors")
    name = next(key for key in tensors if "layers.1.mlp.fc1.weight" in key)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.fc1\.weight"):
        VisionEncoder(str(folder))
