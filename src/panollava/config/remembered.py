"""What a stage folder remembers of its experiment's settings, for an evaluation without a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panollava.config.workflow_config import WorkflowConfig

_DATA = ("columns", "format", "max_rejected_fraction")
_TRAINING = ("eval_batch_size", "seed", "cpu_threads", "devices", "precision", "strategy")


def remembered_settings(experiment: WorkflowConfig) -> dict[str, Any]:
    """Sections `generation` and `evaluation` whole, of `data` and `training` what an evaluation reads."""
    settings = experiment.to_dict()
    return {
        "generation": settings["generation"],
        "evaluation": settings["evaluation"],
        "data": {key: settings["data"][key] for key in _DATA},
        "training": {key: settings["training"][key] for key in _TRAINING},
    }
