"""What the stages of an experiment did: their records, gathered. No torch.

The DAG writes `runs/{experiment}_stage_state.json` from the stages' own records; `panollava status` shows the same from
those records while jobs run or after a failure.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from panollava.files import read_json
from panollava.processes import is_alive

FIELDS = (
    "stage", "status", "started_at", "completed_at", "updated_at", "elapsed_minutes", "upstream_checkpoint",
    "best_checkpoint", "last_checkpoint", "artifact_dir", "best_val_loss", "epochs", "resumed_from_step",
    "config_digest", "error",
)  # fmt: skip


class _Progress(BaseModel):
    model_config = ConfigDict(strict=True)

    epoch: int
    step: int
    total_steps: float


class _Record(BaseModel):
    """What of a record is shown, and so must have its type."""

    model_config = ConfigDict(strict=True)

    status: Literal["completed", "running", "failed", "pending"]
    error: str | None = None
    best_val_loss: float | None = None
    elapsed_minutes: float | None = None
    progress: _Progress | None = None
    process: Annotated[list[str | int], Field(min_length=2, max_length=2)] | None = None


def stage_state(
    experiment: str, records: Mapping[str, str], *, metadata: Mapping[str, str] | None = None, live: bool = False
) -> dict[str, Any]:
    """The document of SPEC 8; `records` maps each stage to its record.json.

    `metadata` maps finished stages to their checkpoint_metadata.json, which counts where the record was not copied
    along with the folder. With `live` a running stage's progress is included, and one whose process is gone is
    `failed`.
    """
    return {
        "version": 1,
        "experiment_name": experiment,
        "stages": {
            stage: _stage(stage, Path(path), (metadata or {}).get(stage), live) for stage, path in records.items()
        },
    }


def _stage(stage: str, path: Path, metadata: str | None, live: bool) -> dict[str, Any]:
    record = _read(path)
    if metadata is not None:
        finished = _record_of(Path(metadata))
        if record.get("config_digest") != finished["config_digest"]:
            record = finished
    row = {**dict.fromkeys(FIELDS), "stage": stage, "status": "pending"}
    row |= {key: record[key] for key in FIELDS if key in record}
    if live and row["status"] == "running":
        row["progress"] = record.get("progress")
        if not process_lives(record.get("process")):
            row |= {"status": "failed", "error": "its process is gone; the same command goes on from the last state"}
    return row


def _read(path: Path) -> dict[str, Any]:
    """A stage's record; nothing where there is none or it was damaged (the stage then counts as not begun)."""
    try:
        document: dict[str, Any] = read_json(path)
        _Record.model_validate(document)
        return document
    except (FileNotFoundError, ValueError, RecursionError):  # pydantic's error is a ValueError
        return {}


def _record_of(metadata: Path) -> dict[str, Any]:
    """What a finished stage's own folder says; when it ran and for how long is not in there."""
    document, folder = read_json(metadata), metadata.parent
    return {
        "status": "completed",
        "completed_at": document["checkpoint_info"]["created_at"],
        "best_checkpoint": (folder / (folder / "best.ckpt").readlink()).as_posix(),
        "last_checkpoint": (folder / (folder / "last.ckpt").readlink()).as_posix(),
        "artifact_dir": folder.as_posix(),
        "best_val_loss": document["epoch_info"]["best_val_loss"],
        "epochs": document["epoch_info"]["last_epoch"] + 1,
        "config_digest": document["checkpoint_info"]["config_digest"],
    }


def process_lives(process: list[Any] | None) -> bool:
    """Whether the recorded [host, pid] lives; a process of another host is believed."""
    if not process:
        return False
    host, pid = process
    return host != platform.node() or is_alive(pid)
