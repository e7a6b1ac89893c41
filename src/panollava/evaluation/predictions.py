"""The predictions CSV: what the model answered beside what people wrote, one row per reference.

Writes `Prediction`s to a file, and reads any file with the columns `prediction` and `reference` as rows of text. Text
is kept to the character: "None", "NA" and "nan" are words.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from panollava.data.details import NO_DETAILS, Details, columns_of
from panollava.data.tables import write_table
from panollava.errors import EvaluationError
from panollava.evaluation.lmms_samples import SUFFIXES, read_lmms_samples

COLUMNS = (
    "sample_id",
    "image_path",
    "original_query",
    "prediction",
    "reference",
    "prediction_length",
    "reference_length",
    "error",
)
SHOWN = "options_shown"
"""The column with the options in the order in which the model saw them."""
NEEDED = ("prediction", "reference")
_EXAMPLES = 5
_FIELD_LIMIT = 2**31 - 1  # csv's own limit of 131,072 characters would refuse a runaway generation


@dataclass(frozen=True)
class Prediction:
    """One answered sample. `text` is "" where generation failed; `error` then says why (else "").

    `shown` are the options in the order in which the model saw them, where that is not the row's own.
    """

    sample_id: int
    image_path: str
    query: str
    text: str
    references: tuple[str, ...]
    error: str = ""
    details: Details = NO_DETAILS
    shown: tuple[str, ...] = ()


def write_predictions(path: str | Path, predictions: Iterable[Prediction]) -> None:
    """Write one row per reference (one with an empty reference where a sample has none), atomically.

    `prediction_length` and `reference_length` count words (text between white space). Columns of `Details` follow where
    some sample needs them; a sample with a name of its own has that as its `sample_id`.
    """
    items = list(predictions)
    further = tuple(name for name in columns_of(item.details for item in items) if name != "sample_id")
    further += (SHOWN,) if any(item.shown for item in items) else ()
    write_table(
        path,
        (*COLUMNS, *further),
        (
            (
                item.details.sample_id or str(item.sample_id), item.image_path, item.query, item.text, reference,
                str(len(item.text.split())), str(len(reference.split())), item.error, *_further(item, further),
            )
            for item in items
            for reference in item.references or ("",)
        ),
    )  # fmt: skip


def _further(item: Prediction, names: tuple[str, ...]) -> list[str]:
    fields = item.details.to_fields() | ({SHOWN: json.dumps(item.shown, ensure_ascii=False)} if item.shown else {})
    return [fields.get(name, "") for name in names]


def read_predictions(path: str | Path) -> list[dict[str, str]]:
    """Read every row of a predictions CSV as {column: text}, in file order, further columns kept.

    A `.jsonl` is read as the samples file of lmms-eval (`lmms_samples`).

    Raises EvaluationError for a file that is not UTF-8, lacks or doubles a column, has rows of another width
    or no rows at all; the message lists the columns found and expected.
    """
    source = Path(path)
    if source.suffix.casefold() in SUFFIXES:
        return read_lmms_samples(source)
    try:
        text = source.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise EvaluationError(f"{source}: no such file. Pass a CSV with the columns {_listed(NEEDED)}.") from error
    except OSError as error:
        raise EvaluationError(f"{source} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{source} is not UTF-8 (byte {error.start}): save it as UTF-8.") from error
    csv.field_size_limit(_FIELD_LIMIT)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(source, header)
        rows = []
        for row in reader:
            if not row:
                continue  # an empty line
            if len(row) != len(header):
                raise EvaluationError(
                    f"{source}, line {reader.line_num}: {len(row)} fields, expected {len(header)} ({_listed(header)}). "
                    "Put fields that hold commas in double quotes."
                )
            rows.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        raise EvaluationError(f"{source}, line {reader.line_num}: not a CSV file ({error}).") from error
    if not rows:
        raise EvaluationError(f"{source} holds a header and no rows: there is nothing to score.")
    return rows


def missing_or_doubled(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines for the log where a file looks as if rows of it had been deleted or duplicated.

    Whoever writes predictions numbers their samples one after the other: a number that is missing is a sample that was
    answered and is not scored. A row that repeats another in every column counts again; a data set may repeat a
    reference, so it stays.
    """
    notes = []
    numbers = {int(text) for row in rows if (text := row.get("sample_id", "").strip()).isdecimal()}
    if numbers:
        first_number = 0 if "prediction_length" in rows[0] else min(1, *numbers)  # ours count from 0, others may from 1
        gone = sorted(set(range(first_number, max(numbers) + 1)) - numbers)
        if gone and len(gone) < len(numbers):  # more: they are numbered in some other way
            shown = ", ".join(map(str, gone[:_EXAMPLES])) + (", …" if len(gone) > _EXAMPLES else "")
            notes.append(
                f"{len(gone):,} of {len(gone) + len(numbers):,} sample_ids are missing ({shown}): were rows deleted? "
                "Scores are those of the rest"
            )
    counts = Counter(tuple(sorted(row.items())) for row in rows)
    if doubled := sum(counts.values()) - len(counts):
        first = dict(next(row for row, count in counts.items() if count > 1))
        notes.append(
            f"{doubled:,} of {len(rows):,} rows repeat another one in every column and count again; the first of them: "
            f"prediction {first['prediction']!r}, reference {first['reference']!r}"
        )
    return notes


def _check_header(source: Path, header: list[str]) -> None:
    missing = [name for name in NEEDED if name not in header]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if missing or doubled:
        problem = f"lacks {_listed(missing)}" if missing else f"has {_listed(doubled)} twice"
        raise EvaluationError(
            f"{source} {problem}. Found: {_listed(header) or 'no header'}. Expected: {_listed(NEEDED)}, and "
            "image_path, original_query where several rows are references of one prediction."
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def rows_of_control(path: Path | None) -> list[dict[str, str]] | None:
    """None without that control, and for a file of a header only: with one picture there is nothing to shuffle."""
    if path is None or len(path.read_text(encoding="utf-8").splitlines()) <= 1:
        return None
    return read_predictions(path)
