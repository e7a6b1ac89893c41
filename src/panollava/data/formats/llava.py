"""JSON as LLaVA and its followers have it: a list of records (.json) or one a line (.jsonl).

A record has `conversations` or `messages`, and an image; or fields named as a CSV's columns are (`image`, `question`,
`answer`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from panollava.data.formats.json_lines import SUFFIXES
from panollava.data.formats.pictures import files_in
from panollava.data.formats.records import Record, table_of
from panollava.data.formats.rows import Columns, Format, Table
from panollava.data.text_file import read_text_file
from panollava.errors import DataError


def read_llava(path: Path, columns: Columns) -> Table:
    """Raises DataError that names the file and the line, with what was found."""
    text = read_text_file(path, "JSON", json=True)
    return table_of(path, _records(path, text), columns)


def _records(path: Path, text: str) -> list[Record]:
    if text.lstrip()[:1] == "[":
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON: {error}") from error
        return [_record(path, number, one, "record") for number, one in enumerate(listed, start=1)]
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: line {number} is not JSON: {error}. Expected {_EXPECTED}") from error
        records.append(_record(path, number, one, "line"))
    return records


_EXPECTED = "a list of records ([{…}, {…}]), or one record a line"


def _record(path: Path, number: int, value: object, place: str) -> Record:
    if not isinstance(value, dict):
        raise DataError(f"{path}: {place} {number} is a {type(value).__name__}, expected an object. {_EXPECTED}")
    return Record(number, value)


def _embedded(path: Path) -> Iterator[bytes]:
    """The pictures that stand in it as data: addresses."""
    text = read_text_file(path, "JSON", json=True)
    for record in _records(path, text) if "data:image/" in text else ():
        yield from files_in(record.values)


LLAVA = Format("llava", matches=Path.is_file, read=read_llava, embedded=_embedded, suffixes=SUFFIXES)
