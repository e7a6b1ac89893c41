"""Load a folder without checkpoint_metadata.json: an experiment's configuration takes its place.

Derives from an experiment and a stage the part of the metadata that is needed to rebuild the model. Whether the weights
fit is checked when they are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.names import SPLITS
from panollava.config.remembered import remembered_settings
from panollava.files import sha256_folder
from panollava.models.processor import PanoramaProcessor
from panollava.models.sizes import own_view_size
from panollava.models.stage_config import native_model_config, stage_model_config
from panollava.models.vision import describe_vision

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


def metadata_of_config(cfg: WorkflowConfig, stage: str | None = None) -> dict[str, Any]:
    """Metadata as `load_stage` reads it, for `stage` (default: the experiment's last one)."""
    stage = stage or (cfg.settings.training.stages or ["finetune"])[-1]
    config, root = cfg.effective, cfg.root.resolve()
    folders: dict[str, Path | None] = {}
    for part in cfg.backbones[stage]:
        folder = cfg.backbone_folder(part)
        folders[part] = root / folder if folder else None
    size = config["image_processing"]["image_size"]
    if "vlm" in folders:
        shape = tuple(size) if size else own_view_size(config["models"], folders["vlm"])
        model = native_model_config(stage, config, shape, folders["vlm"])
    else:
        vision = folders["vision"]
        source = str(vision) if vision else config["models"]["vision_name"]
        spec = describe_vision(source, tuple(size) if size else None, config["models"]["trust_remote_code"])
        model = stage_model_config(stage, config, spec.image_size, vision, folders.get("language"))
    return {
        **metadata_without_model(cfg, stage),
        "stage": stage,
        "model_config": model.to_json(),
        "backbones": {part: sha256_folder(folder) if folder else None for part, folder in folders.items()},
        "processor": PanoramaProcessor.for_model(model).to_json(),
    }


def metadata_without_model(cfg: WorkflowConfig, stage: str | None = None) -> dict[str, Any]:
    """What a folder's metadata record of an experiment whatever its model: its data, the settings that it remembers."""
    dataset: dict[str, Any] = {f"{split}_csv": _files(cfg.csvs(split)) for split in SPLITS}
    return {
        "experiment_name": cfg.names.experiment,
        "training_config": {"precision": cfg.effective["training"]["precision"]},
        "dataset": {**dataset, "dataset_name": cfg.names.datasets[stage] if stage else None},
        "checkpoint_info": {"config_digest": None, "project_root": str(cfg.root.resolve())},
        "remembered": remembered_settings(cfg),
    }


def _files(paths: list[str]) -> str | list[str] | None:
    """Configured CSVs as the metadata has them; None for drawn ones, which have no path of their own."""
    files = [path for path in paths if path != "synthetic"]
    return files[0] if len(files) == 1 else files or None
