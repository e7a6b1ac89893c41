"""One prompt path: training starts with the generation prompt, only the answer is supervised."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_families import LANGUAGES, QWEN25, THINKER, qwen_tokenizer
from tiny_models import CHATML, GEMMA, tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from panollava.errors import ConfigError
from panollava.models.plain_text import PlainText
from panollava.models.prompt import IGNORED, ChatPrompt

SYSTEM = "You look around."


@pytest.fixture(params=LANGUAGES)
def prompt(request: pytest.FixtureRequest) -> ChatPrompt:
    family = LANGUAGES[request.param]
    return ChatPrompt(family.words(family.template), 5, SYSTEM)


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


@pytest.mark.parametrize("family", LANGUAGES)
def test_the_prompt_is_the_familys_own(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its template says about system messages, thinking and the day; the picture stands where the user speaks."""
    recipe = LANGUAGES[family]
    chat = ChatPrompt(recipe.words(recipe.template), 3, SYSTEM)
    asked = chat.generation("where?")
    start = asked.image_token_mask.index(True)
    words = chat.tokenizer
    text = words.decode(asked.input_ids[:start]) + "[picture]" + words.decode(asked.input_ids[start + 3 :])
    assert text == recipe.prompt
    assert chat.end_ids[0] == words.convert_tokens_to_ids(recipe.end)
    if recipe.template is not None and family != "gemma2":  # one start token, as the template has it, and no second
        whole = words.apply_chat_template(
            [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "x\nwhere?"}],
            add_generation_prompt=True, enable_thinking=False, date_string="26 Jul 2024", return_dict=False,
        )  # fmt: skip
        assert whole[:start] == asked.input_ids[:start]
    assert words.bos_token_id is None or asked.input_ids[:start].count(words.bos_token_id) == 1


def test_thinking_is_closed_before_it_begins_and_a_missing_system_message_is_the_templates() -> None:
    thinker = ChatPrompt(qwen_tokenizer(THINKER), 1)
    asked = thinker.generation("where?").input_ids
    assert thinker.tokenizer.decode(asked).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    silent = ChatPrompt(qwen_tokenizer(QWEN25), 1)
    assert silent.tokenizer.decode(silent.generation("where?").input_ids).startswith(
        "<|im_start|>system\nYou are Qwen."
    )


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


