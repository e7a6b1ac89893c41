"""One prompt path: training starts with the generation prompt, only the answer is supervised."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CHATML, GEMMA, tokenizer

from panollava.models.prompt import IGNORED, ChatPrompt

TEMPLATES = {"chatml": CHATML, "gemma": GEMMA, "none": None}
SYSTEM = "You look around."


@pytest.fixture(params=TEMPLATES)
def prompt(request: pytest.FixtureRequest) -> ChatPrompt:
    return ChatPrompt(tokenizer(TEMPLATES[request.param]), 5, SYSTEM)


def text_of(prompt: ChatPrompt, ids: list[int], places: list[bool]) -> str:
    kept = [token for token, place in zip(ids, places, strict=True) if not place]
    return str(prompt.tokenizer.decode(kept))


def test_training_starts_with_the_generation_prompt(prompt: ChatPrompt) -> None:
    asked = prompt.generation("what is behind you?")
    taught = prompt.training("what is behind you?", "a red box", 64)
    start = len(asked.input_ids)
    assert taught.input_ids[:start] == asked.input_ids
    assert taught.image_token_mask[:start] == asked.image_token_mask
    assert sum(asked.image_token_mask) == 5 == sum(taught.image_token_mask)
    places = [i for i, place in enumerate(asked.image_token_mask) if place]
    assert places == list(range(places[0], places[0] + 5)) and places[0] > 0


def test_only_the_answer_and_its_end_are_supervised(prompt: ChatPrompt) -> None:
    taught = prompt.training("what is behind you?", "a red box", 64)
    assert taught.labels is not None
    supervised = [token for token in taught.labels if token != IGNORED]
    assert prompt.tokenizer.decode(supervised[:-1]) == "a red box"
    assert supervised[-1] == prompt.end_ids[0]
    assert taught.labels[-len(supervised) :] == taught.input_ids[-len(supervised) :]


def test_what_the_templates_say() -> None:
    chat = ChatPrompt(tokenizer(CHATML), 2, SYSTEM)
    asked = chat.generation("where?")
    assert text_of(chat, asked.input_ids, asked.image_token_mask) == (
        "<|im_start|>system\nYou look around.<|im_end|>\n<|im_start|>user\n\nwhere?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    words = chat.tokenizer
    assert chat.end_ids == (words.convert_tokens_to_ids("<|im_end|>"), words.eos_token_id)
    gemma = ChatPrompt(tokenizer(GEMMA), 2, SYSTEM)  # refuses a system role
    asked = gemma.generation("where?")
    assert text_of(gemma, asked.input_ids, asked.image_token_mask) == (
        "<bos><start_of_turn>user\nYou look around.\n\n\nwhere?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert gemma.end_ids[0] == words.convert_tokens_to_ids("<end_of_turn>")
    plain = ChatPrompt(tokenizer(None), 2)
    asked = plain.generation("where?")
    assert text_of(plain, asked.input_ids, asked.image_token_mask) == "<bos>User: \nwhere?\nAssistant:"
    assert plain.end_ids == (words.eos_token_id,)


def test_long_answers_are_cut_and_long_queries_are_not(prompt: ChatPrompt) -> None:
    query, answer = "where is the blue sphere? " * 3, "behind you, " * 20
    cut = prompt.training(query, answer, 70)
    start = len(prompt.generation(query).input_ids)
    query_tokens = len(prompt.tokenizer(query, add_special_tokens=False)["input_ids"])
    assert cut.truncated and len(cut.input_ids) - start == 70 - query_tokens
    assert cut.input_ids[-1] not in prompt.end_ids
    assert len(prompt.training(query, answer, 4).input_ids) == start + 1
    assert not prompt.training("where?", "here", 70).truncated


def test_collate_pads_on_the_asked_side(prompt: ChatPrompt) -> None:
    short, long = prompt.training("a?", "b", 64), prompt.training("where is the box?", "behind you", 64)
    right, left = prompt.collate([short, long], "right"), prompt.collate([short, long], "left")
    gap = len(long.input_ids) - len(short.input_ids)
    assert right["input_ids"].shape == (2, len(long.input_ids)) == left["labels"].shape
    assert right["attention_mask"][0].tolist() == [1] * len(short.input_ids) + [0] * gap
    assert left["attention_mask"][0].tolist() == [0] * gap + [1] * len(short.input_ids)
    assert right["labels"][0, -gap:].eq(IGNORED).all() and left["input_ids"][0, gap:].tolist() == short.input_ids
    assert left["image_token_mask"].dtype == torch.bool
    assert left["image_token_mask"].sum(1).tolist() == [5, 5]
    assert "labels" not in prompt.collate([prompt.generation("a?")], "left")


def test_what_cannot_be_built() -> None:
    words = tokenizer()
    with pytest.raises(ValueError, match="num_image_tokens"):
        ChatPrompt(words, 0)
    with pytest.raises(ValueError, match="answer to 'a\\?' is empty"):
        ChatPrompt(words, 1).training("a?", "  ", 10)
    with pytest.raises(ValueError, match="must not contain"):
        ChatPrompt(words, 1).generation("⟦picture⟧")
