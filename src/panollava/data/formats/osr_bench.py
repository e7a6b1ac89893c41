"""OSR-Bench: a folder a room, with `rgb.png` and `*_qa.json`; or such a file; or a folder of such folders.

Of a folder the questions of `*_qa.json` are read; those about things that are not there too stand in
`*_qa_with_negative.json`, which is read where it is named. Every turn is a question of its own. Scores:

    object_counting    max(0, 1 - |said - true| / true); equal where none is there
    relative_distance  equal words
    relative_direction the same of the eight directions; equal words where the truth names none
    cognitive_map      F1 of the things on a 10 x 10 grid, matched class by class (Hungarian, within 2 cells) at each of
                       four quarter turns of the map, the best of which counts

The authors' own scores of a model's answers were computed on the whole text, thinking included; here what is behind the
thinking counts (docs/benchmarks.md lists the rows that differ).
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from panollava.answers.choice import words_of
from panollava.answers.direction import read_direction
from panollava.answers.grading import Grade
from panollava.answers.number import read_number
from panollava.answers.part import answer_part
from panollava.data.details import Details
from panollava.data.formats.json_lines import SUFFIXES, first_record
from panollava.data.formats.rows import Columns, Format, Table, TableRow
from panollava.data.text_file import read_text_file
from panollava.errors import DataError

ACCURATE = 0.99
GRID = 10
_WITHIN = 2.0
_SKILLS = {
    "object_counting": ("number", "count"), "relative_distance": ("choice", "words"),
    "relative_direction": ("direction", "direction"), "cognitive_map": ("text", "cognitive_map"),
}  # fmt: skip
_HEADER = ("image_id", "turn_id", "skills_tested", "question", "answer")
Things = dict[str, list[tuple[float, float]]]
"""Where things of each class are, as (x, y): column and row of the grid."""


def read_osr_bench(path: Path, columns: Columns) -> Table:
    """Raises DataError for a file that is no room's, naming it; a turn that lacks something is a row with a problem."""
    rows = [row for file in files_of(path) for row in _rows(file)]
    if not rows:
        raise DataError(f"{path}: there are no questions in it")
    return Table(path, _HEADER, tuple(rows))


def files_of(path: Path) -> list[Path]:
    """The files of questions: the one that is named, or those of the folder and of the folders in it."""
    if path.is_file():
        return [path]
    return sorted([*path.glob("*_qa.json"), *path.glob("*/*_qa.json")])


def _rows(path: Path) -> list[TableRow]:
    try:
        document = json.loads(read_text_file(path, "JSON", json=True))
        turns = document["conversation"]
        image_id, before = str(document.get("image_id") or path.parent.name), str(document.get("pre_prompt") or "")
        return [_row(path, number, turn, image_id, before) for number, turn in enumerate(turns, start=1)]
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not a room of OSR-Bench ({type(error).__name__}: {error}). Expected an object with image_id and "
            "conversation, a list of turns"
        ) from error


def _row(path: Path, number: int, turn: Mapping[str, Any], image_id: str, before: str) -> TableRow:
    answer = turn.get("answer")
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    skill, question = str(turn.get("skills_tested", "")), str(turn.get("question") or "").strip()
    fields = (image_id, str(turn.get("turn_id", "")), skill, question, text)
    if skill not in _SKILLS:
        problem = f"skills_tested is one of {', '.join(_SKILLS)}, got {skill!r}"
        return TableRow(str(path), number, fields, problem=problem)
    if not question or not isinstance(answer, (str, list)) or not answer:
        missing = "question" if not question else "answer"
        return TableRow(str(path), number, fields, problem=f"missing value: {missing}")
    kind, rule = _SKILLS[skill]
    if skill == "cognitive_map":
        try:
            text = json.dumps(_things_of_grid(answer), ensure_ascii=False)  # in the form that the question asks for
        except (ValueError, TypeError) as error:
            return TableRow(str(path), number, fields, problem=f"question not usable: {error}")
    details = Details(
        answer_type=kind, category=skill, sample_id=f"{image_id}/{fields[1]}", scoring=f"osr_bench/{rule}"
    )
    query = f"{before.strip()}\n{question}" if before.strip() else question
    return TableRow(str(path), number, fields, "rgb.png", query, text, details=details)


# ---- scores --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class MapScore:
    """How a map agrees with the true one, at its best quarter turn.

    `hallucinated` are classes that were named and are not there; their things count as false. `avg_distance` is over
    all pairs, in cells; None without any.
    """

    tp: int
    fp: int
    fn: int
    avg_distance: float | None
    hallucinated: tuple[str, ...]

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else 1.0

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else 1.0

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def score_map(said: Things, true: Things) -> MapScore:
    """The best of four quarter turns by F1, the nearer one where two are as good."""
    turned = [
        {name: [_turn(place, quarters) for place in places] for name, places in said.items()} for quarters in range(4)
    ]
    scores = [_score_turned(one, true) for one in turned]
    return max(scores, key=lambda one: (one.f1, -(one.avg_distance or 0.0)))


