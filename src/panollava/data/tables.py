"""An input CSV enters; its header and its rows with their line numbers leave, or the file is refused.

Comma-separated UTF-8 with or without BOM, any newline style; field text is kept to the character ("None" and
"nan" are text, only an empty field is missing). Nothing is guessed: another encoding or separator, a missing or
doubled column and an unbalanced quote are errors that name what was found. The csv module, not pandas: the DAG
plans with it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from panollava.errors import DataError
from panollava.files import atomic_path

COLUMN_ALIASES: dict[str, tuple[str, ...]] = {
    "image_path": ("image_path", "url", "image", "image_url", "path"),
    "query": ("query", "instruction", "question"),
    "annotation": ("annotation", "response", "answer", "caption"),
}
REJECTED_COLUMNS = ("source_csv", "source_line", "reason")
"""What stands first in a rejected.csv; the row's own fields follow."""
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_FOREIGN_BOMS = {  # UTF-32's begins with UTF-16's
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
# What people save or download in place of a CSV, by its first bytes.
_OTHER_FILES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook", b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "gzip-compressed", b"%PDF": "a PDF", b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image",
    b"<!doctype": "an HTML page", b"<html": "an HTML page", b"{": "JSON", b"[": "JSON",
    b"version https://git-lfs": "a Git LFS pointer (`git lfs pull` brings the file)",
}  # fmt: skip
csv.field_size_limit(2**31 - 1)  # 128 KiB by default; a long text is no error, an open quote is found at the end


@dataclass(frozen=True)
class TableRow:
    """One row as it stands: the three canonical values and all fields.

    `source_line` is the line where the row starts, counted from 1 (the header's). `problem` says why the values
    cannot be used, None where they can.
    """

    source_csv: str
    source_line: int
    fields: tuple[str, ...]
    image_path: str = ""
    query: str = ""
    annotation: str = ""
    problem: str | None = None


@dataclass(frozen=True)
class Table:
    """A CSV: its header as it stands and its rows in order."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[TableRow, ...]


def read_table(path: str | Path, columns: Mapping[str, str | None] | None = None) -> Table:
    """Read an input CSV strictly. Raises DataError that names the file and what was found.

    `columns` maps canonical names (image_path, query, annotation) to the file's own; the others are found by
    alias, trimmed and without regard to case. Rows with a wrong number of fields or an empty value keep their
    place, with a `problem`. Blank lines are no rows, before the header neither.
    """
    path = Path(path)
    text = _decode(path)
    wanted = {canonical: name for canonical, name in (columns or {}).items() if name is not None}
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[TableRow] = []
    header: tuple[str, ...] | None = None
    start = 1
    try:
        for fields in reader:
            if fields and header is None:
                header = tuple(fields)
                places = _find_columns(path, header, wanted, text)
            elif fields:
                assert header is not None
                rows.append(_table_row(path, start, tuple(fields), header, places))
            start = reader.line_num + 1
    except csv.Error as error:
        if header is None:
            _refuse_separator(path, text)
        raise DataError(
            f"{path}: the row that starts at line {start} is not valid CSV ({error}). "
            'A quote inside a quoted field is written twice: ""'
        ) from error
    if header is None or not rows:
        raise DataError(f"{path}: the file has a header but no rows")
    return Table(path, header, tuple(rows))


def resolve_image(image_path: str, csv_path: str | Path, root: str | Path = ".") -> Path | None:
    """The file that a row's image path means: beside its CSV first, then from `root`; None where neither exists."""
    for folder in (Path(csv_path).parent, Path(root)):
        candidate = folder / image_path
        try:
            if candidate.is_file():
                return candidate
        except OSError:  # a name too long for the file system, or a folder that may not be read
            continue
    return None


def why_no_image(image_path: str, csv_path: str | Path, root: str | Path = ".") -> str:
    """What stands where `resolve_image` found no file; empty where there is simply nothing."""
    if found := re.match(r"([A-Za-z][A-Za-z0-9+.-]+):", image_path):
        return f"{found[1]}: is not read, only paths, http: and https:"
    if image_path != image_path.strip():
        return "white space stands around the path"
    for folder in (Path(csv_path).parent, Path(root)):
        candidate = folder / image_path
        try:
            if candidate.is_dir():
                return "it is a folder"
            if candidate.exists():
                return "it is no ordinary file"
            if candidate.is_symlink():
                return "it is a link that leads nowhere"
        except OSError as error:
            return error.strerror or ""
    return ""


