"""Yaw-equivariance: the panorama rolled sideways, asked again, and both answers compared. No torch here.

A panorama has no front but the one that the camera happened to have. Rolled by k yaw steps of the ring of views, every
tile shows what another one showed before, to the pixel; the global view is shifted. So the rolled picture says the
same, with other words for where things are. `RolledPictures` and `rolled_samples` are what the model is asked;
`equivariance` compares its answers.

On the synthetic data set pictures are rolled by quarter turns, and the words for places in the question are turned with
them. `yaw_equivariance` in [0, 1] is the share of questions whose second answer agrees with the first one, with its
places turned; opening words and the order of places do not count. On other data sets no words are turned, and
exact agreement means little: there `yaw_agreement` in [0, 1], the mean ROUGE-L (F, stemmer) between both answers, is
to be read; what people say of the middle of a picture may rightly change.

Whoever answers without looking agrees with himself. So the blind value compares the second answer with the first one of
the blind control, given for another picture: what is left is what questions alone suggest.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from panollava.data.samples import Sample
from panollava.errors import EvaluationError
from panollava.evaluation.measures.measured import Measured, without_value
from panollava.evaluation.measures.places import are_synthetic, statements, turned_answer, turned_query
from panollava.evaluation.metrics.result import MetricResult
from panollava.evaluation.metrics.rouge import rouge_l
from panollava.evaluation.metrics.texts import TextSet
from panollava.evaluation.protocols import collapse, question_of
from panollava.versions import package_version
from panollava.views.render import open_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import View

COLUMNS = ("sample_id", "image_path", "original_query", "turn_deg", "asked", "prediction", "error")
QUARTER_TURNS_DEG = (90.0, 180.0, 270.0)


def turns_of(views: Sequence[View], quarters: bool) -> tuple[float, ...]:
    """The angles, degrees in (0, 360), by which pictures are rolled: those that map the views onto themselves.

    With `quarters` only quarter turns among them (none where the ring's size is odd). Without a ring, quarter turns.
    """
    rows: dict[float, int] = {}
    for view in views:
        if view.kind != "global" and abs(view.pitch_deg) < 90:
            rows[view.pitch_deg] = rows.get(view.pitch_deg, 0) + 1
    ring = math.gcd(*rows.values())
    if ring < 2:
        return QUARTER_TURNS_DEG
    turns = tuple(360.0 * k / ring for k in range(1, ring))
    return tuple(turn for turn in turns if turn % 90 == 0) if quarters else turns


def rolled_views(views: Sequence[View], turn_deg: float) -> tuple[View, ...]:
    """The views of a panorama that is rolled so that yaw `turn_deg` is in the middle."""
    return tuple(replace(view, yaw_deg=_wrapped(view.yaw_deg + turn_deg)) for view in views)


class RolledPictures:
    """Views of rolled panoramas by image path, rendered when they are asked for. Paths start at `root`.

    A panorama whose digest differs from `sha256` (by image path) is refused.
    """

    def __init__(
        self,
        views: Sequence[View],
        image_size: tuple[int, int],
        rendering: Rendering,
        turns_deg: Mapping[str, float],
        root: Path = Path(),
        *,
        sha256: Mapping[str, str] | None = None,
    ) -> None:
        self.sha256 = sha256 or {}
        self.views, self.image_size, self.rendering = views, image_size, rendering
        self.turns_deg, self.root = turns_deg, root

    def __getitem__(self, image_path: str) -> np.ndarray:
        views = rolled_views(self.views, self.turns_deg[image_path])
        return open_views(self.root / image_path, views, self.image_size, self.rendering, self.sha256.get(image_path))


def picture_turns(samples: Sequence[Sample], views: Sequence[View]) -> dict[str, float]:
    """By how many degrees each picture is rolled: the possible turns one after the other. Empty: there is none."""
    turns = turns_of(views, quarters=are_synthetic(sample.query for sample in samples))
    paths = dict.fromkeys(sample.image_path for sample in samples)
    return {path: turns[number % len(turns)] for number, path in enumerate(paths)} if turns else {}


def rolled_samples(samples: Sequence[Sample], turns_deg: Mapping[str, float]) -> list[Sample]:
    """The same samples with the question that the rolled picture is asked."""
    if not are_synthetic(sample.query for sample in samples):
        return list(samples)
    return [replace(one, query=turned_query(one.query, round(turns_deg[one.image_path] / 90))) for one in samples]


def read_rolled(path: Path) -> list[dict[str, str]]:
    """Rows of predictions_rolled.csv. Raises EvaluationError where it is not one."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise EvaluationError(f"{path}: expected the columns {', '.join(COLUMNS)}, found {reader.fieldnames}")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{path} cannot be read: {error}") from error


