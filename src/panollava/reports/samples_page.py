"""report_samples.html: panoramas with answers beside references and the blind answer.

Samples are drawn at random with a fixed seed, never picked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from panollava.answers.grading import Grade, Tolerances
from panollava.evaluation.accuracy import grade_samples
from panollava.evaluation.protocols import apply_protocol, collapse, question_of
from panollava.reports.rendering import panorama, write_page

SAMPLES = 12
_SEED = 0
_REFERENCES = 4

Rows = Sequence[Mapping[str, str]]


def write_samples_page(
    rows: Rows, blind_rows: Rows | None, exact: bool, path: Path, experiment: str, root: Path = Path()
) -> None:
    """Panoramas with question, answer, references and the blind answer. `exact`: an answer is right or wrong.

    Where it is not, an answer that differs from its references is shown without a mark. Pictures lie below `root`.
    """
    scored = apply_protocol(rows, "grouped")
    graded = grade_samples(scored, Tolerances())
    blind = {} if blind_rows is None else {question_of(row): row["prediction"] for row in blind_rows}
    count = min(SAMPLES, scored.num_samples)
    samples = []
    for i in sorted(random.Random(_SEED).sample(range(scored.num_samples), count)):
        row, references = scored.rows[i], scored.references[i]
        answer, blind_answer = collapse(row["prediction"]), blind.get(question_of(row))
        samples.append(
            {
                "picture": panorama(root / row["image_path"]),
                "query": row["original_query"],
                "answer": answer,
                "error": row.get("error", ""),
                "mark": _mark_of_grade(graded.grades[i]) or mark_of(answer, references, exact),
                "references": references,
                "blind": None if blind_answer is None else collapse(blind_answer),
            }
        )
    write_page(
        "samples", path, title=f"{experiment}: panoramas, answers, references", samples=samples,
        total=scored.num_samples, most_references=_REFERENCES,
    )  # fmt: skip


def _mark_of_grade(one: Grade | None) -> dict[str, str] | None:
    """What is said of an answer that is right or wrong; None of a text."""
    if one is None:
        return None
    if not one.readable:
        return {"kind": "wrong", "text": "✗ cannot be read"}
    return {"kind": "right", "text": "✓ right"} if one.accurate else {"kind": "wrong", "text": "✗ wrong"}


def mark_of(answer: str, references: Sequence[str], exact: bool) -> dict[str, str] | None:
    """What is said of an answer: right or wrong where answers are exact, else only that it is one of the references."""
    if answer in references:
        return {"kind": "right", "text": "✓ right" if exact else "✓ a reference"}
    return {"kind": "wrong", "text": "✗ wrong"} if exact else None
