"""Read and write files of rows: which file an image path means, and CSVs written to the character."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from panollava.files import atomic_path
from panollava.trust import find_inside

REJECTED_COLUMNS = ("source_csv", "source_line", "reason")
"""The first columns of a rejected.csv; the row's own fields follow."""


def resolve_image(
    image_path: str, csv_path: str | Path, root: str | Path = ".", within: Sequence[Path] | None = None
) -> Path | None:
    """The file that a row's image path means: beside its CSV first, then from `root`; None where neither exists.

    With `within` the CSV is others': a picture outside of these folders is not there.
    """
    for folder in (Path(csv_path).parent, Path(root)):
        candidate = folder / image_path
        try:
            if candidate.is_file() and (within is None or find_inside(os.path.abspath(candidate), within) is not None):
                return candidate
        except OSError:  # a name too long for the file system, or a folder that may not be read
            continue
    return None


def why_no_image(image_path: str, csv_path: str | Path, root: str | Path = ".") -> str:
    """Why `resolve_image` found no file; empty where there is simply nothing."""
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", image_path):
        return f"{found[1]}: is not read, only paths, http: and https:"
    if image_path != image_path.strip():
        return "white space around the path"
    for folder in (Path(csv_path).parent, Path(root)):
        candidate = folder / image_path
        try:
            if candidate.is_dir():
                return "it is a folder"
            if candidate.exists():
                return "it is no ordinary file"
            if candidate.is_symlink():
                return "it is a link that leads nowhere"
        except OSError as error:
            return error.strerror or ""
    return ""


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV atomically: UTF-8, `\\n`, quotes only where needed, every field kept to the character."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(header)
        for row in rows:
            # csv leaves a lone carriage return unquoted, where every reader takes it for the end of the row.
            (quoted if any("\r" in field for field in row) else plain).writerow(row)


def is_url(image_path: str) -> bool:
    return image_path.lower().startswith(("http://", "https://"))
