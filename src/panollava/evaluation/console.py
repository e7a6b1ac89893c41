"""The table of scores on the console: one line per metric, then the intervals and the blind control.

✓ BLEU-4 (↑): 0.007838 | sacrebleu
✗ SPICE: null | CoreNLP 3.6.0 not installed: run panollava setup-metrics
        95 % interval         pictures shuffled
BLEU-4  0.006950 to 0.008800  0.006120
grouped: 100 samples, 300 references, 0 empty, 0 errors
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from panollava.evaluation.metrics import LABELS
from panollava.evaluation.metrics.result import arrow, lower_is_better


def metric_lines(document: Mapping[str, Any]) -> list[str]:
    """Lines of the table for a metrics.json document."""
    lines = []
    for key, result in document["metrics"].items():
        label = LABELS.get(key, key)
        if result["value"] is None:
            lines.append(f"✗ {label}: null | {result['reason']}")
            continue
        better = arrow(lower_is_better(result))
        lines.append(f"✓ {label} ({better}): {result['value']:.6f} | {result['library']}")
    return lines


def summary_lines(document: Mapping[str, Any]) -> list[str]:
    """The lines below the table: intervals and the blind control, where there are some; what was scored."""
    controls = document.get("controls") or {}
    blind, text_only = controls.get("blind") or {}, controls.get("text_only") or {}
    confidence = (document.get("intervals") or {}).get("confidence")
    rows = []
    for key, result in document["metrics"].items():
        interval, others = result.get("interval"), (blind.get(key), text_only.get(key))
        if interval or others != (None, None):
            between = "{:.6f} to {:.6f}".format(*interval) if interval else ""
            values = ["" if other is None else f"{other:.6f}" for other in others]
            rows.append((LABELS.get(key, key), between, *values))
    lines = []
    if rows:
        head = ("", f"{f'{100 * confidence:g} % ' if confidence else ''}interval", "pictures shuffled", "text only")
        shown = [index for index in range(4) if any(row[index] for row in rows)]
        widths = [max(len(row[index]) for row in (head, *rows)) for index in range(4)]
        lines = ["  ".join(row[index].ljust(widths[index]) for index in shown).rstrip() for row in (head, *rows)]
    note = (document.get("intervals") or {}).get("note")
    return [*lines, *([note] if note else []), summary_line(document)]


def summary_line(document: Mapping[str, Any]) -> str:
    """One line that says what was scored: protocol, samples, references and what went wrong."""
    line = (
        f"{document['protocol']}: {document['num_samples']} samples, {document['num_references']} references, "
        f"{document['num_empty']} empty, {document['num_errors']} errors"
    )
    if unreadable := document.get("num_unreadable", 0):
        line += f", {unreadable} answers that cannot be read"
    if unjudged := document.get("num_unjudged", 0):
        line += f", {unjudged} judgements without a score"
    if without := document.get("num_without_reference", 0):
        line += f", {without} rows without a reference left out"
    if differing := document.get("num_differing", 0):
        line += f", {differing} with different predictions, the first of which is scored"
    return line


def print_metrics(document: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """Print the table to `stream` (standard output): coloured on a terminal, plain text elsewhere."""
    stream = stream or sys.stdout
    lines = [*metric_lines(document), *summary_lines(document)]
    if not stream.isatty():
        print_lines(lines, stream)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, soft_wrap=True, highlight=False)
    for line in lines:
        style = {"✓": "green", "✗": "red"}.get(line[0], "dim")
        console.print(Text(line, style=style))


def print_lines(lines: list[str], stream: TextIO | None = None) -> None:
    """Plain lines on `stream` (standard output)."""
    stream = stream or sys.stdout
    stream.write("".join(f"{line}\n" for line in _encodable(lines, stream)))


def _encodable(lines: list[str], stream: TextIO) -> list[str]:
    """The lines with what the stream cannot write (LC_ALL=C) replaced, since a score must not be lost to a tick."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return [line.encode(encoding, "replace").decode(encoding) for line in lines]
