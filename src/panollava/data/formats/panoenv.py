"""PanoEnv (CVPR 2026): JSON lines of conversations, each with the rule by which its answer is scored.

What counts stands in `<Answer>…</Answer>`; without the tag a row scores 0. The rules are the authors':

    yes_no    equal without case
    mcq       equal first word once articles and marks are left out ("Building A" and "Building B" are equal so)
    distance  the first number and its unit: 1 within 10 % of the truth, .5 within 20 %, else 0
    counting  equal numbers
    spatial   the share of the truth's dimensions (front/back, left/right, up/down) that agree
    default   equal without articles and case, or a Levenshtein ratio above .75

A row counts as accurate from .99 on, so that half a distance is never accurate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from panollava.answers.choice import words_of
from panollava.answers.grading import Grade
from panollava.answers.number import Quantity, read_numbers
from panollava.answers.part import plain
from panollava.data.details import Details
from panollava.data.formats.json_lines import SUFFIXES, first_record, read_records
from panollava.data.formats.rows import Columns, Format, Rule, Table, TableRow
from panollava.errors import DataError
from panollava.settings.choices import IMAGE_MARK

ACCURATE = 0.99
_KINDS = {
    "yes_no": "yes_no", "mcq": "choice", "distance": "number", "counting": "number", "spatial": "text",
    "default": "text",
}  # fmt: skip
_INSTRUCTIONS = {
    "yes_no": "Answer yes or no", "mcq": "Answer with the one that is right", "counting": "Answer with a number",
    "distance": "Answer with the distance in meters", "spatial": "Answer in a sentence",
    "default": "Answer in a sentence",
}  # fmt: skip
_TAG = re.compile(r"<answer>(.*?)</answer>", re.S | re.I)
_ARTICLES = re.compile(r"(?<![a-z])(?:the|an|a)(?![a-z])")
_SIDES = {
    "front": (0, re.compile(r"(?<![a-z])(?:in front|front|ahead)(?![a-z])")),
    "behind": (0, re.compile(r"(?<![a-z])(?:behind|back)(?![a-z])")),
    "left": (1, re.compile(r"(?<![a-z])left(?![a-z])")),
    "right": (1, re.compile(r"(?<![a-z])right(?![a-z])")),
    "above": (2, re.compile(r"(?<![a-z])(?:above|over|up)(?![a-z])")),
    "below": (2, re.compile(r"(?<![a-z])(?:below|beneath|under|underneath|down)(?![a-z])")),
}


def read_panoenv(path: Path, columns: Columns) -> Table:
    """Raises DataError for a file that is none of JSON lines, with the line; a record that lacks something is a row
    with a problem."""
    header = ("image", "question", "answer", "question_type", "accu_reward_method", "expected_answer")
    rows = [_row(path, line, record) for line, record in read_records(path)]
    if not rows:
        raise DataError(f"{path}: there are no rows in it")
    return Table(path, header, tuple(rows))


def _row(path: Path, line: int, record: Mapping[str, Any]) -> TableRow:
    said = {one.get("from"): one.get("value") for one in record.get("conversations") or () if isinstance(one, dict)}
    graded_by = [record.get(name) for name in ("question_type", "accu_reward_method", "expected_answer")]
    given = [record.get("image"), said.get("human"), said.get("gpt"), *graded_by]
    fields = tuple(value if isinstance(value, str) else "" for value in given)
    image, question, answer, category, method, expected = fields
    question = question.replace(IMAGE_MARK, "").strip()
    answer = answer or f"<Answer>{expected}</Answer>"
    names = ("image", "conversations (human)", "expected_answer")
    missing = [name for name, value in zip(names, (image, question, expected), strict=True) if not value]
    problem = f"missing value: {', '.join(missing)}" if missing else None
    if not problem and method not in _KINDS:
        problem = f"accu_reward_method is one of {', '.join(_KINDS)}, got {method!r}"
    if not problem and tagged(answer) != expected.strip():
        problem = f"expected_answer is {expected!r}, and the answer's tag holds {tagged(answer)!r}"
    if problem:
        return TableRow(str(path), line, fields, problem=problem)
    details = Details(
        answer_type=_KINDS[method], category=category, scoring=f"panoenv/{method}",
        answer_instruction=f"{_INSTRUCTIONS[method]}, inside <Answer></Answer>.",
    )  # fmt: skip
    return TableRow(str(path), line, fields, image, question, answer, details=details)


def tagged(text: str) -> str | None:
    """What stands in the answer's tag; None without one."""
    found = _TAG.search(text)
    return found[1].strip() if found else None


