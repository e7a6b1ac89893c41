"""Resolve a configuration as jobs see it: computed values filled in, settings switched off by others at their default.

Maps a configuration's values to their effective values. So a slice contains no setting without effect, and changing
such a setting re-runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from panollava.config.dotted import copy_values
from panollava.config.native import COMPOSING, NATIVE_ONLY
from panollava.config.schema import KEYS, RESAMPLER_OPTIONS, Settings
from panollava.settings.model import LoraSettings
from panollava.settings.values import OLD_NAMES
from panollava.views.strategies import CROP_STRATEGIES, STRATEGY_SETTINGS

LORA = tuple(f"lora.{name}" for name in LoraSettings.model_fields)
"""Settings that count only with `lora.use_lora`."""
VICREG_TERMS = ("vicreg_similarity_weight", "vicreg_variance_weight", "vicreg_covariance_weight")
"""Settings of the vision stage that count only with its loss `vicreg`."""
OVERLAP_LOSS = ("overlap_loss", "overlap_features", "vicreg_mode", *VICREG_TERMS)
"""Settings of finetune that count only with an `overlap_loss_weight`."""

DEFAULTS: dict[str, Any] = Settings().model_dump(mode="json")
"""Every setting's default, as the schema has it."""


def effective_settings(document: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what is computed filled in, and with what is switched off at its default."""
    images, models = document["image_processing"], document["models"]
    if isinstance(images["image_size"], int):
        images["image_size"] = [images["image_size"]] * 2
    if models["vicreg_projector_dim"] is None and models["vlm_name"] is None:
        models["vicreg_projector_dim"] = models["latent_dimension"]
    copy_values(DEFAULTS, document, list(_switched_off(document)))
    _rename(document, {key: {new: old for old, new in names.items()} for key, names in OLD_NAMES.items()})
    return document


def with_names_of_today(config: dict[str, Any]) -> None:
    """Slices hold some values under the names of earlier versions, so that a new name makes nothing stale; jobs read
    today's."""
    _rename(config, OLD_NAMES)


def _rename(document: dict[str, Any], names: Mapping[str, Mapping[str, str]]) -> None:
    for key, of_value in names.items():
        section, _, name = key.partition(".")
        if (value := document.get(section, {}).get(name)) in of_value:
            document[section][name] = of_value[value]


def _switched_off(document: dict[str, Any]) -> Iterator[str]:
    strategy = document["image_processing"]["crop_strategy"]
    yield from (f"image_processing.{name}" for name in STRATEGY_SETTINGS if name not in CROP_STRATEGIES[strategy].reads)
    chosen = f"models.{document['models']['resampler_type']}."
    yield from (key for key in KEYS if key.startswith(RESAMPLER_OPTIONS) and not key.startswith(chosen))
    loss = document["training"]["stage_configs"]["vision"]["loss"]
    unread = ("densecl_temperature",) if loss == "vicreg" else VICREG_TERMS
    yield from (f"training.stage_configs.vision.{name}" for name in unread)
    if not document["generation"]["do_sample"]:
        yield from ("generation.temperature", "generation.top_p")
    if not document["lora"]["use_lora"] or document["training"]["full_finetune"]:
        yield from LORA
    if document["models"]["vlm_name"] is None:
        yield from NATIVE_ONLY
    else:
        yield from COMPOSING
    finetune = document["training"]["stage_configs"]["finetune"]
    if not finetune["overlap_loss_weight"]:
        yield from (f"training.stage_configs.finetune.{name}" for name in OVERLAP_LOSS)
    elif finetune["overlap_loss"] != "vicreg":
        yield from (f"training.stage_configs.finetune.{name}" for name in VICREG_TERMS)
    for stage, settings in document["training"]["stage_configs"].items():
        if settings["optimizer"] != "muon":
            yield f"training.stage_configs.{stage}.muon_lr"
    if document["training"]["stages"][:1] == ["vision"]:
        yield "training.init_checkpoint"
    yield "training.stage_configs.vision.max_text_length"
