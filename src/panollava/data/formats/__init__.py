"""Data as people have it: one file a format, each giving the same rows.

Each reads a path (a file or a folder) into a `Table`. A new format is one file with a `Format` in it, its line in
`FORMATS`, its name in `settings.choices.FormatName`, and a test (docs/extending.md).
"""

from __future__ import annotations

from pathlib import Path

from panollava.data.formats.csv import CSV
from panollava.data.formats.llava import LLAVA
from panollava.data.formats.osr_bench import OSR_BENCH
from panollava.data.formats.panoenv import PANOENV
from panollava.data.formats.parquet import PARQUET
from panollava.data.formats.rows import Columns, Format, Rule, Table, TableRow
from panollava.errors import DataError

__all__ = ["FORMATS", "Table", "TableRow", "format_of", "read_source", "rule_of"]

FORMATS: dict[str, Format] = {one.name: one for one in (PANOENV, OSR_BENCH, PARQUET, LLAVA, CSV)}
"""Every format by its name in `data.format`, in the order in which `auto` tries them; csv takes what is left."""


def format_of(path: str | Path, name: str = "auto") -> Format:
    """The format of a file or folder: the one of that name, or with `auto` the first that recognises it.

    Raises DataError for an unknown name, and where no format recognises the path.
    """
    if name != "auto":
        if name not in FORMATS:
            raise DataError(f"data.format is auto or one of {', '.join(FORMATS)}, got {name!r}")
        return FORMATS[name]
    path = Path(path)
    try:
        suffix = path.suffix.casefold()
        asked = (one for one in FORMATS.values() if not one.suffixes or suffix in one.suffixes or path.is_dir())
        found = next((one for one in asked if one.matches(path)), None)
        if found is None and path.is_dir():
            raise DataError(
                f"{path} is a folder, and none of the formats {', '.join(FORMATS)} is in it. Name a file in it, "
                "or the format (data.format)"
            )
    except OSError:  # a name too long, or a file that may not be read: reading it says so
        found = None
    return found or CSV


def rule_of(name: str) -> Rule:
    """The rule of a benchmark's authors by the name that rows carry (`scoring`), FORMAT/RULE. Raises DataError."""
    format, _, rule = name.partition("/")
    found = FORMATS[format].rules.get(rule) if format in FORMATS else None
    if found is None:
        known = [f"{one.name}/{rule}" for one in FORMATS.values() for rule in one.rules]
        raise DataError(f"scoring is a rule that a format knows ({', '.join(known) or 'none'}), got {name!r}")
    return found


def read_source(path: str | Path, columns: Columns | None = None, format: str = "auto") -> Table:
    """The rows of a source. Raises DataError that names the file, and the row where it is one, with what was found.

    `columns` maps canonical names (image_path, query, annotation) to the source's own (`data.columns`).
    """
    return format_of(path, format).read(Path(path), columns or {})
