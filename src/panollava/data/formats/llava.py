"""JSON as LLaVA and its followers have it: a list of records (.json) or one a line (.jsonl).

A record has `conversations` or `messages`, and an image; or fields named as a CSV's columns are (`image`, `question`,
`answer`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from panollava.data.formats.json_lines import SUFFIXES, records_in
from panollava.data.formats.pictures import files_in
from panollava.data.formats.records import Record, table_of
from panollava.data.formats.rows import Columns, Format, Table
from panollava.data.text_file import read_text_file

_EXPECTED = "a list of records ([{…}, {…}]), or one record a line"


def read_llava(path: Path, columns: Columns) -> Table:
    """Raises DataError that names the file and the line, with what was found."""
    text = read_text_file(path, "JSON", json=True)
    return table_of(path, _records(path, text), columns)


def _records(path: Path, text: str) -> list[Record]:
    return [Record(number, record) for number, record in records_in(path, text, _EXPECTED)]


def _embedded(path: Path) -> Iterator[bytes]:
    """The pictures that stand in it as data: addresses."""
    text = read_text_file(path, "JSON", json=True)
    for record in _records(path, text) if "data:image/" in text else ():
        yield from files_in(record.values)


LLAVA = Format("llava", matches=Path.is_file, read=read_llava, embedded=_embedded, suffixes=SUFFIXES)
