"""The vision encoder's families: which tokens come out, from which checkpoints, at which sizes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import LANGUAGE, OTHER_ENCODERS, VISION, tiny_config, vision_folder
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    BertConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    dynamic_module_utils,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches, pad_along_first_dim

from panollava.config import WorkflowConfig
from panollava.errors import CheckpointError, ConfigError
from panollava.models.processor import PanoramaProcessor
from panollava.models.vision import VisionEncoder, describe_vision, patchified, raw_output, try_encoder
from panollava.models.vision_probe import check_layout
from panollava.models.vision_tower import tower_class

FAMILIES = {"siglip": 0, "naflex": 0, "clip": 1, "dinov2": 1, "dinov2-registers": 4, "mlcd": 1, "rice": 1}
ALL = {**FAMILIES, **{folder: prefix for folder, (_, prefix, _) in OTHER_ENCODERS.items()}}
OWN_SIZE = ("aimv2",)  # its positions are not interpolated
FULL = ("siglip", "naflex", "clip")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vision")
    for family in (*ALL, *(f"{family}-full" for family in FULL)):
        vision_folder(folder, family)
    return folder


def own_tokens(folder: Path, pixels: torch.Tensor, tower: bool = False) -> torch.Tensor:
    """The last hidden state as the family itself computes it, position embeddings of other sizes included."""
    config = AutoConfig.from_pretrained(folder)
    model = tower_class(config).from_pretrained(folder).eval()
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
    elif "interpolate_pos_encoding" in inspect.signature(model.forward).parameters:
        inputs["interpolate_pos_encoding"] = True
    if config.model_type == "vit_mae":  # nothing masked, nothing shuffled
        model.config.mask_ratio = 0.0
        inputs["noise"] = torch.arange(pixels.shape[2] * pixels.shape[3] // 16).expand(len(pixels), -1)
    hidden: torch.Tensor = model(**inputs).last_hidden_state
    return hidden[:, :-2] if "spatial_shapes" in inputs else hidden


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("size", [None, (24, 16), (8, 32)])
def test_patch_tokens_are_the_familys_own(root: Path, family: str, size: tuple[int, int] | None) -> None:
    if family in OWN_SIZE and size:
        with pytest.raises(ConfigError, match=r"takes its own size \[16, 16\] alone"):
            VisionEncoder(str(root / family), size)
        return
    encoder = VisionEncoder(str(root / family), size).eval()
    height, width = size or (16, 16)
    pixels = torch.randn(2, 3, height, width)
    tokens = encoder(pixels)
    assert encoder.spec.num_prefix_tokens == ALL[family]
    assert encoder.spec.image_size == (height, width) and encoder.spec.grid == (height // 4, width // 4)
    assert tokens.shape == (2, encoder.spec.num_tokens, 16) == (2, height * width // 16, 16)
    whole = own_tokens(root / family, pixels)
    assert whole.shape[1] == ALL[family] + encoder.spec.num_tokens
    assert torch.allclose(tokens, whole[:, ALL[family] :], atol=1e-6)


@pytest.mark.parametrize("family", ALL)
def test_tokens_stand_row_by_row(root: Path, family: str) -> None:
    """A change in one patch changes its own token most: what positions and overlap loss rely on."""
    encoder = VisionEncoder(str(root / family), None if family in OWN_SIZE else (24, 16)).eval()
    spec = encoder.spec
    assert check_layout(family, partial(raw_output, encoder.model, spec), encoder.blocks(), spec.image_size, spec.grid,
                        16) == spec.num_prefix_tokens  # fmt: skip
    if family in OWN_SIZE:
        return
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


@pytest.mark.parametrize("family", ALL)
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
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="model type 'bert', which takes no pixels; known vision encoders: aimv2"):
        describe_vision(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "eyes"}', encoding="utf-8")
    with pytest.raises(ConfigError, match="eyes"):
        describe_vision(str(tmp_path))


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("kosmos_2_vision_model", None),  # no row, but patch tokens in their order
        ("owlvit_vision_model", None),
        ("pixtral", r"\[1, 32, 16\] for 2 view"),  # all pictures in one sequence
        ("vitdet", r"\[1, 16, 4, 4\] for 1 view"),  # a map
        ("groupvit_vision_model", "encoders that merge or leave out patches"),
        ("videomae", r"cannot take pixels \[1, 3, 16, 16\]"),
        ("hiera", "states no num_hidden_layers"),
    ],
)
def test_an_encoder_without_a_row_is_tried(tmp_path: Path, model_type: str, said: str | None) -> None:
    settings = {} if model_type == "hiera" else VISION
    config = CONFIG_MAPPING[model_type](**settings)
    config.save_pretrained(tmp_path)
    if said is not None:
        with pytest.raises(ConfigError, match=said):
            try_encoder(str(tmp_path))
        return
    try_encoder(str(tmp_path))
    model = tower_class(config)(config)
    model.save_pretrained(tmp_path)
    encoder, pixels = VisionEncoder(str(tmp_path)).eval(), torch.randn(2, 3, 16, 16)
    assert torch.allclose(encoder(pixels), model.eval()(pixel_values=pixels).last_hidden_state[:, 1:], atol=1e-6)
    encoder.set_trainable_blocks(-1)
    encoder(pixels).square().sum().backward()
    assert all(p.requires_grad == (p.grad is not None) for p in encoder.parameters())


def test_a_size_in_whole_patches_is_the_models_own(tmp_path: Path) -> None:
    """so400m-patch14-384: 384 is no multiple of 14; the model leaves out what 378 leaves out."""
    model = SiglipVisionModel(SiglipVisionConfig(**{**VISION, "image_size": 18})).eval()
    model.save_pretrained(tmp_path)
    encoder = VisionEncoder(str(tmp_path)).eval()
    assert encoder.spec.image_size == (16, 16) and encoder.spec.native_size
    pixels = torch.randn(2, 3, 18, 18)
    assert torch.equal(encoder(pixels[:, :, :16, :16]), model(pixel_values=pixels).last_hidden_state)


_TEXT = {**{key: value for key, value in LANGUAGE.items() if key != "head_dim"}, "vocab_size": 300, "pad_token_id": 0}
_CLIP, _SIGLIP = ({"model_type": f"{name}_vision_model", **VISION} for name in ("clip", "siglip"))
_NAFLEX = {"model_type": "siglip2_vision_model", **VISION, "num_patches": 16}
_GEMMA3 = {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 8, **_TEXT}
TOWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {  # module, vision, text, further
    "llava": ("vision_tower", _CLIP, {"model_type": "llama", **_TEXT}, {}),
    "llava_next": ("vision_tower", _CLIP, {"model_type": "llama", **_TEXT}, {}),
    "llava_next_video": ("vision_tower", _CLIP, {"model_type": "llama", **_TEXT}, {}),
    "video_llava": ("image_tower", _CLIP, {"model_type": "llama", **_TEXT}, {}),
    "vipllava": ("vision_tower", _CLIP, {"model_type": "llama", **_TEXT}, {}),
    "llava_onevision": ("vision_tower", _SIGLIP, {"model_type": "qwen2", **_TEXT}, {}),
    "aya_vision": ("vision_tower", _SIGLIP, {"model_type": "cohere2", **_TEXT}, {}),
    "paligemma": ("vision_tower", {**_SIGLIP, "projection_dim": 32}, {"model_type": "gemma", "head_dim": 16, **_TEXT},
                  {"projection_dim": 32}),
    "gemma3": ("vision_tower", _SIGLIP, _GEMMA3, {"mm_tokens_per_image": 4}),
    "shieldgemma2": ("vision_tower", _SIGLIP, _GEMMA3, {"mm_tokens_per_image": 4}),
    "lfm2_vl": ("vision_tower", _NAFLEX, {"model_type": "lfm2", **_TEXT}, {}),
    "cohere2_vision": ("vision_tower", _SIGLIP, {"model_type": "cohere2", **_TEXT}, {}),
    "deepseek_vl": ("vision_model", _SIGLIP, {"model_type": "llama", **_TEXT}, {}),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", TOWERS)
def test_the_tower_of_a_multimodal_model(tmp_path: Path, kind: str, legacy: bool) -> None:
    """The very tokens of the whole model's tower, whichever way its file names the weights."""
    module, vision, text, more = TOWERS[kind]
    config = CONFIG_MAPPING[kind](vision_config=vision, text_config=text, **more)
    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_config(config).eval()
    model.save_pretrained(tmp_path)
    if legacy:  # as the hub's older files have it
        tensors = load_file(tmp_path / "model.safetensors")
        renamed = {re.sub(rf"{module}\.", f"{module}.vision_model.", key): value for key, value in tensors.items()}
        save_file(renamed, tmp_path / "model.safetensors", {"format": "pt"})
    tower = next(one for name, one in model.named_modules() if name.rsplit(".", 1)[-1] == module)
    try_encoder(str(tmp_path))
    encoder, pixels = VisionEncoder(str(tmp_path)).eval(), torch.randn(2, 3, 16, 16)
    inputs = patchified(pixels, (4, 4)) if kind == "lfm2_vl" else {"pixel_values": pixels}
    whole = tower(**inputs).last_hidden_state
    assert torch.equal(encoder(pixels), whole[:, encoder.spec.num_prefix_tokens :])


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


