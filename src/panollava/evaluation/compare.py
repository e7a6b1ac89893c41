"""Several experiments side by side: one row each, a column per metric and per blind control."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from panollava.files import read_json, write_text


def write_comparison(metrics: list[Path], output: Path) -> None:
    """Write a CSV from metrics.json files; the experiment's name is that of the folder. Absent values stay empty."""
    documents = {path.parent.name: read_json(path) for path in metrics}
    names = list(dict.fromkeys(name for document in documents.values() for name in document["metrics"]))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        ["experiment", "protocol", "num_samples", "num_references", *names, *(f"blind_{name}" for name in names)]
    )
    for experiment, document in documents.items():
        blind = document["controls"]["blind"] or {}
        writer.writerow(
            [experiment, document["protocol"], document["num_samples"], document["num_references"]]
            + [document["metrics"].get(name, {}).get("value") for name in names]
            + [blind.get(name) for name in names]
        )
    write_text(output, stream.getvalue())
