"""lmms-eval asks our checkpoints: `lmms_eval --model panollava --model_args checkpoint_dir=… --tasks …`.

lmms-eval finds `manifest` by the entry point `lmms_eval.models` of an installed panollava, and imports `model` when
it is asked for. Nothing here is imported by panollava itself.
"""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """What lmms-eval's registry takes (`ModelManifest`)."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="panollava", simple_class_path="panollava.lmms.model.Panollava")
