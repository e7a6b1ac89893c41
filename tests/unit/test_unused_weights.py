"""Vision encoders and native models: what transformers would pass over in silence is refused, with the names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import vision_folder
from tiny_vlms import vlm_folder

from panollava.errors import CheckpointError, ConfigError
from panollava.hub.folders import NATIVE_FILE
from panollava.models.build import build_model, load_pretrained
from panollava.models.config import LoraSettings, ModelConfig
from panollava.models.native import NativeVLM
from panollava.models.vision import VisionEncoder
from panollava.models.written import answer_logits


def changed(folder: Path, tensors: dict[str, torch.Tensor] | None = None, part: str = "", **config: Any) -> Path:
    """The folder with further tensors and other values in (a part of) config.json."""
    if tensors:
        path = folder / "model.safetensors"
        save_file({**load_file(path), **tensors}, path, {"format": "pt"})
    document = json.loads((folder / "config.json").read_text())
    section = document.get(part, document)
    for key in ("out_features", "out_indices", "stage_names"):
        section.pop(key, None)
    section |= config
    (folder / "config.json").write_text(json.dumps(document))
    return folder


# ---- vision encoders -----------------------------------------------------------------------------
@pytest.mark.parametrize("family", ["siglip", "clip-full", "dinov2"])
def test_blocks_behind_the_last_one_are_refused(tmp_path: Path, family: str) -> None:
    folder = vision_folder(tmp_path, family)
    VisionEncoder(str(folder))  # its pooling head, its text tower: nobody's loss
    changed(folder, part="vision_config", num_hidden_layers=2)
    with pytest.raises(CheckpointError, match=r"unexpected weights, which \w+ does not use: encoder\.layers?\.2\."):
        VisionEncoder(str(folder))


def test_biases_that_the_configuration_switches_off_are_refused(tmp_path: Path) -> None:
    folder = changed(vision_folder(tmp_path, "dinov2"), qkv_bias=False)
    with pytest.raises(CheckpointError, match=r"holds 9 unexpected weights.*k_proj\.bias.*does config\.json belong to"):
        VisionEncoder(str(folder))


def test_scales_of_quantised_weights_are_refused(tmp_path: Path) -> None:
    folder = vision_folder(tmp_path, "siglip")
    changed(folder, {"encoder.layers.0.mlp.fc1.weight_scale": torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"fc1\.weight_scale; they look like scales of quantised weights"):
        VisionEncoder(str(folder))


# ---- native models -------------------------------------------------------------------------------
def config(folder: Path, **settings: Any) -> ModelConfig:
    values: dict[str, Any] = {"crop_strategy": "e2p", "fov_deg": 150.0, "overlap_ratio": 0.2, "use_lora": False}
    return ModelConfig(vlm_name=str(folder), **{**values, **settings})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return vlm_folder(tmp_path, "llava")


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """A peft folder whose adapters say something."""
    model = build_model(config(folder, use_lora=True, lora=LoraSettings(rank=2, alpha=4.0, dropout=0.0)))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    model.save_adapter(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_a_native_model_uses_all_weights_of_its_layers(folder: Path) -> None:
    name = "model.language_model.layers.0.self_attn.q_proj"
    changed(folder, {"further_head.weight": torch.ones(2)})
    build_model(config(folder))  # a warning, and no more
    changed(folder, {f"{name}.weight_scale_inv": torch.ones(1)})
    with pytest.raises(CheckpointError, match=rf"{name}\.weight_scale_inv; they look like scales"):
        build_model(config(folder))


def test_a_native_model_has_the_blocks_of_its_file(folder: Path) -> None:
    changed(folder, part="text_config", num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"holds 9 unexpected weights.*language_model\.layers\.1\."):
        build_model(config(folder))


def test_a_native_models_quantisation_that_cannot_be_loaded_is_refused(folder: Path) -> None:
    changed(folder, quantization_config={"quant_method": "of_my_own", "bits": 4})
    with pytest.raises(ConfigError, match="is quantised by 'of_my_own', which transformers cannot load"):
        build_model(config(folder))


def test_an_adapter_beside_a_native_models_weights_is_refused(folder: Path, adapter: Path) -> None:
    for file in adapter.iterdir():
        shutil.copy(file, folder)
    with pytest.raises(ConfigError, match=r"holds adapter_config\.json beside its weights.*models\.adapter: FOLDER"):
        build_model(config(folder))


def test_adapters_of_others_fit_the_model_tensor_by_tensor(folder: Path, adapter: Path) -> None:
    build_model(config(folder, adapter=str(adapter)))
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    first = {key: tensor for key, tensor in tensors.items() if ".layers.0." in key}
    save_file(first, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"its file lacks 14 tensors: base_model\.model.*layers\.1\."):
        build_model(config(folder, adapter=str(adapter)))
    further = {key.replace(".layers.0.", ".layers.7."): tensor.clone() for key, tensor in first.items()}
    save_file({**tensors, **further}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"holds, for no layer of this model, 14 tensors: .*layers\.7\."):
        build_model(config(folder, adapter=str(adapter)))


def test_layers_that_an_adapter_brings_whole_are_exported(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model
    from transformers import AutoModelForImageTextToText

    made = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(folder),
        PeftLora(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]),
    )
    for name, parameter in made.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    made.save_pretrained(tmp_path / "adapter")
    model = build_model(config(folder, adapter=str(tmp_path / "adapter"))).eval()
    wanted = answer_logits(model)
    assert not torch.allclose(wanted, answer_logits(build_model(config(folder)).eval()), atol=1e-2)
    for name in ("apart", "merged"):
        model.save_pretrained(tmp_path / name)
        torch.testing.assert_close(answer_logits(load_pretrained(tmp_path / name)[0]), wanted, rtol=1e-4, atol=1e-4)
        model.merge_lora()


def test_an_exported_native_model_names_nothing_outside_of_itself(folder: Path, adapter: Path, tmp_path: Path) -> None:
    exported = tmp_path / "exported"
    build_model(config(folder)).save_pretrained(exported)
    document = json.loads((exported / NATIVE_FILE).read_text())
    document["model"] |= {"adapter": str(adapter), "use_lora": False}
    (exported / NATIVE_FILE).write_text(json.dumps(document))
    model, _ = load_pretrained(exported)
    assert isinstance(model, NativeVLM) and not model.has_adapters
    (exported / "README.md").unlink()
    (exported / "README.md").symlink_to(adapter / "adapter_config.json")
    with pytest.raises(CheckpointError, match=r"README\.md leads out of the folder, so it is not opened"):
        load_pretrained(exported)
