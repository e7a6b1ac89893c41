"""Backbones of a few thousand random weights, written as ordinary Hugging Face folders.

Every function returns the folder. Tests load them through the same code as real checkpoints.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
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
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from panollava.models.config import LoraSettings, ModelConfig

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
TEXT = [
    "What is in front of you? a red box",
    "Where is the blue sphere? behind you, on your left",
    "describe the scene: system user assistant model",
]


def vision_folder(root: Path, family: str, seed: int = 0) -> Path:
    """One of siglip, siglip-full, clip, clip-full, dinov2, dinov2-registers."""
    torch.manual_seed(seed)
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 32, "max_position_embeddings": 8}  # fmt: skip
    dino = {key: value for key, value in VISION.items() if key != "intermediate_size"}
    build = {
        "siglip": lambda: SiglipVisionModel(SiglipVisionConfig(**VISION)),
        "siglip-full": lambda: SiglipModel(SiglipConfig(vision_config=VISION, text_config=text)),
        "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**VISION)),
        "clip-full": lambda: CLIPModel(CLIPConfig(vision_config=VISION, text_config=text, projection_dim=8)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**dino)),
        "dinov2-registers": lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**dino, num_register_tokens=3)),
    }
    folder = root / family
    build[family]().save_pretrained(folder)
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
