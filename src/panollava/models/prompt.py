"""The one path from a query (and an answer) to token ids, for training and for generation alike.

In: a tokenizer with its chat template, the number of image tokens, a system message. Out: ids in which the
picture is N padding ids marked by `image_token_mask`; the vocabulary is not changed. The template is
rendered as text with a marker where the picture goes and split there, and a training sequence *is* the
generation prompt followed by the answer and its end token, so the two cannot drift apart.
What people wrote is encoded as text (`plain_text`), whatever it contains.
Traded away: tokens that would merge across the picture's borders or between prompt and answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from jinja2 import TemplateError
from torch import Tensor

from panollava.errors import ConfigError
from panollava.models.plain_text import PlainText

Turn = tuple[str, str]
"""(role, text) of a turn before the query; role is user or assistant, and the first one is the user's."""
Context = Sequence[Turn]
IGNORED = -100  # the label that torch's cross entropy leaves out
_MARKER = "⟦picture⟧"
_ANSWER = "⟦answer⟧"
_QUERY, _SYSTEM = "⟦query⟧", "⟦system⟧"
_PLACES = (_MARKER, _ANSWER, _QUERY, _SYSTEM)
_FRAMES_KEPT = 4096
# Templates that name the day, such as Llama 3.2's, name this one always: a prompt is the same every day.
_SAME_DAY = (
    "{% macro strftime_now(form) -%}{{ form | replace('%d', '26') | replace('%b', 'Jul') | replace('%B', 'July') | "
    "replace('%m', '07') | replace('%Y', '2024') | replace('%A', 'Friday') }}{%- endmacro +%}"
)


@dataclass(frozen=True)
class PromptIds:
    """One sequence; all lists have its length. `labels` is None for generation.

    `truncated` says that the answer was cut, and then has no end token.
    """

    input_ids: list[int]
    image_token_mask: list[bool]
    labels: list[int] | None = None
    truncated: bool = False


class PromptBatch(TypedDict, total=False):
    """`input_ids`, `attention_mask` and `labels` int64 [B, L]; `image_token_mask` bool [B, L]."""

    input_ids: Tensor
    attention_mask: Tensor
    image_token_mask: Tensor
    labels: Tensor


