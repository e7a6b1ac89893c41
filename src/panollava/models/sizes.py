"""The size of views where `image_processing.image_size` is unset: the model's own. No weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.files import read_json
from panollava.models.vision_families import FAMILIES

_STATED = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")


def own_view_size(models: Mapping[str, Any], folder: Path | None = None) -> tuple[int, int]:
    """(height, width) in pixels. `models` are `models.*` of a configuration: trust_remote_code, and vision_name or
    vlm_name; `folder` is that of a model that the DAG built. Raises ConfigError where the model states no size.
    """
    vlm = models.get("vlm_name")
    source = str(folder) if folder else vlm or models["vision_name"]
    # torch and transformers, seconds of imports, are loaded only where config.json does not say it all.
    if vlm is None and (stated := _stated_size(Path(source))):
        return stated
    from panollava.models.native_processing import NativeProcessing
    from panollava.models.vision import describe_vision

    if vlm is not None:
        return NativeProcessing.of(source, models["trust_remote_code"]).view_size(None)
    return describe_vision(source, None, models["trust_remote_code"]).image_size


def _stated_size(folder: Path) -> tuple[int, int] | None:
    """What the config.json of a local folder with an encoder of a known family states, in whole patches; None where
    transformers has to be asked."""
    try:
        document = read_json(folder / "config.json")
    except (OSError, ValueError):
        return None
    found = document.get("vision_config") or document if isinstance(document, dict) else None
    if not isinstance(found, dict) or found.get("model_type") not in FAMILIES or "auto_map" in document:
        return None
    if any(type(found.get(name)) is not int or found[name] < 1 for name in _STATED):
        return None
    side = found["image_size"] // found["patch_size"] * found["patch_size"]
    return (side, side) if side else None
