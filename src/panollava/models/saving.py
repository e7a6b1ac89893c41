"""A whole model as a Hugging Face folder, and back.

    FOLDER/config.json             model_type panollava: the model's settings, and where it comes from (`origin`)
    FOLDER/model.safetensors       resampler, projection, positional encoding; of the vision stage the VICReg projector
    FOLDER/processor_config.json   the processor: views, their size, mean and standard deviation
    FOLDER/vision_encoder/         loads with AutoModel
    FOLDER/language_model/         loads with AutoModelForCausalLM and AutoTokenizer
    FOLDER/lora_weights/           LoRA adapters, where they are not merged: load with peft on language_model/, which
                                   they name as their base (a hub id where it is one), seen from FOLDER
    FOLDER/README.md               the model card

The folder is complete: nothing in it names another place. Only safetensors and JSON are read back. Traded away: disk,
since the backbones are copied.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GenerationConfig
from transformers.image_processing_base import ImageProcessingMixin

from panollava.errors import EXPORT_REMEDY, CheckpointError, ConfigError
from panollava.files import read_json, write_json, write_text
from panollava.models.config import ModelConfig
from panollava.models.finite import refuse_not_finite
from panollava.models.language import LanguageModel
from panollava.models.model_card import model_card
from panollava.models.parts import part_of, refuse_other_keys
from panollava.models.processor import PanoramaProcessor
from panollava.models.prompt import pad_id_of
from panollava.models.vision import quiet_loading
from panollava.trust import check_parts

if TYPE_CHECKING:
    from panollava.models.vlm import PanoramaVLM

MODEL_TYPE = "panollava"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_VISION, _LANGUAGE, _ADAPTER = "vision_encoder", "language_model", "lora_weights"
_BACKBONES = ("vision_encoder", "language_model", "lora")


def is_saved_model(folder: str | Path) -> bool:
    """Whether `save_model` wrote this folder."""
    try:
        return read_json(Path(folder) / _CONFIG).get("model_type") == MODEL_TYPE
    except (OSError, ValueError, AttributeError):
        return False


def save_model(model: PanoramaVLM, folder: Path, processor: PanoramaProcessor | None = None) -> None:
    """Write the folder. `processor` is the model's own where none is given. Raises ConfigError over other files."""
    if folder.is_dir() and any(folder.iterdir()) and not is_saved_model(folder):
        raise ConfigError(f"{folder} holds other files: name a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    processor = processor or PanoramaProcessor.for_model(model.config, model.vision)
    language = model.language
    adapted = language is not None and language.has_lora
    with quiet_loading():
        _save_vision(model, folder / _VISION, processor)
        if model.language is not None:
            _save_language(model.language, folder / _LANGUAGE)
    if language is not None and adapted:
        # A local base is copied into the folder: from there peft finds it by this name.
        base = model.config.language_model_name if model.config.language_path is None else _LANGUAGE
        language.save_adapter(folder / _ADAPTER, base)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in _own(model).items()}
    save_file(tensors, folder / _WEIGHTS, {"format": "pt"})
    processor.save_pretrained(folder)
    config = {**model.config.to_json(), "vision_path": None, "language_path": None, "use_lora": adapted}
    write_text(folder / "README.md", model_card(config, model.origin))
    document = {"model_type": MODEL_TYPE, "architectures": [type(model).__name__], "model": config,
                "origin": model.origin}  # fmt: skip
    write_json(folder / _CONFIG, document)


def load_model(
    kind: type[PanoramaVLM], folder: Path, dtype: torch.dtype, trust_remote_code: bool = False
) -> PanoramaVLM:
    """The model of a saved folder, in eval mode; Python code that it brings runs only with `trust_remote_code`.

    Raises CheckpointError that names every key that does not fit.
    """
    if not is_saved_model(folder):
        raise CheckpointError(
            f"{folder}: no {_CONFIG} of model type {MODEL_TYPE} there. A stage folder loads with from_checkpoint; "
            "`panollava export` makes the other from it"
        )
    check_parts(folder, (_VISION, _LANGUAGE))
    document = read_json(folder / _CONFIG)
    with_language = (folder / _LANGUAGE).is_dir()
    paths = {"vision_path": str(folder / _VISION)}
    if with_language:
        paths["language_path"] = str(folder / _LANGUAGE)
    recorded, origin = document.get("model"), document.get("origin")
    if not isinstance(recorded, dict) or not isinstance(origin, dict | None):
        raise CheckpointError(f"{folder / _CONFIG}: expected mappings under model and origin. {EXPORT_REMEDY}")
    trusted = trust_remote_code and recorded.get("trust_remote_code", False)
    try:
        config = ModelConfig.from_json({**recorded, **paths, "trust_remote_code": trusted})
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / _CONFIG}: model: {error}. {EXPORT_REMEDY}") from error
    model = kind(config, with_language=with_language, dtype=dtype)
    for part in (model.vision,):
        if part is not None and part.unexpected_keys:
            raise CheckpointError(f"{folder}: unexpected weights of a backbone: {', '.join(part.unexpected_keys)}")
    _fill(_own(model), _read(folder / _WEIGHTS))
    if config.use_lora and model.language is not None:
        # Not by peft's own reader: it renames tensors as those of families' older layouts, and loses some of Laguna's.
        own = get_peft_model_state_dict(model.language.model, save_embedding_layers=False)
        _fill(own, _read(folder / _ADAPTER / "adapter_model.safetensors"))
    model.origin = origin
    model.eval()
    return model


def _own(model: PanoramaVLM) -> dict[str, Tensor]:
    """The tensors between the backbones. The VICReg projector serves the vision stage's loss alone."""
    others = {*_BACKBONES, *(["vicreg_projector"] if model.language is not None else [])}
    return {key: tensor for key, tensor in model.state_dict().items() if part_of(key) not in others}


def _save_vision(model: PanoramaVLM, folder: Path, processor: PanoramaProcessor) -> None:
    model.vision.model.save_pretrained(folder)
    try:
        stated, _ = ImageProcessingMixin.get_image_processor_dict(model.config.vision_source)
    except OSError:
        stated = {}
    statistics = {"image_mean": list(processor.mean), "image_std": list(processor.std), "do_normalize": True,
                  "do_rescale": True, "rescale_factor": 1 / 255}  # fmt: skip
    write_json(folder / "preprocessor_config.json", {**stated, **statistics})


def _save_language(language: LanguageModel, folder: Path) -> None:
    """The language model without adapters, with the tokenizer and the ids that end its answers."""
    model = language.model.get_base_model() if language.has_lora else language.model
    state = {re.sub(r"(\.base_layer)+\.", ".", key): tensor for key, tensor in model.state_dict().items()
             if ".lora_" not in key}  # fmt: skip
    model.save_pretrained(folder, state_dict=state)
    ends: Any = language.own_end_ids[0] if len(language.own_end_ids) == 1 else language.own_end_ids or None
    GenerationConfig(eos_token_id=ends, pad_token_id=pad_id_of(language.tokenizer)).save_pretrained(folder)
    language.tokenizer.save_pretrained(folder)


def _fill(own: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
    refuse_other_keys(own, tensors)
    with torch.no_grad():
        for key, tensor in tensors.items():
            own[key].copy_(tensor)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    refuse_not_finite(path, tensors.items())
    return tensors
