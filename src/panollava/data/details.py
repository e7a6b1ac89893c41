"""What a row may carry beside image, query and annotation: the parts of a question with a right answer.

Fields of prepared.csv and of predictions.csv, by column name, become `Details` and back. A plain caption has none of
them, and its files none of these columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from panollava.answers.kinds import ANSWER_TYPES

Turn = tuple[str, str]
"""(role, text) of one turn of a conversation; role is `user` or `assistant`."""


@dataclass(frozen=True)
class Details:
    """The further columns of a row, each at its default where the row has none.

    Args:
        answer_type: one of `answers.kinds.ANSWER_TYPES`.
        options: what can be chosen, A first.
        category: the name under which the row's score is reported too.
        sample_id: the row's name in its own data set.
        width: of the panorama in pixels that the row's points and boxes count in; 0 where they count in none.
        height: the same, downwards.
        answer_instruction: what the prompt says about the kind of answer that is wanted, "" for nothing.
        scoring: the rule of a benchmark's authors that scores the row, `FORMAT/RULE`; "" for the answer type's own.
        context_turns: the turns of the conversation before the query.
    """

    answer_type: str = "text"
    options: tuple[str, ...] = ()
    category: str = ""
    sample_id: str = ""
    width: int = 0
    height: int = 0
    answer_instruction: str = ""
    scoring: str = ""
    context_turns: tuple[Turn, ...] = ()

    def to_fields(self) -> dict[str, str]:
        """The columns that are not at their default, as text."""
        return {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, tuple) else str(value)
            for name in DETAIL_COLUMNS
            if (value := getattr(self, name)) != getattr(NO_DETAILS, name)
        }

    @classmethod
    def from_fields(cls, columns: Mapping[str, str]) -> Details:
        """The inverse of `to_fields`; other columns are not read, empty ones count as absent.

        Raises ValueError, which names the column and what is allowed.
        """
        if not columns:
            return NO_DETAILS
        given = {name: text for name in DETAIL_COLUMNS if (text := columns.get(name, "")).strip()}
        if not given:
            return NO_DETAILS
        values: dict[str, Any] = dict(given)
        if "answer_type" in given:
            values["answer_type"] = given["answer_type"].strip().casefold()
            if values["answer_type"] not in ANSWER_TYPES:
                raise ValueError(f"answer_type is one of {', '.join(ANSWER_TYPES)}, got {given['answer_type']!r}")
        for name in ("width", "height"):
            if name in given:
                values[name] = _size(name, given[name])
        if "options" in given:
            values["options"] = tuple(_texts("options", given["options"]))
        if "context_turns" in given:
            values["context_turns"] = _turns(given["context_turns"])
        return cls(**values)


NO_DETAILS = Details()
DETAIL_COLUMNS = tuple(field.name for field in fields(Details))
"""The further columns in the order in which prepared.csv and predictions.csv have them."""


def columns_of(rows: Iterable[Details]) -> tuple[str, ...]:
    """The further columns that at least one of the rows needs."""
    used: set[str] = set()
    for details in rows:
        if details is not NO_DETAILS:
            used |= details.to_fields().keys()
    return tuple(name for name in DETAIL_COLUMNS if name in used)


def _size(name: str, text: str) -> int:
    try:
        size = int(float(text)) if float(text) == int(float(text)) else 0
    except (ValueError, OverflowError):
        size = 0
    if size < 1:
        raise ValueError(f"{name} is a number of pixels of at least 1, got {text!r}")
    return size


def _texts(name: str, text: str) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, (str, int, float)) for one in found) or not found:
        raise ValueError(f'{name} is a JSON list of texts such as ["left", "right"], got {text[:80]!r}')
    return [one if isinstance(one, str) else json.dumps(one) for one in found]


def _turns(text: str) -> tuple[Turn, ...]:
    try:
        found = json.loads(text)
        turns = tuple((str(role), str(said)) for role, said in found)
    except (ValueError, TypeError, RecursionError):
        turns = (("", ""),)
    if not all(role in ("user", "assistant") for role, _ in turns):
        raise ValueError(f'context_turns is a JSON list of ["user" or "assistant", text], got {text[:80]!r}')
    return turns
