"""What PanoEnv's questions give away without a picture, scored by its authors' rules through our own reader.

    python benchmarks/panoenv_text_only.py val.jsonl        # PanoEnv's JSON lines; no pictures are needed

No model is asked. Three ways to answer see the question's text alone, and learn from the other scenes (never from a
question about the same panorama):

    kind     the answer that scores best for its kind of question (yes_no, mcq, distance, …)
    wording  the same for its wording, the objects' names left out; "the first object" is an answer too
    boxes    besides, rules that read the boxes in the question, of which each wording takes the one that scores best:
             the face of the cube that a box's middle lies on and how many faces it touches, which object's box is
             larger, longer, higher, further left, …, on which side of another one it lies

A wording that the other scenes ask fewer than FEWEST times falls back to its kind. Prints accuracy (a score from .99
on) and mean score by category and by rule, with 95 % intervals by panorama, as a table of Markdown.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from panollava.answers.grading import Grade
from panollava.data.formats.panoenv import PANOENV, read_panoenv, tagged
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.resampling import interval_of, units_of

WIDTH, HEIGHT = 2560, 1280  # of PanoEnv's panoramas, in whose pixels the boxes count
FEWEST = 4
DRAWS = 1000
_OBJECT = re.compile(r"(?:the )?(\w+(?: [A-Z])?) \(boundingbox: \[(\d+), (\d+), (\d+), (\d+)\]\)", re.I)
_FACES = ("Right", "Left", "Top", "Bottom", "Front", "Back")  # x right, y up, z ahead
_PLACES = ("first", "second", "third")


@dataclass(frozen=True)
class Box:
    """An object of a question: its name, and its box [x1, y1, x2, y2] in pixels of the panorama."""

    name: str
    x1: int
    y1: int
    x2: int
    y2: int

    @cached_property
    def direction(self) -> np.ndarray:
        """Unit vector of the box's middle: x right, y up, z ahead."""
        return _direction((self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2)

    @cached_property
    def face(self) -> str:
        return _face(self.direction)

    @cached_property
    def faces(self) -> int:
        """How many faces of the cube the box touches."""
        grid = [(x, y) for x in np.linspace(self.x1, self.x2, 9) for y in np.linspace(self.y1, self.y2, 9)]
        return len({_face(_direction(x, y)) for x, y in grid})


FEATURES: dict[str, Callable[[Box], float]] = {
    "area": lambda box: (box.x2 - box.x1) * (box.y2 - box.y1),
    "width": lambda box: box.x2 - box.x1,
    "height": lambda box: box.y2 - box.y1,
    "length": lambda box: max(box.x2 - box.x1, box.y2 - box.y1) / max(1, min(box.x2 - box.x1, box.y2 - box.y1)),
    "lower edge": lambda box: box.y2,
    "right": lambda box: box.direction[0],
    "up": lambda box: box.direction[1],
    "ahead": lambda box: box.direction[2],
    "below the horizon": lambda box: abs(box.direction[1]),
}


@dataclass(frozen=True)
class Question:
    """A row of PanoEnv: what is asked, of which objects, and how its answer is scored."""

    image: str
    category: str
    rule: str
    text: str
    reference: str

    @cached_property
    def objects(self) -> tuple[Box, ...]:
        return tuple(Box(name, *map(int, box)) for name, *box in _OBJECT.findall(self.text))

    @cached_property
    def wording(self) -> str:
        return f"{self.rule}: {_OBJECT.sub('…', self.text)}"

    def grade(self, said: str | None) -> Grade:
        return PANOENV.rules[self.rule](f"<Answer>{said}</Answer>" if said is not None else "", self.reference)


Way = Callable[[Question], str | None]
"""How a question is answered; None where that way has no answer to it."""


def _direction(x: float, y: float) -> np.ndarray:
    yaw, pitch = (x / WIDTH - 0.5) * 2 * np.pi, (0.5 - y / HEIGHT) * np.pi
    return np.array([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)])


def _face(direction: np.ndarray) -> str:
    axis = int(np.abs(direction).argmax())
    return _FACES[2 * axis + int(direction[axis] < 0)]


def read(path: Path) -> list[Question]:
    """The questions of a file that our reader accepts."""
    found = []
    for row in read_panoenv(path, {}).rows:
        if row.problem is None and row.details.scoring is not None:
            rule = row.details.scoring.removeprefix("panoenv/")
            found.append(Question(row.image_path, row.details.category, rule, row.query, row.annotation))
    return found


def constants(questions: Sequence[Question]) -> dict[str, Way]:
    """Each answer that these questions have, and the name of an object by its place in the question."""
    answers = {tagged(one.reference) or "" for one in questions}
    ways: dict[str, Way] = {f"always {said!r}": lambda _, said=said: said for said in sorted(answers)}
    for place, word in enumerate(_PLACES):
        ways[f"the {word} object"] = lambda one, at=place: _name(one, at)
    return ways


