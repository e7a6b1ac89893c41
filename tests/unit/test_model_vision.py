"""The vision encoder's families: which tokens come out, from which checkpoints, at which sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import vision_folder
from transformers import AutoModel, Siglip2VisionConfig

from panollava.errors import CheckpointError, ConfigError
from panollava.models.vision import VisionEncoder, describe_vision

FAMILIES = {"siglip": 0, "clip": 1, "dinov2": 1, "dinov2-registers": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    for family in (*FAMILIES, "siglip-full", "clip-full"):
        vision_folder(folder, family)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_patch_tokens_only(root: Path, family: str) -> None:
    encoder = VisionEncoder(str(root / family)).eval()
    pixels = torch.randn(2, 3, 16, 16)
    whole = AutoModel.from_pretrained(root / family)(pixel_values=pixels).last_hidden_state
    tokens = encoder(pixels)
    assert encoder.spec.num_prefix_tokens == FAMILIES[family]
    assert tokens.shape == (2, 16, 16) and encoder.spec.grid == (4, 4)
    assert torch.equal(tokens, whole[:, -16:])


@pytest.mark.parametrize("family", FAMILIES)
def test_another_size(root: Path, family: str) -> None:
    encoder = VisionEncoder(str(root / family), (24, 16))
    assert encoder(torch.randn(1, 3, 24, 16)).shape == (1, encoder.spec.num_tokens, 16)
    assert encoder.spec.grid == (6, 4)


@pytest.mark.parametrize("family", ["siglip", "clip"])
def test_the_tower_of_a_full_checkpoint(root: Path, family: str) -> None:
    source = root / f"{family}-full"
    pixels = torch.randn(2, 3, 16, 16)
    whole = AutoModel.from_pretrained(source).vision_model(pixel_values=pixels).last_hidden_state
    assert torch.equal(VisionEncoder(str(source)).eval()(pixels), whole[:, -16:])


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


def test_naflex_is_named(tmp_path: Path) -> None:
    Siglip2VisionConfig(hidden_size=16, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="NaFlex"):
        describe_vision(str(tmp_path))


def test_a_checkpoint_that_lacks_weights(root: Path, tmp_path: Path) -> None:
    folder = vision_folder(tmp_path, "clip")
    tensors = load_file(folder / "model.safetensors")
    name = next(key for key in tensors if "layers.1.mlp.fc1.weight" in key)
    del tensors[name]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.fc1\.weight"):
        VisionEncoder(str(folder))
