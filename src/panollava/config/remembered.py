"""What a stage folder remembers of its experiment's settings, for an evaluation without a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panollava.config.workflow_config import WorkflowConfig

_READ: Any = {
    "generation": True,
    "evaluation": True,
    "data": {"columns", "format", "max_rejected_fraction"},
    "training": {"eval_batch_size", "seed", "cpu_threads", "devices", "precision", "strategy"},
}


def remembered_settings(experiment: WorkflowConfig) -> dict[str, Any]:
    """Sections `generation` and `evaluation` whole, of `data` and `training` what an evaluation reads."""
    return experiment.settings.model_dump(mode="json", include=_READ)
