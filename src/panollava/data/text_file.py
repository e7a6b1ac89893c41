"""A text file as people save it: UTF-8 with or without its mark, or the file is refused, naming what was found."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from pathlib import Path

from panollava.errors import DataError

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


_CHUNK = 2**20


def read_text_file(path: Path, expected: str = "a CSV", json: bool = False) -> str:
    """The text of a file of the kind `expected`; `json` says that this is JSON.

    Raises DataError with what was found instead.
    """
    content = _read(path, expected)
    for bom, name in _FOREIGN_BOMS.items():
        if content.startswith(bom):
            raise DataError(f"{path}: {name} text, expected UTF-8. `iconv -f {name} -t UTF-8` converts it")
    beginning = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    for start, kind in _OTHER_FILES.items():
        if beginning.startswith(start.lower()) and not (json and kind == "JSON"):
            raise DataError(f"{path}: {kind}, expected {expected} in UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
        raise DataError(
            f"{path}: not UTF-8 text: byte 0x{content[error.start]:02x} in line {line}. "
            f"`iconv -f {_likely_encoding(content)} -t UTF-8` (or the file's own encoding) converts it"
        ) from error
    if not text.strip():
        held = "rows" if json else "a header and rows"
        raise DataError(f"{path}: the file is empty, expected {held}")
    if "\0" in text:
        if text.count("\0") > len(text) / 4:
            raise DataError(f"{path}: UTF-16 or UTF-32 text without its mark, expected UTF-8. `iconv` converts it")
        line = 1 + len(re.findall(r"\r\n|\r|\n", text[: text.index("\0")]))
        raise DataError(f"{path}: NUL characters, the first in line {line}, expected {expected} in UTF-8")
    return text


def check_text_file(path: Path, expected: str = "a CSV") -> None:
    """Raise what `read_text_file` would raise. A text without a fault is never held as a whole."""
    if not _is_plain(path):
        read_text_file(path, expected)


def _is_plain(path: Path) -> bool:
    """Whether a file is UTF-8 text, some of it visible, without NUL; False where `read_text_file` has to look."""
    decoder, visible, beginning = getincrementaldecoder("utf-8-sig")(), False, True
    try:
        if not path.is_file():  # a pipe would wait for ever
            return False
        with path.open("rb") as stream:
            while content := stream.read(_CHUNK):
                start = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
                if beginning and start.startswith(tuple(one.lower() for one in (*_OTHER_FILES, *_FOREIGN_BOMS))):
                    return False
                text, beginning = decoder.decode(content), False
                if "\0" in text:
                    return False
                visible = visible or bool(text.strip())
            decoder.decode(b"", final=True)
    except (OSError, ValueError):
        return False
    return visible


def _read(path: Path, expected: str) -> bytes:
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder, expected {expected} file")
        if not path.is_file():
            kind = "is no ordinary file" if path.exists() else "does not exist"
            if path.is_symlink() and not path.exists():
                kind = "is a link that leads nowhere"
            raise DataError(f"{path} {kind}, expected {expected} file")
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
