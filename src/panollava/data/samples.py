"""Read a prepared CSV as rows (training) or as samples (prediction, scoring).

A prepared CSV has the columns `image_path,query,annotation`, and those of `Details` that some row needs behind them.
Rows that share (image, query) are one sample with several references; text is kept to the character. The same query
with other options, or after other turns of a conversation, is another question.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from panollava.data.details import DETAIL_COLUMNS, NO_DETAILS, Details
from panollava.data.prompting import prompt_of, target_of
from panollava.errors import DataError

csv.field_size_limit(2**31 - 1)  # 128 KiB by default; prepared texts may be longer

PREPARED_COLUMNS = ("image_path", "query", "annotation")


@dataclass(frozen=True, slots=True)
class Row:
    """One training example: an image, a query and one annotation."""

    image_path: str
    query: str
    annotation: str
    details: Details = NO_DETAILS

    @property
    def prompt(self) -> str:
        """The user's turn (`prompting`)."""
        return prompt_of(self.query, self.details)

    @property
    def target(self) -> str:
        """What the model is taught to answer."""
        return target_of(self.annotation, self.details)


@dataclass(frozen=True)
class Sample:
    """One (image, query) with all its references, in the order of the file; ids count samples from 0."""

    sample_id: int
    image_path: str
    query: str
    references: tuple[str, ...]
    details: Details = NO_DETAILS
    shown: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The user's turn; its options as `shown`, if they are shown in another order than the row has them."""
        return prompt_of(self.query, self.details, self.shown)

    @property
    def targets(self) -> tuple[str, ...]:
        """What a model that knows the references would answer."""
        return tuple(target_of(text, self.details, self.shown) for text in self.references)


def read_rows(path: str | Path) -> list[Row]:
    """The rows of a prepared CSV, in order. Raises DataError where it is not one."""
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, None)
            further = tuple(header or ())[len(PREPARED_COLUMNS) :]
            if header is None or not _is_prepared(header):
                raise DataError(
                    f"{path}: a prepared CSV has the columns {','.join(PREPARED_COLUMNS)}, "
                    f"found {','.join(header) if header else 'an empty file'}. "
                    "Run `panollava prepare` on it first"
                )
            rows = []
            for fields in reader:
                if len(fields) != len(header):
                    raise DataError(f"{path}: line {reader.line_num} has {len(fields)} fields, expected {len(header)}")
                image_path, query, annotation, *rest = fields
                try:
                    details = Details.from_fields(dict(zip(further, rest, strict=True)))
                except ValueError as error:
                    raise DataError(f"{path}: line {reader.line_num}: {error}") from error
                rows.append(Row(image_path, query, annotation, details))
            return rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a prepared CSV: {error}") from error


def one_row_a_panorama(rows: Iterable[Row]) -> list[Row]:
    """The first row about each panorama, in order: all that is needed by a loss that reads no text."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.image_path, row)
    return list(first.values())


def has_right_answers(samples: Iterable[Sample]) -> bool:
    """Whether some sample's answer is right or wrong, so that it is worth knowing what text alone gives."""
    return any(sample.details.answer_type != "text" or sample.details.scoring for sample in samples)


def _is_prepared(header: list[str]) -> bool:
    """Whether these are the columns that preparation writes: the canonical ones, then some of the further ones."""
    further = header[len(PREPARED_COLUMNS) :]
    in_order = [name for name in DETAIL_COLUMNS if name in further]
    return tuple(header[: len(PREPARED_COLUMNS)]) == PREPARED_COLUMNS and further == in_order


def sample_key(row: Row) -> tuple[object, ...]:
    """What rows of one sample share."""
    return row.image_path, row.query, row.details.options, row.details.context_turns


def group_rows(rows: list[Row]) -> list[Sample]:
    """Samples in order of first appearance; a reference that occurs twice counts twice."""
    grouped: dict[object, list[Row]] = {}
    for row in rows:
        grouped.setdefault(sample_key(row), []).append(row)
    return [
        Sample(number, same[0].image_path, same[0].query, tuple(row.annotation for row in same), same[0].details)
        for number, same in enumerate(grouped.values())
    ]


def read_samples(path: str | Path) -> list[Sample]:
    """The samples of a prepared CSV. Raises DataError where it is not one."""
    return group_rows(read_rows(path))


def last_turns(samples: list[Sample]) -> list[Sample]:
    """The samples that are no earlier turn of another one's conversation, numbered anew where some are."""
    earlier = {
        (sample.image_path, turns[:place], turns[place][1])
        for sample in samples
        for turns in [sample.details.context_turns]
        for place in range(0, len(turns), 2)
    }
    if not earlier:
        return samples
    kept = [one for one in samples if (one.image_path, one.details.context_turns, one.query) not in earlier]
    return [replace(one, sample_id=number) for number, one in enumerate(kept)]
