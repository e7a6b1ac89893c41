"""A question's details completed and checked when data is read, before anything is trained on them."""

from __future__ import annotations

from dataclasses import replace

from panollava.answers.letters import bare_letter, letter, place_of
from panollava.data.details import Details


def settle(annotation: str, details: Details, given_type: bool) -> Details:
    """The details with the answer type that follows from them.

    `given_type` says that the data itself names the type. Raises ValueError for an answer that cannot be one of its
    kind, with what is allowed.
    """
    if details.options and details.answer_type == "text" and not given_type:
        details = replace(details, answer_type="choice")
    found = bare_letter(annotation)
    is_letter = found is not None if details.answer_type == "choice" else _looks_like_a_choice(annotation, found)
    may_be_text = details.answer_type == "text" and given_type
    if is_letter and not details.options and not details.scoring and not may_be_text:
        raise ValueError(
            f"the answer {annotation!r} is a letter, and the row has no options. Add them (columns A, B, … or options, "
            "a JSON list), or write answer_type: text where the letter itself is the answer"
        )
    if details.options and details.answer_type == "choice" and found and place_of(found) >= len(details.options):
        last = letter(len(details.options) - 1)
        raise ValueError(f"the answer {annotation!r} is none of the options A to {last}")
    return details


def _looks_like_a_choice(annotation: str, found: str | None) -> bool:
    """Whether an answer of unknown kind is a letter as benchmarks write it: A to J, a small one in brackets or "b."."""
    return found is not None and found in "ABCDEFGHIJ" and annotation.strip() != found.lower()
