"""Pictures that several sequences are about are read once: loss, logits and gradients of reading each for itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from family_folders import build_folder
from tiny_models import language_folder, tiny_config, vision_folder
from transformers.cache_utils import DynamicCache

from panollava.data.dataset import CaptionDataset, Collator
from panollava.data.samples import Row
from panollava.models.language import LanguageModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.reading import cache_image_prefix
from panollava.models.selection import select_rows
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.training.module import StageModule

ROWS = [
    Row("b.png", "what?", "a red box"),
    Row("a.png", "where is the blue sphere behind you?", "on your left"),
    Row("b.png", "is it red?", "so"),
    Row("a.png", "what is in front of you?", "describe the scene"),
    Row("b.png", "where?", "behind you, on your left"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    vision_folder(folder, "siglip")
    for family in ("qwen3", "llama", "gemma2"):
        language_folder(folder, family)
    for family in ("mamba", "rwkv"):
        build_folder(folder, family)
    return folder


def build(root: Path, language: str) -> PanoramaVLM:
    torch.manual_seed(0)
    model = PanoramaVLM(tiny_config(root, language=language, use_lora=True))
    freeze_for_stage(model, "finetune", 1)
    for adapter in model.named_part_parameters()["lora"].values():
        adapter.data.normal_(std=0.1)  # B starts at zero, which hides A's gradient
    return model.eval()


def batch_of(model: PanoramaVLM, rows: list[Row] = ROWS) -> dict[str, torch.Tensor]:
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    noise = np.random.default_rng(0)
    shape = (len(model.views), *processor.image_size, 3)
    views = {name: noise.integers(0, 255, shape, dtype=np.uint8) for name in ("a.png", "b.png")}
    data = CaptionDataset(rows, views)
    return Collator(processor, model.prompt, 64, features=False)(data.__getitems__(list(range(len(rows)))))


def each_for_itself(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    rest = {key: value for key, value in batch.items() if key != "image_index"}
    return rest | {"pixel_values": batch["pixel_values"][batch["image_index"]]}


def gradients(model: PanoramaVLM, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    out = model(**batch, stage="finetune")
    model.zero_grad()
    out["loss"].backward()
    return out["loss"].detach(), out["logits"].detach(), {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("language", ["qwen3", "llama", "gemma2"])
def test_reading_once_changes_rounding_only(root: Path, language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(root, language)
    lengths: list[Any] = []
    read = LanguageModel.read

    def noted(self: LanguageModel, embeds: torch.Tensor) -> Any:
        lengths.append(tuple(embeds.shape[:2]))
        return read(self, embeds)

    monkeypatch.setattr(LanguageModel, "read", noted)
    batch = batch_of(model)
    assert batch["pixel_values"].shape[0] == 2 and batch["image_index"].tolist() == [0, 1, 0, 1, 0]
    once, alone = gradients(model, batch), gradients(model, each_for_itself(batch))
    assert model.prompt is not None and lengths == [(2, model.prompt.picture_end)]
    for one, other in zip(once[:2], alone[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for name, gradient in alone[2].items():
        if gradient is not None:
            torch.testing.assert_close(once[2][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    assert once[2].keys() == alone[2].keys()
    full = model(**batch, stage="finetune", full_logits=True)
    torch.testing.assert_close(full["loss"], alone[0], rtol=1e-4, atol=1e-5)
    assert len(lengths) == 1


@pytest.mark.parametrize("language", ["qwen3", "gemma2", "mamba", "rwkv"])
def test_an_answers_surprise_is_that_of_its_whole_sequence(root: Path, language: str) -> None:
    """The sum over an answer's tokens, one sequence at a time and with every position, is what perplexity counts."""
    torch.manual_seed(0)
    model = PanoramaVLM(tiny_config(root, language=language)).eval()
    assert model.prompt is not None and model.language is not None
    assert model.language.supports_prefix_cache is (language in ("qwen3", "gemma2"))
    sequences = [model.prompt.training(row.query, row.annotation, 64) for row in ROWS]
    size = model.vision.spec.image_size
    features = model.encode_vision(torch.randn(1, len(model.views), 3, *size))
    found = torch.cat(list(model.answer_losses(features[0], [sequences[:3], sequences[3:]])))
    for sequence, nll in zip(sequences, found.tolist(), strict=True):
        batch = model.prompt.collate([sequence], side="right")
        out = model(**batch, vision_features=features, stage="finetune", full_logits=True)
        assert sequence.labels is not None
        labels = torch.tensor(sequence.labels[1:])
        counted = labels >= 0
        told = out["logits"][0, :-1].detach().log_softmax(-1)[counted].gather(1, labels[counted, None]).sum()
        assert nll == pytest.approx(-float(told), rel=1e-4)