def equivariance(
    rows: Sequence[Mapping[str, str]],
    rolled_rows: Sequence[Mapping[str, str]],
    blind_rows: Sequence[Mapping[str, str]] | None,
) -> Measured:
    """Compare the answers of predictions.csv with those of predictions_rolled.csv.

    Raises EvaluationError where these hold other questions.
    """
    library = package_version("panollava")
    synthetic = are_synthetic(row["original_query"] for row in rows)
    words = "places:turned" if synthetic else "places:as-they-are"
    about = {
        "yaw_equivariance": MetricResult(None, "0-1", "panollava", library, f"same-statements|{words}"),
        "yaw_agreement": MetricResult(None, "0-1", "panollava", library, f"type:rougeL|measure:f|stem:porter|{words}"),
    }
    if not rolled_rows:
        reason = "no multiple of the views' yaw step is a quarter turn, by which the questions' words could be turned"
        return without_value(about, reason)
    asked, first = _by_question(rolled_rows), _by_question(rows)
    if first.keys() != asked.keys():
        raise EvaluationError("predictions_rolled.csv holds other questions than predictions.csv: make both again")
    samples = [_question(row, first[key], synthetic) for key, row in asked.items()]
    _compare(samples, [first[key] for key in asked], "", synthetic)
    if blind_rows is not None:
        blind = _by_question(blind_rows)
        _compare(samples, [blind[key] for key in asked], "_blind", synthetic)
    measured = Measured(dict(about), dict.fromkeys(about), samples, _by_turn(samples, synthetic))
    for key, result in about.items():
        if key == "yaw_equivariance" and not synthetic:
            reason = "only the synthetic data set's words for places can be turned; see yaw_agreement"
            measured.metrics[key] = replace(result, reason=reason)
            continue
        measured.metrics[key] = replace(result, value=measured.sums(key).total())
        if blind_rows is not None:
            measured.blind[key] = float(np.mean([row[f"{key}_blind"] for row in samples]))
    return measured


def _question(rolled: Mapping[str, str], first: Mapping[str, str], synthetic: bool) -> dict[str, Any]:
    """A row of the result: the question, the expected answer, the answer."""
    return {
        "sample_id": int(rolled["sample_id"]),
        "image_path": rolled["image_path"],
        "original_query": rolled["original_query"],
        "turn_deg": float(rolled["turn_deg"]),
        "asked": rolled["asked"],
        "expected": _expected(first, float(rolled["turn_deg"]), synthetic),
        "said": collapse(rolled["prediction"]),
        "failed": bool(rolled.get("error")),
    }


def _expected(row: Mapping[str, str], turn_deg: float, synthetic: bool) -> str:
    answer = collapse(row["prediction"])
    return turned_answer(answer, round(turn_deg / 90)) if synthetic else answer


def _compare(samples: list[dict[str, Any]], others: Sequence[Mapping[str, str]], suffix: str, synthetic: bool) -> None:
    """Add both scores of each question to its row. An answer that failed agrees with nothing."""
    expected = [_expected(row, one["turn_deg"], synthetic) for row, one in zip(others, samples, strict=True)]
    overlap = rouge_l(TextSet([one["said"] for one in samples], [[text] for text in expected])).samples
    assert overlap is not None
    for one, other, text, shared in zip(samples, others, expected, overlap.per_sample[:, 0].tolist(), strict=True):
        counts = not (one["failed"] or other.get("error"))
        one[f"yaw_equivariance{suffix}"] = float(counts and statements(text) == statements(one["said"]))
        # rouge-score knows a-z and 0-9 only: equal texts of another script would not agree
        one[f"yaw_agreement{suffix}"] = (1.0 if text == one["said"] else shared) if counts else 0.0


def _by_turn(samples: Sequence[Mapping[str, Any]], synthetic: bool) -> dict[str, Any]:
    key = "yaw_equivariance" if synthetic else "yaw_agreement"
    turns: dict[float, list[float]] = {}
    for row in samples:
        turns.setdefault(row["turn_deg"], []).append(row[key])
    return {"by_turn": [{"turn_deg": turn, key: float(np.mean(values)), "questions": len(values)}
                        for turn, values in sorted(turns.items())]}  # fmt: skip


def _by_question(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str, int], Mapping[str, str]]:
    """The first row of each question, by picture, query and which of those with both it is: predictions_rolled.csv
    contains neither options nor earlier turns, and all files have the samples' order."""
    first: dict[tuple[str, ...], Mapping[str, str]] = {}
    for row in rows:
        first.setdefault((*question_of(row), row["sample_id"] if "asked" in row else ""), row)
    counts: dict[tuple[str, str], int] = {}
    found: dict[tuple[str, str, int], Mapping[str, str]] = {}
    for row in first.values():
        key = (row["image_path"], row["original_query"])
        counts[key] = counts.get(key, 0) + 1
        found[*key, counts[key]] = row
    return found


def _wrapped(yaw_deg: float) -> float:
    """The same yaw in (-180, 180]."""
    turned = yaw_deg % 360
    return turned - 360 if turned > 180 else turned
