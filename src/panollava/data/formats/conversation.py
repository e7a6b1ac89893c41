"""Conversations as LLaVA's and transformers' files have them, taken apart into questions with their answers.

`conversations` are `{"from": "human" | "gpt", "value"}`, `messages` are `{"role", "content"}`, whose content is a text
or a list of `{"type": "text" | "image", …}`. Each answer is a row of its own, the turns before it are its context.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from panollava.data.details import Turn
from panollava.data.formats.pictures import Picture, pictures_in
from panollava.settings.choices import IMAGE_MARK

CONVERSATION_KEYS = ("conversations", "messages", "conversation")
_ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "chatgpt": "assistant", "bot": "assistant", "system": "system",
}  # fmt: skip
_MARKS = re.compile(rf"\s*{IMAGE_MARK}\s*")
_MEDIA_MARK = re.compile(r"<(video|audio|sound|speech)>")


@dataclass(frozen=True)
class Exchange:
    """A question, its answer (empty where there is none) and the turns before them."""

    query: str
    answer: str
    context: tuple[Turn, ...]


@dataclass(frozen=True)
class Conversation:
    """The exchanges of a record, the pictures that stand in its contents, and whether it has a system message."""

    exchanges: tuple[Exchange, ...]
    pictures: tuple[Picture, ...]
    has_system: bool


def read_conversation(turns: object) -> Conversation:
    """Raises ValueError, which says what is wrong with the conversation."""
    if not isinstance(turns, Sequence) or isinstance(turns, (str, bytes)) or not turns:
        raise ValueError("conversation not usable: expected a list of turns")
    spoken: list[Turn] = []
    pictures: list[Picture] = []
    marks = 0
    for number, turn in enumerate(turns, start=1):
        role, content = _turn(turn, number)
        text, found, places = _content(content, number)
        pictures += found
        marks += places
        if found_mark := _MEDIA_MARK.search(text):
            raise ValueError(f"{found_mark[1]}: not read, expected one panorama")
        if role == "user":
            marks += len(_MARKS.findall(text))
            text = _without_marks(text)
        spoken.append((role, text))
    if marks > 1:
        raise ValueError(f"more than one image: {marks} places for images, expected one panorama")
    said = [turn for turn in spoken if turn[0] != "system"]
    return Conversation(tuple(_exchanges(said)), tuple(pictures), len(said) < len(spoken))


def _turn(turn: object, number: int) -> tuple[str, object]:
    if not isinstance(turn, Mapping):
        raise ValueError(f"conversation not usable: turn {number} is a {type(turn).__name__}, expected an object")
    said_by = turn.get("from", turn.get("role"))
    role = _ROLES.get(str(said_by).strip().casefold())
    if role is None:
        raise ValueError(
            f"conversation not usable: turn {number} is by {said_by!r}, expected {', '.join(dict.fromkeys(_ROLES))}"
        )
    return role, turn.get("value", turn.get("content"))


def _content(content: object, number: int) -> tuple[str, list[Picture], int]:
    """The text of a turn, the pictures in it, and how many places it has for pictures that stand elsewhere."""
    if content is None:
        return "", [], 0
    if isinstance(content, str):
        return content, [], 0
    if not isinstance(content, Sequence):
        raise ValueError(
            f"conversation not usable: turn {number} holds a {type(content).__name__}, expected a text or a list"
        )
    texts: list[str] = []
    pictures: list[Picture] = []
    places = 0
    for part in content:
        if isinstance(part, str):
            texts.append(part)
            continue
        kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
        if kind == "text":
            texts.append(str(part.get("text") or ""))
        elif kind in ("image", "image_url"):
            places += 1
            pictures += pictures_in({key: part.get(key) for key in ("bytes", "path", "url", "image_url", "image")})
        else:
            raise ValueError(f"{kind}: not read, expected one panorama and text (turn {number})")
    return "\n".join(texts), pictures, places


def _without_marks(text: str) -> str:
    """The text without `<image>`; what has no mark stays to the character."""
    if IMAGE_MARK not in text:
        return text
    return _MARKS.sub(lambda found: "\n" if "\n" in found[0] else " ", text).strip()


def _exchanges(said: list[Turn]) -> list[Exchange]:
    for number, (role, _) in enumerate(said):
        expected = "assistant" if number % 2 else "user"
        if role != expected:
            raise ValueError(
                f"conversation not usable: turn {number + 1} is by the {role}, expected user and assistant in turn"
            )
    found = []
    for place in range(0, len(said), 2):
        answer = said[place + 1][1] if place + 1 < len(said) else ""
        found.append(Exchange(said[place][1], answer, tuple(said[:place])))
    return found
