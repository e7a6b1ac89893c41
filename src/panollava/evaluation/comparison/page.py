"""comparison.html: scores with their tests, scores per type of query, panoramas with all answers side by side.

A `Comparison` enters; one self-contained page leaves. The samples shown are drawn at random with a fixed seed among
those that were answered differently, never picked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from html import escape
from pathlib import Path

from panollava.evaluation import html
from panollava.evaluation.comparison.results import Result
from panollava.evaluation.comparison.tables import between, notes, number, probability
from panollava.evaluation.comparison.verdicts import BASELINE, BETTER, WORSE, Comparison, Line
from panollava.evaluation.metrics import LABELS
from panollava.evaluation.metrics.result import LOWER_IS_BETTER
from panollava.evaluation.metrics.sums import ratio
from panollava.evaluation.protocols import KEY
from panollava.files import write_text

SAMPLES = 16
BLIND = "Blind: the same model, the pictures shuffled between samples. A score is worth its distance from it."
_SEED = 0
_REFERENCES = 3
_CLASSES = {BETTER: "right badge", WORSE: "wrong badge", BASELINE: "quiet"}


def write_page(comparison: Comparison, path: Path) -> None:
    """Write the page, atomically."""
    names = [result.name for result in comparison.results]
    title = " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} others"
    parts = [html.paragraph(note, "wrong" if "not compared" in note else "quiet") for note in notes(comparison)]
    parts.append(_scores(comparison))
    if any(line.blind is not None for line in comparison.lines):
        parts.append(html.paragraph(BLIND, "quiet"))
    if comparison.by_type:
        parts += _by_type(comparison)
    parts += _answers(comparison)
    write_text(path, html.page(f"Comparison: {title}", *parts))


def _scores(comparison: Comparison) -> str:
    """A block of rows per metric, one for each experiment."""
    rows: list[list[str]] = []
    firsts = set()
    before = None
    for line in comparison.lines:
        first = line.metric != before
        if first:
            firsts.add(len(rows))
        rows.append(
            [
                html.cell(
                    f"{LABELS.get(line.metric, line.metric)} {_arrow(comparison, line.metric)}" if first else "", "name"
                ),
                html.cell(line.experiment, "name"),
                html.cell(number(line.value), "number", between(line.interval)),
                html.cell(number(line.blind), "number quiet"),
                html.cell(
                    number(line.difference, "+.4f") if line.difference is not None else "",
                    "number",
                    between(line.difference_interval, "+.4f"),
                ),
                html.cell(probability(line.p), "number"),
                html.cell(line.verdict or line.note or "", _CLASSES.get(line.verdict or "", "quiet")),
            ]
        )
        before = line.metric
    header = ["metric", "experiment", "score", "blind", "difference", "p", "verdict"]
    return html.table(header, rows, numbers=(2, 3, 4, 5), firsts=firsts)


def _by_type(comparison: Comparison) -> list[str]:
    """A table per metric: types of query down, experiments across."""
    names = list(comparison.order)
    parts = [
        html.heading("Per type of query"),
        html.paragraph(
            "Below each number its 95 % interval. Of many differences some exclude 0 by chance: no verdicts here.",
            "quiet",
        ),
    ]
    metrics = list(dict.fromkeys(line.metric for line in comparison.by_type))
    for metric in metrics:
        lines = {(line.query_type, line.experiment): line for line in comparison.by_type if line.metric == metric}
        rows = [_row_of_type(kind, names, lines) for kind in dict.fromkeys(kind for kind, _ in lines)]
        header = ["query", "samples", *names, *(f"{name} − {names[0]}" for name in names[1:])]
        table = html.table(header, rows, numbers=range(1, len(header)))
        label = f"{LABELS.get(metric, metric)} {_arrow(comparison, metric)}"
        parts.append(html.folded(label, table, is_open=metric == metrics[0]))
    return parts


def _row_of_type(kind: str, names: Sequence[str], lines: dict[tuple[str, str], Line]) -> list[str]:
    found = [lines.get((kind, name)) for name in names]
    count = next(line.num_samples for line in found if line)
    cells = [html.cell(kind), html.cell(f"{count:,}", "number quiet")]
    cells += [
        html.cell(number(line.value if line else None), "number", between(line.interval) if line else "")
        for line in found
    ]
    for line in found[1:]:
        difference = line.difference if line else None
        cells.append(
            html.cell(number(difference, "+.4f"), "number", between(line.difference_interval, "+.4f") if line else "")
        )
    return cells


def _answers(comparison: Comparison) -> list[str]:
    """Panoramas with every experiment's answer, of samples that were answered differently."""
    compared = [result for result in comparison.results if result.name in comparison.order]
    if len(compared) < 2:
        return []
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
    figures = []
    for i in chosen:
        terms = [("query", escape(first.rows[i].get(KEY[1], "")) or "–")]
        for result, text in zip(compared, answers[i], strict=True):
            error = result.scored.rows[comparison.order[result.name][i]].get("error", "")
            terms.append((result.name, _answer(text, first.references[i], error)))
        terms.append(("references", _listed(first.references[i])))
        figures.append(html.figure(_panorama(compared, i, comparison), terms))
    return [html.heading("Answers side by side"), html.paragraph(note, "quiet"), *figures]


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
    told = (
        f": {compared[0].name} is nearer to the references in {ahead:,}, {compared[1].name} in {len(telling) - ahead:,}"
    )
    return telling, f"{told} (ROUGE-L)"


def _answer(text: str, references: Sequence[str], error: str) -> str:
    if error:
        return f'<span class="wrong">generation failed: {escape(error)}</span>'
    mark = ' <span class="badge right">✓ a reference</span>' if text in references else ""
    return (escape(text) or "<i>empty</i>") + mark


def _listed(references: Sequence[str]) -> str:
    shown = "".join(f"<li>{escape(text)}</li>" for text in references[:_REFERENCES])
    more = len(references) - _REFERENCES
    return f"<ul>{shown}{f'<li>and {more} more</li>' if more > 0 else ''}</ul>"


def _panorama(compared: Sequence[Result], index: int, comparison: Comparison) -> str:
    """The picture from wherever one of the experiments finds it."""
    sought = []
    for result in compared:
        image = result.scored.rows[comparison.order[result.name][index]].get(KEY[0], "")
        for root in (Path(), *result.folder.resolve().parents):
            if image and (root / image).is_file():
                return html.panorama(root / image)
        sought.append(image)
    return html.paragraph(f"picture not shown: {sought[0] or 'the predictions name none'}", "quiet")


def _arrow(comparison: Comparison, metric: str) -> str:
    scales = [result.metrics[metric].scale for result in comparison.results if metric in result.metrics]
    return "↓" if any(LOWER_IS_BETTER in scale for scale in scales) else "↑"
