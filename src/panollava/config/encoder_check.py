"""Before any job: is the folder in `models.vision_name` an encoder that can be used at the size that is asked for?

Raises ConfigError for what no job could use. Families that the table knows are judged by
their config.json alone. Any other is tried (`models.vision.try_encoder`), which imports torch, once a folder and size.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from panollava.config.workflow_config import WorkflowConfig


def check_encoder_folder(cfg: WorkflowConfig) -> None:
    """Raise ConfigError where the encoder's folder cannot be used. A damaged folder is reported by its job."""
    from panollava.models.vision_families import FAMILIES

    models = cfg.settings.models
    folder = cfg.root / models.vision_name
    size = cfg.effective["image_processing"]["image_size"]
    height_width = (size, size) if isinstance(size, int) else tuple(size) if size else None
    try:
        text = (folder / "config.json").read_text(encoding="utf-8")
        document = json.loads(text)
    except (OSError, ValueError):
        return
    if not isinstance(document, dict):
        return
    tower = document.get("vision_config")
    tower = tower if isinstance(tower, dict) else document
    source = f"{cfg.source}: " if cfg.source else ""
    if tower.get("model_type") in FAMILIES:
        _check_size(tower, height_width, f"{source}models.vision_name {models.vision_name}")
    else:
        try:
            _tried(str(folder), text, height_width, models.trust_remote_code)
        except ConfigError as error:
            raise ConfigError(f"{source}models.vision_name: {error}") from error


def _check_size(tower: dict[str, Any], size: tuple[int, ...] | None, what: str) -> None:
    patch = tower.get("patch_size")
    patches = (patch, patch) if isinstance(patch, int) else patch
    if size is None or not isinstance(patches, (list, tuple)) or len(patches) != 2:
        return
    if any(side % step for side, step in zip(size, patches, strict=True)):
        near = [max(1, round(side / step)) * step for side, step in zip(size, patches, strict=True)]
        raise ConfigError(
            f"{what}: image_processing.image_size {list(size)} is not a multiple of its patch {list(patches)}; "
            f"nearest: {near}"
        )


@lru_cache(maxsize=32)
def _tried(folder: str, config_json: str, size: tuple[int, int] | None, trust_remote_code: bool) -> None:
    from panollava.models.vision import try_encoder

    try:
        try_encoder(str(Path(folder)), size, trust_remote_code)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
