"""Grade answers row by row, and compute the scores that follow from the grades.

Computes `accuracy` (by row), `accuracy_macro` (over categories), `accuracy.{category}`, the mean error of directions
and points and the mean overlap of boxes, each as sums over samples, so that they have intervals and are tested like
every other score. A row whose answer cannot be read counts as wrong, and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from panollava.answers.grading import Grade, Question, Tolerances, grade
from panollava.data.details import Details
from panollava.data.formats import rule_of
from panollava.errors import DataError, EvaluationError
from panollava.evaluation.metrics.result import MetricResult
from panollava.evaluation.metrics.sums import Array, SampleSums, ratio, ratios
from panollava.evaluation.predictions import SHOWN
from panollava.evaluation.protocols import ScoredTexts
from panollava.versions import package_version

UNREADABLE = "unreadable"
ANGLES = ("direction", "point")
_RULES = {
    "yes_no": "equal", "choice": "equal", "number": "within {number:g} of it, counts equal",
    "direction": "within {angle_deg:g} degrees", "point": "within {angle_deg:g} degrees", "box": "spherical IoU >= 0.5",
}  # fmt: skip


@dataclass(frozen=True)
class Graded:
    """`grades[i]` is the grade of sample i, None where a text is wanted and no rule scores it."""

    grades: list[Grade | None]
    details: list[Details]

    @property
    def num_unreadable(self) -> int:
        return sum(one is not None and not one.readable for one in self.grades)

    def __bool__(self) -> bool:
        return any(one is not None for one in self.grades)

    def pairs(self) -> list[tuple[Details, Grade]]:
        """The samples that are graded, each with its grade."""
        return [(about, one) for about, one in zip(self.details, self.grades, strict=True) if one is not None]

    def texts(self) -> list[bool]:
        """Whether each sample wants a text and no rule of its own scores it: what caption metrics score."""
        return [one.answer_type == "text" and not one.scoring for one in self.details]


def grade_samples(scored: ScoredTexts, tolerances: Tolerances) -> Graded:
    """Grade every sample that has a right answer. Raises EvaluationError for a row whose columns or truth are wrong."""
    grades: list[Grade | None] = []
    details = [_details_of(row) for row in scored.rows]
    for row, about, references in zip(scored.rows, details, scored.references, strict=True):
        if about.answer_type == "text" and not about.scoring:
            grades.append(None)
            continue
        try:
            grades.append(_grade(row, about, references, tolerances))
        except (ValueError, DataError) as error:
            raise EvaluationError(f"{_name_of(row)}: {error}") from error
    return Graded(grades, details)


def accuracy_metrics(graded: Graded, tolerances: Tolerances) -> dict[str, MetricResult]:
    """The scores of graded samples by their key; none where no sample is graded."""
    if not graded:
        return {}
    signature = _signature(graded, tolerances)
    found = {"accuracy": _result(_shares(graded), "0-1", signature)}
    categories = list(dict.fromkeys(about.category for about, _ in graded.pairs() if about.category))
    if categories:
        found["accuracy_macro"] = _result(
            _macro(graded, categories), "0-1", f"{signature}; {len(categories)} categories"
        )
        for category in sorted(categories):
            found[f"accuracy.{category}"] = _result(_shares(graded, category), "0-1", signature)
    else:
        found["accuracy_macro"] = MetricResult(
            None, "0-1", "panollava", package_version("panollava"), signature, "no row names a category"
        )
    if any(one is not None and one.score not in (0.0, 1.0) for one in graded.grades):
        found["mean_score"] = _result(_mean(graded, lambda one, _: one.score), "0-1", signature)
    types = {about.answer_type for about, _ in graded.pairs() if not about.scoring}
    if types & set(ANGLES):
        found["mean_angular_error_deg"] = _angular_error(graded)
    if "box" in types:
        sums = _mean(graded, lambda one, about: one.score if about.answer_type == "box" and not about.scoring else None)
        found["mean_spherical_iou"] = _result(sums, "0-1", "solid angles; an unreadable box counts as 0")
    return found


def only(samples: SampleSums, places: Sequence[int], count: int) -> SampleSums:
    """Sums of some samples as sums of all `count`, to which the others add nothing."""
    spread = np.zeros((count, samples.per_sample.shape[1]))
    spread[list(places)] = samples.per_sample
    return SampleSums(spread, samples.value)


def confusion(graded: Graded) -> dict[str, dict[str, dict[str, int]]]:
    """How often each answer was given where each was true, of yes/no questions and of choices.

    {kind: {truth: {said: count}}}; an answer that could not be read is counted under UNREADABLE.
    """
    tables: dict[str, dict[str, dict[str, int]]] = {}
    for about, one in graded.pairs():
        if not about.scoring and (about.answer_type == "yes_no" or about.options):
            row = tables.setdefault(about.answer_type, {}).setdefault(one.truth, {})
            said = one.said if one.readable else UNREADABLE
            row[said] = row.get(said, 0) + 1
    return tables


def _grade(row: Mapping[str, str], about: Details, references: Sequence[str], tolerances: Tolerances) -> Grade:
    prediction = row["prediction"]
    if about.scoring:
        rule = rule_of(about.scoring)
        return max((rule(prediction, reference) for reference in references), key=lambda one: (one.score, one.readable))
    shown = Details.from_fields({"options": row.get(SHOWN, "")}).options
    if shown and sorted(shown) != sorted(about.options):
        raise ValueError(f"{SHOWN} holds other options than the column options")
    question = Question(about.answer_type, about.options, shown, (about.width, about.height))
    return grade(prediction, references, question, tolerances)


def _details_of(row: Mapping[str, str]) -> Details:
    try:
        return Details.from_fields({name: value for name, value in row.items() if name != "sample_id"})
    except ValueError as error:
        raise EvaluationError(f"{_name_of(row)}: {error}") from error


def _name_of(row: Mapping[str, str]) -> str:
    named = [f"{name} {row[name]}" for name in ("sample_id", "image_path") if row.get(name)]
    return f"row {', '.join(named)}" if named else f"the row with the prediction {row['prediction'][:40]!r}"


def _signature(graded: Graded, tolerances: Tolerances) -> str:
    """The rule of each kind of answer among the samples, those of benchmarks' authors by their name."""
    rules = [
        f"rule {about.scoring}"
        if about.scoring
        else f"{about.answer_type} {_RULES[about.answer_type].format(**vars(tolerances))}"
        for about, _ in graded.pairs()
    ]
    return "; ".join(sorted(dict.fromkeys(rules)))


