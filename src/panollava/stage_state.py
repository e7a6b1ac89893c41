"""What the stages of an experiment did: their records, gathered. No torch.

The DAG writes `runs/{experiment}_stage_state.json` from the stages' own records; `panollava status` shows the same from
those records while jobs run or after a failure.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.files import read_json

FIELDS = (
    "stage", "status", "started_at", "completed_at", "updated_at", "elapsed_minutes", "upstream_checkpoint",
    "best_checkpoint", "last_checkpoint", "artifact_dir", "best_val_loss", "epochs", "resumed_from_step",
    "config_digest", "error",
)  # fmt: skip


def stage_state(experiment: str, records: Mapping[str, str], *, live: bool = False) -> dict[str, Any]:
    """The document of SPEC 8; `records` maps each stage to its record.json.

    With `live` a running stage's progress stands there too, and one whose process is gone is `failed`.
    """
    return {
        "version": 1,
        "experiment_name": experiment,
        "stages": {stage: _stage(stage, Path(path), live) for stage, path in records.items()},
    }


def _stage(stage: str, path: Path, live: bool) -> dict[str, Any]:
    record = read_json(path) if path.is_file() else {}
    row = {**dict.fromkeys(FIELDS), "stage": stage, "status": "pending"}
    row |= {key: record[key] for key in FIELDS if key in record}
    if live and row["status"] == "running":
        row["progress"] = record.get("progress")
        if not is_alive(record.get("process")):
            row |= {"status": "failed", "error": "its process is gone; the same command goes on from the last state"}
    return row


def is_alive(process: list[Any] | None) -> bool:
    """Whether the recorded [host, pid] lives; a process of another host is believed."""
    if not process:
        return False
    host, pid = process
    if host != platform.node():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
