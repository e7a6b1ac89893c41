"""The only place that chooses between the kinds of model: from a configuration, or from a saved model's folder."""

from __future__ import annotations

from pathlib import Path

import torch

from panollava.errors import CheckpointError
from panollava.models.config import ModelConfig
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM


def build_model(
    config: ModelConfig,
    *,
    with_language: bool = True,
    with_lora: bool | None = None,
    dtype: torch.dtype = torch.float32,
) -> PanoramaModel:
    """The model of a configuration, with its backbones' own weights.

    `with_language=False` builds what the vision stage needs of a composed model; a native one is always whole.
    """
    if not config.is_native:
        return PanoramaVLM(config, with_language=with_language, with_lora=with_lora, dtype=dtype)
    from panollava.models.native import NativeVLM

    return NativeVLM(config, with_lora=with_lora, dtype=dtype)


def is_saved(folder: str | Path) -> bool:
    """Whether `save_pretrained` of either kind wrote this folder."""
    from panollava.models.processor_text import is_saved_native
    from panollava.models.saving import is_saved_model

    return is_saved_model(folder) or is_saved_native(folder)


def load_pretrained(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False
) -> tuple[PanoramaModel, PanoramaProcessor]:
    """Model (in eval mode) and processor of a folder that `save_pretrained` wrote. Raises CheckpointError."""
    from panollava.models.native_saving import load_native_folder
    from panollava.models.processor_text import is_saved_native

    if is_saved_native(folder):
        return load_native_folder(Path(folder), dtype, trust_remote_code)
    if not is_saved(folder):
        raise CheckpointError(f"{folder} holds no model that panollava has saved")
    model = PanoramaVLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
    return model, PanoramaProcessor.from_pretrained(folder)
