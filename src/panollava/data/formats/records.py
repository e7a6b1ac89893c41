"""Records (of JSON, of Parquet) become rows: conversations turn by turn, others by the names of their fields."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from panollava.data.details import DETAIL_COLUMNS, Details
from panollava.data.formats.conversation import CONVERSATION_KEYS, Exchange, read_conversation
from panollava.data.formats.csv_questions import QuestionColumns
from panollava.data.formats.pictures import (
    IMAGE_KEYS,
    EmbeddedImage,
    Picture,
    one_picture,
    pictures_in,
    refuse_other_media,
)
from panollava.data.formats.rows import COLUMN_ALIASES, EMBEDDED, Columns, Table, TableRow, find_columns, missing_values
from panollava.data.questions import settle
from panollava.errors import DataError

_OPTIONS_IN_TEXT = re.compile(r"(?:^|[\s,;])\(?([A-J])[.):]\s*\S")


@dataclass(frozen=True)
class Record:
    """What stands at a place of a source: its line (or number, from 1) and its values by name."""

    line: int
    values: Mapping[str, Any]


def table_of(path: Path, records: Sequence[Record], columns: Columns) -> Table:
    """The rows of a source's records. Raises DataError where its fields cannot be found."""
    header = tuple(dict.fromkeys(name for record in records for name in record.values))
    if not records:
        raise DataError(f"{path}: there are no rows in it")
    wanted = {name: to for name, to in columns.items() if to is not None}
    talks = [record for record in records if _conversation_of(record) is not None]
    rows: list[TableRow] = []
    notes: list[str] = []
    if talks and len(talks) < len(records):
        raise DataError(
            f"{path}: {len(talks)} of {len(records)} records are conversations ({' or '.join(CONVERSATION_KEYS)}), "
            f"the others are not, the first of them at line {_first_other(records)}. Divide them into two files"
        )
    if talks:
        systems = 0
        for record in records:
            found, has_system = _talk_rows(path, header, record, wanted)
            rows += found
            systems += has_system
        if systems:
            notes.append(
                f"{systems} conversations begin with a system message, which is not read: the model's is "
                "system_messages.default"
            )
        return Table(path, header, tuple(rows), tuple(notes))
    return _flat_table(path, header, records, wanted)


def _conversation_of(record: Record) -> object | None:
    return next((record.values[key] for key in CONVERSATION_KEYS if record.values.get(key) is not None), None)


def _first_other(records: Sequence[Record]) -> int:
    return next(record.line for record in records if _conversation_of(record) is None)


def _talk_rows(
    path: Path, header: Sequence[str], record: Record, wanted: Mapping[str, str]
) -> tuple[list[TableRow], bool]:
    """A row for each answer of a conversation, and whether it has a system message."""
    plain = TableRow(str(path), record.line, tuple(as_text(record.values.get(name)) for name in header))
    try:
        refuse_other_media(record.values)
        talk = read_conversation(_conversation_of(record))
        keys = (wanted["image_path"],) if "image_path" in wanted else IMAGE_KEYS
        named = [picture for key in keys for picture in pictures_in(record.values.get(key))]
        picture = one_picture([*named, *talk.pictures])
        details = _details(record)
    except ValueError as error:
        return [replace(plain, problem=str(error))], False
    given_type = bool(record.values.get("answer_type"))
    rows = [
        _with_answer(_with_picture(plain, picture), one, replace(details, context_turns=one.context), given_type)
        for one in talk.exchanges
    ]
    return rows, talk.has_system


def _with_answer(row: TableRow, exchange: Exchange, details: Details, given_type: bool) -> TableRow:
    values = {"image_path": row.image_path, "query": exchange.query, "annotation": exchange.answer}
    row = replace(row, query=exchange.query, annotation=exchange.answer)
    if empty := missing_values(values):
        return replace(row, problem=f"missing column value: {', '.join(empty)}")
    try:
        # The options of LLaVA's multiple-choice questions stand in the question's text.
        listed = len(set(_OPTIONS_IN_TEXT.findall(exchange.query))) > 1
        details = settle(exchange.answer, details, given_type=given_type or (listed and not details.options))
    except ValueError as error:
        return replace(row, problem=f"question not usable: {error}")
    return replace(row, details=details)


def _with_picture(row: TableRow, picture: Picture | None) -> TableRow:
    if isinstance(picture, EmbeddedImage):
        return replace(row, image_path=f"{EMBEDDED}{picture.sha256}")
    return replace(row, image_path=picture or "")


def _details(record: Record) -> Details:
    given = {
        name: as_text(record.values[name])
        for name in DETAIL_COLUMNS
        if name != "context_turns" and record.values.get(name) is not None
    }
    if "sample_id" not in given and record.values.get("id") is not None:
        given["sample_id"] = as_text(record.values["id"])
    try:
        return Details.from_fields(given)
    except ValueError as error:
        raise ValueError(f"question not usable: {error}") from error


def _flat_table(path: Path, header: tuple[str, ...], records: Sequence[Record], wanted: Mapping[str, str]) -> Table:
    """Records whose fields are named as a CSV's columns are."""
    places = find_columns(path, header, wanted)
    rows = []
    for record in records:
        fields = tuple(as_text(record.values.get(name)) for name in header)
        row = TableRow(str(path), record.line, fields)
        try:
            refuse_other_media(record.values)
            picture = one_picture(pictures_in(record.values.get(header[places["image_path"]])))
        except ValueError as error:
            rows.append(replace(row, problem=str(error)))
            continue
        row = _with_picture(row, picture)
        row = replace(row, query=fields[places["query"]], annotation=fields[places["annotation"]])
        empty = missing_values({name: getattr(row, name) for name in COLUMN_ALIASES})
        rows.append(replace(row, problem=f"missing column value: {', '.join(empty)}") if empty else row)
    rows, notes = QuestionColumns.find(path, header, places.values(), wanted).add_to(rows)
    return Table(path, header, tuple(rows), notes)


def as_text(value: object) -> str:
    """A field as a CSV would have it: text as it is, nothing for null, JSON for the rest."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, EmbeddedImage):
        return f"{EMBEDDED}{value.sha256}"
    return json.dumps(value, ensure_ascii=False, default=as_text)
