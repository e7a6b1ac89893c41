"""checkpoint_metadata.json (SPEC 8): all that it takes to rebuild a model from its stage folder alone."""

from __future__ import annotations

from typing import Any

from panollava.files import read_json
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.training.job import StageJob
from panollava.training.loggers import WANDB_ID
from panollava.training.state_folder import now
from panollava.versions import package_versions


def build_metadata(
    job: StageJob, model: PanoramaModel, processor: PanoramaProcessor, checkpoints: list[dict[str, Any]],
    best: dict[str, Any], global_step: int, train_rows: int, val_rows: int, backbones: dict[str, str | None],
) -> dict[str, Any]:  # fmt: skip
    """checkpoint_metadata.json (SPEC 8): enough to rebuild model, processor and data settings.

    `backbones` are the digests of local folders (`backbone_digests`).
    """
    model_config = model.config.to_json()
    settings = job.settings
    return {
        "experiment_name": job.naming["experiment"],
        "stage": job.stage,
        "model_config": model_config,
        "backbones": backbones,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "processor": processor.to_json(),
        "training_config": {
            **{key: model_config[key] for key in ("crop_strategy", "fov_deg", "overlap_ratio", "use_vision_processor")},
            "learning_rate": settings["lr"],
            **{key: value for key, value in settings.items() if key not in ("lr", "data")},
            "seed": job.config["training"]["seed"],
            "precision": job.config["training"]["precision"],
        },
        "dataset": {
            **{key: job.naming.get(key) for key in ("train_csv", "val_csv", "test_csv", "dataset_name")},
            "num_train_samples": train_rows,
            "num_val_samples": val_rows,
        },
        "epoch_info": {
            "best_epoch": best["epoch"],
            "last_epoch": checkpoints[-1]["epoch"],
            "best_val_loss": best["val_loss"],
            "global_step": global_step,
            "checkpoints": checkpoints,
        },
        "checkpoint_info": {
            "created_at": now(),
            "versions": package_versions(),
            "config_digest": job.digest,
            "project_root": str(job.root.resolve()),
        },
        "remembered": job.naming["remembered"],
        "wandb": _wandb_info(job),
    }


def _wandb_info(job: StageJob) -> dict[str, Any] | None:
    if not job.untracked.get("wandb_project"):
        return None
    latest = job.state_folder / WANDB_ID
    identity = read_json(latest)["id"] if latest.is_file() else None
    return {"project": job.untracked["wandb_project"], "run": job.naming["wandb_run"], "id": identity}
