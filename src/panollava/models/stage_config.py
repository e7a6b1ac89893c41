"""The model's configuration in a stage, from the settings of an experiment or of a slice of one.

It needs `models.*`, `image_processing.*`, `lora.*` and the stage's own settings, and no weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from panollava.models.config import ModelConfig
from panollava.settings.model import names


def stage_model_config(
    stage: str, config: dict[str, Any], image_size: tuple[int, int], vision: Path | None, language: Path | None
) -> ModelConfig:
    """The model's configuration from a slice's or an experiment's; the stage decides about LoRA and text length.

    `vision` and `language` are the folders of local backbones.
    """
    if config["models"].get("vlm_name") is not None:
        return native_model_config(stage, config, image_size, None)
    settings, full = config["training"]["stage_configs"][stage], bool(config["training"].get("full_finetune"))
    other_stages = names(ModelConfig, stages="text" if stage == "vision" else "vision")
    document = _of_same_name(config, without=(*names(ModelConfig, of="native"), *other_stages))
    document |= {"vision_path": vision.as_posix() if vision else None, "image_size": list(image_size)}
    if stage == "vision":
        document["use_lora"] = False
        document["vision_loss"], document["densecl_temperature"] = settings["loss"], settings["densecl_temperature"]
        for key in ("mode", "loss_weight", "similarity_weight", "variance_weight", "covariance_weight"):
            document[f"vicreg_{key}"] = settings[f"vicreg_{key}"]
    else:
        document |= {
            "language_path": language.as_posix() if language else None,
            "system_message": config["system_messages"]["default"],
            "max_text_length": settings["max_text_length"],
            "use_lora": stage == "finetune" and config["lora"]["use_lora"] and not full,
        }
        if stage == "finetune":
            document["full_finetune"] = full
            if settings.get("overlap_loss_weight"):
                document |= {"vision_loss": settings["overlap_loss"]}
                document |= {key: settings[key] for key in ("overlap_loss_weight", "overlap_features")}
                for key in ("mode", "similarity_weight", "variance_weight", "covariance_weight"):
                    document[f"vicreg_{key}"] = settings[f"vicreg_{key}"]
            document["lora"] = {name: value for name, value in config["lora"].items() if name != "use_lora"}
    return ModelConfig.from_json(document)


def native_model_config(
    stage: str, config: Mapping[str, Any], image_size: tuple[int, int], vlm: Path | None
) -> ModelConfig:
    """The configuration of a native model from a slice's or an experiment's; `vlm` is the folder of a local one.

    The stage decides where adapters are: in the tower for its overlap loss, else where `lora.parts` says.
    """
    settings, lora = config["training"]["stage_configs"][stage], dict(config.get("lora", {}))
    full = stage == "finetune" and config["training"]["full_finetune"]
    document = native_document(config, vlm)
    document |= {"image_size": list(image_size), "vicreg_projector_dim": config["models"].get("vicreg_projector_dim")}
    if stage == "vision":
        document |= {"vision_loss": settings["loss"], "densecl_temperature": settings["densecl_temperature"]}
        lora["parts"] = ["vision"]
    else:
        document |= {
            "panorama_positions": config["models"]["panorama_positions"],
            "system_message": config["system_messages"]["default"],
            "max_text_length": settings["max_text_length"],
        }
    if stage == "finetune":
        weight = settings["overlap_loss_weight"]
        document |= {"overlap_loss_weight": weight, "full_finetune": full}
        if weight:
            document |= {"vision_loss": settings["overlap_loss"], "overlap_features": settings["overlap_features"]}
    if stage != "resampler":
        for key in ("mode", "similarity_weight", "variance_weight", "covariance_weight"):
            document[f"vicreg_{key}"] = settings[f"vicreg_{key}"]
    if stage == "vision":
        document["vicreg_loss_weight"] = settings["vicreg_loss_weight"]
    document["use_lora"] = stage == "vision" or (stage == "finetune" and lora.pop("use_lora") and not full)
    document["lora"] = {name: value for name, value in lora.items() if name != "use_lora"}
    return ModelConfig.from_json(document)


def native_document(config: Mapping[str, Any], vlm: Path | None) -> dict[str, Any]:
    """What `ModelConfig` needs of a native model whatever the stage, from a slice's or an experiment's settings."""
    models, adapter = config["models"], config["models"]["adapter"]
    of_some_stages = (*names(ModelConfig, stages="text"), *names(ModelConfig, stages="vision"))
    return {
        **_of_same_name(config, without=(*names(ModelConfig, of="composed"), *of_some_stages)),
        "vlm_path": vlm.as_posix() if vlm else _folder_of(models["vlm_name"]),
        "adapter_path": _folder_of(adapter) if adapter else None,
    }


def _of_same_name(config: Mapping[str, Any], without: Collection[str]) -> dict[str, Any]:
    """The settings of `models` and `image_processing` that `ModelConfig` has under the same name. Those that joined
    later are not in a slice at their default, which is the model configuration's own."""
    known = set(ModelConfig.model_fields).difference(without)
    return {
        name: value for part in ("models", "image_processing") for name, value in config[part].items() if name in known
    }


def native_folders(config: Mapping[str, Any], vlm: Path | None) -> dict[str, Path | None]:
    """The local folders of a native model and of the adapter that it starts with; None for what is on the hub."""
    document = native_document(config, vlm)
    found = {"vlm": document["vlm_path"], **({"adapter": document["adapter_path"]} if document["adapter"] else {})}
    return {part: Path(path) if path else None for part, path in found.items()}


def _folder_of(name: str) -> str | None:
    return Path(name).as_posix() if Path(name).is_dir() else None
