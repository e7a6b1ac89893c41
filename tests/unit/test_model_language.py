"""The language model's attention, adapters' targets, and the defaults that its checkpoint brings along."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tiny_families import LANGUAGES, family_folder
from tiny_models import language_folder
from transformers import AutoConfig, AutoModelForCausalLM, CpmAntConfig, CpmAntForCausalLM
from transformers.pytorch_utils import Conv1D

from panollava.devices import language_dtype, resolve_precision
from panollava.errors import ConfigError
from panollava.models import language as language_module
from panollava.models.config import LoraSettings
from panollava.models.language import LanguageModel, choose_attention


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    for family in ("qwen3", "gemma2"):
        language_folder(folder, family)
    for family in LANGUAGES:
        family_folder(folder / "families", family)
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
    def adapted(targets: str | list[str]) -> set[str]:
        model = LanguageModel(str(root / "qwen3"))
        model.add_lora(LoraSettings(rank=2, target_modules=targets))
        return {name.split(".lora_")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_" in name}

    assert adapted(["q_proj", "v_proj"]) == {"q_proj", "v_proj"}
    assert adapted("auto") == adapted(["all-linear"])
    assert "lm_head" not in adapted("auto")
    with pytest.raises(ConfigError, match=r"names \['query'\].*it has .*q_proj"):
        adapted(["query"])


@pytest.mark.parametrize("family", LANGUAGES)
def test_embedded_text_is_what_the_family_reads(root: Path, family: str) -> None:
    """Gemma's scale is applied once; with soft-capping, and padding on the right or on the left."""
    folder = root / "families" / family
    model, plain = LanguageModel(str(folder)).eval(), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.randint(10, 250, (1, 80), generator=torch.Generator().manual_seed(0))
    wanted = plain(input_ids=ids).logits
    whole = torch.ones_like(ids)
    assert torch.allclose(model(model.embed(ids), whole), wanted, atol=1e-5)
    some = torch.tensor([3, 40, 79])
    assert torch.allclose(model(model.embed(ids), whole, some), wanted[:, some], atol=1e-5)
    padded, mask = torch.nn.functional.pad(ids, (0, 5)), torch.nn.functional.pad(whole, (0, 5))
    assert torch.allclose(model(model.embed(padded), mask)[:, :80], wanted, atol=1e-5)
    if family == "gemma2":
        assert model.model.config._attn_implementation == "eager"
        model.model.config.final_logit_softcapping = 0.01
        assert model(model.embed(ids), whole).abs().max() <= 0.01 < wanted.abs().max()


@pytest.mark.parametrize("family", LANGUAGES)
def test_auto_means_every_linear_layer_of_the_blocks(root: Path, family: str) -> None:
    model = LanguageModel(str(root / "families" / family))
    linears = {name for name, part in model.model.named_modules() if isinstance(part, (torch.nn.Linear, Conv1D))}
    model.add_lora(LoraSettings(rank=2))
    adapted = {
        name.split(".lora_A")[0].removeprefix("base_model.model.")
        for name, _ in model.model.named_modules()
        if name.endswith("lora_A")
    }
    assert adapted == linears - {"lm_head"} and len(adapted) == (8 if family == "gpt2" else 14)


@pytest.mark.parametrize(("options", "scale"), [({}, 4.0), ({"use_rslora": True}, 8.0), ({"use_dora": True}, 4.0)])
@pytest.mark.parametrize("family", ["qwen2.5", "gemma2", "gpt2"])
def test_options_are_pefts(root: Path, tmp_path: Path, family: str, options: Any, scale: float) -> None:
    """Scale, DoRA's magnitudes, and a folder that plain peft reads to the same logits."""
    folder, ids = str(root / "families" / family), torch.tensor([[5, 6, 7]])
    model = LanguageModel(folder).eval()
    before = model.model(input_ids=ids).logits
    model.add_lora(LoraSettings(rank=4, alpha=16.0, dropout=0.0, **options))
    assert torch.allclose(model.eval().model(input_ids=ids).logits, before, atol=1e-5)
    scales = {p.scaling["default"] for p in model.modules() if isinstance(getattr(p, "scaling", None), dict)}
    assert scales == {scale}
    adapters = {id(p) for p in model.lora_modules().parameters()}
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in trainable.values()} == adapters and all(".lora_" in name for name in trainable)
    assert any("magnitude" in name for name in trainable) == bool(options.get("use_dora"))
    for parameter in trainable.values():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    mine = model.model(input_ids=ids).logits
    assert not torch.allclose(mine, before, atol=1e-3)
    model.save_adapter(tmp_path, folder)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), tmp_path).eval()
    assert torch.allclose(again(input_ids=ids).logits, mine, atol=1e-5)


def test_dora_in_half_precision_keeps_its_adapters_in_float32(root: Path) -> None:
    model = LanguageModel(str(root / "qwen3"), dtype=torch.bfloat16)
    model.add_lora(LoraSettings(rank=2, use_dora=True))
    assert {p.dtype for p in model.lora_modules().parameters()} == {torch.float32}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(1, 3, model.hidden_size), torch.ones(1, 3, dtype=torch.long)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.lora_modules().parameters())


def test_the_projections_of_gpt2_can_be_named(root: Path) -> None:
    model = LanguageModel(str(root / "families/gpt2"))
    with pytest.raises(ConfigError, match=r"it has .*'c_attn'"):
        model.add_lora(LoraSettings(rank=2, target_modules=["q_proj"]))
    model.add_lora(LoraSettings(rank=2, target_modules=["c_attn"]))
    assert len(model.lora_modules()) == 2 * 2


def test_a_model_without_input_embeddings_is_refused(root: Path, tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_attention_heads": 2, "dim_head": 8, "dim_ff": 16, "num_hidden_layers": 1}
    CpmAntForCausalLM(CpmAntConfig(vocab_size=40, **shape)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="CpmAntForCausalLM takes no inputs_embeds"):
        LanguageModel(str(tmp_path))


@pytest.mark.parametrize("gpu", [None, False, True])
def test_half_precision_where_the_device_has_it(gpu: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """gpu: None for none, else whether it has bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bool(gpu))
    assert resolve_precision("auto") == ("bf16-mixed" if gpu else "32-true")
    assert language_dtype("auto") == (torch.bfloat16 if gpu else torch.float32)
    for asked, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16), ("16-mixed", torch.float32)):
        assert resolve_precision(asked) == asked and language_dtype(asked) == dtype


def test_adapters_are_added_once_and_saved_only_when_there(root: Path, tmp_path: Path) -> None:
    model = LanguageModel(str(root / "qwen3"))
    with pytest.raises(ConfigError, match="no LoRA adapters to save"):
        model.save_adapter(tmp_path)
    assert len(model.lora_modules()) == 0
    model.add_lora(LoraSettings(rank=2))
    with pytest.raises(ConfigError, match="already"):
        model.add_lora(LoraSettings(rank=2))
