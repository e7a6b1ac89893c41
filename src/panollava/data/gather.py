"""results/{experiment}/prepared: what the experiment was trained and scored on, as plain files beside its results."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path

from panollava.data.prepared_images import leakage, read_images
from panollava.data.samples import PREPARED_COLUMNS
from panollava.data.tables import REJECTED_COLUMNS, write_table
from panollava.files import atomic_path
from panollava.logs import LOGGER

_NAMES = {"train": "training", "val": "validation", "test": "test"}


def gather_prepared(folders: dict[str, str], output: Path) -> None:
    """Copy each split's prepared.csv to {output}/{split}.csv and join their rejected.csv, without doubles. A split that
    is not configured, of an experiment without stages, is a CSV without rows.

    The first three columns are a row's place and why it was rejected; the others are its fields, by position under the
    longest of the files' headers (files of one experiment may have different columns). A warning says where splits
    share panoramas.
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
    for split in _NAMES.keys() - folders.keys():
        write_table(output / f"{split}.csv", PREPARED_COLUMNS, [])
    for line in shared_panoramas(folders):
        LOGGER.warning("%s", line)
    write_table(output / "rejected.csv", header, [[*row, *[""] * (len(header) - len(row))] for row in rows])


def shared_panoramas(folders: Mapping[str, str]) -> list[str]:
    """Lines for the log about splits that show the same panoramas, by content; `folders` are their prepared folders.

    A test split that is the validation split, as where no test CSV is configured, is not named.
    """
    contents = {split: read_images(Path(folder) / "prepared.csv") or {} for split, folder in folders.items()}
    pairs = [("train", "val"), ("train", "test"), ("val", "test")]
    found = [
        leakage(contents[one], contents[other], (_NAMES[one], _NAMES[other]))
        for one, other in pairs
        if {one, other} <= folders.keys() and (one == "train" or folders[one] != folders[other])
    ]
    return [line for line in found if line is not None]
