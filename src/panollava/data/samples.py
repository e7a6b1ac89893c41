"""A prepared CSV enters; its rows (training) or its samples (prediction, scoring) leave.

A prepared CSV has exactly the columns `image_path,query,annotation`. Rows that share (image, query) are one
sample with several references; text is kept to the character.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from panollava.errors import DataError

csv.field_size_limit(2**31 - 1)  # 128 KiB by default; prepared texts may be longer

PREPARED_COLUMNS = ("image_path", "query", "annotation")


@dataclass(frozen=True)
class Row:
    """One training example: an image, a query and one annotation."""

    image_path: str
    query: str
    annotation: str


@dataclass(frozen=True)
class Sample:
    """One (image, query) with all its references, in the order of the file; ids count samples from 0."""

    sample_id: int
    image_path: str
    query: str
    references: tuple[str, ...]


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a prepared CSV, in order. Raises DataError where it is not one."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, None)
            if header is None or tuple(header) != PREPARED_COLUMNS:
                raise DataError(
                    f"{path}: a prepared CSV has the columns {','.join(PREPARED_COLUMNS)}, "
                    f"found {','.join(header) if header else 'an empty file'}. "
                    "Run `panollava prepare` on it first"
                )
            rows = []
            for fields in reader:
                if len(fields) != len(PREPARED_COLUMNS):
                    raise DataError(f"{path}: line {reader.line_num} has {len(fields)} fields, expected 3")
                rows.append(Row(*fields))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a prepared CSV: {error}") from error


def group_rows(rows: list[Row]) -> list[Sample]:
    """Samples in order of first appearance; a reference that stands twice counts twice."""
    references: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        references.setdefault((row.image_path, row.query), []).append(row.annotation)
    return [
        Sample(sample_id, image_path, query, tuple(texts))
        for sample_id, ((image_path, query), texts) in enumerate(references.items())
    ]


def read_samples(path: str | Path) -> list[Sample]:
    """The samples of a prepared CSV. Raises DataError where it is not one."""
    return group_rows(read_rows(path))
