"""Content fingerprints of CSVs, of the pictures they name, and of model folders - without reading them twice.

Computes the SHA-256 digests of a path. An index below `cache/fingerprints/` remembers (size, mtime, ctime, inode) ->
digest of every file, so that a command on unchanged data costs one `stat` a file. Only what changed is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from stat import S_ISREG
from typing import Any

from panollava.errors import ConfigError, DataError, FileChanged, StorageError
from panollava.files import canonical_json, digest_of_files, files_below, sha256_file, write_text

INDEX_FOLDER = Path("cache/fingerprints")
_VERSION = 3
_LARGE_BYTES = 200 * 2**20
# A file changed less than this before it is read could change again within one tick of the file system's clock.
_SETTLED_NS = 2 * 10**9


class _Index:
    """The remembered digests of one CSV's or folder's files."""

    def __init__(self, root: Path, of: str) -> None:
        self.path = root / INDEX_FOLDER / f"{hashlib.sha256(of.encode()).hexdigest()[:16]}.json"
        self.document: dict[str, Any] = {}
        self.changed = False
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(document, dict) and document.get("version") == _VERSION:
                self.document = document
        except (OSError, ValueError):  # absent, or not ours: it is only a memory
            pass
        self.document.setdefault("files", {})

    def digests(self, files: Iterable[tuple[str, Path]]) -> dict[str, str | None]:
        """Digest of each (label, path); None where there is no such file."""
        known: dict[str, list[Any]] = self.document["files"]
        found: dict[str, str | None] = {}
        unread: list[tuple[str, Path, list[int]]] = []
        for label, path in files:
            stat = _stat(path)
            if stat is None:
                found[label] = None
                continue
            remembered = known.get(label)
            if remembered is not None and remembered[:4] == stat:
                found[label] = remembered[4]
            else:
                unread.append((label, path, stat))
        _announce(unread)
        for label, path, stat in unread:
            try:
                digest = found[label] = sha256_file(path)
            except OSError:  # not readable: preparation says so, with the row
                found[label] = None
                continue
            settled = time.time_ns() - max(stat[1], stat[2]) > _SETTLED_NS
            if settled and _stat(path) == stat:
                known[label] = [*stat, digest]
                self.changed = True
            elif label in known:
                del known[label]
                self.changed = True
        return found

    def keep_only(self, labels: Iterable[str]) -> None:
        gone = set(self.document["files"]) - set(labels)
        for label in gone:
            del self.document["files"][label]
        self.changed = self.changed or bool(gone)

    def save(self) -> None:
        if self.changed:
            text = json.dumps(self.document | {"version": _VERSION}, ensure_ascii=False) + "\n"
            with suppress(StorageError):  # it is only a memory
                write_text(self.path, text)


def csv_fingerprint(
    path: str,
    root: str | Path = ".",
    columns: dict[str, str] | None = None,
    *,
    format: str = "auto",
    key: str = "a CSV",
) -> dict[str, Any]:
    """`{"path": as configured, "sha256": of the file, "images": one digest over the pictures it names, or None}`.

    `images` is None where the source names no local picture or cannot be read: the prepare job reports that. A source
    whose rows carry more than image, query and annotation says which columns (`details`). Of a folder `sha256` is that
    of its files of rows. Raises ConfigError where there is nothing; `key` names the setting then.
    """
    return _read_source(path, Path(root), columns, format, key)[0]


@dataclass(frozen=True)
class PlannedSource:
    """A source of rows as a job was planned with it (`document`, a `csv_fingerprint`).

    `pictures` holds the SHA-256 of each local picture by (the file that names it, its name there), None for one that
    was not there or could not be read.
    """

    document: dict[str, Any]
    columns: dict[str, str] | None
    format: str
    root: Path
    pictures: dict[tuple[str, str], str | None]

    @classmethod
    def of(
        cls,
        document: dict[str, Any],
        root: str | Path = ".",
        columns: dict[str, str] | None = None,
        format: str = "auto",
    ) -> PlannedSource:
        """Raises FileChanged where the files are others than `document` says."""
        found = cls(document, columns, format, Path(root), {})
        return replace(found, pictures=found.check())

    def check(self) -> dict[tuple[str, str], str | None]:
        """The pictures' digests as they are now. Raises FileChanged where any file is another one."""
        path = self.document["path"]
        try:
            found, pictures = _read_source(path, self.root, self.columns, self.format, "a CSV")
        except ConfigError:
            raise FileChanged(path, "was removed") from None
        if found != self.document:
            same_rows = found["sha256"] == self.document["sha256"]
            raise FileChanged(f"a picture that {path} names" if same_rows else path)
        return pictures


