"""Miniature backbones: folders that the ordinary loaders take, reproducible, and a note-reading loss that is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from panollava.config.embedded import MiniatureLanguageSettings, MiniatureVisionSettings
from panollava.data.synthetic.captions import questions
from panollava.data.synthetic.scenes import COLOURS, SHAPES, Scene, Solid, sample_scene
from panollava.errors import TrainingError
from panollava.files import atomic_dir, sha256_folder
from panollava.miniature.language import Writer, batch_loss, build_language, new_language_model
from panollava.miniature.pretraining import Schedule, train
from panollava.miniature.tokenizer import build_tokenizer, note_words
from panollava.miniature.vision import build_vision, draw_views
from panollava.models.prompt import ChatPrompt

LANGUAGE = MiniatureLanguageSettings(
    hidden_size=32, intermediate_size=32, heads=2, head_dim=16, max_steps=2, decay_steps=1, batch_size=4
)
VISION = MiniatureVisionSettings(
    hidden_size=32,
    intermediate_size=32,
    layers=1,
    heads=2,
    image_size=32,
    patch_size=16,
    views=8,
    steps=2,
    batch_size=4,
)


@pytest.fixture(autouse=True)
def few_held_out(monkeypatch) -> None:
    monkeypatch.setattr("panollava.miniature.vision._HELD_OUT", 8)
    monkeypatch.setattr("panollava.miniature.language._HELD_OUT_SCENES", 2)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_every_word_of_a_note_is_one_token_and_other_text_survives(tokenizer) -> None:
    for word in note_words():
        assert len(tokenizer(f" {word}")["input_ids"]) == 1, word
    for text in ("The cat's 3 naïve façades.\n", "파노라마 뒤에 무엇이 있나요?", "🏔️ 東京 <tag> \t x"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_ignores_thinking_and_ends_turns(tokenizer) -> None:
    prompt = ChatPrompt(tokenizer, 2, "be brief")
    one = prompt.training("what is behind me?", "a box.", 64)
    assert one.labels is not None and one.labels[-1] == tokenizer.eos_token_id == prompt.end_ids[0]
    messages = [{"role": "user", "content": "x"}]
    rendered = [
        tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=flag)
        for flag in (True, False)
    ]
    assert rendered[0] == rendered[1] == "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"


def test_language_folder_loads_like_any_other(tmp_path: Path) -> None:
    accuracy = build_language(LANGUAGE, tmp_path / "lm")
    assert {"all", "look", "where", "describe"} <= set(accuracy)
    assert all(0 <= share <= 1 for share in accuracy.values())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "lm")
    assert model.config.model_type == "qwen3" and model.config.max_position_embeddings >= 1024
    assert tokenizer.chat_template and tokenizer.pad_token_id is not None
    assert GenerationConfig.from_pretrained(tmp_path / "lm").eos_token_id == tokenizer.eos_token_id
    ids = tokenizer("what is behind me?", return_tensors="pt")
    assert model(**ids).logits.shape[-1] == len(tokenizer)
    build_language(LANGUAGE, tmp_path / "again")
    build_language(LANGUAGE.model_copy(update={"seed": 1}), tmp_path / "other")
    digests = [sha256_folder(tmp_path / name) for name in ("lm", "again", "other")]
    assert digests[0] == digests[1] != digests[2]


def test_vision_folder_loads_like_any_other(tmp_path: Path) -> None:
    accuracy = build_vision(VISION, tmp_path / "vision")
    assert all(np.isfinite(value) for value in accuracy.values())
    model, loading = AutoModel.from_pretrained(tmp_path / "vision", output_loading_info=True)
    assert model.config.model_type == "siglip_vision_model" and not loading["missing_keys"]
    assert model(pixel_values=torch.zeros(2, 3, 32, 32)).last_hidden_state.shape == (2, 4, 32)
    processor = AutoImageProcessor.from_pretrained(tmp_path / "vision")
    assert list(processor.image_mean) == list(processor.image_std) == [0.5, 0.5, 0.5]
    assert processor.size == {"height": 32, "width": 32}
    build_vision(VISION, tmp_path / "again")
    assert sha256_folder(tmp_path / "vision") == sha256_folder(tmp_path / "again")


def test_the_loss_of_notes_counts_answers_only_and_ignores_padding(tokenizer) -> None:
    torch.manual_seed(0)
    model = new_language_model(LANGUAGE, tokenizer).eval()
    writer = Writer(tokenizer, most_copies=1, turns=2)
    rng = np.random.default_rng(0)
    documents = [writer.training_document(rng) for _ in range(5)]
    for document in documents:
        answers = [token for token in document.labels if token >= 0]
        assert "".join(tokenizer.decode(answers).split(tokenizer.eos_token)) and answers[-1] == tokenizer.eos_token_id
        assert all(text == label for text, label in zip(document.text, document.labels, strict=True) if label >= 0)
    fixed = [batch_loss(model, [document], np.random.default_rng(1), 0)[0] for document in documents]
    lengths = torch.tensor([sum(label >= 0 for label in document.labels) for document in documents])
    together = batch_loss(model, documents, np.random.default_rng(1), 0)[0]
    torch.testing.assert_close(together, (torch.stack(fixed) * lengths).sum() / lengths.sum(), rtol=1e-4, atol=1e-4)


def test_a_reader_that_is_right_counts_as_right(tokenizer) -> None:
    """The judgement follows the settled tokens: swap one for another and it turns."""
    model = new_language_model(LANGUAGE, tokenizer).eval()
    writer = Writer(tokenizer, most_copies=1, turns=1)
    rng = np.random.default_rng(0)
    scene = sample_scene(rng)
    document = writer.document(rng, scene, [questions(scene)[0]], [1])

    class Parrot(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            wanted = torch.tensor([label for label in document.labels if label >= 0])
            return torch.nn.functional.one_hot(wanted, len(tokenizer)).float()

    model.lm_head = Parrot()
    assert batch_loss(model, [document], rng, 0)[1].tolist() == [True]
    wrong = list(document.labels)
    wrong[-2] = 7
    changed = replace(document, labels=wrong)
    assert batch_loss(model, [changed], rng, 0)[1].tolist() == [False]


def test_patch_labels_point_at_the_solid() -> None:
    views = draw_views(40, 64, 16, np.random.default_rng(0))
    shown = views.colour > 0
    assert 0.1 < shown.float().mean() < 0.6
    assert ((views.shape > 0) == shown).all()
    assert views.colour.max() <= len(COLOURS) and views.shape.max() <= len(SHAPES)
    assert (views.offset[shown].abs() * 30).mean() < 25  # degrees from a patch to its own solid
    assert views.pixels.shape == (40, 3, 64, 64)


def test_mirrored_views_carry_mirrored_labels() -> None:
    views = draw_views(6, 32, 8, np.random.default_rng(1))
    which = torch.tensor([True, False] * 3)
    swapped = views.mirrored(which)
    assert torch.equal(swapped.pixels[0], views.pixels[0].flip(-1))
    assert torch.equal(swapped.colour[0].view(4, 4), views.colour[0].view(4, 4).flip(1))
    assert torch.equal(
        swapped.offset[0].view(4, 4, 2), views.offset[0].view(4, 4, 2).flip(1) * torch.tensor([-1.0, 1.0])
    )
    again = swapped.mirrored(which)
    for name in ("pixels", "colour", "shape", "offset"):
        assert torch.equal(getattr(again, name), getattr(views, name))
        assert torch.equal(getattr(swapped, name)[1], getattr(views, name)[1])


def test_notes_hold_every_fact(tokenizer) -> None:
    scene = Scene("dusk", "sand", (0.0, 0.0), (Solid("behind", "red", "box", 1.0, 0.0, (0.0, 0.0, -3.0)),))
    notes = Writer(tokenizer, most_copies=3, turns=1).notes(np.random.default_rng(0), scene)
    facts = {"".join(tokenizer.decode(note).split()) for note in notes}
    assert facts == {
        "skydusk",
        "groundsand",
        "behindredbox",
        *(f"{p}nothing" for p in ("front", "right", "left", "above")),
    }


def test_a_loss_that_is_no_number_ends_pre_training() -> None:
    schedule = Schedule(max_steps=3, decay=1, warmup=0, check_every=1, lr=7.0, muon_lr=0.5)
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(TrainingError, match=r"toy: the loss is nan at step 0\. Lower its lr \(now 7\.0\) or muon_lr"):
        train(layer, schedule, lambda step: layer(torch.ones(1, 2)).sum() * float("nan"), lambda: False, "toy")


def test_a_failed_build_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_dir(target) as partial:
        (partial / "old").touch()
    with pytest.raises(RuntimeError), atomic_dir(target) as partial:
        (partial / "new").touch()
        raise RuntimeError
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]
