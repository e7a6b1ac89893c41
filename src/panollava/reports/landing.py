"""The first page of `snakemake --report`: scores of the experiments in it, and what their jobs took. No torch.

Renders documents of metrics.json and rows of text as reStructuredText.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def landing_page(
    metrics: Mapping[str, Mapping[str, Any]], columns: Sequence[str], used: Iterable[Sequence[str]]
) -> str:
    """`metrics` maps an experiment to its metrics.json; `used` are rows under `columns` about the jobs."""
    parts = []
    if metrics:
        rows = [row for name, document in metrics.items() for row in _scores(name, document)]
        parts.append(_table("Scores", ["experiment", "metric", "score", "95 % interval", "blind control"], rows))
    if used := list(used):
        parts.append(_table("Seconds and memory of the jobs when they last ran", columns, used))
    return "\n".join(parts)


def _scores(name: str, document: Mapping[str, Any]) -> Iterable[list[str]]:
    blind = document["controls"]["blind"] or {}
    for key, metric in document["metrics"].items():
        interval = metric.get("interval")
        yield [
            name,
            key,
            _number(metric["value"]),
            "" if interval is None else f"{_number(interval[0])} to {_number(interval[1])}",
            _number(blind.get(key)),
        ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f".. list-table:: {title}", "   :header-rows: 1", ""]
    for row in (header, *rows):
        for place, cell in enumerate(row):
            # ``literal``: names of experiments and metrics may hold what is markup here
            lines.append(f"   {'*' if place == 0 else ' '} - {f'``{cell}``' if cell and row is not header else cell}")
    return "\n".join([*lines, ""])
