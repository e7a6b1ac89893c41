"""What a judge is asked: a prompt with three places, filled for each scored answer.

There is one `Request` for each scored text. Options are shown as the model saw them, and a right option by its
letter and its words, so that a judge can tell what "B" means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from panollava.answers.grading import Question, read_truth
from panollava.answers.letters import letter
from panollava.data.details import Details
from panollava.data.prompting import prompt_of
from panollava.errors import EvaluationError
from panollava.evaluation.judging.prompt import Request
from panollava.evaluation.predictions import SHOWN
from panollava.evaluation.protocols import KEY, ScoredTexts


def requests_of(scored: ScoredTexts) -> list[Request]:
    """One request for each scored answer, in their order."""
    found = []
    for row, answer, references in zip(scored.rows, scored.predictions, scored.references, strict=True):
        try:
            details = Details.from_fields({name: value for name, value in row.items() if name != "sample_id"})
            shown = Details.from_fields({"options": row.get(SHOWN, "")}).options or details.options
            question = _question(row.get(KEY[1], ""), details, shown)
            truths = [_reference(one, details, shown) for one in dict.fromkeys(references)]
        except ValueError as error:
            raise EvaluationError(f"the row with the prediction {answer[:40]!r}: {error}") from error
        found.append(Request(question, _listed(truths), answer))
    return found


def _question(query: str, details: Details, shown: Sequence[str]) -> str:
    """The turns before it, the query, and its options one a line."""
    turns = [f"{'User' if role == 'user' else 'Assistant'}: {text}" for role, text in details.context_turns]
    asked = prompt_of(query, replace(details, answer_instruction=""), shown)
    return "\n".join([*turns, f"User: {asked}" if turns else asked])


def _reference(reference: str, details: Details, shown: Sequence[str]) -> str:
    """A right option as it is written in the question, any other reference as it is."""
    if details.answer_type != "choice" or not details.options or details.scoring:
        return reference
    option = details.options[read_truth(reference, Question("choice", details.options))]
    return f"{letter(list(shown).index(option))}. {option}"


def _listed(texts: Sequence[str]) -> str:
    """One text as it is, several with a dash each."""
    return texts[0] if len(texts) == 1 else "\n".join(f"- {text}" for text in texts)
