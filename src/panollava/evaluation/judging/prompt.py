"""The prompt of a judge: a text file with three places, filled for each scored answer. No library is imported here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from panollava.errors import ConfigError
from panollava.files import digest_of

BUILT_IN = Path(__file__).with_name("prompt.txt")
PLACES = ("question", "reference", "answer")
_PLACE = re.compile(r"\{(question|reference|answer)\}")


@dataclass(frozen=True)
class Request:
    """An answer to be scored. `answer` "" is scored 0 without asking."""

    question: str
    reference: str
    answer: str


@dataclass(frozen=True)
class JudgePrompt:
    """The text of a prompt file, with `{question}`, `{reference}` and `{answer}`; other braces are text."""

    text: str

    @classmethod
    def read(cls, path: Path | None = None) -> JudgePrompt:
        """A prompt file, or the built-in one. Raises ConfigError that names the file and what it lacks."""
        source = path or BUILT_IN
        try:
            text = source.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
            raise ConfigError(f"evaluation.judge.prompt_file: {source} cannot be read: {reason}") from error
        found = set(_PLACE.findall(text))
        if lacking := [f"{{{name}}}" for name in PLACES if name not in found]:
            raise ConfigError(
                f"evaluation.judge.prompt_file: {source} lacks {', '.join(lacking)}, where each row's own text goes"
            )
        return cls(text.strip())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def filled(self, request: Request) -> str:
        """The prompt about one answer. What people and models wrote is never searched for places."""
        return _PLACE.sub(lambda place: str(getattr(request, place[1])), self.text)


def key_of(judge: str, prompt: JudgePrompt, request: Request) -> str:
    """Under what a judgement is kept: `judge` says which weights answer, and how."""
    return digest_of([judge, prompt.sha256, request.question, request.reference, request.answer])
