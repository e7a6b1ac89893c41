"""report_samples.html: panoramas with answers beside references and the blind answer.

Samples are drawn at random with a fixed seed, never picked; of those that were drawn the wrong answers come first, of
free texts those that share least with a reference (ROUGE-L).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.answers.grading import Grade, Question, Tolerances, read_truth
from panollava.answers.letters import letter
from panollava.data.details import Details
from panollava.evaluation.accuracy import ANGLES, grade_samples
from panollava.evaluation.comparison.query_types import types_of
from panollava.evaluation.metrics.ptb import PtbTokens
from panollava.evaluation.metrics.rouge import rouge_l
from panollava.evaluation.metrics.sums import ratio
from panollava.evaluation.metrics.texts import TextSet
from panollava.evaluation.predictions import SHOWN
from panollava.evaluation.protocols import apply_protocol, collapse, question_of
from panollava.reports.rendering import panorama, write_page

SAMPLES = 24
_SEED = 0
_REFERENCES = 4

Rows = Sequence[Mapping[str, str]]


def write_samples_page(
    rows: Rows, blind_rows: Rows | None, exact: bool, path: Path, experiment: str, root: Path = Path(),
    tolerances: Tolerances | None = None,
) -> None:  # fmt: skip
    """Panoramas with question, answer, references and the blind answer. `exact`: an answer is right or wrong.

    Where it is not, an answer that differs from its references is shown without a mark. Pictures lie below `root`.
    `tolerances` are those of the scores.
    """
    scored = apply_protocol(rows, "grouped")
    graded = grade_samples(scored, tolerances or Tolerances())
    blind = {} if blind_rows is None else {question_of(row): row["prediction"] for row in blind_rows}
    count = min(SAMPLES, scored.num_samples)
    places = sorted(random.Random(_SEED).sample(range(scored.num_samples), count))
    types = types_of(scored.rows)
    kinds = [kind for kind, _ in Counter(types[i] for i in places).most_common()]
    samples: list[dict[str, Any]] = []
    for i in places:
        row, references = scored.rows[i], scored.references[i]
        answer, blind_answer = collapse(row["prediction"]), blind.get(question_of(row))
        one = graded.grades[i]
        mark = _mark_of_grade(one) or mark_of(answer, references, exact)
        samples.append(
            {
                "picture": panorama(root / row["image_path"]),
                "query": row["original_query"],
                "turns": turns_of(row),
                "options": options_of(row),
                "answer": answer,
                "error": row.get("error", ""),
                "mark": mark,
                "marks": _places(one, graded.details[i], references, answer),
                "kind": 1 + kinds.index(types[i]),
                "references": references,
                "blind": None if blind_answer is None else collapse(blind_answer),
            }
        )
    write_page(
        "samples", path, title=f"{experiment}: panoramas, answers, references",
        samples=_worst_first(samples),
        kinds=[{"name": kind, "count": sum(types[i] == kind for i in places)} for kind in kinds],
        order="Wrong answers come first." if any(one["mark"] for one in samples)
        else "Those that share least with a reference come first (ROUGE-L).",
        total=scored.num_samples, most_references=_REFERENCES,
    )  # fmt: skip


def options_of(row: Mapping[str, str]) -> list[str]:
    """The options of a question, each behind its letter, in the order in which the model saw them."""
    options = Details.from_fields({"options": row.get(SHOWN) or row.get("options", "")}).options
    return [f"{letter(place)}. {option}" for place, option in enumerate(options)]


def turns_of(row: Mapping[str, str]) -> list[dict[str, str]]:
    """The turns of a conversation before its question, which the model was given."""
    turns = Details.from_fields({"context_turns": row.get("context_turns", "")}).context_turns
    return [{"who": "asked" if role == "user" else "answered", "text": text} for role, text in turns]


def _worst_first(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Wrong answers first, right ones last; between them those without a mark, by what they share with a reference."""
    scored = rouge_l(
        TextSet([one["answer"] for one in samples], [one["references"] for one in samples], "grouped", PtbTokens())
    )
    assert scored.samples is not None
    shared = ratio(scored.samples.per_sample)

    def rank(i: int) -> tuple[int, float]:
        mark = samples[i]["mark"]
        return (1, float(shared[i])) if mark is None else (2 * (mark["kind"] == "right"), 0.0)

    return [samples[i] for i in sorted(range(len(samples)), key=rank)]


def _places(one: Grade | None, about: Details, references: Sequence[str], answer: str) -> list[dict[str, Any]]:
    """Where a direction or a point is (right) and where the answer says (wrong), in % of the panorama."""
    if one is None or about.scoring or about.answer_type not in ANGLES:
        return []
    question = Question(about.answer_type, about.options, (), (about.width, about.height))
    found = [("right", "true: ", references[0])]
    if one.readable and not one.accurate:
        found.append(("wrong", "answered: ", answer))
    marks = []
    for kind, label, text in found:
        try:
            place = read_truth(text, question)
        except ValueError:
            continue
        marks.append(
            {
                "kind": kind,
                "text": label + text,
                "left": round(50 + place.yaw_deg / 3.6, 1),
                "top": round(50 - place.pitch_deg / 1.8, 1),
            }
        )
    return marks


def _mark_of_grade(one: Grade | None) -> dict[str, str] | None:
    """The label of an answer that is right or wrong; None of a text."""
    if one is None:
        return None
    if not one.readable:
        return {"kind": "wrong", "text": "✗ cannot be read"}
    return {"kind": "right", "text": "✓ right"} if one.accurate else {"kind": "wrong", "text": "✗ wrong"}


def mark_of(answer: str, references: Sequence[str], exact: bool) -> dict[str, str] | None:
    """The label of an answer: right or wrong where answers are exact, else only that it is one of the references."""
    if answer in references:
        return {"kind": "right", "text": "✓ right" if exact else "✓ a reference"}
    return {"kind": "wrong", "text": "✗ wrong"} if exact else None