def _mean(graded: Graded, value: Callable[[Grade, Details], float | None]) -> SampleSums:
    """The mean of a value over the graded samples that have one."""
    parts = []
    for one, about in zip(graded.grades, graded.details, strict=True):
        found = None if one is None else value(one, about)
        parts.append((0.0, 0.0) if found is None else (found, 1.0))
    return ratios(parts)


def _shares(graded: Graded, category: str | None = None) -> SampleSums:
    return _mean(graded, lambda one, about: float(one.accurate) if category in (None, about.category) else None)


def _macro(graded: Graded, categories: Sequence[str]) -> SampleSums:
    """The mean of the categories' shares; a draw without a category is the mean of the others."""
    columns = np.concatenate([_shares(graded, category).per_sample for category in categories], axis=1)

    def value(sums: Array) -> Array:
        shares = np.stack([ratio(sums[..., 2 * n : 2 * n + 2]) for n in range(len(categories))], axis=-1)
        there = np.isfinite(shares)
        count = there.sum(axis=-1)
        total = np.where(there, shares, 0.0).sum(axis=-1)
        return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)

    return SampleSums(columns, value)


def _angular_error(graded: Graded) -> MetricResult:
    sums = _mean(graded, lambda one, _: one.error_deg)
    scale, signature = "degrees, 0-180", "great circle; of the answers that can be read"
    if not sums.per_sample[:, 1].sum():
        version = package_version("panollava")
        return MetricResult(
            None, scale, "panollava", version, signature, "no direction or point could be read", lower_is_better=True
        )
    return replace(_result(sums, scale, signature), lower_is_better=True)


def _result(sums: SampleSums, scale: str, signature: str) -> MetricResult:
    return MetricResult(sums.total(), scale, "panollava", package_version("panollava"), signature, samples=sums)
