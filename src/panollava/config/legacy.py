"""Keys of the original project: those still read, and those that something else replaced.

A file's values are given their keys of today, with a warning for each key that moved. Keys
without a successor become errors that say what to do instead.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from panollava.config.yaml_file import YamlFile
from panollava.settings.values import OLD_NAMES

MOVED = {
    "paths.csv_train": "data.csv_train",
    "paths.csv_val": "data.csv_val",
    "paths.csv_test": "data.csv_test",
}
PREFIX = "training.prefix"

# Pattern of a key of the original project -> what a user does instead.
REPLACED = {
    "data.train": "use data.csv_train",
    "data.val": "use data.csv_val",
    "data.test": "use data.csv_test",
    "data.max_text_length": "use training.stage_configs.STAGE.max_text_length",
    "data.auto_max_text_length_*": "use training.stage_configs.STAGE.max_text_length",
    "data.num_workers": "use training.num_workers",
    "environment": "use training.wandb_project for the project, and the variable CUDA_VISIBLE_DEVICES for the GPUs",
    "experiment.version": "write it into experiment.name or experiment.description",
    "generation.min_new_tokens": "nothing replaces it: an answer ends where the model ends it",
    "generation.repetition_penalty": "nothing replaces it: greedy decoding is not altered",
    "image_processing.anyres_patch_size": "use image_processing.image_size",
    "image_processing.image_mean": "use image_processing.use_vision_processor",
    "image_processing.image_std": "use image_processing.use_vision_processor",
    "image_processing.normalize": "pixels are always normalised; see image_processing.use_vision_processor",
    "image_processing.stitch_*": "image_processing.stitching_mode decides alone",
    "image_processing.vision_model_name": "use models.vision_name",
    "lora.lora_alpha": "use lora.alpha",
    "lora.lora_dropout": "use lora.dropout",
    "lora.lora_r": "use lora.rank",
    "lora.r": "use lora.rank",
    "lora.save_lora_only": "nothing replaces it: a stage folder holds both the checkpoint and lora_weights/",
    "models.lm_model": "use models.language_model_name",
    "models.lm_name": "use models.language_model_name",
    "models.pe_*": "models.use_projection_positional_encoding decides alone",
    "models.resampler": "use models.resampler_type",
    "models.resampler_config": "use models.latent_dimension, and models.qformer, models.perceiver or models.bimamba",
    "models.use_text_projection": "nothing replaces it: the projection is always there",
    "models.use_vicreg_norm": "nothing replaces it: the VICReg projector normalises",
    "models.use_vicreg_projector": "nothing replaces it: the VICReg projector is always there",
    "models.vicreg_projector_d[er]*": "use models.vicreg_projector_dim",
    "models.vision_model_name": "use models.vision_name",
    "stage_configs": "use training.stage_configs",
    "training.deepspeed": "use training.devices and training.strategy",
    "training.empty_cache_each_step": "nothing replaces it: memory is not emptied between steps",
    "training.system_msg": "use system_messages.default",
    "training.stage_configs.*.debug_vicreg_loss": "the loss's terms are always in the training log",
    "training.stage_configs.*.learning_rate": "use training.stage_configs.STAGE.lr",
}


def replaced_key(key: str) -> str | None:
    """What to do instead of `key`, if it is a key of the original project that is gone."""
    for pattern, instead in REPLACED.items():
        if fnmatchcase(key, pattern):
            return f"{key} is a key of the original project that is gone: {instead}"
    return None


def move_legacy_keys(file: YamlFile) -> tuple[str | None, list[str]]:
    """Rename the keys that are still read, in place. Returns `training.prefix` (or None) and the warnings."""
    warnings: list[str] = []
    for old, new in MOVED.items():
        if (value := _take(file.values, old)) is None:
            continue
        section, _, name = new.partition(".")
        target = file.values.setdefault(section, {})
        if target is None:
            target = file.values[section] = {}
        if not isinstance(target, dict):
            continue
        ignored = " It is ignored, because that key is set too" if name in target else ""
        warnings.append(f"{file.where(old)}: {old} is deprecated, use {new}.{ignored}".removesuffix("."))
        if name not in target:
            target[name] = value
            file.lines[new] = file.lines[old]
    for key, names in OLD_NAMES.items():
        section, _, name = key.partition(".")
        inner = file.values.get(section)
        if isinstance(inner, dict) and isinstance(value := inner.get(name), str) and value in names:
            inner[name] = names[value]
            warnings.append(f"{file.where(key)}: {key}: {value} is called {names[value]} now")
    prefix = _take(file.values, PREFIX)
    if prefix is not None:
        warnings.append(f"{file.where(PREFIX)}: {PREFIX} is deprecated, use experiment.name")
    return prefix, warnings


def _take(values: dict[str, Any], key: str) -> Any:
    section, _, name = key.partition(".")
    inner = values.get(section)
    return inner.pop(name, None) if isinstance(inner, dict) else None
