"""The size of views where `image_processing.image_size` is unset: the model's own. No weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.models.native_processing import NativeProcessing
from panollava.models.vision import describe_vision


def own_view_size(models: Mapping[str, Any], folder: Path | None = None) -> tuple[int, int]:
    """(height, width) in pixels. `models` are `models.*` of a configuration: trust_remote_code, and vision_name or
    vlm_name; `folder` is that of a model that the DAG built. Raises ConfigError where the model states no size.
    """
    vlm = models.get("vlm_name")
    source = str(folder) if folder else vlm or models["vision_name"]
    if vlm is not None:
        return NativeProcessing.of(source, models["trust_remote_code"]).view_size(None)
    return describe_vision(source, None, models["trust_remote_code"]).image_size
