"""Columns of a CSV that belong to a question with a right answer: its kind, its options, its category.

The columns are found by name, trimmed and without regard to case: those of `Details`, and options in columns of their
own (`A,B,C,…` or `option_a,option_b,…`) beside an answer of one letter. A column that looks like a part of the question
and is not read is named, so that nobody trains on questions without their options unawares.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from panollava.answers.letters import bare_letter, letter
from panollava.data.details import DETAIL_COLUMNS, NO_DETAILS, Details
from panollava.data.formats.rows import TableRow
from panollava.data.questions import settle
from panollava.errors import DataError

ALIASES = {"options": ("options", "choices")}
_LETTER_COLUMN = re.compile(r"(?:option|choice)?[\s_.-]*([a-z])")
_QUESTION_PART = re.compile(r"option|choice|candidate|distractor|categor|hint|question|answer|explanation|rationale")


@dataclass(frozen=True)
class QuestionColumns:
    """Where a header has parts of questions. `places` are columns by name of `Details`, `letters` those of options."""

    header: tuple[str, ...]
    places: dict[str, int]
    letters: tuple[int, ...]
    canonical: frozenset[int]

    @classmethod
    def find(
        cls, path: Path, header: Sequence[str], canonical: Collection[int], wanted: Mapping[str, str]
    ) -> QuestionColumns:
        """`canonical` are the columns of image, query and annotation, `wanted` names that the user gave.

        Raises DataError for a doubled column, and for a name that the header lacks.
        """
        folded = [name.strip().casefold() for name in header]
        places: dict[str, int] = {}
        for name in DETAIL_COLUMNS:
            names = (wanted[name].strip().casefold(),) if name in wanted else ALIASES.get(name, (name,))
            found = [place for place, text in enumerate(folded) if text in names]
            found = [place for place in found if place not in canonical]
            if name in wanted and not found:
                listed = ", ".join(repr(one) for one in header)
                raise DataError(f"{path}: no column for {name}: data.columns says {wanted[name]!r}, found {listed}")
            if len(found) > 1:
                listed = ", ".join(repr(header[place]) for place in found)
                raise DataError(f"{path}: several columns for {name}: {listed}. Remove all but one")
            if found:
                places[name] = found[0]
        return cls(tuple(header), places, _letter_columns(folded, canonical), frozenset(canonical))

    def add_to(self, rows: Sequence[TableRow]) -> tuple[list[TableRow], tuple[str, ...]]:
        """The rows with their details, or the problem of a row whose details cannot be read; and what to tell."""
        width, places, letters = len(self.header), dict(self.places), self.letters
        if "options" in places:
            options = (row.fields[places["options"]] for row in rows if len(row.fields) == width)
            if not any(text.lstrip().startswith("[") for text in options):
                del places["options"]  # a list in somebody's own notation
        if letters and (
            "options" in places or not any(bare_letter(row.annotation) for row in rows if len(row.fields) == width)
        ):
            letters = ()
        read = self.canonical | set(places.values()) | set(letters)
        unread = [
            name for place, name in enumerate(self.header)
            if place not in read and (place in self.letters or _QUESTION_PART.search(name.strip().casefold()))
        ]  # fmt: skip
        return [self._with_details(row, places, letters) for row in rows], (_told(unread),) if unread else ()

    def _with_details(self, row: TableRow, places: dict[str, int], letters: tuple[int, ...]) -> TableRow:
        if row.problem is not None:
            return row
        columns = {name: row.fields[place] for name, place in places.items()}
        if columns.get("answer_type", "").strip().casefold() not in ("point", "box"):
            columns = {name: text for name, text in columns.items() if name not in ("width", "height")}
        try:
            details = Details.from_fields(columns)
            if letters:
                details = replace(details, options=_options([row.fields[place] for place in letters]))
            details = settle(row.annotation, details, given_type=bool(columns.get("answer_type", "").strip()))
        except ValueError as error:
            return replace(row, problem=f"question not usable: {error}")
        return row if details is NO_DETAILS else replace(row, details=details)


def _letter_columns(folded: Sequence[str], canonical: Collection[int]) -> tuple[int, ...]:
    """The columns of options A, B, … in their order; none where there are fewer than two, or one appears twice."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(folded):
        if place not in canonical and (matched := _LETTER_COLUMN.fullmatch(name)):
            found.setdefault(matched[1].upper(), []).append(place)
    row: list[int] = []
    while len(found.get(letter(len(row)), ())) == 1:
        row.append(found[letter(len(row))][0])
    return tuple(row) if len(row) > 1 else ()


def _options(texts: Sequence[str]) -> tuple[str, ...]:
    """The texts of a row's options; those that are empty at the end are no options."""
    kept = list(texts)
    while kept and not kept[-1].strip():
        kept.pop()
    if empty := [letter(place) for place, text in enumerate(kept) if not text.strip()]:
        raise ValueError(f"option {empty[0]} is empty, though {letter(len(kept) - 1)} is not")
    return tuple(kept)


def _told(unread: Sequence[str]) -> str:
    listed = ", ".join(repr(name) for name in unread)
    return (
        f"columns that look like parts of a question and are not read: {listed}. What is read: "
        f"{', '.join(DETAIL_COLUMNS)}, and options as columns A, B, … or option_a, option_b, … beside an answer of one "
        "letter (docs/benchmarks.md)"
    )
