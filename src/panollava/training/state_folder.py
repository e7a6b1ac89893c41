"""The undeclared folder in which a stage keeps what it needs to go on after an interruption.

    {runs}/{experiment}/.state/{stage}/{variant}/
      lock               held (flock) by the process that trains; dies with it
      fingerprint.json   digest of the configuration slice and of the inputs that the state belongs to
      slice.json         the slice itself, to say what differs
      resume.ckpt        weights, optimiser, scheduler, loops, loader, history: written whole or not at all
      record.json        what this run did so far: status, progress, checkpoints (the source of stage_state.json)
      history.csv        one row per logged step and per validation

Snakemake knows nothing of it: outputs that it deletes before a re-run can be made again from here. A state of
another fingerprint is removed, so a changed configuration or input starts afresh.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from panollava.files import read_json, write_json
from panollava.logs import LOGGER


def now() -> str:
    """The present moment, ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class StateFolder:
    """Resume state and record of one stage; use it while its `FolderLock` is held."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.resume_checkpoint = self.path / "resume.ckpt"
        self.history = self.path / "history.csv"
        self.record_path = self.path / "record.json"

    def belongs_to(self, fingerprint: dict[str, Any]) -> bool:
        """Whether the state in the folder was made by exactly this configuration and these inputs."""
        return _read(self.path / "fingerprint.json") == fingerprint

    def clear(self, fingerprint: dict[str, Any], slice_document: dict[str, Any] | None = None) -> None:
        """Remove an older state and begin one for `fingerprint`."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != "lock":
                entry.unlink()
        if slice_document is not None:
            write_json(self.path / "slice.json", slice_document)
        write_json(self.path / "fingerprint.json", fingerprint)

    @property
    def record(self) -> dict[str, Any]:
        return _read(self.record_path) or {}

    def update_record(self, **changes: Any) -> dict[str, Any]:
        """Merge `changes` into record.json, stamp `updated_at`, return the whole."""
        record = {**self.record, **changes, "updated_at": now()}
        write_json(self.record_path, record)
        return record


def _read(path: Path) -> Any:
    """A JSON document, or None where it is absent or was damaged: the state then counts as none."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        LOGGER.warning("%s is damaged and is not used", path)
        return None
