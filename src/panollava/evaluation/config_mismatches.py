"""What `panollava eval` found before it computes anything: the folder's facts, and where a configuration disagrees.

A loaded stage is compared with an experiment, if there is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from panollava.checkpoints.loading import LoadedStage
from panollava.config.schema import KEYS, SYNTHETIC
from panollava.models.stage_config import native_model_config, stage_model_config

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


def describe(loaded: LoadedStage) -> list[str]:
    """Folder, chosen file, experiment, stage and the parts of the model, one a line."""
    model, metadata = loaded.model.config, loaded.metadata
    return [
        f"folder:         {loaded.checkpoint.folder}",
        f"checkpoint:     {loaded.checkpoint.name} ({loaded.checkpoint.chosen_as})",
        f"experiment:     {metadata['experiment_name']}",
        f"stage:          {metadata['stage'] or 'none: nothing is trained (zero-shot)'}",
        *(
            [f"model:          {model.vlm_name}"]
            if model.vlm_name is not None
            else [
                f"vision:         {model.vision_name}",
                f"language model: {model.language_model_name}",
                f"resampler:      {model.resampler_type}",
            ]
        ),
        f"crop:           {model.crop_strategy}",
        f"LoRA:           {_adapter_text(loaded)}",
    ]


def config_mismatches(experiment: WorkflowConfig, metadata: dict[str, Any], csv_chosen: bool = False) -> list[str]:
    """`key: configuration X, folder Y` for each setting on which an experiment and a folder's metadata differ.

    In all of them the folder counts. Settings of generation and evaluation are not among them, since there the
    configuration does; nor is the test CSV where the user has chosen one.
    """
    config, stage, stated = experiment.effective, metadata["stage"], metadata["model_config"]
    image_size = config["image_processing"]["image_size"] or stated["image_size"]
    configured = (
        native_model_config(stage, config, tuple(image_size), None)
        if config["models"]["vlm_name"]
        else (stage_model_config(stage, config, tuple(image_size), None, None))
    )
    asked = configured.to_json()
    pairs: dict[str, tuple[Any, Any]] = {"experiment.name": (experiment.names.experiment, metadata["experiment_name"])}
    for key, value in asked.items():
        if not key.endswith("_path") and key in stated:
            pairs |= _pairs(_setting(key, stage), value, stated[key])
    trained = metadata["training_config"]
    for key, value in config["training"]["stage_configs"][stage].items():
        recorded = {"lr": "learning_rate"}.get(key, key)
        if recorded in trained:
            pairs[f"training.stage_configs.{stage}.{key}"] = (value, trained[recorded])
    for key in ("seed", "precision"):
        if key in trained:
            pairs[f"training.{key}"] = (config["training"][key], trained[key])
    csvs, recorded_csvs = experiment.csvs("test"), metadata["dataset"].get("test_csv")
    if csvs != [SYNTHETIC] and not csv_chosen:
        pairs["data.csv_test"] = (csvs[0] if len(csvs) == 1 else csvs, recorded_csvs)
    return [f"{key}: configuration {one!r}, folder {two!r}" for key, (one, two) in pairs.items() if one != two]


def _pairs(key: str, asked: Any, stated: Any) -> dict[str, tuple[Any, Any]]:
    """The values of a setting, or of the settings in a section, by dotted key; what one of them lacks is left out."""
    if not isinstance(asked, dict) or not isinstance(stated, dict):
        return {key: (asked, stated)}
    return {f"{key}.{name}": (value, stated[name]) for name, value in asked.items() if name in stated}


def _setting(key: str, stage: str) -> str:
    """The dotted key of the configuration that a key of `model_config` comes from."""
    for section in ("models", "image_processing"):
        if any(f"{one}.".startswith(f"{section}.{key}.") for one in KEYS):
            return f"{section}.{key}"
    if key == "full_finetune":
        return "training.full_finetune"
    if key in ("overlap_loss_weight", "overlap_features"):
        return f"training.stage_configs.finetune.{key}"
    if key == "system_message":
        return "system_messages.default"
    if key == "lora":
        return key
    if key == "use_lora":
        return "lora.use_lora"
    loss = "overlap_loss" if stage == "finetune" else "loss"
    return f"training.stage_configs.{stage}.{loss if key == 'vision_loss' else key}"


def _adapter_text(loaded: LoadedStage) -> str:
    if loaded.metadata["stage"] is None and loaded.model.config.adapter is not None:
        return loaded.model.config.adapter
    if not loaded.model.config.use_lora:
        return "none"
    adapter = loaded.checkpoint.folder / "lora_weights"
    return str(adapter) if adapter.is_dir() else f"in {loaded.checkpoint.name} ({adapter.name} is not there)"