# ---- what people wrote is text -------------------------------------------------------------------
def _unigram(template: str | None, scheme: str) -> Any:
    """As SentencePiece's: control tokens are among the model's own pieces, spaces are "▁"."""
    letters = sorted({*"abcdefghijklmnopqrstuvwxyz", *"<>/|_.,?!:⟦⟧\n", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
    pieces = [("<unk>", 0.0), ("<s>", -0.1), ("</s>", -0.1), ("<image>", -0.1), ("▁", -2.0), ("▁red", -3.0)]
    core = Tokenizer(models.Unigram([*pieces, *((letter, -5.0) for letter in letters)], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", bos_token="<s>", unk_token="<unk>",
                                   extra_special_tokens=["<image>"], chat_template=template)  # fmt: skip


class Slow:
    """A tokenizer without a fast backend: what transformers' own interface gives, and no more."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name == "backend_tokenizer":
            raise AttributeError(name)
        return getattr(self._inner, name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._inner(*arguments, **options)


_TURNS = (
    "<s>{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
WORDS = {
    **{name: family.words(family.template) for name, family in LANGUAGES.items()},
    "unigram": _unigram(_TURNS, "first"),
    "unigram-legacy": _unigram(_TURNS, "always"),
    "qwen3-slow": Slow(LANGUAGES["qwen3"].words(LANGUAGES["qwen3"].template)),
    "unigram-slow": Slow(_unigram(_TURNS, "first")),
}


@pytest.mark.parametrize("name", WORDS)
def test_control_tokens_that_people_write_are_text(name: str) -> None:
    """A query, an answer and a system message hold every control token and the marks of ours: none of them counts."""
    words = WORDS[name]
    control = PlainText(words).control
    assert control
    said = " ".join(["red", *control.values(), "⟦picture⟧ ⟦query⟧ ⟦system⟧ ⟦answer⟧ and a", *control.values(), "red"])
    harmless = ChatPrompt(words, 3, "look").training("a red", "red", 64)
    for system, query, answer in (("look", said, "red"), ("look", "a red", said), (said, "a red", "red")):
        chat = ChatPrompt(words, 3, system)
        taught = chat.training(query, answer, 4000)
        for token in control:
            assert taught.input_ids.count(token) == harmless.input_ids.count(token), control[token]
        assert sum(taught.image_token_mask) == 3 and len(taught.input_ids) > len(harmless.input_ids) + 20
        asked = chat.generation(query)
        assert taught.input_ids[: len(asked.input_ids)] == asked.input_ids
        if "slow" not in name and "unigram" not in name:  # not a character is lost
            assert said in words.decode(taught.input_ids)


@pytest.mark.parametrize("name", [name for name in WORDS if "slow" not in name])
def test_ordinary_text_keeps_its_ids(name: str) -> None:
    """The way for text that looks like control gives ordinary text the very ids that the tokenizer gives it."""
    chat = ChatPrompt(WORDS[name], 3, "look around.")
    for query in (
        "where is the red box?",
        "a red",
        "Red\n\nred  red",
        "déjà ▁ vu",
        "<b>red</b> < s > [x]",
        "빨간 상자",
    ):
        assert chat._frame_of_text(query) == chat._frame(query), query
        assert chat.words.encode(query) == chat._ids(query)


def test_marks_of_ours_are_text() -> None:
    words = tokenizer()
    for mark in ("⟦picture⟧", "⟦answer⟧"):
        asked = ChatPrompt(words, 1, "look").generation(f"what is {mark}?")
        assert f"what is {mark}?" in words.decode(asked.input_ids) and sum(asked.image_token_mask) == 1


def test_added_words_are_no_control() -> None:
    words = tokenizer(CHATML)
    words.add_tokens(["\n\n", "<table>", "panorama", "<think>", "<|tool|>"])
    named = set(PlainText(words).control.values())
    assert {"<think>", "<|tool|>", "<|im_end|>"} <= named and not named & {"\n\n", "<table>", "panorama"}


PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLOSED = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def test_a_template_may_want_content_as_parts() -> None:
    plain, parts = tokenizer(), tokenizer(PARTS)
    plain.chat_template = PARTS.replace(
        "{% for part in m['content'] %}{{ part['text'] }}{% endfor %}", "{{ m['content'] }}"
    )
    for system in ("", "You look around."):
        wanted, found = ChatPrompt(plain, 2, system), ChatPrompt(parts, 2, system)
        assert found.training("where?", "here", 32) == wanted.training("where?", "here", 32)
        assert found.end_ids == wanted.end_ids


def test_a_template_that_opens_no_turn_of_the_assistant_is_refused() -> None:
    for system in ("", "You look around."):
        with pytest.raises(ConfigError, match=r"never reads add_generation_prompt.*assistant.*plain prompt"):
            ChatPrompt(tokenizer(CLOSED), 2, system)
    # one that needs none, as Llama 2's
    inst = "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]" \
           "{% elif m['role'] == 'assistant' %} {{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"  # fmt: skip
    assert ChatPrompt(tokenizer(inst), 2).generation("where?")


TURNS = (("user", "what is left?"), ("assistant", "a door"))


def test_a_query_stands_behind_the_turns_before_it(prompt: ChatPrompt) -> None:
    """The picture at the head of the first turn, where it always stands; the last answer alone is supervised."""
    alone, behind = prompt.generation("where?"), prompt.generation("where?", TURNS)
    assert behind.input_ids[: prompt.picture_end] == alone.input_ids[: prompt.picture_end]
    text = text_of(prompt, behind.input_ids, behind.image_token_mask)
    places = [text.index(part) for part in ("what is left?", "a door", "where?")]
    assert places == sorted(places) and sum(behind.image_token_mask) == 5
    ends = [ids.input_ids.count(prompt.end_ids[0]) for ids in (alone, behind)]
    assert ends[1] >= ends[0]
    taught = prompt.training("where?", "a red box", 8, TURNS)
    assert taught.labels is not None and taught.input_ids[: len(behind.input_ids)] == behind.input_ids
    supervised = [token for token in taught.labels if token != IGNORED]
    assert prompt.tokenizer.decode(supervised).startswith("a red box"[:5]) and len(supervised) <= 8
    assert "what is left?" in prompt.text("where?", TURNS)


def test_words_of_earlier_turns_are_text(prompt: ChatPrompt) -> None:
    end = prompt.tokenizer.convert_ids_to_tokens(prompt.end_ids[0])
    said = (("user", f"stop {end} now"), ("assistant", "⟦picture⟧ ⟦turn 0⟧"))
    behind = prompt.generation("where?", said)
    assert behind.input_ids.count(prompt.end_ids[0]) == prompt.generation("where?", TURNS).input_ids.count(
        prompt.end_ids[0]
    )
    for wrong in ((("assistant", "a"), ("user", "b")), (("user", "a"),)):
        with pytest.raises(ValueError, match="user and assistant in turn"):
            prompt.generation("where?", wrong)
