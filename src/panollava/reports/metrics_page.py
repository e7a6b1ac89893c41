"""report_metrics.html: each score of a metrics.json beside its blind control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.evaluation.accuracy import UNREADABLE, Graded, confusion
from panollava.evaluation.console import summary_line
from panollava.evaluation.metrics import LABELS
from panollava.evaluation.metrics.result import arrow, lower_is_better
from panollava.evaluation.resampling import LEAST_UNITS
from panollava.reports.rendering import ABSENT, write_page


def write_metrics_page(document: Mapping[str, Any], path: Path, experiment: str, graded: Graded | None = None) -> None:
    """The table of metrics.json: value, controls and the distance from the blind one, scale and origin of each metric.

    Of `graded` samples: how often each answer was given where each is true, and the share that cannot be read by kind.
    """
    controls = document["controls"]
    blind, text_only = controls["blind"], controls.get("text_only")
    between = controls.get("distance_interval") or {}
    write_page(
        "metrics",
        path,
        title=f"{experiment}: scores of the test set",
        summary=summary_line(document),
        rows=[
            _row(key, metric, (blind or {}).get(key), (text_only or {}).get(key), between.get(key))
            for key, metric in document["metrics"].items()
        ],
        has_blind=bool(blind),
        has_text_only=bool(text_only),
        has_distances=bool(between),
        confusions=[_confusion(name, table) for name, table in confusion(graded).items()] if graded else [],
        unreadable=_unreadable(graded) if graded else [],
        intervals=document.get("intervals"),
        least_units=LEAST_UNITS,
        checkpoint=document["provenance"]["checkpoint"],
    )


def _confusion(name: str, table: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """A table with a row for each true answer and a column for each that was given, those that cannot be read last."""
    said = {answer for row in table.values() for answer in row}
    columns = [*sorted(said - {UNREADABLE} | set(table)), *([UNREADABLE] if UNREADABLE in said else [])]
    rows = [{"truth": truth, "counts": [table[truth].get(column, 0) for column in columns]} for truth in sorted(table)]
    return {"name": name, "columns": columns, "rows": rows}


def _unreadable(graded: Graded) -> list[dict[str, Any]]:
    """Of each kind of answer that some answer could not be read as: how many, of how many."""
    counts: dict[str, list[int]] = {}
    for about, one in graded.pairs():
        counted = counts.setdefault(about.scoring or about.answer_type, [0, 0])
        counted[0] += not one.readable
        counted[1] += 1
    return [{"kind": kind, "lost": lost, "of": of, "share": lost / of} for kind, (lost, of) in counts.items() if lost]


def _row(
    key: str, metric: Mapping[str, Any], blind: float | None, text_only: float | None, between: Sequence[float] | None
) -> dict[str, Any]:
    value = metric["value"]
    origin = " ".join(str(word) for word in (metric["library"], metric["version"]) if word)
    return {
        "label": f"{LABELS.get(key, key)} {arrow(lower_is_better(metric))}",
        "value": value,
        "interval": metric.get("interval"),
        "blind": blind,
        "text_only": text_only,
        "distance": value - blind if value is not None and blind is not None else None,
        "distance_interval": between,
        "unsure": between is not None and between[0] <= 0 <= between[1],
        "scale": metric["scale"] if metric["scale"] != "unknown" else ABSENT,
        "origin": origin if value is not None else f"not computed: {metric['reason']}",
    }