def _read_source(
    path: str, root: Path, columns: dict[str, str] | None, format: str, key: str
) -> tuple[dict[str, Any], dict[tuple[str, str], str | None]]:
    file = root / path
    if not file.exists():
        raise ConfigError(
            f"{key}: {path} does not exist. Relative paths start at the project's root ({root.resolve()})"
        )
    index = _Index(root, f"source {format} {path} {sorted((columns or {}).items())}")
    sha256, labels = _digest_of_source(index, file, format, key)
    if index.document.get("read") != sha256 or sha256 is None:
        contents = _contents(file, columns, format)
        # What could not be read may be readable next time, with a package that was missing.
        index.document |= {"read": sha256 if contents else None, **(contents or {"images": [], "details": []})}
        index.changed = True
    # Each picture as (its name, the file that names it): the name is looked up beside that file first.
    pictures = [(name, file if source == "" else Path(source)) for source, name in index.document["images"]]
    digest, found = None, {}
    if pictures:
        places = {_label(name, source, file): _place(name, source, root) for name, source in pictures}
        found = index.digests(places.items())
        digest = hashlib.sha256(canonical_json(sorted(found.items())).encode()).hexdigest()
        labels = [*labels, *places]
    index.keep_only(labels)
    index.save()
    details = {"details": index.document["details"]} if index.document["details"] else {}
    read = {(str(source), name): found[_label(name, source, file)] for name, source in pictures}
    return {"path": Path(path).as_posix(), "sha256": sha256, "images": digest, **details}, read


def _digest_of_source(index: _Index, file: Path, format: str, key: str) -> tuple[str | None, list[str]]:
    """The digest of what the rows are read from, and the labels of its files in the index."""
    if not file.is_dir():
        return index.digests([("", file)])[""], [""]
    from panollava.data.formats import format_of

    try:
        files = format_of(file, format).files(file)
    except DataError as error:
        raise ConfigError(f"{key}: {error}") from error
    found = index.digests((f"rows {path.relative_to(file).as_posix()}", path) for path in sorted(files))
    return hashlib.sha256(canonical_json(sorted(found.items())).encode()).hexdigest(), list(found)


def _label(name: str, source: Path, file: Path) -> str:
    """A picture's name in the index: of a folder's, with the file that names it."""
    return name if source == file else f"{source.relative_to(file).as_posix()} {name}"


def file_fingerprint(path: str, root: str | Path = ".", *, key: str = "a file") -> dict[str, Any]:
    """`{"path": as configured, "sha256"}` of one file. Raises ConfigError, naming the setting, where there is none."""
    root = Path(root)
    index = _Index(root, f"file {path}")
    sha256 = index.digests([("", root / path)])[""]
    if sha256 is None:
        raise ConfigError(
            f"{key}: {path} does not exist. Relative paths start at the project's root ({root.resolve()})"
        )
    index.save()
    return {"path": Path(path).as_posix(), "sha256": sha256}


def folder_fingerprint(folder: str | Path, root: str | Path = ".") -> str:
    """One SHA-256 over names and contents of all files below a folder (dot files left out)."""
    return hashlib.sha256(canonical_json(sorted(_digests_below(folder, Path(root)).items())).encode()).hexdigest()


def folder_digest(folder: str | Path, root: str | Path = ".") -> str:
    """`files.sha256_folder` of a folder, of which only files that are new or changed are read."""
    return digest_of_files(_digests_below(folder, Path(root)))


def _digests_below(folder: str | Path, root: Path) -> dict[str, str | None]:
    index = _Index(root, f"folder {folder}")
    digests = index.digests(files_below(root / folder))
    index.keep_only(digests)
    index.save()
    return digests


def _contents(file: Path, columns: dict[str, str] | None, format: str) -> dict[str, Any] | None:
    """The pictures that a source names, URLs left out, each once beside the file that names it; and its details. None
    where it cannot be read."""
    from panollava.data.details import columns_of
    from panollava.data.formats import read_source
    from panollava.data.formats.rows import EMBEDDED
    from panollava.data.tables import is_url

    try:
        table = read_source(file, columns, format)
    except DataError:
        return None
    named = {
        (row.source_csv, row.image_path)
        for row in table.rows
        if row.image_path and not is_url(row.image_path) and not row.image_path.startswith(EMBEDDED)
    }
    images = sorted(["" if source == str(file) else source, name] for source, name in named)
    return {"images": images, "details": list(columns_of(row.details for row in table.rows))}


def _place(reference: str, csv_file: Path, root: Path) -> Path:
    """Beside the CSV first, then from the root, as preparation looks it up."""
    beside = csv_file.parent / reference
    return beside if _stat(beside) is not None else root / reference


def _stat(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    if not S_ISREG(found.st_mode):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _announce(unread: list[tuple[str, Path, list[int]]]) -> None:
    total = sum(stat[0] for _, _, stat in unread)
    if total > _LARGE_BYTES:
        print(
            f"panollava: reading {len(unread)} new or changed files ({total / 2**20:.0f} MB) to fingerprint them, once",
            file=sys.stderr,
            flush=True,
        )
