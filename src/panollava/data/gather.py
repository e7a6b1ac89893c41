"""results/{experiment}/prepared: what the experiment was trained and scored on, as plain files beside its results."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

from panollava.files import atomic_path, write_text

REJECTED_HEADER = ("source_csv", "source_line", "reason")


def gather_prepared(folders: dict[str, str], output: Path) -> None:
    """Copy each split's prepared.csv to {output}/{split}.csv and join their rejected.csv, without doubles."""
    header: list[str] = list(REJECTED_HEADER)
    rows: list[dict[str, str]] = []
    for split, folder in folders.items():
        with atomic_path(output / f"{split}.csv") as partial:
            shutil.copyfile(Path(folder) / "prepared.csv", partial)
        with (Path(folder) / "rejected.csv").open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            header += [name for name in reader.fieldnames or () if name not in header]
            rows += [row for row in reader if row not in rows]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output / "rejected.csv", text.getvalue())