def _score_turned(said: Things, true: Things) -> MapScore:
    tp = fp = fn = 0
    distances: list[float] = []
    for name in dict.fromkeys([*true, *said]):
        named, there = said.get(name, []), true.get(name, [])
        pairs = _matched(named, there) if named and there else []
        near = sum(distance <= _WITHIN for distance in pairs)
        tp, fp, fn = tp + near, fp + len(named) - near, fn + len(there) - near
        distances += pairs
    hallucinated = tuple(name for name, places in said.items() if places and name not in true)
    return MapScore(tp, fp, fn, sum(distances) / len(distances) if distances else None, hallucinated)


def _matched(named: list[tuple[float, float]], there: list[tuple[float, float]]) -> list[float]:
    """The distances of the pairing with the least sum."""
    from scipy.optimize import linear_sum_assignment

    distances = [[math.dist(one, other) for other in there] for one in named]
    rows, columns = linear_sum_assignment(distances)
    return [distances[row][column] for row, column in zip(rows, columns, strict=True)]


def _turn(place: tuple[float, float], quarters: int) -> tuple[float, float]:
    x, y = place
    for _ in range(quarters):
        x, y = y, GRID - 1 - x
    return x, y


def read_map(text: str) -> Things | None:
    """The map in an answer: JSON `{name: [[x, y], …]}`, or the grid of names as the data has it; None without one."""
    part = answer_part(text)
    for found in (part, *re.findall(r"\{.*\}|\[.*\]", part, re.S)):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(found)
                return _things_of_grid(value) if isinstance(value, list) else _things_of_map(value)
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
    return None


def _things_of_map(value: Any) -> Things:
    if not isinstance(value, dict):
        raise TypeError("no map")
    found: Things = {}
    for name, places in value.items():
        places = [places] if places and not isinstance(places[0], (list, tuple)) else places
        found[_name(name)] = [(float(x), float(y)) for x, y in places]
    return found


def _things_of_grid(grid: Any) -> Things:
    if len(grid) != GRID or any(len(row) != GRID for row in grid):
        raise ValueError(f"a map has {GRID} rows of {GRID} cells")
    found: Things = {}
    for y, row in enumerate(grid):
        for x, names in enumerate(row):
            for name in names:
                found.setdefault(_name(name), []).append((x, y))
    return found


def _name(text: str) -> str:
    return words_of(str(text))


def _map_rule(prediction: str, reference: str) -> Grade:
    true, said = read_map(reference), read_map(prediction)
    if true is None:
        raise ValueError(f"the answer {reference[:60]!r} is no map of a room")
    if said is None:
        return Grade(0.0, False, False)
    score = score_map(said, true)
    return Grade(score.f1, score.f1 >= ACCURATE, True, f"{score.tp} right, {score.fp} wrong, {score.fn} missed")


def _count_rule(prediction: str, reference: str) -> Grade:
    true, said = read_number(answer_part(reference)), read_number(answer_part(prediction))
    if true is None:
        raise ValueError(f"the answer {reference!r} holds no number")
    if said is None:
        return Grade(0.0, False, False, truth=reference)
    error = abs(said.value - true.value)
    score = float(not error) if not true.value else max(0.0, 1 - error / true.value)
    return Grade(score, score >= ACCURATE, True, f"{said.value:g}", f"{true.value:g}")


def _words_rule(prediction: str, reference: str) -> Grade:
    said, true = words_of(answer_part(prediction)), words_of(reference)
    return Grade(float(said == true), said == true, bool(said), said, true)


def _direction_rule(prediction: str, reference: str) -> Grade:
    true, said = read_direction(reference), read_direction(answer_part(prediction))
    if true is None:  # "… is not found in the picture."
        return _words_rule(prediction, reference)
    right, words = said == true, words_of(answer_part(prediction))
    return Grade(float(right), right, said is not None, "" if said is None else words, words_of(reference))


def _matches(path: Path) -> bool:
    if path.is_dir():
        return bool(files_of(path))
    record = first_record(path)
    return record is not None and isinstance(record.get("conversation"), list) and "image_id" in record


OSR_BENCH = Format(
    "osr_bench",
    matches=_matches,
    read=read_osr_bench,
    suffixes=SUFFIXES,
    files=files_of,
    rules={"count": _count_rule, "words": _words_rule, "direction": _direction_rule, "cognitive_map": _map_rule},
)
