"""results/{experiment}/prepared: what the experiment was trained and scored on, as plain files beside its results."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from panollava.data.tables import REJECTED_COLUMNS, write_table
from panollava.files import atomic_path


def gather_prepared(folders: dict[str, str], output: Path) -> None:
    """Copy each split's prepared.csv to {output}/{split}.csv and join their rejected.csv, without doubles.

    The first three columns are where a row stood and why it left; the others are its fields, by position under the
    longest of the files' headers (files of one experiment may have different columns).
    """
    header: list[str] = list(REJECTED_COLUMNS)
    rows: dict[tuple[str, ...], None] = {}
    for split, folder in folders.items():
        with atomic_path(output / f"{split}.csv") as partial:
            shutil.copyfile(Path(folder) / "prepared.csv", partial)
        with (Path(folder) / "rejected.csv").open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream)
            header = max(header, next(reader, []), key=len)
            rows |= dict.fromkeys(tuple(row) for row in reader)
    write_table(output / "rejected.csv", header, [[*row, *[""] * (len(header) - len(row))] for row in rows])
