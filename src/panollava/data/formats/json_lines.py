"""Files of JSON records: a list, or one record a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from panollava.data.text_file import read_text_file
from panollava.errors import DataError

SUFFIXES = (".json", ".jsonl", ".ndjson")
_FIRST_BYTES = 1 << 20


def read_records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record with its line (of JSON lines) or its number (of a list), from 1.

    Raises DataError that names the line, or the record, that is no JSON object.
    """
    yield from records_in(path, read_text_file(path, "JSON", json=True))


def records_in(path: Path, text: str, expected: str = "one record a line") -> Iterator[tuple[int, dict[str, Any]]]:
    """`read_records` of a text that was read; `expected` is what its errors say of the file's form."""
    if text.lstrip().startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not JSON: {error}") from error
        for number, record in enumerate(listed, start=1):
            yield number, _object(path, f"record {number}", record, expected)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}: line {number} is not JSON: {error}. Expected {expected}") from error
            yield number, _object(path, f"line {number}", record, expected)


def first_record(path: Path) -> dict[str, Any] | None:
    """The first record of a JSON file, to recognise its format by; None where there is none at its beginning."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        text = stream.read(_FIRST_BYTES).decode("utf-8-sig", errors="replace").lstrip("[ \t\r\n")
    try:
        record, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _object(path: Path, place: str, record: object, expected: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise DataError(f"{path}: {place} is a {type(record).__name__}, expected an object: {expected}")
    return record