LAYOUTS = {
    "a tuple": ("return (out.last_hidden_state,)", "returns tuple without a last_hidden_state"),
    "a map": ("out.last_hidden_state = out.last_hidden_state[:, 1:].mT.unflatten(2, (6, 4)); return out",
              r"shape \[1, 16, 6, 4\]"),
    "class last": ("out.last_hidden_state = out.last_hidden_state.roll(-1, 1); return out",
                   "its 1 tokens that are no patches do not all stand before"),
    "columns": ("h = out.last_hidden_state; p = h[:, 1:].unflatten(1, (6, 4)).transpose(1, 2).flatten(1, 2); "
                "out.last_hidden_state = p; return out", "stand column by column"),
    "merged": ("out.last_hidden_state = out.last_hidden_state[:, 1::4]; return out", "merge or leave out patches"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_own_code_that_lays_tokens_out_otherwise_is_refused_before_any_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = vision_folder(tmp_path, "own-code").rename(tmp_path / f"own-{len(layout)}{layout[0]}")
    ending, said = LAYOUTS[layout]
    with (folder / "eyes.py").open("a") as code:
        code.write(f"\n    def forward(self, *args, **kwargs):\n        out = super().forward(*args, **kwargs)\n"
                   f"        {ending}\n")  # fmt: skip
    with pytest.raises(ConfigError, match=said):
        VisionEncoder(str(folder), (24, 16), trust_remote_code=True)
    settings = {
        "experiment": {"name": "E"},
        "models": {"vision_name": folder.name, "trust_remote_code": True},
        "image_processing": {"image_size": [24, 16]},
        "data": {"csv_train": "t.csv", "csv_val": "t.csv"},
    }
    (tmp_path / "t.csv").write_text("url,query,annotation\na.png,q,x\n")
    config = WorkflowConfig.from_dict(settings, tmp_path)
    with pytest.raises(ConfigError, match=rf"models\.vision_name: .*{said}"):
        config.slice_json("train_vision")


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
