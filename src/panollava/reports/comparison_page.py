"""comparison.html: scores with their tests, scores per type of query, panoramas with all answers side by side.

The samples shown are drawn at random with a fixed seed among those that were answered differently, never picked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panollava.evaluation.comparison.results import Result
from panollava.evaluation.comparison.verdicts import BASELINE, BETTER, WORSE, Comparison
from panollava.evaluation.metrics import LABELS
from panollava.evaluation.metrics.result import arrow
from panollava.evaluation.metrics.sums import ratio
from panollava.evaluation.protocols import KEY
from panollava.reports.comparison_tables import has_text_only, notes
from panollava.reports.rendering import Picture, panorama, write_page
from panollava.reports.samples_page import mark_of, options_of, turns_of
from panollava.trust import find_inside, project_of

SAMPLES = 16
_SEED = 0
_REFERENCES = 3
_CLASSES = {BETTER: "right badge", WORSE: "wrong badge", BASELINE: "quiet"}


def write_comparison_page(comparison: Comparison, path: Path) -> None:
    """Write the page, atomically."""
    names = [result.name for result in comparison.results]
    title = " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"
    metrics = dict.fromkeys(line.metric for line in (*comparison.lines, *comparison.by_type))
    write_page(
        "comparison",
        path,
        title=f"Comparison: {title}",
        notes=notes(comparison),
        lines=comparison.lines,
        labels={metric: f"{LABELS.get(metric, metric)} {_arrow(comparison, metric)}" for metric in metrics},
        verdict_classes=_CLASSES,
        has_blind=any(line.blind is not None for line in comparison.lines),
        has_text_only=has_text_only(comparison),
        types=_by_type(comparison),
        answers=_answers(comparison),
        most_references=_REFERENCES,
    )


def _by_type(comparison: Comparison) -> list[dict[str, Any]]:
    """A table per metric: types of query down, experiments across."""
    names = list(comparison.order)
    header = ["query", "samples", *names, *(f"{name} − {names[0]}" for name in names[1:])]
    tables = []
    for metric in dict.fromkeys(line.metric for line in comparison.by_type):
        lines = {(line.query_type, line.experiment): line for line in comparison.by_type if line.metric == metric}
        rows = []
        for kind in dict.fromkeys(kind for kind, _ in lines):
            found = [lines.get((kind, name)) for name in names]
            rows.append({"kind": kind, "count": next(line.num_samples for line in found if line), "lines": found})
        tables.append({"metric": metric, "header": header, "rows": rows})
    return tables


def _answers(comparison: Comparison) -> dict[str, Any] | None:
    """Panoramas with every experiment's answer, of samples that were answered differently."""
    compared = [result for result in comparison.results if result.name in comparison.order]
    if len(compared) < 2:
        return None
    first = compared[0].scored
    answers = [
        [result.scored.predictions[comparison.order[result.name][i]] for result in compared]
        for i in range(first.num_samples)
    ]
    differing = [i for i, texts in enumerate(answers) if len(set(texts)) > 1]
    telling, how = _told_apart(comparison, compared, differing)
    chosen = sorted(random.Random(_SEED).sample(telling, min(SAMPLES, len(telling))))
    note = (
        f"{len(differing):,} of {first.num_samples:,} samples were answered in other words{how}. Shown are "
        f"{len(chosen)} of these, drawn at random, always the same, not picked."
    )
    samples = []
    for i in chosen:
        shown = [
            {
                "name": result.name,
                "text": text,
                "error": result.scored.rows[comparison.order[result.name][i]].get("error", ""),
                "mark": mark_of(text, first.references[i], exact=False),
            }
            for result, text in zip(compared, answers[i], strict=True)
        ]
        samples.append(
            {
                "picture": _panorama(compared, i, comparison),
                "query": first.rows[i].get(KEY[1], ""),
                "turns": turns_of(first.rows[i]),
                "options": options_of(first.rows[i]),
                "answers": shown,
                "references": first.references[i],
            }
        )
    return {"note": note, "samples": samples}


def _told_apart(comparison: Comparison, compared: Sequence[Result], differing: Sequence[int]) -> tuple[list[int], str]:
    """The samples whose answers differ in ROUGE-L, since other words may say the same; all where it is not there."""
    scores = []
    for result in compared:
        metric = result.metrics.get("rouge_l")
        if metric is None or metric.samples is None:
            return list(differing), ""
        scores.append(ratio(metric.samples.per_sample)[comparison.order[result.name]])
    telling = [i for i in differing if len({float(one[i]) for one in scores}) > 1]
    if len(compared) > 2:
        return telling, f", {len(telling):,} of them with another ROUGE-L"
    ahead = sum(bool(scores[0][i] > scores[1][i]) for i in telling)
    counted = (
        f": {compared[0].name} is nearer to the references in {ahead:,}, {compared[1].name} in {len(telling) - ahead:,}"
    )
    return telling, f"{counted} (ROUGE-L)"


def _panorama(compared: Sequence[Result], index: int, comparison: Comparison) -> Picture:
    """The picture from wherever one of the experiments finds it."""
    sought = []
    for result in compared:
        image = result.scored.rows[comparison.order[result.name][index]].get(KEY[0], "")
        if (found := _picture_file(image, result.folder.resolve(), result.predictions_folder.resolve())) is not None:
            return panorama(found)
        sought.append(image)
    return Picture(None, sought[0] or "the predictions name none")


def _picture_file(image: str, folder: Path, predictions: Path) -> Path | None:
    """Below the working folder, the results' project, the results themselves or their predictions' folder; anywhere
    where they are the user's own, in the project of the working folder. Results of others open no other file (see
    `trust`)."""
    project = project_of(folder / "metrics.json")
    found = find_inside(image, [Path(), *([project] if project else []), folder, predictions])
    if found is None and image and project == Path.cwd().resolve():
        found = Path(image)
    return found if found is not None and found.is_file() else None


def _arrow(comparison: Comparison, metric: str) -> str:
    return arrow(any(one.metrics[metric].lower_is_better for one in comparison.results if metric in one.metrics))
