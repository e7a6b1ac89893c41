"""Two pages of the report: scores beside their blind control, and panoramas with answers beside references.

metrics.json's document and the rows of predictions.csv enter; self-contained HTML leaves. Samples are drawn at random
with a fixed seed, never picked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from panollava.evaluation import html
from panollava.evaluation.console import summary_line
from panollava.evaluation.metrics import LABELS
from panollava.evaluation.metrics.result import LOWER_IS_BETTER
from panollava.evaluation.protocols import apply_protocol, collapse, question_of
from panollava.files import write_text

SAMPLES = 12
_SEED = 0
_REFERENCES = 4

Rows = Sequence[Mapping[str, str]]


def write_metrics_page(document: Mapping[str, Any], path: Path, experiment: str) -> None:
    """The table of metrics.json: value, blind control and their distance, scale and origin of each metric."""
    blind = document["controls"]["blind"]
    rows = []
    for key, metric in document["metrics"].items():
        value, control = metric["value"], (blind or {}).get(key)
        arrow = "↓" if LOWER_IS_BETTER in str(metric["scale"]) else "↑"
        origin = " ".join(str(word) for word in (metric["library"], metric["version"]) if word)
        rows.append(
            [
                html.cell(f"{LABELS.get(key, key)} {arrow}", "name"),
                html.cell(_number(value), "number best", _range(metric.get("interval"))),
                html.cell(_number(control), "number"),
                html.cell(f"{value - control:+.4f}" if None not in (value, control) else "–", "number quiet"),
                html.cell(metric["scale"] if metric["scale"] != "unknown" else "–", "quiet"),
                html.cell(origin if value is not None else f"not computed: {metric['reason']}", "quiet wrap"),
            ]
        )
    about = (
        "Blind control: the same model, the pictures shuffled between samples. A score is worth its distance from it."
        if blind
        else "No blind control was made: evaluation.blind_control is off, or the test set has a single picture."
    )
    how = document.get("intervals")
    if how:
        about += (
            f" Below a score: the range that holds {how['confidence']:.0%} of {how['draws']:,} scores of as many "
            f"{how['resampled']}, drawn again from the {how['units']:,} of the test set."
        )
    checkpoint = document["provenance"]["checkpoint"]
    made_by = f"Checkpoint {checkpoint['folder']}/{checkpoint['file']} (epoch {checkpoint['epoch']})"
    header = ["metric", "score", "blind control", "distance", "scale", "made by"]
    write_text(
        path,
        html.page(
            f"{experiment}: scores of the test set",
            html.paragraph(summary_line(document)),
            html.table(header, rows, numbers=(1, 2, 3)),
            html.paragraph(about),
            html.paragraph(made_by, "quiet"),
        ),
    )


def write_samples_page(
    rows: Rows, blind_rows: Rows | None, exact: bool, path: Path, experiment: str, root: Path = Path()
) -> None:
    """Panoramas with question, answer, references and the blind answer. `exact`: an answer is right or wrong.

    Where it is not, an answer that differs from its references is shown without a mark. Pictures lie below `root`.
    """
    scored = apply_protocol(rows, "grouped")
    blind = {} if blind_rows is None else {question_of(row): row["prediction"] for row in blind_rows}
    count = min(SAMPLES, scored.num_samples)
    chosen = sorted(random.Random(_SEED).sample(range(scored.num_samples), count))
    figures = [
        _figure(row, scored.references[i], blind.get(question_of(row)), exact, root)
        for i, row in ((i, scored.rows[i]) for i in chosen)
    ]
    drawn = f"{count} of {scored.num_samples:,} samples of the test set: drawn at random, always the same, not picked."
    note = (
        f"{drawn if count < scored.num_samples else f'All {count} samples of the test set.'} "
        "Blind answer: what the model answers when it is shown another picture."
    )
    write_text(
        path, html.page(f"{experiment}: panoramas, answers, references", html.paragraph(note, "quiet"), *figures)
    )


def _figure(
    row: Mapping[str, str], references: Sequence[str], blind_answer: str | None, exact: bool, root: Path
) -> str:
    answer = collapse(row["prediction"])
    terms = [("question", escape(row["original_query"]))]
    if row.get("error"):
        terms.append(("answer", f'<span class="wrong">generation failed: {escape(row["error"])}</span>'))
    else:
        terms.append(("answer", f"{escape(answer) or '<i>empty</i>'} {_mark(answer, references, exact)}"))
    shown = "".join(f"<li>{escape(text)}</li>" for text in references[:_REFERENCES])
    more = len(references) - _REFERENCES
    shown += f"<li>and {more} more</li>" if more > 0 else ""
    terms.append(("references", f"<ul>{shown}</ul>"))
    if blind_answer is not None:
        terms.append(("blind answer", f'<span class="quiet">{escape(collapse(blind_answer)) or "<i>empty</i>"}</span>'))
    return html.figure(html.panorama(root / row["image_path"]), terms)


def _mark(answer: str, references: Sequence[str], exact: bool) -> str:
    if answer in references:
        return '<span class="badge right">✓ right</span>' if exact else '<span class="badge right">✓ a reference</span>'
    return '<span class="badge wrong">✗ wrong</span>' if exact else ""


def _range(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
