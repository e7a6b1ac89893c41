"""The zoo: sizes equal the architectures', and memory estimates what miniatures of them really take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tokenizer
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    Dinov2Config,
    Gemma2Config,
    LlamaConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipVisionConfig,
)

from panollava.errors import ConfigError
from panollava.models.config import LoraSettings
from panollava.models.language import LanguageModel
from panollava.models.native_families import NATIVE_FAMILIES
from panollava.models.vision import VisionEncoder
from panollava.zoo import NATIVE, LanguageShape, VisionShape, ZooModel, find_model, language_memory, vision_memory, zoo

CLOSE = 0.15  # an estimate's relative error


def config_of(shape: LanguageShape | VisionShape) -> Any:
    """The architecture of a shape, as transformers builds it."""
    if isinstance(shape, VisionShape):
        common = {"hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "patch_size": shape.patch,
                  "num_attention_heads": 4 if shape.hidden < 512 else 16 if shape.hidden > 768 else 12}  # fmt: skip
        if shape.family == "dinov2":
            side = (shape.positions or 0) * shape.patch or shape.image_size
            return Dinov2Config(**common, mlp_ratio=shape.intermediate // shape.hidden, image_size=side)
        kind = SiglipVisionConfig if shape.family == "siglip" else CLIPVisionConfig
        config = kind(**common, intermediate_size=shape.intermediate, image_size=shape.image_size)
        config.vision_use_head = False
        return config
    common = {
        "hidden_size": shape.hidden, "intermediate_size": shape.intermediate, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied, "max_position_embeddings": 4096, "pad_token_id": 0, "eos_token_id": 0,
        "bos_token_id": 0,
    }  # fmt: skip
    if shape.qkv_bias:
        return Qwen2Config(**common)
    kind = Gemma2Config if shape.gemma else Qwen3Config if shape.qk_norm else LlamaConfig
    return kind(**common, head_dim=shape.head_dim)


def build(shape: LanguageShape | VisionShape) -> nn.Module:
    auto: Any = AutoModel if isinstance(shape, VisionShape) else AutoModelForCausalLM
    model: nn.Module = auto.from_config(config_of(shape))
    return model


@pytest.mark.parametrize("row", zoo(), ids=lambda row: row.name)
def test_sizes_are_those_of_the_architecture(row: ZooModel) -> None:
    with torch.device("meta"):
        model = build(row.shape)
    assert row.parameters == sum(parameter.numel() for parameter in model.parameters())
    if isinstance(row.shape, LanguageShape):
        linears = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and "lm_head" not in name]
        assert row.shape.lora_parameters(3) == sum(3 * (m.in_features + m.out_features) for m in linears)


def test_names_and_ids() -> None:
    assert len({row.name for row in zoo()}) == len({row.id for row in zoo()}) == len(zoo())
    assert find_model("qwen_0.5b").id == "Qwen/Qwen2.5-0.5B" and find_model("dinov2_base").kind == "vision"
    assert find_model("google/gemma-2-2b-it").name == "gemma_2b"
    with pytest.raises(ConfigError, match=r"Did you mean qwen_7b\?"):
        find_model("qwen_7")


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that the allocator had given out at once during `work`, above what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


LANGUAGE = {
    "qwen2.5": LanguageShape(96, 320, 3, 6, 2, 16, 320, qkv_bias=True),
    "qwen3": LanguageShape(64, 256, 2, 8, 2, 32, 320, qk_norm=True),
    "llama": LanguageShape(128, 256, 2, 4, 4, 16, 320),
    "gemma2": LanguageShape(64, 256, 2, 4, 2, 16, 320, gemma=True),
}


@pytest.mark.parametrize(
    ("family", "half", "dropout", "tokens"),
    [("qwen2.5", False, False, 256), ("qwen3", False, True, 256), ("qwen3", True, True, 384),
     ("llama", True, False, 256), ("gemma2", False, False, 256), ("gemma2", False, False, 512)],
)  # fmt: skip
def test_what_a_language_model_takes(tmp_path: Path, family: str, half: bool, dropout: bool, tokens: int) -> None:
    shape, batch_size, supervised, rank = LANGUAGE[family], 2, 16, 4
    build(shape).save_pretrained(tmp_path)  # type: ignore[operator]
    tokenizer().save_pretrained(tmp_path)
    dtype = torch.bfloat16 if half else torch.float32
    model = LanguageModel(str(tmp_path), dtype=dtype)
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    embeds, mask = torch.randn(batch_size, tokens, shape.hidden, dtype=dtype), torch.ones(batch_size, tokens).long()

    def generate() -> None:
        with torch.no_grad():
            model.generate(embeds, mask, [0], max_new_tokens=2, do_sample=False)

    estimate = language_memory(shape, tokens, batch_size=batch_size, supervised=supervised, half=half, rank=rank,
                               dropout=dropout)  # fmt: skip
    answering = weights + peak_bytes(generate)
    model.add_lora(LoraSettings(rank=rank, alpha=8.0, dropout=0.1 if dropout else 0.0))
    lora = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(lora)
    places, targets = torch.arange(tokens - supervised, tokens), torch.zeros(batch_size * supervised).long()
    embeds.requires_grad_()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(embeds, mask, places)
        nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets).backward()
        optimizer.step()

    training = weights + sum(parameter.numel() * 4 for parameter in lora) + peak_bytes(step)
    assert estimate.answering == pytest.approx(answering, rel=CLOSE)
    assert estimate.training == pytest.approx(training, rel=CLOSE)


@pytest.mark.parametrize("family", ["siglip", "clip", "dinov2"])
def test_what_a_vision_encoder_takes(tmp_path: Path, family: Any) -> None:
    shape, views = VisionShape(64, 256, 3, 4, 64, family), 4
    build(shape).save_pretrained(tmp_path)  # type: ignore[operator]
    encoder = VisionEncoder(str(tmp_path))
    weights = sum(parameter.numel() * 4 for parameter in encoder.parameters())
    pixels = torch.randn(views, 3, 64, 64)

    def look() -> None:
        with torch.no_grad():
            encoder(pixels)

    answering = weights + peak_bytes(look)
    encoder.set_trainable_blocks(2)
    optimizer = torch.optim.AdamW([parameter for parameter in encoder.parameters() if parameter.requires_grad])

    def step() -> None:
        encoder(pixels).square().mean().backward()
        optimizer.step()

    estimate = vision_memory(shape, views)
    assert estimate.answering == pytest.approx(answering, rel=CLOSE)
    assert estimate.training == pytest.approx(weights + peak_bytes(step), rel=CLOSE)


def test_native_models_are_of_families_that_are_tried_and_not_refused() -> None:
    assert len({row.id for row in NATIVE}) == len(NATIVE)
    assert all(NATIVE_FAMILIES[row.family].refused is None for row in NATIVE)
