"""Build the trainer's loggers for a stage: Weights & Biases and TensorBoard, where enabled; the CSV history is always
written.

Runs of W&B are stored below the experiment's logs, online or offline, so that nothing that clears a stage's state takes
them away.
"""

from __future__ import annotations

import os
import uuid
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests

from panollava.errors import ConfigError
from panollava.extras import install
from panollava.files import read_json, write_json
from panollava.training.job import StageJob

WANDB_ID = "wandb.json"
_WANDB_SERVER = "https://api.wandb.ai"
_PATIENCE_S = 5.0


def check_loggers(job: StageJob) -> None:
    """Refuse a logger whose package is missing before anything is computed. Raises ConfigError."""
    for key, package in (("wandb_project", "wandb"), ("tensorboard", "tensorboard")):
        if job.untracked.get(key) and find_spec(package) is None:
            raise ConfigError(f"training.{key} needs the package {package}: {install(package)}")


def training_loggers(job: StageJob) -> list[Any]:
    """The loggers that the job's settings switch on."""
    loggers: list[Any] = []
    if job.untracked.get("tensorboard"):
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(save_dir=str(job.stage_folder), name="tensorboard", version=""))
    if job.untracked.get("wandb_project"):
        from lightning.pytorch.loggers import WandbLogger

        logs = job.root / job.naming["logs"]
        logs.mkdir(parents=True, exist_ok=True)  # wandb makes logs/{experiment}/wandb/ there
        offline = wandb_offline()
        more: dict[str, Any] = {} if offline else {"resume": "allow"}
        # Online an interrupted stage goes on in its own run; offline each start has a folder of its own.
        loggers.append(
            WandbLogger(
                project=job.untracked["wandb_project"],
                name=job.naming["wandb_run"],
                version=_run_id(job.state_folder),
                save_dir=str(logs),
                offline=offline,
                **more,
            )
        )
    return loggers


def settings_of(job: StageJob) -> dict[str, Any]:
    """The stage's configuration by dotted key; lists and nulls as text, which both loggers take."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value if isinstance(value, (bool, int, float, str)) else str(value)

    add("", job.config)
    return {"experiment": str(job.naming.get("experiment", "")), "stage": job.stage, **flat}


def wandb_offline() -> bool:
    """As WANDB_MODE says; without it, offline where the server that WANDB_BASE_URL names (else W&B's own) cannot be
    reached, by whatever proxies the environment names."""
    mode = os.environ.get("WANDB_MODE")
    if mode is not None:
        return mode == "offline"
    server = os.environ.get("WANDB_BASE_URL") or _WANDB_SERVER
    try:
        with requests.get(server, timeout=_PATIENCE_S, stream=True, allow_redirects=False) as answer:
            # A proxy answers for servers that it cannot reach, too.
            return answer.status_code in (407, 502, 503, 504)
    except (requests.RequestException, ValueError):
        return True


def _run_id(state: Path) -> str:
    """The run's id, kept with the stage's state: a stage that begins afresh is another run."""
    path = state / WANDB_ID
    try:
        return str(read_json(path)["id"])
    except (OSError, ValueError, KeyError, TypeError):
        chosen = uuid.uuid4().hex[:8]
        write_json(path, {"id": chosen})
        return chosen
