"""A native model as its family's own folder, which plain transformers loads, and back.

FOLDER/config.json, model.safetensors, …   as the family has them: AutoModelForImageTextToText, AutoProcessor (with
                                           panollava imported its own, which shows a panorama's views)
FOLDER/panollava.json                      views, positions, prompt: the settings, and where the model comes from
FOLDER/lora_weights/                       adapters, where they are not merged
FOLDER/README.md                           the model card
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig

from panollava.errors import EXPORT_REMEDY, CheckpointError, ConfigError
from panollava.files import read_json, write_json, write_text
from panollava.hub.folders import NATIVE_FILE
from panollava.models.config import ModelConfig
from panollava.models.model_card import model_card
from panollava.models.processor import PanoramaProcessor
from panollava.models.processor_text import is_saved_native
from panollava.models.vision import quiet_loading
from panollava.trust import check_parts

if TYPE_CHECKING:
    from panollava.models.native import NativeVLM

_ADAPTER = "lora_weights"


def save_native(model: NativeVLM, folder: Path, processor: PanoramaProcessor | None = None) -> None:
    """Write the folder. Raises ConfigError over other files, and for quantised weights, which are nobody's own."""
    if folder.is_dir() and any(folder.iterdir()) and not is_saved_native(folder):
        raise ConfigError(f"{folder} holds other files: name a new or an empty folder")
    if model.config.quantization is not None:
        raise ConfigError(
            f"weights of {model.config.quantization} are not exported: the stage folder with its lora_weights is what "
            "was trained"
        )
    folder.mkdir(parents=True, exist_ok=True)
    processor = processor or PanoramaProcessor.for_model(model.config)
    with quiet_loading():
        core = model.core
        state = {  # what adapters bring, layers of their own in place of the model's too, lies in lora_weights
            key.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
            for key, tensor in core.state_dict().items()
            if ".lora_" not in key and ".modules_to_save." not in key
        }
        core.save_pretrained(folder, state_dict={key: value.to(model.dtype) for key, value in state.items()})
        ends: Any = list(dict.fromkeys([*model.own_end_ids, *model.prompt.end_ids]))
        GenerationConfig(eos_token_id=ends, pad_token_id=model.prompt.pad_id).save_pretrained(folder)
        model.processing.processor.save_pretrained(folder)
    adapted = model.has_adapters
    if adapted:
        model.save_adapter(folder / _ADAPTER)
    config = model.config.changed(
        vlm_path=None, adapter=None, adapter_path=None, use_lora=adapted, image_size=processor.image_size
    ).to_json()
    write_text(folder / "README.md", model_card(config, model.origin))
    write_json(
        folder / NATIVE_FILE,
        {"model_type": "panollava_native", "model": config, "processor": processor.to_json(), "origin": model.origin},
    )


def load_native_folder(
    folder: Path, dtype: torch.dtype, trust_remote_code: bool = False
) -> tuple[NativeVLM, PanoramaProcessor]:
    """The model of a saved folder, in eval mode, and its processor. Raises CheckpointError."""
    from panollava.models.native import NativeVLM

    path = folder / NATIVE_FILE
    check_parts(folder, (".",))
    try:
        document = read_json(path)
        recorded, origin = document["model"], document["origin"]
        trusted = trust_remote_code and recorded.get("trust_remote_code", False)
        adapter = str(folder / _ADAPTER) if recorded.get("use_lora") else None
        config = ModelConfig.from_json(
            {
                **recorded,
                "vlm_path": str(folder),
                "adapter": None,
                "adapter_path": adapter,
                "trust_remote_code": trusted,
            }
        )
        processor = PanoramaProcessor.from_json(document["processor"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: {error}. {EXPORT_REMEDY}") from error
    model = NativeVLM(config, dtype=dtype)
    model.origin = origin
    model.eval()
    return model, processor
