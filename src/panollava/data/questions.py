"""A question's details completed and checked when data is read, before anything is trained on them."""

from __future__ import annotations

from dataclasses import replace

from panollava.answers.grading import Question, read_truth
from panollava.answers.letters import bare_letter
from panollava.answers.places import notation_of
from panollava.data.details import Details


def settle(annotation: str, details: Details, given_type: bool) -> Details:
    """The details with the answer type that follows from them.

    `given_type` says that the data itself names the type. Raises ValueError for an answer that is none of its kind;
    points and boxes, which may need the panorama's size, are left to `check_places`.
    """
    if details.options and details.answer_type == "text" and not given_type:
        details = replace(details, answer_type="choice")
    if details.scoring:
        return details
    found = bare_letter(annotation)
    is_letter = found is not None if details.answer_type == "choice" else _looks_like_a_choice(annotation, found)
    may_be_text = details.answer_type == "text" and given_type
    if is_letter and not details.options and not may_be_text:
        raise ValueError(
            f"the answer {annotation!r} is a letter, and the row has no options. Add them (columns A, B, … or options, "
            "a JSON list), or write answer_type: text where the letter itself is the answer"
        )
    if details.answer_type not in ("text", "point", "box"):
        read_truth(annotation, _question(details))
    return details


def needs_size(annotation: str, details: Details) -> bool:
    """Whether the answer is a point or a box in pixels of a panorama whose size the row does not say."""
    if details.answer_type not in ("point", "box") or details.scoring or (details.width and details.height):
        return False
    return details.answer_type == "box" or notation_of(annotation) == "pixels"


def check_places(annotation: str, details: Details) -> None:
    """Raise ValueError for the answer of a point or box question that is none, once the panorama's size is known."""
    if details.answer_type in ("point", "box") and not details.scoring:
        read_truth(annotation, _question(details))


def _question(details: Details) -> Question:
    return Question(details.answer_type, details.options, size=(details.width, details.height))


def _looks_like_a_choice(annotation: str, found: str | None) -> bool:
    """Whether an answer of unknown kind is a letter as benchmarks write it: A to J, a small one in brackets or "b."."""
    return found is not None and found in "ABCDEFGHIJ" and annotation.strip() != found.lower()
