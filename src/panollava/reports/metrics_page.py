"""report_metrics.html: each score of a metrics.json beside its blind control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.evaluation.console import summary_line
from panollava.evaluation.metrics import LABELS
from panollava.evaluation.metrics.result import LOWER_IS_BETTER
from panollava.evaluation.resampling import LEAST_UNITS
from panollava.reports.rendering import ABSENT, write_page


def write_metrics_page(document: Mapping[str, Any], path: Path, experiment: str) -> None:
    """The table of metrics.json: value, blind control and their distance, scale and origin of each metric."""
    blind = document["controls"]["blind"]
    write_page(
        "metrics",
        path,
        title=f"{experiment}: scores of the test set",
        summary=summary_line(document),
        rows=[_row(key, metric, (blind or {}).get(key)) for key, metric in document["metrics"].items()],
        has_blind=bool(blind),
        intervals=document.get("intervals"),
        least_units=LEAST_UNITS,
        checkpoint=document["provenance"]["checkpoint"],
    )


def _row(key: str, metric: Mapping[str, Any], blind: float | None) -> dict[str, Any]:
    value = metric["value"]
    origin = " ".join(str(word) for word in (metric["library"], metric["version"]) if word)
    return {
        "label": f"{LABELS.get(key, key)} {'↓' if LOWER_IS_BETTER in str(metric['scale']) else '↑'}",
        "value": value,
        "interval": metric.get("interval"),
        "blind": blind,
        "distance": value - blind if value is not None and blind is not None else None,
        "scale": metric["scale"] if metric["scale"] != "unknown" else ABSENT,
        "origin": origin if value is not None else f"not computed: {metric['reason']}",
    }