def _rule(score: Callable[[str, str], float | None]) -> Rule:
    """A rule on what both tags hold; None is an answer that cannot be read."""

    def graded(prediction: str, reference: str) -> Grade:
        said, truth = tagged(prediction), tagged(reference)
        truth = reference.strip() if truth is None else truth
        found = None if said is None else score(plain(said), plain(truth))
        if found is None:
            return Grade(0.0, False, False, truth=truth)
        return Grade(found, found >= ACCURATE, True, said or "", truth)

    return graded


def _yes_no(said: str, truth: str) -> float:
    return float(said.casefold().strip(" .") == truth.casefold().strip(" ."))


def _mcq(said: str, truth: str) -> float | None:
    first = _nouns(said)[:1]
    return float(first == _nouns(truth)[:1]) if first else None


def _nouns(text: str) -> list[str]:
    return _ARTICLES.sub(" ", words_of(text)).split()


def _distance(said: str, truth: str) -> float | None:
    """A number without a unit is in the truth's."""
    found, wanted = read_numbers(said), _metres(truth)
    if not found:
        return None
    if found[0].kind not in ("length", None) or not wanted.value:
        return float(found[0].value == wanted.value)
    value = found[0].value * (wanted.unit if found[0].kind is None else 1)
    error = abs(value - wanted.value) / abs(wanted.value)
    return 1.0 if error <= 0.1 + 1e-9 else 0.5 if error <= 0.2 + 1e-9 else 0.0


def _metres(truth: str) -> Quantity:
    found = read_numbers(truth)
    if not found:
        raise ValueError(f"the answer {truth!r} holds no distance")
    return found[0]


def _counting(said: str, truth: str) -> float | None:
    found, wanted = read_numbers(said), read_numbers(truth)
    if not wanted:
        raise ValueError(f"the answer {truth!r} holds no number")
    return float(found[0].value == wanted[0].value) if found else None


def _spatial(said: str, truth: str) -> float | None:
    """A dimension in which both ends are named agrees with neither."""
    found, wanted = _dimensions(said), _dimensions(truth)
    if not wanted:
        raise ValueError(f"the answer {truth!r} names no side")
    return sum(found.get(axis) == side for axis, side in wanted.items()) / len(wanted) if found else None


def _dimensions(text: str) -> dict[int, str]:
    found: dict[int, set[str]] = {}
    for side, (axis, pattern) in _SIDES.items():
        if pattern.search(text.casefold()):
            found.setdefault(axis, set()).add(side)
    return {axis: sides.pop() if len(sides) == 1 else "both" for axis, sides in found.items()}


def _default(said: str, truth: str) -> float | None:
    one, other = " ".join(_nouns(said)), " ".join(_nouns(truth))
    return float(one == other or levenshtein_ratio(one, other) > 0.75) if one else None


def levenshtein_ratio(one: str, other: str) -> float:
    """1 minus insertions and deletions (a replacement is both) over both lengths, as python-Levenshtein's `ratio`.

    >>> levenshtein_ratio("below the pipe", "below pipe")
    0.8333333333333334
    """
    if not one and not other:
        return 1.0
    row = [0] * (len(other) + 1)  # lengths of longest common subsequences
    for sign in one:
        before = 0
        for place, against in enumerate(other, start=1):
            before, row[place] = row[place], before + 1 if sign == against else max(row[place], row[place - 1])
    return 2 * row[-1] / (len(one) + len(other))


def _matches(path: Path) -> bool:
    record = first_record(path)
    return record is not None and "accu_reward_method" in record


PANOENV = Format(
    "panoenv",
    matches=_matches,
    read=read_panoenv,
    suffixes=SUFFIXES,
    rules={
        "yes_no": _rule(_yes_no), "mcq": _rule(_mcq), "distance": _rule(_distance), "counting": _rule(_counting),
        "spatial": _rule(_spatial), "default": _rule(_default),
    },
)  # fmt: skip
