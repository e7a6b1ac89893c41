"""Grade a model's answer against the reference: a score in [0, 1].

An answer that cannot be read as one of its kind is `unreadable` and scores 0; nothing is guessed for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from panollava.answers.boxes import iou
from panollava.answers.choice import read_choice, words_of
from panollava.answers.direction import read_direction
from panollava.answers.number import Quantity, read_number
from panollava.answers.part import abstains, after_cue, answer_part
from panollava.answers.places import Size, notation_of, read_box, read_point
from panollava.answers.sphere import Direction, angle_between_deg
from panollava.answers.yes_no import read_yes_no

ACCURATE_IOU = 0.5
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Tolerances:
    """When a number counts as right (relative; counts must be equal), and a direction (degrees on the sphere)."""

    number: float = 0.1
    angle_deg: float = 22.5


@dataclass(frozen=True)
class Question:
    """What a row says of the answer that it wants: see `data.details.Details`.

    `shown` are the options in the order in which the model saw them, where that was another one.
    """

    answer_type: str
    options: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    size: Size = (0, 0)


@dataclass(frozen=True)
class Grade:
    """The score of one answer.

    Args:
        score: in [0, 1]; of a box the spherical IoU.
        accurate: whether it counts as right.
        readable: whether an answer of the wanted kind was found.
        said: what was read, as text for tables; "" where nothing was.
        truth: the same of the reference.
        error_deg: the great-circle error of a direction or a point; None for other kinds and unreadable answers.
    """

    score: float
    accurate: bool
    readable: bool
    said: str = ""
    truth: str = ""
    error_deg: float | None = None


def grade(
    prediction: str, references: Sequence[str], question: Question, tolerances: Tolerances | None = None
) -> Grade:
    """The best grade over the references. Raises ValueError for a reference that is no answer of its kind.

    >>> grade("I think it is (b).", ["B"], Question("choice", ("cat", "dog")))
    Grade(score=1.0, accurate=True, readable=True, said='B', truth='B', error_deg=None)
    """
    tolerances = tolerances or Tolerances()
    kind = _KINDS[question.answer_type]
    grades = []
    for reference in dict.fromkeys(references):
        truth = read_truth(reference, question)
        said = _read(kind, prediction, question, reference)
        if said is None:
            grades.append(Grade(0.0, False, False, truth=kind.show(truth)))
        else:
            grades.append(kind.compare(said, truth, tolerances))
    return max(grades, key=lambda one: (one.accurate, one.score, one.readable, -(one.error_deg or 0.0)))


def read_truth(reference: str, question: Question) -> Any:
    """The value of a reference. Raises ValueError where it is no answer of its kind."""
    kind = _KINDS[question.answer_type]
    value = _read(kind, reference, Question(question.answer_type, question.options, (), question.size), reference)
    if value is None:
        listed = f" of {len(question.options)} options" if question.options else ""
        raise ValueError(f"the answer {reference!r} cannot be read as {kind.name}{listed}")
    return value


@dataclass(frozen=True)
class _Kind:
    """`read` takes a plain text, the question and the reference; `compare` takes what it gave, twice."""

    name: str
    read: Callable[[str, Question, str], Any]
    compare: Callable[[Any, Any, Tolerances], Grade]
    show: Callable[[Any], str]


def _read(kind: _Kind, text: str, question: Question, reference: str) -> Any:
    """What a text answers: behind its last "the answer is" where that can be read, else anywhere in it."""
    part = answer_part(text)
    behind = after_cue(part)
    if behind and abstains(behind) and not question.options:  # of options one may say so
        return None
    value = kind.read(behind, question, reference) if behind else None
    return kind.read(part, question, reference) if value is None and part else value


def _choice(text: str, question: Question, reference: str) -> int | str | None:
    """The place of the option in the row's own order; without options, the words."""
    if not question.options:
        return words_of(text) or None
    place = read_choice(text, question.shown or question.options)
    if place is None or not question.shown:
        return place
    return question.options.index(question.shown[place])


def _number(text: str, question: Question, reference: str) -> Quantity | None:
    wanted = read_number(answer_part(reference))
    return read_number(text, wanted.kind if wanted else None)


def _exact(said: Any, truth: Any, _: Tolerances, show: Callable[[Any], str]) -> Grade:
    return Grade(float(said == truth), bool(said == truth), True, show(said), show(truth))


def _compare_numbers(said: Quantity, truth: Quantity, tolerances: Tolerances) -> Grade:
    """Where one has no unit the other's is meant; a quantity of another kind is wrong."""
    comparable = said.kind == truth.kind or None in (said.kind, truth.kind)
    value = said.value * (truth.unit if said.kind is None else 1 / said.unit if truth.kind is None else 1)
    allowed = 0.0 if truth.whole else tolerances.number
    near = abs(value - truth.value) <= allowed * abs(truth.value) * (1 + _ROUNDING) + _ROUNDING * abs(truth.value)
    return Grade(float(comparable and near), comparable and near, True, _shown_number(said), _shown_number(truth))


def _compare_directions(said: Direction, truth: Direction, tolerances: Tolerances) -> Grade:
    error = angle_between_deg(said, truth)
    near = error <= tolerances.angle_deg + _ROUNDING
    return Grade(float(near), near, True, _shown_direction(said), _shown_direction(truth), error)


def _compare_boxes(said: Any, truth: Any, _: Tolerances) -> Grade:
    overlap = iou(said, truth)
    return Grade(overlap, overlap >= ACCURATE_IOU - _ROUNDING, True, str(said), str(truth))


def _shown_choice(value: int | str) -> str:
    return chr(ord("A") + value) if isinstance(value, int) else value


def _shown_yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _shown_number(value: Quantity) -> str:
    unit = {"length": " m", "angle": "°", "share": " %", None: ""}.get(value.kind, f" {value.kind}")
    return f"{value.value:g}{unit}"


def _shown_direction(value: Direction) -> str:
    return f"yaw {value.yaw_deg:g}, pitch {value.pitch_deg:g}"


_KINDS = {
    "yes_no": _Kind(
        "yes or no", lambda text, q, r: read_yes_no(text),
        lambda a, b, t: _exact(a, b, t, _shown_yes_no), _shown_yes_no),
    "choice": _Kind("one", _choice, lambda a, b, t: _exact(a, b, t, _shown_choice), _shown_choice),
    "number": _Kind("a number", _number, _compare_numbers, _shown_number),
    "direction": _Kind("a direction", lambda text, q, r: read_direction(text), _compare_directions, _shown_direction),
    "point": _Kind(
        "a point", lambda text, q, r: read_point(text, q.size, notation_of(answer_part(r))),
        _compare_directions, _shown_direction),
    "box": _Kind("a box", lambda text, q, r: read_box(text, q.size), _compare_boxes, str),
}  # fmt: skip
