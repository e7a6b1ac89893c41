"""Where a model comes from: what its model card says of data, training and scores. No torch.

Turns a loaded stage's metadata into one plain document without paths of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.checkpoints.folder import ChosenCheckpoint, checkpoints_of
from panollava.config import ConfigError, Project
from panollava.files import read_json


def model_card_data(metadata: Mapping[str, Any], chosen: ChosenCheckpoint, root: Path) -> dict[str, Any]:
    """`origin` of a saved model. `root` is the project's."""
    checkpoint = chosen.path.name
    entry = next((one for one in checkpoints_of(metadata) if one["file"] == checkpoint), None)
    return {
        "experiment": metadata["experiment_name"],
        "stage": metadata["stage"],
        "checkpoint": checkpoint,
        "epochs": {key: entry.get(key) for key in ("epoch", "step", "val_loss")} if entry else None,
        "dataset": metadata["dataset"],
        "training": metadata["training_config"],
        "versions": metadata["checkpoint_info"].get("versions", {}),
        "config_digest": metadata["checkpoint_info"].get("config_digest"),
        "remembered": metadata["remembered"],
        "evaluation": _scores(metadata, chosen, root),
    }


def _scores(metadata: Mapping[str, Any], chosen: ChosenCheckpoint, root: Path) -> dict[str, Any] | None:
    """The experiment's metrics.json, if this very checkpoint made it: by its content, whatever the file is called."""
    try:
        results = root / Project(root).paths.results_dir
        document = read_json(results / metadata["experiment_name"] / "metrics.json")
        scored = document["provenance"]["checkpoint"]
        digest = metadata["checkpoint_info"]["config_digest"]
        if (scored["file"], scored["config_digest"]) != (chosen.path.name, digest):
            return None
        if scored["sha256"] != chosen.sha256():
            return None
        return {
            "metrics": document["metrics"],
            "blind": document["controls"]["blind"],
            "protocol": document["protocol"],
            "num_samples": document["num_samples"],
        }
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        return None
