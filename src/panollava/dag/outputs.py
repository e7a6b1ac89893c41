"""What the outputs of a job were when it ended: an edited, replaced or missing one is noticed, and made again.

A note below `cache/fingerprints/outputs` holds the digest of the job's slice, and of each file (size, times, inode,
SHA-256): on unchanged files a command costs one `stat` a file. Of a prepared CSV it holds its pictures too, of a stage
its adapter. Without a note nothing is decided: a result itself records which
configuration made it (`provenance`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from panollava.config.fingerprints import INDEX_FOLDER
from panollava.dag.node import Node
from panollava.errors import StorageError
from panollava.files import read_json, sha256_file, write_text

NOTES = INDEX_FOLDER / "outputs"
_SETTLED_NS = 2 * 10**9
# A file changed less than this before a job read it could have changed again within one tick of the clock.


def note_of(anchor: str | Path) -> Path:
    """The note about a job whose first output is `anchor`, a path relative to the project's root."""
    return NOTES / f"{hashlib.sha256(Path(anchor).as_posix().encode()).hexdigest()[:16]}.json"


def anchor_of(node: Node, outputs: Mapping[str, Any]) -> str:
    """The output that names the note: the one that says by which slice it was made, else the first file."""
    name = node.recorded_by or next(name for name in node.outputs if name not in node.folders)
    found = outputs[name]
    return str(found if isinstance(found, (str, Path)) else found[0])


def write_note(node: Node, digest: str, given: Mapping[str, Any], started_ns: int) -> None:
    """Note the outputs of a job that just ended. `given` are its options: at least one output, by name."""
    outputs = _all_outputs(node, given)
    anchor = Path(anchor_of(node, outputs))
    files = {}
    for path in _files(node, outputs):
        stat = _stat(path)
        if stat is not None:
            sha256 = None if path.name in node.unread else sha256_file(path)
            files[os.path.relpath(path, anchor.parent)] = [*stat, sha256]
    pictures = {}
    for name, digest_of_picture in node.pictures(anchor).items():
        stat = _stat(Path(name))
        settled = stat is not None and max(stat[1:3]) < started_ns - _SETTLED_NS
        pictures[name] = [*(stat if stat is not None and settled else [0, 0, 0, 0]), digest_of_picture]
    _write(anchor, {"config": digest, "files": files, "pictures": pictures})


def changed_files(anchor: str | Path, digest: str, pictures: bool = False) -> list[str] | None:
    """The files that are not what the job of this slice left behind, missing ones too; None where there is no note.

    With `pictures` those that a prepared CSV names, instead of the outputs.
    """
    try:
        note = read_json(note_of(anchor))
        if note["config"] != digest:
            return None
        entries: dict[str, list[Any]] = note["pictures" if pictures else "files"]
        folder = Path() if pictures else Path(anchor).parent
        changed, touched = [], False
        for name, (*stat, sha256) in entries.items():
            path = folder / name
            found = _stat(path)
            if found is not None and found == stat:
                continue
            same_size = found is not None and sha256 is None and found[0] == stat[0]
            if found is None or not (same_size or sha256_file(path) == sha256):
                changed.append(os.path.normpath(path))
                continue
            entries[name], touched = [*found, sha256], True
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if touched:
        with suppress(StorageError):  # it only saves reading the files once more
            _write(Path(anchor), note)
    return changed


def _all_outputs(node: Node, given: Mapping[str, Any]) -> dict[str, list[Path]]:
    """All outputs of a job, which may be given only some of them: they lie in one folder."""
    known = {name: Path(given[name]) for name in node.outputs if given.get(name) is not None}
    folder = next(iter(known.values())).parent
    return {
        name: [known[name]]
        if name in known
        else [folder / Path(one).name for one in ((template,) if isinstance(template, str) else template)]
        for name, template in node.outputs.items()
    }


def _files(node: Node, outputs: Mapping[str, list[Path]]) -> Iterator[Path]:
    folder = Path(anchor_of(node, outputs)).parent
    for name, paths in outputs.items():
        for path in paths:
            yield from _below(path) if name in node.folders else (path,)
    for name in node.further:
        path = folder / name
        yield from _below(path) if path.is_dir() else (path,)


def _below(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _stat(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _write(anchor: Path, note: dict[str, Any]) -> None:
    write_text(note_of(anchor), json.dumps(note, ensure_ascii=False) + "\n")
