"""Probe a native model of an untested family: what can be checked without its weights.

Takes an experiment's settings and a folder. Raises ConfigError with what the model lacks: its processor must leave
views unchanged, its prompt must be a head and a question, and its class must accept precomputed features.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

from panollava.errors import ConfigError
from panollava.logs import LOGGER
from panollava.models.config import ModelConfig
from panollava.models.native_processing import NativeProcessing
from panollava.models.native_prompt import native_prompt
from panollava.models.shapes import plan_model_views


def probe_native(config: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError where the model in `folder` cannot be used with these settings (`WorkflowConfig.effective`)."""
    models, images = config["models"], config["image_processing"]
    document = {
        "vlm_name": models["vlm_name"], "vlm_path": str(folder), "trust_remote_code": models["trust_remote_code"],
        "image_size": images["image_size"], "view_labels": images["view_labels"], "use_lora": False,
        "system_message": config["system_messages"]["default"],
        **{key: images[key] for key in ("crop_strategy", "fov_deg", "overlap_ratio", "anyres_max_patches",
                                        "cubemap_poles")},
    }  # fmt: skip
    settings = ModelConfig(**document)
    native_prompt(settings, plan_model_views(settings))
    processing = NativeProcessing.of(settings.vlm_source, settings.trust_remote_code)
    family: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(processing.config), None)
    family = family[0] if isinstance(family, (tuple, list)) else family
    if family is None:
        return  # code of its own: seen when it is loaded
    if "mm_encoder_outputs" not in inspect.signature(family.forward).parameters:
        raise ConfigError(
            f"models.vlm_name: {models['vlm_name']} cannot be used: {family.__name__} takes no image features that "
            "were computed before (mm_encoder_outputs)"
        )
    LOGGER.info("models.vlm_name: the family %s has not been tried before; it passed every probe",
                processing.config.model_type)  # fmt: skip
