"""CSVs: `url,query,annotation` and its relatives, and questions with right answers beside them.

Comma-separated UTF-8 with or without BOM, any newline style; field text is kept to the character ("None" and
"nan" are text, only an empty field is missing). Nothing is guessed: another encoding or separator, a missing or
doubled column and an unbalanced quote are errors that name what was found. The csv module, not pandas: the DAG
plans with it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.data.formats.csv_questions import QuestionColumns
from panollava.data.formats.rows import Columns, Format, Table, TableRow, find_columns, missing_values
from panollava.data.text_file import check_text_file, read_text_file
from panollava.errors import DataError

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
csv.field_size_limit(2**31 - 1)  # 128 KiB by default; a long text is no error, an open quote is found at the end


def read_csv(path: str | Path, columns: Columns | None = None) -> Table:
    """Read an input CSV strictly. Raises DataError that names the file and what was found.

    `columns` maps canonical names (image_path, query, annotation) to the file's own; the others are found by
    alias, trimmed and without regard to case. Rows with a wrong number of fields or an empty value keep their
    place, with a `problem`. Blank lines are no rows, before the header neither.
    """
    path = Path(path)
    check_text_file(path)
    wanted = {canonical: name for canonical, name in (columns or {}).items() if name is not None}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return _read_stream(path, csv.reader(stream, strict=True), wanted)


def _read_stream(path: Path, reader: Any, wanted: Mapping[str, str]) -> Table:
    rows: list[TableRow] = []
    images: dict[str, str] = {}  # many rows name one picture: its name is held once
    header: tuple[str, ...] | None = None
    start = 1
    try:
        for fields in reader:
            if fields and header is None:
                header = tuple(fields)
                places = _find_places(path, header, wanted)
            elif fields:
                assert header is not None
                image = places["image_path"]
                if image < len(fields):
                    fields[image] = images.setdefault(fields[image], fields[image])
                rows.append(_table_row(path, start, tuple(fields), header, places))
            start = reader.line_num + 1
    except csv.Error as error:
        if header is None:
            _refuse_separator(path)
        raise DataError(
            f"{path}: the row that starts at line {start} is not valid CSV ({error}). "
            'A quote inside a quoted field is written twice: ""'
        ) from error
    if header is None or not rows:
        raise DataError(f"{path}: the file has a header but no rows")
    rows, notes = QuestionColumns.find(path, header, places.values(), wanted).add_to(rows)
    return Table(path, header, tuple(rows), notes)


def _find_places(path: Path, header: Sequence[str], wanted: Mapping[str, str]) -> dict[str, int]:
    """`find_columns`; where they are not found, another separator may be why."""
    try:
        return find_columns(path, header, wanted)
    except DataError as error:
        if "no column for" in str(error):
            _refuse_separator(path)
        raise


def _refuse_separator(path: Path) -> None:
    line = read_text_file(path).strip().splitlines()[0]
    if line.startswith("sep="):
        raise DataError(f"{path}: the first line, {line[:20]!r}, is for Excel only. Remove it, and separate by commas")
    for separator, name in _SEPARATORS.items():
        if separator in line and line.count(separator) >= line.count(","):
            raise DataError(f"{path}: separated by {name}, expected commas. The first line is {line[:200]!r}")


def _table_row(
    path: Path, line: int, fields: tuple[str, ...], header: tuple[str, ...], places: Mapping[str, int]
) -> TableRow:
    if len(fields) != len(header):
        problem = f"wrong number of fields: {len(fields)}, expected {len(header)}"
        return TableRow(str(path), line, fields, problem=problem)
    values = {canonical: fields[place] for canonical, place in places.items()}
    empty = missing_values(values)
    missing = f"missing column value: {', '.join(empty)}" if empty else None
    given = (values["image_path"], values["query"], values["annotation"])
    return TableRow(str(path), line, fields, *given, problem=missing)


CSV = Format("csv", matches=lambda path: path.is_file(), read=read_csv)