def write_table(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV atomically: UTF-8, `\\n`, quotes only where needed, every field kept to the character."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(header)
        for row in rows:
            # csv leaves a lone carriage return unquoted, where every reader takes it for the end of the row.
            (quoted if any("\r" in field for field in row) else plain).writerow(row)


def is_url(image_path: str) -> bool:
    return image_path.lower().startswith(("http://", "https://"))


def _decode(path: Path) -> str:
    content = _read(path)
    for bom, name in _FOREIGN_BOMS.items():
        if content.startswith(bom):
            raise DataError(f"{path}: {name} text, expected UTF-8. `iconv -f {name} -t UTF-8` converts it")
    beginning = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for start, kind in _OTHER_FILES.items():
        if beginning.startswith(start.lower()):
            raise DataError(f"{path}: {kind}, expected a CSV in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
        raise DataError(
            f"{path}: not UTF-8 text: byte 0x{content[error.start]:02x} in line {line}. "
            f"`iconv -f {_likely_encoding(content)} -t UTF-8` (or the file's own encoding) converts it"
        ) from error
    if not text.strip():
        raise DataError(f"{path}: the file is empty, expected a header and rows")
    if "\0" in text:
        if text.count("\0") > len(text) / 4:
            raise DataError(f"{path}: UTF-16 or UTF-32 text without its mark, expected UTF-8. `iconv` converts it")
        line = 1 + len(re.findall(r"\r\n|\r|\n", text[: text.index("\0")]))
        raise DataError(f"{path}: NUL characters, the first in line {line}, expected a CSV in UTF-8")
    return text


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, expected a CSV file")
        if not path.is_file():
            kind = "is no ordinary file" if path.exists() else "does not exist"
            if path.is_symlink() and not path.exists():
                kind = "is a link that leads nowhere"
            raise DataError(f"{path} {kind}, expected a CSV file")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _likely_encoding(content: bytes) -> str:
    """CP949 (Korean) where the bytes could be that, else the usual one of western Windows."""
    try:
        content.decode("cp949")
    except UnicodeDecodeError:
        return "WINDOWS-1252"
    return "CP949"


def _find_columns(path: Path, header: Sequence[str], wanted: Mapping[str, str], text: str) -> dict[str, int]:
    """The position of each canonical column."""
    unknown = set(wanted) - set(COLUMN_ALIASES)
    if unknown:
        raise DataError(f"data.columns can map {', '.join(COLUMN_ALIASES)}, got {', '.join(sorted(unknown))}")
    names = [_folded(name) for name in header]
    places: dict[str, int] = {}
    for canonical, aliases in COLUMN_ALIASES.items():
        accepted = (_folded(wanted[canonical]),) if canonical in wanted else aliases
        found = [place for place, name in enumerate(names) if name in accepted]
        if not found:
            _refuse_separator(path, text)
            raise DataError(
                f"{path}: no column for {canonical}: expected {' or '.join(accepted)}, found {_listed(header)}. "
                f"Map it with data.columns: {{{canonical}: NAME}}"
            )
        if len(found) > 1:
            raise DataError(
                f"{path}: several columns for {canonical}: {_listed([header[place] for place in found])}. "
                f"Choose one with data.columns: {{{canonical}: NAME}}, or remove the others"
            )
        places[canonical] = found[0]
    if len(set(places.values())) < len(places):
        raise DataError(f"{path}: data.columns maps one column twice: {dict(wanted)}")
    return places


def _refuse_separator(path: Path, text: str) -> None:
    line = text.strip().splitlines()[0]
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
    empty = [canonical for canonical, value in values.items() if not value]
    missing = f"missing column value: {', '.join(empty)}" if empty else None
    return TableRow(str(path), line, fields, **values, problem=missing)


def _folded(name: str) -> str:
    return name.strip().casefold()


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
