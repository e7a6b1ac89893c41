"""The prompt template shared by training, prediction and measures: what a model is asked and trained to answer.

Builds the text of the user's turn from a query and its details: the query, its options one per line (`A. …`), and the
kind of answer expected. A plain caption's query is unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from panollava.answers.choice import words_of
from panollava.answers.grading import Question, read_truth
from panollava.answers.letters import letter
from panollava.answers.places import notation_of
from panollava.data.details import Details

_INSTRUCTIONS = {
    "yes_no": "Answer yes or no.",
    "number": "Answer with a number and its unit, if it has one.",
    "direction": "Answer with the direction: degrees, or words such as front, right, behind, left, above.",
}


def prompt_of(query: str, details: Details, shown: Sequence[str] = ()) -> str:
    """The user's turn. `shown` are the row's options in the order in which they are shown, if that is another one.

    >>> print(prompt_of("Which is nearer?", Details("choice", ("cat", "dog"), answer_instruction="Answer by letter.")))
    Which is nearer?
    A. cat
    B. dog
    Answer by letter.
    """
    lines = [f"{letter(place)}. {option}" for place, option in enumerate(shown or details.options)]
    return "\n".join([query, *lines, *([details.answer_instruction] if details.answer_instruction else [])])


def target_of(annotation: str, details: Details, shown: Sequence[str] = ()) -> str:
    """What the model is taught to answer: the letter where the annotation is an option's words, else the annotation.

    Where the options are `shown` in another order, it is the letter that the right one has there, however the
    annotation names it.

    >>> target_of("dog", Details("choice", ("cat", "dog"))), target_of("It barks: B", Details("choice", ("cat", "dog")))
    ('B', 'It barks: B')
    >>> target_of("B", Details("choice", ("cat", "dog")), shown=("dog", "cat"))
    'A'
    """
    if details.answer_type == "choice" and details.options and not details.scoring:
        if shown:
            right = read_truth(annotation, Question("choice", details.options))
            return letter(list(shown).index(details.options[right]))
        words = [words_of(option) for option in details.options]
        if words.count(words_of(annotation)) == 1:
            return letter(words.index(words_of(annotation)))
    return annotation


def instructed(annotation: str, details: Details, instruct: bool) -> Details:
    """The details with the sentence about the kind of answer: their own, or the one of that kind; none where `instruct`
    (`evaluation.answer_instruction`) is false."""
    if not instruct:
        return replace(details, answer_instruction="")
    if details.answer_instruction:
        return details
    return replace(details, answer_instruction=instruction_of(annotation, details))


def instruction_of(annotation: str, details: Details) -> str:
    """The sentence about the kind of answer that a question wants, "" for a text and under a rule of its own.

    All that the answer reveals is whether places are counted in degrees or in pixels.
    """
    kind = details.answer_type
    if details.scoring or kind == "text":
        return ""
    if kind == "choice":
        return "Answer with the letter." if details.options else "Answer in a few words."
    size = f"{details.width} x {details.height}"
    if kind == "box":
        return f"Answer with the box [x1, y1, x2, y2] in pixels of the {size} panorama."
    if kind == "point":
        if notation_of(annotation) == "pixels":
            return f"Answer with the point [x, y] in pixels of the {size} panorama."
        return "Answer with the point as yaw and pitch in degrees."
    return _INSTRUCTIONS[kind]
