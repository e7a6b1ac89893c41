"""Language models are tried as soon as they are loaded: what cannot be used is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from family_folders import build_folder
from tiny_models import language_folder
from transformers import AutoTokenizer
from transformers.cache_utils import DynamicCache

from panollava.errors import ConfigError
from panollava.models import probes
from panollava.models.language import LanguageModel
from panollava.models.prompt import pad_id_of


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("bert", "BertLMHeadModel.* looks ahead: .*leak into its own loss"),
        ("xlnet", "looks ahead"),
        ("falcon_h1", r"other logits for embeddings than for the same tokens' ids \(\d.* standard deviations"),
        ("openai-gpt", "cannot answer: ValueError: You passed `inputs_embeds`"),
        ("gemma4_text", "cannot read visual tokens, embeddings of no token: RuntimeError"),
        ("moshi", "does not continue embeddings as its forward pass reads them"),  # beyond its sliding window
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(root: Path, family: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        LanguageModel(str(build_folder(root, family)))
    assert "\n" not in str(told.value) and str(root / family) in str(told.value)


def test_leaks_are_seen_in_half_precision_too(root: Path) -> None:
    with pytest.raises(ConfigError, match="looks ahead"):
        LanguageModel(str(build_folder(root, "bert")), dtype=torch.bfloat16)


def test_generate_is_compared_with_forward(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that trains as one and answers as another, here by a cache that forgets."""
    forgets = DynamicCache.update
    monkeypatch.setattr(
        DynamicCache,
        "update",
        lambda self, keys, values, layer, *a, **k: forgets(self, keys, 0 * values, layer, *a, **k),
    )
    with pytest.raises(ConfigError, match="does not continue embeddings as its forward pass reads them"):
        LanguageModel(str(language_folder(root, "qwen3")))


@pytest.mark.parametrize(
    ("family", "pads_left", "by_keys"),
    [("llama", True, True), ("mamba", True, False), ("rwkv", False, False), ("recurrent_gemma", False, False),
     ("bart", False, True)],
)  # fmt: skip
def test_rows_are_answered_as_alone(root: Path, family: str, pads_left: bool, by_keys: bool) -> None:
    language = LanguageModel(str(build_folder(root, family))).eval()
    assert (language.pads_left, language.supports_prefix_cache) == (pads_left, by_keys)
    lengths = (12, 7)
    rows = [
        torch.randn(length, language.hidden_size, generator=torch.Generator().manual_seed(length)) for length in lengths
    ]
    pad = pad_id_of(AutoTokenizer.from_pretrained(root / family))
    embeds = language.embed(torch.full((2, 12), pad)).detach().clone()
    mask = torch.zeros(2, 12, dtype=torch.long)
    for number, row in enumerate(rows):
        embeds[number, -len(row) :], mask[number, -len(row) :] = row, 1
    together = language.generate(embeds, mask, [], max_new_tokens=5, do_sample=False)
    for number, row in enumerate(rows):
        whole = torch.ones(1, len(row), dtype=torch.long)
        alone = language.generate(row[None], whole, [], max_new_tokens=5, do_sample=False)[0]
        assert torch.equal(together[number, : len(alone)], alone)


def test_probing_leaves_random_numbers_and_mode_alone(root: Path) -> None:
    folder = language_folder(root, "llama")
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    language = LanguageModel(str(folder))
    assert torch.equal(torch.rand(3), wanted) and language.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in language.parameters())


def test_memory_errors_are_not_the_models_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(probes, "_generated", full)
    with pytest.raises(RuntimeError, match="allocate memory"):
        LanguageModel(str(language_folder(root, "qwen3")))
