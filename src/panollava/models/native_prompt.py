"""The prompt of a native model: every view a picture of one user turn, in the family's own words and tokens.

In: a family's processor, the views, a system message. Out: the ids of a constant head (template, system message, all
pictures) and of a tail (question, template), so that the head can be read once for all questions about a panorama.
Both together are the ids that the processor itself makes; that is checked when the prompt is built. No weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from panollava.errors import ConfigError
from panollava.models.config import ModelConfig
from panollava.models.native_processing import NativeProcessing, _template_of
from panollava.models.prompt import _FRAMES_KEPT, _QUERY, _SAME_DAY, _SYSTEM, ChatPrompt, Context, PromptIds
from panollava.views.strategies import View

_TRIALS = ("what is behind me?", "1 or 2")


class NativePrompt(ChatPrompt):
    """`ChatPrompt` for a family's own template, whose pictures are where the family puts them.

    `head` [H] are the ids up to the question, `picture_places` [T] the places of picture tokens in them: all of the
    first view, row by row, then all of the second. Raises ConfigError where the family's prompt is not of that form.
    """

    def __init__(
        self, processing: NativeProcessing, views: Sequence[View], size: tuple[int, int], system_message: str = "",
        view_labels: bool = False,
    ) -> None:  # fmt: skip
        self.processing, self.views, self.size = processing, tuple(views), size
        self.labels = view_label_texts(views) if view_labels else ()
        self._head_text, self.head = "", torch.zeros(0, dtype=torch.long)
        super().__init__(processing.tokenizer, len(self.views), system_message)
        shown = self._render(_QUERY)
        self._head_text = "" if processing.family.prefix_lm else shown[: shown.rindex(_QUERY)]
        self.head = self._head_ids()
        self.picture_places = (self.head == processing.image_id).nonzero()[:, 0]
        tokens, rest = divmod(len(self.picture_places), len(self.views))
        if rest or not tokens:
            raise ConfigError(
                f"{processing.source} shows {len(self.views)} views as {len(self.picture_places)} tokens: not each "
                "view as equally many"
            )
        self.num_image_tokens, self.tokens_per_view = len(self.picture_places), tokens
        self._is_picture = (self.head == processing.image_id).tolist()
        for question in _TRIALS:
            self._check(question)
        self._frames.clear()

    @property
    def picture_end(self) -> int:
        """The position behind the head, the same in every sequence."""
        return len(self.head)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of a view's tokens; None where they form no grid of the view's shape."""
        height, width = self.size
        for extra in (0, 1):  # LLaVA-OneVision ends a view with a token of its own
            tokens = self.tokens_per_view - extra
            columns = round((tokens * width / height) ** 0.5)
            if columns and tokens % columns == 0 and abs(tokens // columns - tokens**0.5 * (height / width) ** 0.5) < 1:
                return tokens // columns, columns
        return None

    def generation(self, query: str, context: Context = ()) -> PromptIds:
        """Everything up to where the assistant's answer begins; `context` are the turns before the query."""
        tail = self._frame_behind(context, query)[1] if context else self._frame(query)[1]
        return PromptIds(input_ids=self.head.tolist() + tail, image_token_mask=self._is_picture + [False] * len(tail))

    def _frame(self, query: str) -> tuple[list[int], list[int]]:
        """Nothing, and the ids behind the head. Words that would be read as control tokens are encoded as text."""
        if query not in self._frames:
            plain = self._is_plain(query)
            shown = self._render(query if plain else _QUERY)
            if not shown.startswith(self._head_text):
                raise ValueError(f"the chat template shows the question {query!r} in another way than others")
            tail = shown[len(self._head_text) :]
            frame: tuple[list[int], list[int]] = [], self._ids(tail) if plain else self._with_words(tail, query.strip())
            if len(self._frames) == _FRAMES_KEPT:
                return frame
            self._frames[query] = frame
        return self._frames[query]

    def _frame_behind(self, context: Context, query: str) -> tuple[list[int], list[int]]:
        if self.processing.family.prefix_lm:
            raise ValueError(f"{self.processing.source} answers one question, not one behind other turns")
        shown, said = self._with_turns(context, query)
        if not shown.startswith(self._head_text):
            raise ValueError(f"the chat template shows the question {query!r} in another way behind other turns")
        return [], self._ids_with(said, shown[len(self._head_text) :])

    def _first_turn(self, words: str) -> str:
        return words

    def _with_words(self, shown: str, query: str) -> list[int]:
        """The ids of a rendered text, with a person's words in their places as text."""
        return self._ids_with({_QUERY: query, _SYSTEM: self.system_message}, shown)

    def _head_ids(self) -> Tensor:
        if self.processing.family.prefix_lm:
            return self._prefix_lm_head()
        before, marked, behind = self._head_text.rpartition(_SYSTEM)
        tail = self._render(_QUERY)[len(self._head_text) :]
        whole = self.processing.prompt_inputs(behind + tail, len(self.views), self.size)["input_ids"][0]
        head = whole[: len(whole) - len(self._ids(tail))]
        if marked:  # a system message that reads like control
            head = torch.cat([torch.tensor(self._with_words(before + marked, "")), head])
        return head

    def _prefix_lm_head(self) -> Tensor:
        """Pictures, then the token that begins a text, which this family puts behind them."""
        text = self.processing.tokenizer.decode([self.processing.image_id]) * len(self.views)
        whole = self.processing.prompt_inputs(text + "x", len(self.views), self.size)["input_ids"][0]
        end = int((whole == self.processing.image_id).nonzero()[-1]) + 1
        begins = self.tokenizer.bos_token_id
        return whole[: end + (begins is not None and int(whole[end]) == begins)]

    def _check(self, question: str) -> None:
        """Raise ConfigError where head and tail are not the ids that the family's processor makes."""
        if self._shown_system != self.system_message:
            return  # the processor would read the system message as control
        shown = self._render(question)
        if self.processing.family.prefix_lm:
            shown = self.processing.tokenizer.decode([self.processing.image_id]) * len(self.views) + shown.strip()
        found = self.processing.prompt_inputs(shown, len(self.views), self.size)
        ids = found["input_ids"][0].tolist()
        own = self.generation(question).input_ids
        same = own == ids if not self.processing.family.prefix_lm else own[: len(ids)] == ids[: len(own)]
        if not same:
            raise ConfigError(
                f"{self.processing.source}: its prompt is not a constant head, with all pictures, and a question "
                "behind it, so that the panorama cannot be read apart from the question"
            )

    def _conversation(
        self,
        user: str,
        answer: str | None,
        system_role: bool,
        opens: bool = True,
        later: Context = (),
        pictured: bool = True,
    ) -> str:
        if self.processing.family.prefix_lm:
            if not pictured:
                raise ValueError(f"{self.processing.source} reads no prompt without a picture")
            system = f"{self._shown_system}\n" if self.system_message else ""
            return f"{system}{user}\n" + ("" if answer is None else f"{answer}{self.tokenizer.eos_token or ''}")
        content: list[dict[str, str]] = []
        if self.system_message and not system_role:
            content.append(_text(f"{self._shown_system}\n\n"))
        for place in range(len(self.views) if pictured else 0):
            content += [_text(self.labels[place])] if self.labels else []
            content.append({"type": "image"})
        messages: list[dict[str, Any]] = [{"role": "user", "content": [*content, _text(user)]}]
        if system_role:
            messages.insert(0, {"role": "system", "content": [_text(self._shown_system)]})
        messages += [{"role": role, "content": [_text(text)]} for role, text in later]
        if answer is not None:
            messages.append({"role": "assistant", "content": [_text(answer)]})
        template = _template_of(self.processing.processor)
        assert template is not None  # `NativeProcessing.of` refuses families without
        rendered: str = self.tokenizer.apply_chat_template(
            messages,
            chat_template=_SAME_DAY + template,
            tokenize=False,
            add_generation_prompt=answer is None and opens,
            enable_thinking=False,
        )
        if answer is None and rendered.rstrip().endswith("<think>"):  # of a model that always thinks
            rendered = f"{rendered.rstrip()}\n\n</think>\n\n"
        return rendered


def view_label_texts(views: Sequence[View]) -> tuple[str, ...]:
    """A few words before each view, which say where it looks.

    >>> from panollava.views.strategies import plan_views
    >>> view_label_texts(plan_views("anyres_e2p"))[:3]
    ('view 1 of 9, the whole panorama:', 'view 2 of 9, straight ahead:', 'view 3 of 9, 45° to the right:')
    """
    return tuple(f"view {number} of {len(views)}, {_where(view)}:" for number, view in enumerate(views, start=1))


def _where(view: View) -> str:
    if view.kind == "global":
        return "the whole panorama"
    if view.pitch_deg == 90:
        return "straight up"
    if view.pitch_deg == -90:
        return "straight down"
    yaw_deg = (view.yaw_deg + 180) % 360 - 180
    if yaw_deg == -180:
        side = "behind"
    elif yaw_deg:
        side = f"{abs(yaw_deg):g}° to the {'right' if yaw_deg > 0 else 'left'}"
    else:
        side = "straight ahead"
    return f"{side}, {abs(view.pitch_deg):g}° {'up' if view.pitch_deg > 0 else 'down'}" if view.pitch_deg else side


def native_prompt(config: ModelConfig, views: Sequence[View]) -> NativePrompt:
    """The prompt of a native model with this configuration: its image tokens are known before any weight is loaded.

    Raises ConfigError where the family cannot be used, with what it lacks, or does not take views of that size.
    """
    processing = NativeProcessing.of(config.vlm_source, config.trust_remote_code)
    size = processing.view_size(config.image_size)
    processing.check_views(size, len(views))
    return NativePrompt(processing, views, size, config.system_message, config.view_labels)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}