@pytest.mark.parametrize("why", ["checkpointing", "memory of another kind", "another beginning"])
def test_where_it_cannot_be_each_is_read_for_itself(root: Path, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(root, "qwen3")
    assert model.language is not None
    batch = batch_of(model)
    if why == "checkpointing":
        model.enable_gradient_checkpointing()
        model.train()
        model.vision.eval()
    elif why == "memory of another kind":
        monkeypatch.setattr(LanguageModel, "read", lambda self, embeds: object())
    else:
        batch["input_ids"][3, 0] += 1
    torch.manual_seed(1)
    once = model(**batch, stage="finetune")["loss"]
    torch.manual_seed(1)
    assert torch.equal(once, model(**each_for_itself(batch), stage="finetune")["loss"])
    assert model.language.supports_prefix_cache is (why != "memory of another kind")


def test_who_reads_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation always; training where its batches are made for it, else bit by bit as without shared pictures."""
    model = build(root, "qwen3")
    seen = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: seen.append("image_index" in given) or forward(**given))
    losses = {}
    for name, batch in (("shared", batch_of(model)), ("apart", each_for_itself(batch_of(model)))):
        for share_image_prefix in (False, True):
            module = StageModule(
                model, "finetune", kept=set(), total_steps=1, optimizer="adamw", lr=1e-3, muon_lr=0.02,
                weight_decay=0.0, warmup_ratio=0.0, share_image_prefix=share_image_prefix,
            )  # fmt: skip
            losses[name, share_image_prefix] = module.training_step(batch, 0)["whole_loss"]
    module.validation_step(batch_of(model), 0)
    assert seen == [False, True, False, False, True]
    assert torch.equal(losses["shared", False], losses["apart", False])
    torch.testing.assert_close(losses["shared", True], losses["apart", True], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", ["memory", "tokens", "views"])
def test_gradients_of_a_shared_picture_are_the_same_in_every_run(part: str) -> None:
    """Each element gets the gradients of six rows, which two threads must not add up in the order of their arrival."""
    numbers = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 300, 256, generator=numbers, requires_grad=True)
    image_index = torch.tensor([0, 1, 1, 1, 1, 1, 1, 2])
    weights = torch.randn(8, 4, 300, 64, generator=numbers)

    def read(embeds: torch.Tensor) -> DynamicCache:
        cache, keys = DynamicCache(), embeds.unflatten(2, (4, 64)).transpose(1, 2)
        cache.update(keys, keys, 0)
        return cache

    language: Any = SimpleNamespace(
        training=False, supports_prefix_cache=True, model=SimpleNamespace(is_gradient_checkpointing=False), read=read,
        embed=lambda ids: torch.zeros(*ids.shape, 256),
    )  # fmt: skip

    def gradient() -> torch.Tensor:
        tokens.grad = None
        if part == "memory":
            ids = torch.zeros(8, 300, dtype=torch.long)
            past, _ = cache_image_prefix(language, tokens, ids, torch.ones_like(ids).bool(), image_index)
            ((past.layers[0].keys + past.layers[0].values) * weights).sum().backward()
        elif part == "tokens":
            (select_rows(tokens, image_index) * weights.flatten(2).view(8, 300, 256)).sum().backward()
        else:
            (select_rows(tokens[None], image_index, dim=1) * weights.flatten(2).view(1, 8, 300, 256)).sum().backward()
        assert tokens.grad is not None
        return tokens.grad

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(20))
    finally:
        torch.set_num_threads(before)


def test_wrong_pictures_are_refused(root: Path) -> None:
    model = build(root, "qwen3")
    batch = batch_of(model)
    with pytest.raises(ValueError, match="image_index must name pictures 0 to 1, got"):
        model(**{**batch, "image_index": batch["image_index"] + 1}, stage="finetune")
    with pytest.raises(TypeError, match=r"image_index must be an int64 tensor \[B\]"):
        model(**{**batch, "image_index": [0, 0, 0, 0, 0]}, stage="finetune")
    with pytest.raises(ValueError, match="input_ids has 5 rows, the pictures 3"):
        model(**{**batch, "image_index": batch["image_index"][:3]}, stage="finetune")
