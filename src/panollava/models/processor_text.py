"""The text side of a saved model's processor: questions and conversations become prompts, answers become text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, BatchFeature

from panollava.errors import CheckpointError, ConfigError
from panollava.files import read_json
from panollava.hub.folders import NATIVE_FILE
from panollava.models.config import ModelConfig
from panollava.models.prompt import ChatPrompt, Turn
from panollava.models.shapes import count_image_tokens
from panollava.settings.choices import IMAGE_MARK

if TYPE_CHECKING:
    from panollava.models.processor import PanoramaProcessor

_IMAGE_KEYS = ("image", "path", "url", "image_url")


def has_text_side(folder: Path) -> bool:
    """Whether a saved model's folder has a language model's tokenizer."""
    return (folder / "config.json").is_file() and ((folder / "language_model").is_dir() or is_saved_native(folder))


def is_saved_native(folder: str | Path) -> bool:
    """Whether the folder is of a native model that panollava has saved."""
    return (Path(folder) / NATIVE_FILE).is_file()


def list_of_panoramas(images: Any) -> list[Any]:
    """One panorama or a list of them; a panorama may be in a list of its own, as transformers writes batches."""
    if not isinstance(images, (list, tuple)):
        return [images]
    found = []
    for one in images:
        if isinstance(one, (list, tuple)):
            if len(one) != 1:
                raise ValueError(f"{len(one)} panoramas for one question: expected one")
            one = one[0]
        found.append(one)
    return found


@dataclass(frozen=True)
class TextSide:
    """A saved model's prompt."""

    prompt: ChatPrompt

    @classmethod
    def load(cls, folder: Path | None) -> TextSide:
        """Reads configurations and the tokenizer, no weights. Raises ConfigError, CheckpointError."""
        if folder is None or not has_text_side(folder):
            raise ConfigError(
                "this processor knows no tokenizer: read it from a whole model's folder "
                "(PanoramaProcessor.from_pretrained of what `panollava export` wrote)"
            )
        language = folder / "language_model"
        try:
            recorded = {**read_json(folder / "config.json")["model"], "trust_remote_code": False}
            config = ModelConfig.from_json(
                {**recorded, "vision_path": str(folder / "vision_encoder"), "language_path": str(language)}
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / 'config.json'} cannot be read: {error!r}") from error
        tokenizer = AutoTokenizer.from_pretrained(language)
        return cls(ChatPrompt(tokenizer, count_image_tokens(config), config.system_message))

    def pictures(self, processor: PanoramaProcessor, views: NDArray[np.uint8]) -> dict[str, Any]:
        """What the model takes of panoramas' views, uint8 [B, V, h, w, 3]."""
        return {"pixel_values": processor.pixels(views)}

    def batch(self, questions: Sequence[str]) -> dict[str, Any]:
        """Prompts of questions without context."""
        return self._collate([((), _without_mark(question)) for question in questions])

    def apply_chat_template(
        self,
        processor: PanoramaProcessor,
        conversation: Any,
        *,
        tokenize: bool = False,
        return_dict: bool = True,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        return_tensors: str = "pt",
        processor_kwargs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        """See `PanoramaProcessor.apply_chat_template`. Raises ValueError for conversations that cannot be asked."""
        single = bool(conversation) and isinstance(conversation[0], Mapping)
        talks = [conversation] if single else list(conversation)
        if continue_final_message or not add_generation_prompt:
            raise ValueError(
                "a conversation must end with the user's question: an answer that has begun is not continued"
            )
        read = [_read(talk) for talk in talks]
        side = self._with_system([system for *_, system in read])
        if not tokenize:
            texts = [side.prompt.text(question, context) for context, question, _, _ in read]
            return texts[0] if single else texts
        pixels = processor([panorama for _, _, panorama, _ in read], return_tensors=return_tensors)
        return BatchFeature({**pixels, **side._collate([(context, question) for context, question, *_ in read])})

    def _with_system(self, systems: Sequence[str | None]) -> TextSide:
        """This, or with the conversations' own system message."""
        if len(set(systems)) > 1:
            raise ValueError("the conversations of a batch have different system messages")
        return self if systems[0] is None else replace(self, prompt=self._prompt_with(systems[0]))

    def _prompt_with(self, system_message: str) -> ChatPrompt:
        return ChatPrompt(self.prompt.tokenizer, self.prompt.num_image_tokens, system_message)

    def _collate(self, asked: Sequence[tuple[Sequence[Turn], str]]) -> dict[str, Any]:
        sequences = [self.prompt.generation(question, tuple(context)) for context, question in asked]
        return dict(self.prompt.collate(sequences, side="left"))


def _read(talk: Any) -> tuple[tuple[Turn, ...], str, Any, str | None]:
    """Context, question, panorama and system message (None: the model's own) of a conversation."""
    turns: list[Turn] = []
    panoramas: list[Any] = []
    system: str | None = None
    for message in talk:
        role, content = message["role"], message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        texts = []
        for part in parts:
            if part.get("type") == "text":
                texts.append(str(part["text"]))
            elif part.get("type") in ("image", "image_url"):
                panoramas += [_named(part[key]) for key in _IMAGE_KEYS if part.get(key) is not None][:1]
            else:
                raise ValueError(f"a conversation holds text and one panorama, got a part of type {part.get('type')!r}")
        if role == "system":
            system = "\n".join(texts)
        else:
            turns.append((role, _without_mark("\n".join(texts))))
    roles = [role for role, _ in turns]
    if not turns or roles != [("user", "assistant")[place % 2] for place in range(len(turns))] or roles[-1] != "user":
        raise ValueError(
            f"a conversation is of user and assistant in turn and ends with the user's question, got {roles}"
        )
    if len(panoramas) != 1:
        raise ValueError(f"a conversation is about one panorama, got {len(panoramas)}")
    return tuple(turns[:-1]), turns[-1][1], panoramas[0], system


def _named(value: Any) -> Any:
    return value["url"] if isinstance(value, Mapping) else value


def _without_mark(text: str) -> str:
    return text.replace(IMAGE_MARK, " ").strip() if IMAGE_MARK in text else text
