"""A comparison as a CSV for programs and as lines for the console."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from panollava.evaluation.comparison.verdicts import BASELINE, Comparison, Line
from panollava.evaluation.metrics import LABELS
from panollava.evaluation.resampling import too_few
from panollava.files import write_text
from panollava.reports.rendering import between, number, probability

COLUMNS = (
    "metric", "query_type", "experiment", "protocol", "num_samples", "value", "low", "high", "blind", "text_only",
    "baseline", "difference", "difference_low", "difference_high", "p", "verdict", "note",
)  # fmt: skip


def write_csv(comparison: Comparison, path: Path) -> None:
    """One row per metric, type of query (`all` first) and experiment; what there is not stays empty."""
    protocols = {result.name: result.protocol for result in comparison.results}
    rows = []
    for line in (*comparison.lines, *comparison.by_type):
        low, high = line.interval or (None, None)
        below, above = line.difference_interval or (None, None)
        rows.append(
            [
                line.metric, line.query_type, line.experiment, protocols[line.experiment], line.num_samples, line.value,
                low, high, line.blind, line.text_only, comparison.baseline.name, line.difference, below, above, line.p,
                line.verdict, comparison.refused.get(line.experiment) or line.note,
            ]
        )  # fmt: skip
    write_text(path, pd.DataFrame(rows, columns=COLUMNS, dtype=object).to_csv(index=False, lineterminator="\n"))


def console_lines(comparison: Comparison) -> list[str]:
    """The table of all samples, each metric's lines together, and below it what must be known to read it."""
    controls = ["blind", *(["text only"] if has_text_only(comparison) else [])]
    header = ["", "experiment", "score", "95 % interval", *controls, "difference", "95 % interval", "p", "verdict"]
    rows = []
    before = None
    for line in comparison.lines:
        rows.append(
            [LABELS.get(line.metric, line.metric) if line.metric != before else "", *_cells(line, len(controls))]
        )
        before = line.metric
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    right = {2, *range(4, 5 + len(controls)), 6 + len(controls)}
    lines = []
    for row in [header, *rows]:
        padded = [
            text.rjust(w) if i in right else text.ljust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return [*lines, "", *notes(comparison)]


def notes(comparison: Comparison) -> list[str]:
    """What was compared and how, and what could not be."""
    first = comparison.baseline
    found = [
        f"{first.protocol}: {first.scored.num_samples:,} samples of {comparison.units:,} pictures. "
        f"Baseline: {first.name}.",
    ]
    if len(comparison.results) > 1:
        found.append(
            f"Difference: score minus the baseline's. p: paired randomization of {comparison.draws:,} exchanges, by "
            "picture, Holm-corrected; a verdict where p < 0.05."
        )
    tested = len(comparison.results) - 1 - len(comparison.refused)
    smallest = tested * 2.0 ** (1 - comparison.units)  # all pictures exchanged, or none
    if tested and smallest >= 0.05:
        found.append(
            f"Too few pictures for a verdict: with {comparison.units:,} no p can be smaller than about "
            f"{min(smallest, 1.0):.2g}."
        )
    if few := too_few(comparison.units):
        found.append(f"{few[0].upper()}{few[1:]}.")
    found += [f"{name} is not compared: {why}." for name, why in comparison.refused.items()]
    return found


def has_text_only(comparison: Comparison) -> bool:
    """Whether any of the results has a control that was shown no picture."""
    return any(line.text_only is not None for line in comparison.lines)


def _cells(line: Line, controls: int) -> list[str]:
    verdict = line.verdict or line.note or ""
    return [
        line.experiment, number(line.value), between(line.interval),
        *[number(control) for control in (line.blind, line.text_only)[:controls]],
        "" if line.verdict == BASELINE else number(line.difference, "+.4f"), between(line.difference_interval, "+.4f"),
        probability(line.p), verdict,
    ]  # fmt: skip
