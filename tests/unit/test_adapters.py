"""LoRA's targets: found by what modules are and where they lie, refused with their names, reached by a gradient."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from family_folders import build_folder
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM

from panollava.errors import ConfigError, TrainingError
from panollava.models.adapters import (
    adapted_names,
    block_experts,
    block_linears,
    describe,
    find_targets,
    kind_of,
    without_gradient,
)
from panollava.models.config import LoraSettings
from panollava.models.language import LanguageModel

FAMILIES = ("llama", "opt", "phi", "glm4", "lfm2", "qwen3_5_text", "mamba", "qwen3_moe", "deepseek_v3", "deepseek_v32",
            "phimoe", "bart")  # fmt: skip
EXPERTS = ("qwen3_moe", "deepseek_v3", "deepseek_v32", "phimoe")
LORA = LoraSettings(rank=2, alpha=4.0, dropout=0.1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def language_of(root: Path, family: str) -> LanguageModel:
    folder = root / family
    return LanguageModel(str(folder if folder.is_dir() else build_folder(root, family)))


def train_step(language: LanguageModel) -> None:
    ids = torch.arange(20, 44).view(2, 12)
    logits = language.train().model(inputs_embeds=language.embed(ids).detach(), use_cache=False).logits
    nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).backward()


@pytest.mark.parametrize("family", FAMILIES)
def test_auto_adapts_every_linear_layer_of_the_blocks(
    root: Path, family: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("panollava"), "propagate", True)
    language = language_of(root, family)
    plain: Any = language.model
    linears = set(block_linears(plain))
    without = {
        "mamba": {name for name in linears if name.endswith(("out_proj", "dt_proj"))},
        "bart": {name for name in linears if "encoder_attn" in name},
        "deepseek_v32": {name for name in linears if ".indexer." in name},
    }.get(family, set())
    assert bool(without) == (family in ("mamba", "bart", "deepseek_v32"))
    experts = set(block_experts(plain))
    assert bool(experts) == (family in EXPERTS)
    with caplog.at_level(logging.INFO, logger="panollava"):
        language.add_lora(LORA)
    adapted = {name.removesuffix(".weight") for name in adapted_names(language.model)}
    assert adapted == (linears - without) | experts
    head = plain.get_output_embeddings()
    assert not any(plain.get_submodule(name) is head for name in linears)
    train_step(language)
    assert without_gradient(language.named_parameters()) == []
    text = caplog.text
    assert "of the blocks' " in text and ("dropout 0.1 is set to 0" in text) == (family in EXPERTS)
    assert ("no gradient reaches it" in text) == (family == "deepseek_v32")
    assert ("text alone never passes it" in text) == (family in ("bart", "mamba"))
    assert ("peft refuses it" in text) == (family == "mamba")


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "phimoe", "lfm2", "opt"])
def test_plain_peft_reads_the_adapters(root: Path, tmp_path: Path, family: str) -> None:
    language = language_of(root, family)
    ids = torch.arange(20, 44).view(2, 12)
    before = language.eval().model(input_ids=ids).logits
    language.add_lora(LORA)
    assert torch.allclose(language.eval().model(input_ids=ids).logits, before, atol=1e-5)
    generator = torch.Generator().manual_seed(0)
    for parameter in language.lora_modules().parameters():
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    mine = language.model(input_ids=ids).logits
    assert (mine - before).abs().max() > 0.05
    language.save_adapter(tmp_path, str(root / family))
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(root / family), tmp_path).eval()
    assert torch.allclose(again(input_ids=ids).logits, mine, atol=1e-4)


def test_stacked_experts_have_no_dora(root: Path) -> None:
    language = language_of(root, "qwen3_moe")
    language.add_lora(LoraSettings(rank=2, dropout=0.1, use_dora=True))
    names = adapted_names(language.model)
    assert names and not any("experts" in name for name in names)


@pytest.mark.parametrize("names", [("attention.v_proj", "q_proj"), ("q_proj", "v_prj"), ("self_attn.up_proj",)])
def test_a_name_that_matches_nothing_is_refused(root: Path, names: tuple[str, ...]) -> None:
    wrong = next(name for name in names if name != "q_proj")
    with pytest.raises(ConfigError, match=rf"names \['{wrong}'\].*it has .*'q_proj'"):
        language_of(root, "llama").add_lora(LoraSettings(rank=2, target_modules=list(names)))


def test_names_may_be_qualified_or_full_and_mean_experts(root: Path) -> None:
    language = language_of(root, "qwen3_moe")
    names = ("self_attn.q_proj", "model.layers.1.self_attn.v_proj", "experts.down_proj")
    language.add_lora(LoraSettings(rank=2, dropout=0.0, target_modules=list(names)))
    found = adapted_names(language.model)
    assert {kind_of(name) for name in found} == {"self_attn.q_proj", "self_attn.v_proj", "mlp.experts.down_proj"}
    assert [name for name in found if name.endswith("v_proj")] == ["model.layers.1.self_attn.v_proj"]


def test_layers_of_no_gradient_cannot_be_named_alone(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"leaves nothing to adapt in BartForCausalLM.*text alone never passes it"):
        language_of(root, "bart").add_lora(LoraSettings(rank=2, target_modules=["encoder_attn.q_proj"]))


def test_the_log_counts_every_weight_of_the_blocks_once(root: Path) -> None:
    language = language_of(root, "qwen3_moe")
    targets = find_targets(language.model, LORA)
    first, *lines = describe(language.model, targets)
    assert sum(float(line.split(", ")[1].removesuffix(" %")) for line in lines) == pytest.approx(100, abs=0.5)
    assert "self_attn.q_proj: 4 layers" in "\n".join(lines)
    assert any("mlp.gate:" in line and "not a target" in line for line in lines)  # the router, a bare parameter
    share = float(first.split("layers, ")[1].split(" %")[0])
    assert 95 < share < 100


class Dead(nn.Module):
    """A model whose second adapter feeds nothing, and a list of experts of which one gets the input."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.ModuleDict({"lora_A": nn.Linear(4, 4)})
        self.dead = nn.ModuleDict({"lora_A": nn.Linear(4, 4)})
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"experts": nn.ModuleList(nn.ModuleDict({"lora_A": nn.Linear(4, 4)}) for _ in range(3))})
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor, stage: str) -> dict[str, torch.Tensor]:
        x = self.used["lora_A"](x)
        for block in self.blocks:
            x = block["experts"][1]["lora_A"](x)  # type: ignore[index]
        return {"loss": x.square().mean()}


def test_an_adapter_without_gradient_ends_the_run_by_name() -> None:
    from panollava.training.module import StageModule

    model = Dead()
    module = StageModule(model, "finetune", kept=set(), total_steps=2, optimizer="adamw", lr=1e-3, muon_lr=1e-3,
                         weight_decay=0.0, warmup_ratio=0.0)  # fmt: skip
    model(torch.randn(2, 4), "finetune")["loss"].backward()
    assert without_gradient(model.named_parameters()) == ["dead.lora_A.weight", "dead.lora_A.bias"]
    with pytest.raises(TrainingError, match=r"2 adapter tensors got no gradient.*dead\.lora_A\.weight"):
        module.on_before_optimizer_step(torch.optim.SGD(model.parameters(), lr=0.1))
