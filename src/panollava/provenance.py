"""Record by which configuration a result was made, in the result itself, wherever it is copied.

Snakemake remembers this in `.snakemake`, which does not travel with results. So the DAG also asks the files. A JSON
document holds the digest of its slice; a CSV has it in a hidden note beside it. No torch.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from panollava.files import read_json, sha256_file, write_json

_PLACE = ("provenance", "config")
_OTHER_PLACES = {"checkpoint_metadata.json": ("checkpoint_info", "config_digest")}


def read_digest(path: str | Path) -> str | None:
    """The digest of the slice that made this result; None where the result does not record it or is damaged."""
    path = Path(path)
    try:
        if path.suffix != ".json":
            note = read_json(_note(path))
            return note["config"] if _is_about(note, path) else None
        found: Any = read_json(path)
        for key in _OTHER_PLACES.get(path.name, _PLACE):
            found = found[key]
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note_beside(path: str | Path) -> dict[str, Any]:
    """What the job that made this file noted about it beyond its slice; empty where there is no note."""
    try:
        note = read_json(_note(Path(path)))
        noted: dict[str, Any] = note.get("told", {}) if _is_about(note, Path(path)) else {}
        return noted
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@contextmanager
def write_sidecar(path: str | Path, digest: str) -> Iterator[dict[str, Any]]:
    """Write `path`, a file without a place for it, in the block; the note beside it says by which slice.

    What the block puts into the dictionary is stored in the note as well (`note_beside`).
    """
    path = Path(path)
    _note(path).unlink(missing_ok=True)
    noted: dict[str, Any] = {}
    yield noted
    about = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    write_json(_note(path), {"config": digest, **about, **({"told": noted} if noted else {})})


def clear_snakemake_record(path: str | Path) -> None:
    """Let Snakemake forget by which parameters it made `path`: somebody else makes it now, and the file records it.

    Its record is a file below `.snakemake/metadata`, named by the output's path in base 64. Where it is not found,
    Snakemake makes the file once more.
    """
    name = urlsafe_b64encode(str(path).encode()).decode()
    if len(name) < 255:  # longer names lie in folders
        Path(".snakemake/metadata", name).unlink(missing_ok=True)


def _is_about(note: dict[str, Any], path: Path) -> bool:
    """Whether the note was written for the file as it is now: an edited file no longer matches its sidecar.

    Notes of earlier versions hold the size only.
    """
    return note["bytes"] == path.stat().st_size and note.get("sha256") in (None, sha256_file(path))


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")