def _name(question: Question, at: int) -> str | None:
    return f"The {question.objects[at].name}" if at < len(question.objects) else None


def rules() -> dict[str, Way]:
    """What can be read from boxes."""
    ways: dict[str, Way] = {
        "the face of the box": lambda one: one.objects[0].face if one.objects else None,
        "faces that the box touches": _count,
        "the side of the other box": _side,
    }
    for name, feature in FEATURES.items():
        for sign, word in ((1, "most"), (-1, "least")):
            ways[f"{word} {name}"] = lambda one, f=feature, s=sign: _extreme(one, f, s)
            ways[f"yes: {word} {name}"] = lambda one, f=feature, s=sign: _yes(
                one, lambda a, b, f=f, s=s: s * f(a) > s * f(b)
            )
    for yes, pair in (("same", True), ("another", False)):
        ways[f"yes: {yes} face"] = lambda one, p=pair: _yes(one, lambda a, b, p=p: (a.face == b.face) == p)
    ways["yes: faces side by side"] = lambda one: _yes(one, _adjacent)
    return ways


def _count(question: Question) -> str | None:
    if not question.objects:
        return None
    number = question.objects[0].faces
    return f"{number} different view{'s' if number > 1 else ''}"


def _side(question: Question) -> str | None:
    if len(question.objects) != 2:
        return None
    one, other = question.objects
    right, up, ahead = one.direction - other.direction
    words = ("in front of" if ahead > 0 else "behind", f"to the {'right' if right > 0 else 'left'} of")
    return f"The {one.name} is {words[0]} and {words[1]} and {'above' if up > 0 else 'below'} the {other.name}."


def _extreme(question: Question, feature: Callable[[Box], float], sign: int) -> str | None:
    if len(question.objects) < 2:
        return None
    return f"The {max(question.objects, key=lambda box: sign * feature(box)).name}"


def _yes(question: Question, holds: Callable[[Box, Box], bool]) -> str | None:
    return ("Yes" if holds(*question.objects) else "No") if len(question.objects) == 2 else None


def _adjacent(one: Box, other: Box) -> bool:
    opposite = {frozenset(_FACES[at : at + 2]) for at in (0, 2, 4)}
    return one.face != other.face and frozenset((one.face, other.face)) not in opposite


def answers(questions: Sequence[Question], way: str) -> list[Grade]:
    """The grade of each question, answered by what scores best on the other scenes."""
    read_boxes = rules() if way == "boxes" else {}
    table = {**constants(questions), **read_boxes}
    names = list(table)
    scores = np.array([[_score(one, table[name]) for name in names] for one in questions])  # [N, ways]
    grades = []
    for one in questions:
        others = [at for at, other in enumerate(questions) if other.image != one.image]
        alike = [at for at in others if way != "kind" and questions[at].wording == one.wording]
        if len(alike) < FEWEST:
            alike = [at for at in others if questions[at].rule == one.rule]
        best = names[int(scores[alike].sum(axis=0).argmax())] if alike else None
        grades.append(one.grade(table[best](one) if best else None))
    return grades


def _score(question: Question, way: Way) -> float:
    said = way(question)
    return question.grade(said).score if said is not None else 0.0


def groups(questions: Sequence[Question]) -> Iterator[tuple[str, list[int]]]:
    """All questions, those of each category, those of each rule: names and places."""
    yield "all", list(range(len(questions)))
    for key in ("category", "rule"):
        for name in sorted({getattr(one, key) for one in questions}):
            yield name, [at for at, one in enumerate(questions) if getattr(one, key) == name]


def _shown(grades: Sequence[Grade], images: Sequence[str]) -> tuple[str, str]:
    """Accuracy with its interval, and the mean score."""
    right = [float(grade.accurate) for grade in grades]
    interval = interval_of(means(right), units_of([{"image_path": image} for image in images]), DRAWS)
    between = f" ({interval[0]:.3f}-{interval[1]:.3f})" if interval else ""
    return f"{np.mean(right):.3f}{between}", f"{np.mean([grade.score for grade in grades]):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="PanoEnv's JSON lines")
    questions = read(parser.parse_args().path)
    print(f"{len(questions)} questions about {len({one.image for one in questions})} panoramas\n")
    ways = {way: answers(questions, way) for way in ("kind", "wording", "boxes")}
    print("| questions | number | " + " | ".join(f"{way} | score" for way in ways) + " |")
    print("|---" * (2 + 2 * len(ways)) + "|")
    for name, places in groups(questions):
        cells = [
            cell
            for grades in ways.values()
            for cell in _shown([grades[at] for at in places], [questions[at].image for at in places])
        ]
        print(f"| {name} | {len(places)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
