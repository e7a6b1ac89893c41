"""Adapters that are merged, and folders that are written, give what the model gave; else nothing is written."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from family_folders import build_folder
from test_backbone_pairs import train
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.checkpoints.export import export_stage
from panollava.checkpoints.folder import METADATA, write_links
from panollava.checkpoints.weights import save_weights
from panollava.config import Settings
from panollava.errors import CheckpointError, ConfigError
from panollava.files import write_json
from panollava.models import saving
from panollava.models.config import LoraSettings
from panollava.models.language import LanguageModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.training.backbone_digests import backbone_digests
from panollava.training.job import StageJob
from panollava.training.metadata import build_metadata


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merging")
    vision_folder(folder, "siglip")
    for family in ("qwen3", "llama"):
        language_folder(folder, family)
    return folder


def adapted(folder: Path, targets: str | list[str] = "auto", **options: Any) -> LanguageModel:
    language = LanguageModel(str(folder)).eval()
    language.add_lora(LoraSettings(rank=2, dropout=0.0, target_modules=targets, **options))
    generator = torch.Generator().manual_seed(0)
    for parameter in language.lora_modules().parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return language


def logits_of(language: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return language(language.embed(torch.arange(20, 44).view(2, 12)), None)


def test_a_tied_head_is_not_merged(root: Path) -> None:
    """Its adapter would change the embeddings, too: 13 of 24 answers differed."""
    language = adapted(root / "qwen3", ["lm_head", "q_proj"])
    before = logits_of(language)
    with pytest.raises(ConfigError, match=r"of lm_head is also that of model\.embed_tokens.*without --merge-lora"):
        language.merge_lora()
    assert language.has_lora and torch.equal(logits_of(language), before)


def test_an_untied_head_is_merged(root: Path) -> None:
    language = adapted(root / "llama", ["lm_head", "q_proj"])
    before = logits_of(language)
    language.merge_lora()
    torch.testing.assert_close(logits_of(language), before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["qwen3_moe", "deepseek_v3", "gpt2", "lfm2"])
def test_merged_logits_are_the_unmerged_ones(root: Path, family: str) -> None:
    language = adapted(build_folder(root / "families", family))
    before = logits_of(language)
    language.merge_lora()
    assert not language.has_lora and not any("lora_" in name for name, _ in language.named_parameters())
    torch.testing.assert_close(logits_of(language), before, rtol=1e-3, atol=1e-3)


def test_a_weight_that_is_read_past_its_adapter_is_named(root: Path) -> None:
    language = adapted(root / "llama")
    block = language.model.get_base_model().model.layers[1].mlp
    plain = block.forward
    block.forward = lambda x: plain(x) + torch.nn.functional.linear(x, block.gate_proj.weight)[..., :32]
    before = logits_of(language)
    with pytest.raises(ConfigError, match=r"logits move by \d.* standard deviations"):
        language.merge_lora()
    assert language.has_lora
    torch.testing.assert_close(logits_of(language), before, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def stage(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetuned stage folder, as training leaves it."""
    torch.manual_seed(0)
    model = PanoramaVLM(tiny_config(root, use_lora=True))
    train(model, "finetune")
    folder = tmp_path_factory.mktemp("runs") / "E/finetune/e2p_mlp"
    folder.mkdir(parents=True)
    settings = Settings().model_dump(mode="json")
    job = StageJob(
        stage="finetune", slice={"config": settings}, digest="d", root=root,
        naming={"experiment": "E", "remembered": {"generation": settings["generation"]}},
        vision_folder=Path(model.config.vision_source), language_folder=Path(model.config.language_source),
        stage_folder=folder,
        **dict.fromkeys(("train_csv", "val_csv", "train_views", "val_views", "state_folder", "cache"), folder),
    )  # fmt: skip
    entry = {"file": "x_epoch00_loss1.0000.ckpt", "epoch": 0, "step": 2, "val_loss": 1.0}
    save_weights(folder / entry["file"], model.trained_state_dict(), {"stage": "finetune"})
    write_links(folder, [entry])
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    document = build_metadata(job, model, processor, [entry], entry, 2, 2, 2, backbones=backbone_digests(job))
    write_json(folder / METADATA, document)
    return folder


@pytest.mark.parametrize("merge", [False, True])
def test_an_export_is_read_again(stage: Path, tmp_path: Path, merge: bool) -> None:
    export_stage(stage, tmp_path / "out", merge_lora=merge)
    assert (tmp_path / "out/lora_weights").is_dir() is not merge
    PanoramaVLM.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize("part", ["lora", "resampler", "language"])
def test_an_export_that_is_not_the_model_is_not_there(
    stage: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something of it is lost on the way."""
    if part == "lora":
        save = LanguageModel.save_adapter
        monkeypatch.setattr(LanguageModel, "save_adapter", lambda model, *where: _without_b(model, save, *where))
    elif part == "resampler":
        own = saving._own
        monkeypatch.setattr(
            saving, "save_file", lambda tensors, *a: save_tensors({k: v * 1.5 for k, v in tensors.items()}, *a)
        )
        save_tensors = __import__("safetensors.torch").torch.save_file
        assert own
    else:
        write = saving._save_language
        monkeypatch.setattr(saving, "_save_language", lambda language, folder: _other_head(language, folder, write))
    with pytest.raises(CheckpointError, match="what was written is not what the model is"):
        export_stage(stage, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def _without_b(model: LanguageModel, save: Any, *where: Any) -> None:
    kept = {p: p.data.clone() for p in model.lora_modules().parameters()}
    for parameter in kept:
        parameter.data.zero_()
    save(model, *where)
    for parameter, data in kept.items():
        parameter.data.copy_(data)


def _other_head(language: LanguageModel, folder: Path, write: Any) -> None:
    weight = language.model.get_input_embeddings().weight
    weight.data.mul_(1.5)
    write(language, folder)
    weight.data.div_(1.5)


def test_adapters_that_pefts_reader_loses_are_said(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("panollava"), "propagate", True)
    for family, lost in (("laguna", True), ("llama", False)):
        caplog.clear()
        adapted(build_folder(root / "families", family)).save_adapter(tmp_path / family, "base")
        assert ("peft's own reader would lose 18 of" in caplog.text) is lost
