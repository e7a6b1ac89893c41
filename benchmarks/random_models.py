"""Models of real sizes with random weights, and rows and pictures for them: what the speed benchmarks run on.

A folder enters; backbones as Hugging Face folders leave. Speed and memory depend on sizes, not on what was learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Qwen3Config, Qwen3ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from panollava.data.samples import Row
from panollava.data.synthetic.captions import draw_questions
from panollava.data.synthetic.scenes import sample_scene
from panollava.miniature.tokenizer import build_tokenizer
from panollava.models.config import LoraSettings, ModelConfig


@dataclass(frozen=True)
class Sizes:
    """`vision` and `language` are keyword arguments of SiglipVisionConfig and Qwen3Config."""

    name: str
    vision: dict[str, Any]
    language: dict[str, Any]
    model: dict[str, Any]
    batch_size: int
    rows_per_picture: int


EXP1 = Sizes(
    "EXP1",
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "image_size": 64,
     "patch_size": 16},
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
     "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 512},
    {"latent_dimension": 128, "lora": LoraSettings(rank=8, alpha=16, dropout=0.0)},
    24,
    3,
)  # fmt: skip
LARGE = Sizes(
    "SigLIP2-so400m-patch16-256 + Qwen3-0.6B",
    {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
     "image_size": 256, "patch_size": 16},
    {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
     "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936},
    {"latent_dimension": 768, "lora": LoraSettings(rank=16, alpha=32, dropout=0.0)},
    2,
    2,
)  # fmt: skip
SIZES = {"exp1": EXP1, "large": LARGE}


def build_backbones(folder: Path, sizes: Sizes, layers: int | None) -> ModelConfig:
    """Write both backbones, cut to `layers` blocks each, and return the configuration of a model of them."""
    torch.manual_seed(0)
    cut = {} if layers is None else {"num_hidden_layers": layers}
    vision = SiglipVisionConfig(**{**sizes.vision, **cut}, vision_use_head=False)
    SiglipVisionModel(vision).save_pretrained(folder / "vision")
    tokenizer = build_tokenizer()
    language = Qwen3Config(
        **{**sizes.language, **cut}, tie_word_embeddings=True, max_position_embeddings=8192,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(language).save_pretrained(folder / "language")
    tokenizer.save_pretrained(folder / "language")
    return ModelConfig(
        vision_path=str(folder / "vision"), language_path=str(folder / "language"), use_vision_processor=False,
        **sizes.model,
    )  # fmt: skip


def draw_rows(count: int, pictures: int, seed: int = 0) -> list[Row]:
    """Questions and answers about synthetic scenes, `count` in all, about `pictures` pictures in turn."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        (question,) = draw_questions(rng, sample_scene(rng), 1)
        answer = question.references[int(rng.integers(len(question.references)))]
        rows.append(Row(f"{number % pictures}.png", question.query, answer))
    return rows


class Noise:
    """Stands for a view cache: views of noise, uint8 [V, h, w, 3], by path."""

    def __init__(self, paths: list[str], shape: tuple[int, int, int, int]) -> None:
        self.paths, self.shape = paths, shape

    def __getitem__(self, image_path: str) -> NDArray[np.uint8]:
        rng = np.random.default_rng(self.paths.index(image_path))
        return rng.integers(0, 256, self.shape, dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Any:
        return iter(self.paths)
