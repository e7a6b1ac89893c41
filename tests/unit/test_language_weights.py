"""What transformers would pass over in silence when a language model is loaded: refused, with the names."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import language_folder, tokenizer
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from panollava.errors import CheckpointError, ConfigError
from panollava.models.config import LoraSettings
from panollava.models.language import LanguageModel, positions_of

TEXT = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512}  # fmt: skip
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
         "image_size": 16, "patch_size": 4}  # fmt: skip


def changed(folder: Path, tensors: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
    """The folder with further tensors and other values in config.json."""
    path = folder / "model.safetensors"
    save_file({**load_file(path), **(tensors or {})}, path, {"format": "pt"})
    document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**document, **config}), encoding="utf-8")
    return folder


def test_weights_that_the_architecture_does_not_use_are_refused(tmp_path: Path) -> None:
    """Biases that stand in the file and not in the configuration: another model, and not a word of it."""
    folder = language_folder(tmp_path, "llama")
    AutoConfig.from_pretrained(folder)
    biases = {f"model.layers.{layer}.self_attn.{name}_proj.bias": torch.ones(32) for layer in (0, 1) for name in "qkvo"}
    changed(folder, biases)
    with pytest.raises(
        CheckpointError, match=r"8 unexpected weights.*layers\.0\.self_attn\.k_proj\.bias.*attention_bias"
    ):
        LanguageModel(str(folder))
    LanguageModel(str(changed(folder, attention_bias=True)))


def test_scales_of_quantised_weights_are_not_dropped(tmp_path: Path) -> None:
    folder = language_folder(tmp_path, "llama")
    changed(folder, {"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1, 1)})
    with pytest.raises(CheckpointError, match=r"up_proj\.weight_scale_inv.*quantization_config is missing"):
        LanguageModel(str(folder))


@pytest.mark.parametrize(
    "key", ["model.layers.0.self_attn.rotary_emb.inv_freq", "model.position_ids", "model.layers.0.attn.masked_bias",
            "mtp.layers.0.mlp.up_proj.weight"],
)  # fmt: skip
def test_what_no_version_reads_is_harmless(tmp_path: Path, key: str) -> None:
    LanguageModel(str(changed(language_folder(tmp_path, "llama"), {key: torch.ones(2)})))


def test_layers_for_further_tokens_are_harmless_only_where_stated(tmp_path: Path) -> None:
    folder = changed(language_folder(tmp_path, "llama"), {"model.layers.2.mlp.up_proj.weight": torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=r"1 unexpected weights.*layers\.2\.mlp"):
        LanguageModel(str(folder))
    LanguageModel(str(changed(folder, num_nextn_predict_layers=1)))


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"quant_method": "home-made"}, "quantised by 'home-made', which transformers cannot load"),
        (
            {"quant_method": "gptq", "bits": 4},
            "quantised by 'gptq', which cannot be loaded here: .*(optimum|gptqmodel|GPTQ)",
        ),
        ({"quant_method": "awq", "bits": 4}, "quantised by 'awq', which cannot be loaded here"),
        pytest.param(
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            "quantised by 'bitsandbytes', which cannot",
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"),
        ),
    ],
)
def test_a_quantisation_that_cannot_be_loaded_is_refused(tmp_path: Path, stated: dict[str, Any], words: str) -> None:
    folder = changed(language_folder(tmp_path, "llama"), quantization_config=stated)
    with pytest.raises(ConfigError, match=words) as told:
        LanguageModel(str(folder))
    assert "\n" not in str(told.value)


def test_an_adapter_beside_the_weights_is_refused(tmp_path: Path) -> None:
    folder = language_folder(tmp_path, "qwen3")
    model = LanguageModel(str(folder))
    model.add_lora(LoraSettings(rank=2))
    model.save_adapter(folder, str(folder))
    with pytest.raises(
        ConfigError, match=r"adapter_config\.json beside its weights.*merge_and_unload.*models\.adapter"
    ):
        LanguageModel(str(folder))
    (folder / "adapter_config.json").unlink()
    LanguageModel(str(folder))


def multimodal(root: Path, kind: str, tied: bool) -> Path:
    words = tokenizer()
    text = {**TEXT, "vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 0}
    torch.manual_seed(3)
    model: Any
    if kind == "gemma3":
        model = Gemma3ForConditionalGeneration(
            Gemma3Config(text_config={**text, "layer_types": ["sliding_attention", "full_attention"]},
                         vision_config=TOWER, mm_tokens_per_image=4, image_token_index=7)
        )  # fmt: skip
    else:
        vision: dict[str, Any] = {**TOWER, "model_type": "clip_vision_model"}
        if kind == "internvl":
            vision = {**TOWER, "image_size": [16, 16], "patch_size": [4, 4], "model_type": "internvl_vision"}
        config, build = {"llava": (LlavaConfig, LlavaForConditionalGeneration),
                         "internvl": (InternVLConfig, InternVLForConditionalGeneration)}[kind]  # fmt: skip
        model = build(config(text_config={**text, "model_type": "qwen2"}, vision_config=vision, image_token_id=7,
                             tie_word_embeddings=tied))  # fmt: skip
    folder = root / f"{kind}-{tied}"
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "tied"), [("gemma3", True), ("llava", False), ("internvl", True), ("internvl", False)]
)
def test_the_text_part_of_a_multimodal_folder_is_loaded(tmp_path: Path, kind: str, tied: bool) -> None:
    """Logits of text as of the whole model; the head follows the outer `tie_word_embeddings`."""
    folder = multimodal(tmp_path, kind, tied)
    language = LanguageModel(str(folder)).eval()
    assert not any("vision" in name for name, _ in language.model.named_parameters())
    assert positions_of(AutoConfig.from_pretrained(folder)) == 512
    ids = torch.arange(20, 44).view(2, 12)
    whole = AutoModelForImageTextToText.from_pretrained(folder).eval()
    torch.testing.assert_close(language(language.embed(ids), None), whole(input_ids=ids).logits)
    language.add_lora(LoraSettings(rank=2))


def test_a_damaged_text_part_is_refused(tmp_path: Path) -> None:
    folder = multimodal(tmp_path, "llava", False)
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("layers.0.mlp.up_proj.weight") and "language_model" in key)
    further = name.replace("up_proj.weight", "up_proj.bias")
    save_file({**weights, further: torch.ones(40)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 unexpected weights.*layers\.0\.mlp\.up_proj\.bias"):
        LanguageModel(str(folder))


def test_a_multimodal_type_without_a_causal_text_part_points_to_vlm_name(tmp_path: Path) -> None:
    from transformers import BlipConfig

    BlipConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no causal language model for .*blip.*models\.vlm_name"):
        LanguageModel(str(tmp_path))
