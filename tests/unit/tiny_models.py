"""Backbones of a few thousand random weights, written as ordinary Hugging Face folders.

Every function returns the folder. Tests load them through the same code as real checkpoints.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MLCDVisionConfig,
    MLCDVisionModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Siglip2Config,
    Siglip2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from panollava.models.config import LoraSettings, ModelConfig
from panollava.models.vision_tower import tower_class

VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
LANGUAGE = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# Folder -> model type, prefix tokens, further settings.
OTHER_ENCODERS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "dinov3": ("dinov3_vit", 3, {"num_register_tokens": 2}),
    "metaclip2": ("metaclip_2_vision_model", 1, {}),
    "chinese-clip": ("chinese_clip_vision_model", 1, {}),
    "altclip": ("altclip_vision_model", 1, {}),
    "aimv2": ("aimv2_vision_model", 0, {}),
    "aimv2-native": ("aimv2_vision_model", 0, {"is_native": True}),
    "radio": ("radio", 5, {"num_cls_tokens": 2, "num_registers": 3, "summary_idxs": [0, 1]}),
    "tipsv2": ("tipsv2_vision_model", 3, {"num_register_tokens": 2}),
    "vit": ("vit", 1, {}),
    "deit": ("deit", 2, {}),
    "vit-msn": ("vit_msn", 1, {}),
    "vit-mae": ("vit_mae", 1, {}),
    "ijepa": ("ijepa", 0, {}),
    "beit": ("beit", 1, {"use_relative_position_bias": True}),
    "data2vec": ("data2vec-vision", 1, {"use_relative_position_bias": True}),
    "blip": ("blip_vision_model", 1, {}),
    "blip2": ("blip_2_vision_model", 1, {}),
    "instructblip": ("instructblip_vision_model", 1, {}),
    "janus": ("janus_vision_model", 0, {}),
    "idefics2": ("idefics2_vision", 0, {}),
    "idefics3": ("idefics3_vision", 0, {}),
    "smolvlm": ("smolvlm_vision", 0, {}),
    "internvl": ("internvl_vision", 1, {"use_mean_pooling": False}),
}
OWN_CODE = """
from transformers import MLCDVisionConfig, MLCDVisionModel


class EyesConfig(MLCDVisionConfig):
    model_type = "eyes"


class EyesModel(MLCDVisionModel):
    config_class = EyesConfig
"""
TEXT = [
    "What is in front of you? a red box",
    "Where is the blue sphere? behind you, on your left",
    "describe the scene: system user assistant model",
]


def vision_folder(root: Path, family: str, seed: int = 0) -> Path:
    """One of siglip, siglip-full, naflex, naflex-full, clip, clip-full, dinov2, dinov2-registers, mlcd, rice, own-code,
    and of OTHER_ENCODERS.

    `siglip-full` is also what a SigLIP2 of fixed resolution looks like, and `rice` how its authors' folders say mlcd.
    """
    torch.manual_seed(seed)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 32, "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 1}  # fmt: skip
    dino = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    naflex = {key: value for key, value in VISION.items() if key != "image_size"} | {"num_patches": 16}
    build: dict[str, Any] = {
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)),
        "siglip-full": lambda: SiglipModel(SiglipConfig(vision_config=VISION, text_config=text)),
        "naflex": lambda: Siglip2VisionModel(Siglip2VisionConfig(**naflex)),
        "naflex-full": lambda: Siglip2Model(
            Siglip2Config(vision_config=naflex, text_config={**text, "projection_size": 16})
        ),
        "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**VISION)),
        "clip-full": lambda: CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=8)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**dino)),
        "dinov2-registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**dino, num_register_tokens=3)),
        "mlcd": lambda: MLCDVisionModel(MLCDVisionConfig(**VISION)),
    }
    folder = root / family
    if family in OTHER_ENCODERS:
        config = CONFIG_MAPPING[OTHER_ENCODERS[family][0]](**{**VISION, **OTHER_ENCODERS[family][2]})
        model = tower_class(config)
        (AutoModel.from_config(config) if model is AutoModel else model(config)).save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
        return folder
    build[{"rice": "mlcd", "own-code": "mlcd"}.get(family, family)]().save_pretrained(folder)
    if family in ("rice", "own-code"):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["model_type"] = "mlcd" if family == "rice" else "eyes"
        if family == "own-code":
            config["auto_map"] = {"AutoConfig": "eyes.EyesConfig", "AutoModel": "eyes.EyesModel"}
            (folder / "eyes.py").write_text(OWN_CODE, encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    processor = {"image_processor_type": "SiglipImageProcessor", "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def tokenizer(template: str | None = CHATML) -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<bos>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT * 4,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    built = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|endoftext|>", bos_token="<bos>",
        extra_special_tokens=special[1:5],
    )  # fmt: skip
    built.chat_template = template
    return built


def language_folder(root: Path, family: str, seed: int = 1) -> Path:
    """One of qwen3, gemma2, llama, llama-base (without a chat template)."""
    torch.manual_seed(seed)
    words = tokenizer({"gemma2": GEMMA, "llama-base": None}.get(family, CHATML))
    shape = {**LANGUAGE, "vocab_size": len(words), "pad_token_id": words.pad_token_id,
             "eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id}  # fmt: skip
    if family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=True))
    elif family == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(**shape, sliding_window=64))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    folder = root / family
    model.generation_config.repetition_penalty = 1.3  # what hub models bring along; nobody asked for it
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def tiny_config(root: Path, vision: str = "siglip", language: str = "qwen3", **settings: object) -> ModelConfig:
    values: dict[str, object] = {
        "vision_name": f"tiny/{vision}",
        "language_model_name": f"tiny/{language}",
        "vision_path": str(root / vision),
        "language_path": str(root / language),
        "latent_dimension": 24,
        "vicreg_projector_dim": 20,
        "system_message": "You look around.",
        "use_lora": False,
        "lora": LoraSettings(rank=2, alpha=4.0, dropout=0.0),
    }
    return ModelConfig(**{**values, **settings})  # type: ignore[arg-type]
