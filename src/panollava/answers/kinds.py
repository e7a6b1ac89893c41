"""The kinds of answer that a question can want."""

from __future__ import annotations

from typing import Literal, get_args

AnswerType = Literal["text", "yes_no", "choice", "number", "direction", "point", "box"]
ANSWER_TYPES: tuple[str, ...] = get_args(AnswerType)
