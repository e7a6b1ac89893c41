"""The language model's attention, adapters' targets, and the defaults that its checkpoint brings along."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from tiny_models import language_folder
from transformers import AutoConfig

from panollava.errors import ConfigError
from panollava.models import language as language_module
from panollava.models.config import LoraSettings
from panollava.models.language import LanguageModel, choose_attention


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    for family in ("qwen3", "gemma2"):
        language_folder(folder, family)
    return folder


def test_attention_follows_family_gpu_dtype_and_switch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qwen, gemma = AutoConfig.from_pretrained(root / "qwen3"), AutoConfig.from_pretrained(root / "gemma2")
    half = torch.bfloat16
    monkeypatch.delenv("DISABLE_FLASH_ATTN", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_attention(qwen, half) == ("sdpa", "no GPU")
    assert choose_attention(gemma, half)[0] == "eager"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(language_module, "is_flash_attn_2_available", lambda: False)
    name, reason = choose_attention(qwen, half)
    assert name == "sdpa" and "pip install flash-attn" in reason
    monkeypatch.setattr(language_module, "is_flash_attn_2_available", lambda: True)
    assert choose_attention(qwen, half)[0] == "flash_attention_2"
    assert choose_attention(qwen, torch.float32)[0] == "sdpa"
    monkeypatch.setenv("DISABLE_FLASH_ATTN", "1")
    assert choose_attention(qwen, half) == ("sdpa", "DISABLE_FLASH_ATTN is set")
    monkeypatch.delenv("DISABLE_FLASH_ATTN")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert choose_attention(qwen, half)[0] == "sdpa"


def test_one_log_line_and_no_inherited_generation_habits(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("panollava"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="panollava"):
        model = LanguageModel(str(root / "qwen3"))
    assert [r.message for r in caplog.records if "attention:" in r.message] == ["attention: sdpa (no GPU)"] or (
        torch.cuda.is_available()
    )
    assert model.model.generation_config.repetition_penalty in (None, 1.0)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_dtype_is_the_asked_one_and_adapters_stay_in_float32(root: Path) -> None:
    model = LanguageModel(str(root / "qwen3"), dtype=torch.bfloat16)
    model.add_lora(LoraSettings(rank=2))
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16), name


def test_targets_are_named_or_found(root: Path) -> None:
    def adapted(targets: str | tuple[str, ...]) -> set[str]:
        model = LanguageModel(str(root / "qwen3"))
        model.add_lora(LoraSettings(rank=2, target_modules=targets))
        return {name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_" in name}

    assert adapted(("q_proj", "v_proj")) == {"q_proj", "v_proj"}
    assert adapted("auto") == adapted("all-linear")
    assert "lm_head" not in adapted("auto")
    with pytest.raises(ConfigError, match=r"names \['query'\].*it has .*q_proj"):
        adapted(("query",))


def test_adapters_are_added_once_and_saved_only_when_there(root: Path, tmp_path: Path) -> None:
    model = LanguageModel(str(root / "qwen3"))
    with pytest.raises(ConfigError, match="no LoRA adapters to save"):
        model.save_adapter(tmp_path)
    assert len(model.lora_modules()) == 0
    model.add_lora(LoraSettings(rank=2))
    with pytest.raises(ConfigError, match="already"):
        model.add_lora(LoraSettings(rank=2))
