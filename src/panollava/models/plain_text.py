"""What people wrote is text: no token of control comes out of a question, an answer or a system message.

A tokenizer finds its control tokens (`<|im_end|>`, `</s>`, `<image>`) anywhere in what it is given, so that a question
could end its turn and open the assistant's. In: pieces of a prompt, each the template's or a person's. Out: ids in
which only the template's pieces name control tokens. Text that names none keeps the ids that the tokenizer gives it.

A fast tokenizer is copied with other names for its control tokens; the template's pieces are written with these names,
people's words are not, and the whole prompt is encoded at once, so that words and spaces meet as they always do. Any
other tokenizer gets people's text cut inside such names. Traded away there: tokens that would merge across the cuts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from itertools import count
from typing import Any

Piece = tuple[str, bool]
"""A part of a prompt, and whether a person wrote it."""

_LOOKS_LIKE_CONTROL = re.compile(r"<\|.*\|>|\[/?[A-Z_]+\]", re.DOTALL)


class PlainText:
    """Encodes people's text for one tokenizer (of transformers, with or without a fast backend)."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @cached_property
    def control(self) -> dict[int, str]:
        """The control tokens by id: special ones, and added ones that the chat template writes or that look like it.

        Added tokens that are ordinary text (runs of spaces, words) are none, nor is the token of unknown characters.
        """
        tokenizer = self.tokenizer
        template = tokenizer.chat_template if isinstance(getattr(tokenizer, "chat_template", None), str) else ""
        found = dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        for number, token in getattr(tokenizer, "added_tokens_decoder", {}).items():
            name = str(token)
            written = bool(name.strip()) and name in template and not name.isalnum()
            if getattr(token, "special", False) or written or _LOOKS_LIKE_CONTROL.fullmatch(name):
                found[int(number)] = name
        unknown = getattr(tokenizer, "unk_token_id", None)
        return {number: name for number, name in found.items() if number != unknown}

    def encode(self, text: str) -> list[int]:
        """The ids of what a person wrote, by itself."""
        ids = self._own(text)
        return ids if self.control.keys().isdisjoint(ids) else self.encode_pieces([(text, True)])

    def holds_control(self, text: str) -> bool:
        """Whether the tokenizer itself would read a control token in a person's text."""
        return not self.control.keys().isdisjoint(self._own(text))

    def encode_pieces(self, pieces: Sequence[Piece]) -> list[int]:
        """The ids of a prompt's pieces in their order.

        Raises ValueError where a person's text can be nothing but control.
        """
        if self._renamed is None:
            return [number for text, written in pieces for number in (self._cut(text) if written else self._own(text))]
        core, names = self._renamed
        for text, written in pieces:
            if written and any(name in text for name in names.values()):
                raise ValueError("a text holds characters of the private use area that stand for control tokens here")
        text = "".join(text if written else _replaced(text, names) for text, written in pieces)
        ids: list[int] = core.encode(text, add_special_tokens=False).ids
        return ids

    @cached_property
    def _renamed(self) -> tuple[Any, dict[str, str]] | None:
        """The fast backend with control tokens under names of the private use area, and these by the tokens' own; None
        where there is no such backend, or where it would give other ids."""
        from tokenizers import Tokenizer

        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            return None
        document = json.loads(backend.to_str())
        taken = set(backend.get_vocab(with_added_tokens=True))
        fresh = (name for number in count() if (name := f"\ue000{number}\ue001") not in taken)
        names = {name: next(fresh) for name in self.control.values()}
        for token in document["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
            if token["content"] in names.values():
                token["normalized"] = False  # the new names are nobody's to write differently
        _rename_vocabulary(document["model"], names)
        document |= {"post_processor": None, "truncation": None, "padding": None, "decoder": None}
        try:
            core = Tokenizer.from_str(json.dumps(document))
        except Exception:
            return None
        same = all(core.token_to_id(names[name]) == number for number, name in self.control.items())
        return (core, names) if same else None

    def _cut(self, text: str) -> list[int]:
        """People's text in parts, each of which names no control token: cut in halves until none does."""
        ids = self._own(text)
        if self.control.keys().isdisjoint(ids):
            return ids
        inside = self._first_control(text)
        if inside is None:
            raise ValueError(f"{text!r} is a control token of the tokenizer, and nothing else")
        return self._own(text[:inside]) + self._cut(text[inside:])

    def _first_control(self, text: str) -> int | None:
        """Where to cut: the longest beginning that is plain text, at least one character; None where there is none."""
        low, high = 0, len(text)
        while low + 1 < high:  # the beginning of length `low` is plain, the one of length `high` is not
            middle = (low + high) // 2
            if self.control.keys().isdisjoint(self._own(text[:middle])):
                low = middle
            else:
                high = middle
        return low or None

    def _own(self, text: str) -> list[int]:
        """What the tokenizer itself makes of a text."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return ids


def _replaced(text: str, names: dict[str, str]) -> str:
    """A template's text with the control tokens' other names, the longest token first."""
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(pattern, lambda found: names[found[0]], text) if pattern else text


def _rename_vocabulary(model: dict[str, Any], names: dict[str, str]) -> None:
    """Control tokens that the model itself has among its pieces, under their other names."""
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(entry[0], entry[0]), *entry[1:]] for entry in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