class ChatPrompt:
    """Builds prompts for one tokenizer, picture length and system message ("" for none).

    A template that refuses a system message (Gemma's) or drops it gets it at the head of the user's turn. Thinking is
    switched off. A tokenizer without a template gets a plain one ("User: … Assistant:").
    """

    def __init__(self, tokenizer: Any, num_image_tokens: int, system_message: str = "") -> None:
        if num_image_tokens < 1:
            raise ValueError(f"num_image_tokens must be >= 1, got {num_image_tokens}")
        self.tokenizer = tokenizer
        self.num_image_tokens = num_image_tokens
        self.system_message = system_message.strip()
        self.words = PlainText(tokenizer)
        # What is put into the template: a system message that reads like control is put in its place as text, later.
        self._shown_system = self.system_message if self._is_plain(self.system_message) else _SYSTEM
        self.pad_id = pad_id_of(tokenizer)
        self._wants_parts = False
        self._wants_parts = self._shows_parts_alone()
        self._system_role = bool(self.system_message) and self._takes_system_role()
        self.end_ids = self._end_of_turn()
        self._refuse_without_generation_prompt()
        self._frames: dict[str, tuple[list[int], list[int]]] = {}

    @property
    def picture_end(self) -> int:
        """The position behind the picture, the same in every sequence."""
        return len(self._frame("")[0]) + self.num_image_tokens

    def generation(self, query: str, context: Context = ()) -> PromptIds:
        """Everything up to where the assistant's answer begins; `context` are the turns before the query.

        The picture is at the head of the first turn.
        """
        head, tail = self._frame_behind(context, query) if context else self._frame(query)
        picture = self.num_image_tokens
        return PromptIds(
            input_ids=head + [self.pad_id] * picture + tail,
            image_token_mask=[False] * len(head) + [True] * picture + [False] * len(tail),
        )

    def without_picture(self, query: str, context: Context = ()) -> PromptIds:
        """The generation prompt of a conversation without a picture, for the text-only control."""
        shown, said = self._with_turns(context, query, pictured=False)
        ids = self._ids_with(said, shown)
        return PromptIds(input_ids=ids, image_token_mask=[False] * len(ids))

    def text(self, query: str, context: Context = ()) -> str:
        """The prompt as text, with ⟦picture⟧ where the picture goes."""
        if not context:
            return self._render(query)
        rendered, said = self._with_turns(context, query)
        return "".join(said.get(part, part) for part in _parts(rendered, said))

    def training(self, query: str, answer: str, max_text_length: int, context: Context = ()) -> PromptIds:
        """The generation prompt, then the answer and its end token, which alone are supervised.

        `max_text_length` bounds the tokens of query and answer (with its end) together; system message, template,
        picture and the turns before the query do not count. The query stays whole, as generation sees it; the answer is
        cut at its end but keeps at least one token. Raises ValueError for an empty answer. Control tokens that somebody
        wrote into a query or an answer are text.
        """
        prompt = self.generation(query, context)
        wanted = [*self.words.encode(answer.strip()), self.end_ids[0]]
        if len(wanted) < 2:
            raise ValueError(f"the answer to {query!r} is empty; there is nothing to supervise")
        room = max(1, max_text_length - len(self.words.encode(query)))
        kept = wanted[:room]
        return PromptIds(
            input_ids=prompt.input_ids + kept,
            image_token_mask=prompt.image_token_mask + [False] * len(kept),
            labels=[IGNORED] * len(prompt.input_ids) + kept,
            truncated=len(kept) < len(wanted),
        )

    def _frame(self, query: str) -> tuple[list[int], list[int]]:
        """The ids before and behind the picture; of the first queries, which may come often, they are kept."""
        if query not in self._frames:
            if self._shown_system == self.system_message and self._is_plain(query):
                before, behind = self._split(self._render(query), _MARKER)
                frame = self._ids(before), self._ids(behind)
            else:
                frame = self._frame_of_text(query.strip())
            if len(self._frames) == _FRAMES_KEPT:
                return frame
            self._frames[query] = frame
        return self._frames[query]

    def _frame_of_text(self, query: str) -> tuple[list[int], list[int]]:
        """The same where a person's words would be read as control tokens, or hold a mark of ours: the template never
        sees them, and they are encoded as text."""
        said = {_QUERY: query, _SYSTEM: self.system_message}
        rendered = self._conversation(f"{_MARKER}\n{_QUERY}", None, self._system_role)
        before, behind = self._split(rendered, _MARKER)
        self._split(behind, _QUERY)

        return self._ids_with(said, before), self._ids_with(said, behind)

    def _frame_behind(self, context: Context, query: str) -> tuple[list[int], list[int]]:
        """The same of a query behind other turns, whose words are encoded as text as well."""
        rendered, said = self._with_turns(context, query)
        before, behind = self._split(rendered, _MARKER)
        return self._ids_with(said, before), self._ids_with(said, behind)

    def _with_turns(self, context: Context, query: str, pictured: bool = True) -> tuple[str, dict[str, str]]:
        """A conversation with marks in the places of people's words, and the words by mark.

        Raises ValueError for turns that are not user and assistant in turn.
        """
        roles = [role for role, _ in context]
        if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
            raise ValueError(f"the turns before a query are user and assistant in turn, got {', '.join(roles)}")
        texts = [*(text.strip() for _, text in context), query.strip()]
        marks = [f"⟦turn {number}⟧" for number in range(len(texts))]
        later = [("assistant" if place % 2 else "user", mark) for place, mark in enumerate(marks)][1:]
        first = self._first_turn(marks[0]) if pictured else marks[0]
        rendered = self._conversation(first, None, self._system_role, later=later, pictured=pictured)
        for mark in marks:
            self._split(rendered, mark)
        return rendered, {**dict(zip(marks, texts, strict=True)), _SYSTEM: self.system_message}

    def _first_turn(self, words: str) -> str:
        return f"{_MARKER}\n{words}"

    def _ids_with(self, said: Mapping[str, str], rendered: str) -> list[int]:
        """The ids of a rendered text, with people's words in the places of their marks, as text."""
        return self.words.encode_pieces([(said.get(part, part), part in said) for part in _parts(rendered, said)])

    def _is_plain(self, text: str) -> bool:
        """Whether a person's words may pass through the template as they are."""
        return not any(place in text for place in _PLACES) and not self.words.holds_control(text)

    def collate(self, sequences: Sequence[PromptIds], side: Literal["left", "right"]) -> PromptBatch:
        """Pad to the longest: right for training, left for generation (its last column is the newest token)."""
        length = max(len(sequence.input_ids) for sequence in sequences)

        def table(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
            pads = [[fill] * (length - len(row)) for row in rows]
            joined = [[*p, *r] if side == "left" else [*r, *p] for p, r in zip(pads, rows, strict=True)]
            return torch.tensor(joined, dtype=torch.long)

        batch: PromptBatch = {
            "input_ids": table([s.input_ids for s in sequences], self.pad_id),
            "attention_mask": table([[1] * len(s.input_ids) for s in sequences], 0),
            "image_token_mask": table([s.image_token_mask for s in sequences], 0).bool(),
        }
        labels = [s.labels for s in sequences if s.labels is not None]
        if len(labels) == len(sequences):
            batch["labels"] = table(labels, IGNORED)
        return batch

    def _render(self, query: str, answer: str | None = None, opens: bool = True) -> str:
        """The conversation as text, with the marker where the picture goes; `opens` the assistant's turn."""
        return self._conversation(self._first_turn(query.strip()), answer, self._system_role, opens)

    def _conversation(
        self,
        user: str,
        answer: str | None,
        system_role: bool,
        opens: bool = True,
        later: Context = (),
        pictured: bool = True,
    ) -> str:
        messages = [{"role": "user", "content": user}]
        if system_role:
            messages.insert(0, {"role": "system", "content": self._shown_system})
        elif self.system_message:
            messages[0]["content"] = f"{self._shown_system}\n\n{user}"
        messages += [{"role": role, "content": text} for role, text in later]
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        return self._templated(messages, answer is None and opens)

    def _templated(self, messages: list[dict[str, str]], opens: bool) -> str:
        if getattr(self.tokenizer, "chat_template", None) is None:
            return _plain(messages, self.tokenizer.bos_token or "", self.tokenizer.eos_token or "")
        shown: Any = messages
        if self._wants_parts:
            shown = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in messages]
        rendered: str = self.tokenizer.apply_chat_template(
            shown,
            chat_template=_SAME_DAY + self.tokenizer.get_chat_template(),
            tokenize=False,
            add_generation_prompt=opens,
            enable_thinking=False,
        )
        if rendered.rstrip().endswith("<think>"):  # of a model that always thinks: nothing, and on to the answer
            rendered = f"{rendered.rstrip()}\n\n</think>\n\n"
        return rendered

    def _shows_parts_alone(self) -> bool:
        """Whether the template wants a message's content as a list of parts: text alone it refuses or leaves out."""
        user = [{"role": "user", "content": _MARKER}]
        try:
            if _MARKER in self._templated(user, True):
                return False
        except (TemplateError, TypeError):  # it adds up text and what it takes for a part
            pass
        self._wants_parts = True
        try:
            return _MARKER in self._templated(user, True)
        except (TemplateError, TypeError):  # neither form: the first one's error is the one to report
            return False
        finally:
            self._wants_parts = False

    def _refuse_without_generation_prompt(self) -> None:
        """Raise ConfigError where the template opens no turn of the assistant: an answer would go on the user's."""
        if getattr(self.tokenizer, "chat_template", None) is None:
            return
        asked = self._render("x")
        before, _ = self._split(self._render("x", _ANSWER), _ANSWER)
        opening = before.removeprefix(asked) if before.startswith(asked) else ""
        if opening.strip() and asked == self._render("x", opens=False):
            raise ConfigError(
                "the chat template never reads add_generation_prompt, so an answer would be in the user's turn. Let "
                f"it end with {{% if add_generation_prompt %}}{opening!r}{{% endif %}}, or remove chat_template for a "
                "plain prompt"
            )

    def _takes_system_role(self) -> bool:
        """Whether the template has a place for the system message (Gemma's raises, others drop it)."""
        try:
            return self._shown_system in self._conversation("x", None, system_role=True)
        except TemplateError:
            return False

    def _end_of_turn(self) -> tuple[int, ...]:
        """Ids that end an answer, the template's own first: what follows the answer in a whole conversation."""
        _, behind = self._split(self._render("x", _ANSWER), _ANSWER)
        special = set(self.tokenizer.all_special_ids)
        turn = [token for token in self._ids(behind)[:1] if token in special or self._is_added(token)]
        end = self.tokenizer.eos_token_id
        found = tuple(dict.fromkeys(turn + ([end] if end is not None else [])))
        if not found:
            raise ValueError("neither the chat template nor the tokenizer names a token that ends an answer")
        return found

    def _is_added(self, token: int) -> bool:
        return token in getattr(self.tokenizer, "added_tokens_decoder", {})

    def _split(self, rendered: str, marker: str) -> tuple[str, str]:
        parts = rendered.split(marker)
        if len(parts) != 2:
            raise ValueError(f"the chat template shows the user's text {len(parts) - 1} times, expected once")
        return parts[0], parts[1]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids


def prompts_of(prompt: ChatPrompt, queries: Sequence[str], contexts: Sequence[Context] | None) -> list[PromptIds]:
    """What generation reads of each query, behind its turns where there are `contexts`. Raises ValueError."""
    if contexts is None:
        return [prompt.generation(query) for query in queries]
    if len(contexts) != len(queries):
        raise ValueError(f"{len(contexts)} contexts of {len(queries)} queries")
    return [prompt.generation(query, context) for query, context in zip(queries, contexts, strict=True)]


def prompts_without_picture(
    prompt: ChatPrompt, queries: Sequence[str], contexts: Sequence[Context] | None
) -> list[PromptIds]:
    """The same with no picture in any of them."""
    return [
        prompt.without_picture(query, context)
        for query, context in zip(queries, contexts or [()] * len(queries), strict=True)
    ]


def _parts(rendered: str, said: Mapping[str, str]) -> list[str]:
    """A rendered text cut at its marks, which are parts themselves."""
    return [part for part in re.split(f"({'|'.join(map(re.escape, said))})", rendered) if part]


def pad_id_of(tokenizer: Any) -> int:
    """The tokenizer's padding id, else its end id, else 0: padding is masked, any id will do."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def _plain(messages: list[dict[str, str]], start: str, end: str) -> str:
    """The conversation of a tokenizer without a chat template."""
    heads = {"system": "", "user": "User: ", "assistant": "Assistant:"}
    lines = [f"{heads[m['role']]}{m['content']}" for m in messages]
    if messages[-1]["role"] == "assistant":
        return f"{start}{chr(10).join(lines)}{end}"
    return f"{start}{chr(10).join([*lines, heads['assistant']])}"
