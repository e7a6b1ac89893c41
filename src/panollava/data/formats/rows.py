"""What every reader of a format returns: the rows of one source, each with its values or with why it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from panollava.answers.grading import Grade
from panollava.data.details import NO_DETAILS, Details
from panollava.errors import DataError

Rule = Callable[[str, str], Grade]
"""The grade of what a model wrote (first) for what is true (second), as a benchmark's authors grade it."""
Columns = Mapping[str, str | None]
"""`data.columns`: canonical names to the source's own, None where they are found by alias."""


COLUMN_ALIASES: dict[str, tuple[str, ...]] = {
    "image_path": ("image_path", "url", "image", "image_url", "path"),
    "query": ("query", "instruction", "question"),
    "annotation": ("annotation", "response", "answer", "caption"),
}
MAPPED_DETAILS = ("answer_type", "options", "category", "sample_id")
"""Further columns whose names `data.columns` can give."""
EMBEDDED = "embedded:"
"""What the image path of a row begins with whose picture stands in the data itself; its SHA-256 follows."""
_BLANK = (
    " \t\r\n\v\f\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
    "\u200b\u200c\u200d\u2060\ufeff\u00ad"
)
"""Spaces, and characters without width, in which nobody sees anything."""


@dataclass(frozen=True, slots=True)
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
        suffixes: how the names of its files end, lower case, where the name decides: of files `auto` asks no others.
        matches: whether a path (a file or a folder that exists) holds this format; reads no more than its beginning.
        read: the rows. Raises DataError that names the file and what was found.
        embedded: the image files that stand in the data itself; a row names one by EMBEDDED and its SHA-256.
        files: the files below a folder that the rows depend on, pictures left out.
        rules: the authors' own rules by name; a row whose `scoring` is FORMAT/RULE is graded by it.
    """

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path, Columns], Table]
    files: Callable[[Path], list[Path]] = lambda path: [path]
    rules: Mapping[str, Rule] = field(default_factory=dict)
    embedded: Callable[[Path], Iterator[bytes]] = lambda path: iter(())
    suffixes: tuple[str, ...] = ()


def missing_values(values: Mapping[str, str]) -> list[str]:
    """The canonical columns that are empty; an annotation in which nobody sees anything is empty too."""
    return [name for name, text in values.items() if not text or (name == "annotation" and not text.strip(_BLANK))]


def find_columns(path: Path, header: Sequence[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """The position of each canonical column, by the user's name for it or by alias, trimmed and without regard to case.

    Raises DataError for a name that is absent or appears twice.
    """
    if unknown := set(wanted) - {*COLUMN_ALIASES, *MAPPED_DETAILS}:
        listed = ", ".join((*COLUMN_ALIASES, *MAPPED_DETAILS))
        raise DataError(f"data.columns can map {listed}, got {', '.join(sorted(unknown))}")
    names = [_folded(name) for name in header]
    places: dict[str, int] = {}
    for canonical, aliases in COLUMN_ALIASES.items():
        accepted = (_folded(wanted[canonical]),) if canonical in wanted else aliases
        found = [place for place, name in enumerate(names) if name in accepted]
        if not found:
            raise DataError(
                f"{path}: no column for {canonical}: expected {' or '.join(accepted)}, found {_listed(header)}. "
                f"Map it with data.columns: {{{canonical}: NAME}}"
            )
        if len(found) > 1:
            raise DataError(
                f"{path}: several columns for {canonical}: {_listed([header[place] for place in found])}. "
                f"Choose one with data.columns: {{{canonical}: NAME}}, or remove the others"
            )
        places[canonical] = found[0]
    if len(set(places.values())) < len(places):
        raise DataError(f"{path}: data.columns maps one column twice: {dict(wanted)}")
    return places


def _folded(name: str) -> str:
    return name.strip().casefold()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
