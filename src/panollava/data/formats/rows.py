"""What every reader of a format returns: the rows of one source, each with its values or with why it has none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from panollava.answers.grading import Grade
from panollava.data.details import NO_DETAILS, Details

Rule = Callable[[str, str], Grade]
"""The grade of what a model wrote (first) for what is true (second), as a benchmark's authors grade it."""
Columns = Mapping[str, str | None]
"""`data.columns`: canonical names to the source's own, None where they are found by alias."""


@dataclass(frozen=True)
class TableRow:
    """One row as it stands: the canonical values and all fields.

    `source_csv` is the file that holds the row (image paths are relative to its folder first) and `source_line` where
    in it: the line of a CSV or of JSON lines, counted from 1 (a CSV's header's), else the record, from 1. `problem`
    says why the values cannot be used, None where they can.
    """

    source_csv: str
    source_line: int
    fields: tuple[str, ...]
    image_path: str = ""
    query: str = ""
    annotation: str = ""
    problem: str | None = None
    details: Details = NO_DETAILS


@dataclass(frozen=True)
class Table:
    """A source: the names of its rows' fields and its rows in order. `notes` is what a user is told about it once."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """How one kind of source is recognised and read.

    Args:
        name: its value in `data.format`.
        matches: whether a path (a file or a folder that exists) holds this format; reads no more than its beginning.
        read: the rows. Raises DataError that names the file and what was found.
        files: the files below a folder that the rows depend on, pictures left out.
        rules: the authors' own rules by name; a row whose `scoring` is FORMAT/RULE is graded by it.
    """

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Columns], Table]
    files: Callable[[Path], list[Path]] = lambda path: [path]
    rules: Mapping[str, Rule] = field(default_factory=dict)
