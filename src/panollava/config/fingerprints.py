"""Content fingerprints of CSVs, of the pictures they name, and of model folders - without reading them twice.

Enters: a path. Leaves: SHA-256 digests. An index below `cache/fingerprints/` remembers (size, mtime, ctime, inode)
-> digest of every file, so that a command on unchanged data costs one `stat` a file. Only what changed is read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any

from panollava.errors import ConfigError, DataError, StorageError
from panollava.files import canonical_json, sha256_file, write_text

INDEX_FOLDER = Path("cache/fingerprints")
_VERSION = 1
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
    path: str, root: str | Path = ".", columns: dict[str, str] | None = None, *, key: str = "a CSV"
) -> dict[str, Any]:
    """`{"path": as configured, "sha256": of the file, "images": one digest over the pictures it names, or None}`.

    `images` is None where the CSV names no local picture or cannot be read: the prepare job reports that. Raises
    ConfigError where the file does not exist; `key` names the setting then.
    """
    root = Path(root)
    file = root / path
    if not file.is_file():
        raise ConfigError(
            f"{key}: {path} does not exist. Relative paths start at the project's root ({root.resolve()})"
        )
    index = _Index(root, f"csv {path} {sorted((columns or {}).items())}")
    before = index.document["files"].get("")
    sha256 = index.digests([("", file)])[""]
    if "images" not in index.document or before is None or before[4] != sha256:
        index.document["images"] = _local_images(file, columns)
        index.changed = True
    references: list[str] | None = index.document["images"]
    digest = None
    if references:
        pictures = index.digests((reference, _place(reference, file, root)) for reference in references)
        digest = hashlib.sha256(canonical_json(sorted(pictures.items())).encode()).hexdigest()
    index.keep_only(["", *(references or [])])
    index.save()
    return {"path": Path(path).as_posix(), "sha256": sha256, "images": digest}


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
    root = Path(root)
    top = root / folder
    files = sorted(
        (path.relative_to(top).as_posix(), path)
        for path in top.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(top).parts)
    )
    index = _Index(root, f"folder {folder}")
    digests = index.digests(files)
    index.keep_only(digests)
    index.save()
    return hashlib.sha256(canonical_json(sorted(digests.items())).encode()).hexdigest()


def _local_images(file: Path, columns: dict[str, str] | None) -> list[str] | None:
    """The pictures that a CSV names, URLs left out, each once; None where it cannot be read."""
    from panollava.data.tables import is_url, read_table

    try:
        table = read_table(file, columns)
    except DataError:
        return None
    return sorted({row.image_path for row in table.rows if row.image_path and not is_url(row.image_path)})


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
