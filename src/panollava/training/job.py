"""What one run of a stage gets, and what follows from it: the model's configuration, devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from panollava.data.lengths import TextLimits, report_lengths
from panollava.data.samples import read_rows
from panollava.errors import CheckpointError, ConfigError
from panollava.logs import LOGGER
from panollava.models.config import ModelConfig
from panollava.models.context import check_context, planned_positions, prompt_of
from panollava.models.language_check import check_language_model
from panollava.training.stages import StageName


@dataclass(frozen=True)
class StageJob:
    """What one run of a stage gets. All paths are relative to `root`, the project's root, or absolute.

    `slice` is the stage's configuration slice (`dag.slices`), `digest` its digest. `untracked` holds the settings
    that change nothing about the result (`dag.options.untracked`), and `prompt` (see `check_prompt`). `naming` holds
    experiment, checkpoint_prefix, dataset_name, wandb_run and the configured CSVs (train_csv, val_csv, test_csv) for
    the metadata, and `remembered`, the settings of generation and evaluation that an evaluation of the folder alone
    uses. `forced` names the command that asks for the stage anew, whatever state there is; None where none does.
    """

    stage: StageName
    slice: dict[str, Any]
    digest: str
    train_csv: Path
    val_csv: Path
    train_views: Path
    val_views: Path
    stage_folder: Path
    state_folder: Path
    cache: Path
    root: Path
    init_folder: Path | None = None
    init_checkpoint: Path | None = None
    vision_folder: Path | None = None
    language_folder: Path | None = None
    vlm_folder: Path | None = None
    naming: dict[str, Any] = field(default_factory=dict)
    untracked: dict[str, Any] = field(default_factory=dict)
    forced: str | None = None

    @property
    def init_weights(self) -> Path | None:
        """The file that the stage starts from: the previous stage's best, or training.init_checkpoint."""
        return self.init_folder / "best.ckpt" if self.init_folder else self.init_checkpoint

    @property
    def config(self) -> dict[str, Any]:
        return self.slice["config"]

    @property
    def settings(self) -> dict[str, Any]:
        """training.stage_configs.{stage}"""
        return self.config["training"]["stage_configs"][self.stage]


def model_config_of(job: StageJob, image_size: tuple[int, int]) -> ModelConfig:
    """The model's configuration from the slice. The vision stage only names the language model."""
    if job.config["models"].get("vlm_name") is not None:
        return native_model_config(job.stage, job.config, image_size, job.vlm_folder)
    config = stage_model_config(job.stage, job.config, image_size, job.vision_folder, job.language_folder)
    prompt = job.untracked.get("prompt")
    if job.stage != "vision" or prompt is None:
        return config
    return replace(config, language_model_name=prompt["language_model_name"])


def stage_model_config(
    stage: str, config: dict[str, Any], image_size: tuple[int, int], vision: Path | None, language: Path | None
) -> ModelConfig:
    """The model's configuration from a slice's or an experiment's; the stage decides about LoRA and text length.

    `vision` and `language` are the folders of local backbones.
    """
    if config["models"].get("vlm_name") is not None:
        return native_model_config(stage, config, image_size, None)
    settings, full = config["training"]["stage_configs"][stage], bool(config["training"].get("full_finetune"))
    models, images = config["models"], config["image_processing"]
    document: dict[str, Any] = {
        "vision_name": models["vision_name"],
        "vision_path": vision.as_posix() if vision else None,
        "trust_remote_code": models["trust_remote_code"],
        **{key: models[key] for key in ("resampler_type", "qformer", "perceiver", "bimamba", "latent_dimension")},
        "image_size": list(image_size),
    }
    for key in ("crop_strategy", "fov_deg", "overlap_ratio", "anyres_max_patches", "cubemap_poles", "antialias",
                "use_vision_processor"):  # fmt: skip
        document[key] = images[key]
    # Later settings are left out of a slice at their default, which is the model configuration's own.
    document |= {key: images[key] for key in ("level", "north", "renderer") if key in images}
    if stage == "vision":
        document["use_lora"] = False
        document["vision_loss"], document["densecl_temperature"] = settings["loss"], settings["densecl_temperature"]
        document["vicreg_projector_dim"] = models["vicreg_projector_dim"]
        for key in ("mode", "loss_weight", "similarity_weight", "variance_weight", "covariance_weight"):
            document[f"vicreg_{key}"] = settings[f"vicreg_{key}"]
    else:
        document |= {
            "language_model_name": models["language_model_name"],
            "language_path": language.as_posix() if language else None,
            "use_projection_positional_encoding": models["use_projection_positional_encoding"],
            "stitching_mode": images["stitching_mode"],
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
    models, images = config["models"], config["image_processing"]
    adapter = models["adapter"]
    document: dict[str, Any] = {
        **{key: models[key] for key in ("vlm_name", "adapter", "quantization", "trust_remote_code")},
        "vlm_path": vlm.as_posix() if vlm else _folder_of(models["vlm_name"]),
        "adapter_path": _folder_of(adapter) if adapter else None,
        "view_labels": images["view_labels"],
        "image_size": images["image_size"],
    }
    for key in ("crop_strategy", "fov_deg", "overlap_ratio", "anyres_max_patches", "cubemap_poles", "antialias"):
        document[key] = images[key]
    document |= {key: images[key] for key in ("level", "north", "renderer") if key in images}
    return document


def native_folders(config: Mapping[str, Any], vlm: Path | None) -> dict[str, Path | None]:
    """The local folders of a native model and of the adapter that it starts with; None for what is on the hub."""
    document = native_document(config, vlm)
    found = {"vlm": document["vlm_path"], **({"adapter": document["adapter_path"]} if document["adapter"] else {})}
    return {part: Path(path) if path else None for part, path in found.items()}


def _folder_of(name: str) -> str | None:
    return Path(name).as_posix() if Path(name).is_dir() else None


def check_prompt(job: StageJob, model_config: ModelConfig) -> None:
    """Refuse images and texts that leave the language model's context, before anything is loaded or trained.

    Raises ConfigError. The vision stage, which knows no language model, checks for the stages after it where that
    model is at hand, and says which of their answers will be cut.
    """
    prompt = job.untracked.get("prompt")
    if prompt is None:
        return
    if model_config.is_native:
        LOGGER.info(check_context(model_config, prompt["text"]))
        return
    if job.stage == "vision":
        settings = {key: value for key, value in prompt.items() if key not in ("text", "csvs")}
        model_config = replace(model_config, **settings)
        folder = prompt["language_path"]
        if folder is not None and not (job.root / folder).is_dir():
            return  # the DAG builds it meanwhile
    try:
        LOGGER.info(check_context(model_config, prompt["text"]))
        if job.stage == "vision":
            _report_later_texts(job, model_config, prompt)
    except (OSError, CheckpointError):
        if job.stage != "vision":
            raise
        LOGGER.info("%s is not at hand: whether prompts fit is seen later", prompt["language_model_name"])


def _report_later_texts(job: StageJob, model_config: ModelConfig, prompt: dict[str, Any]) -> None:
    """What `check_lengths` has to say of the stages after this one, whose prepared CSVs `prompt` names by the key of
    their `max_text_length`. Those that are prepared later are told by their own stage.
    """
    for key, csvs in prompt.get("csvs", {}).items():
        limits = TextLimits(key, prompt["text"][key], planned_positions(model_config), model_config.answering_name)
        there = {csv: read_rows(job.root / csv) for csv in csvs if (job.root / csv).is_file()}
        if there:
            report_lengths(prompt_of(model_config), there, limits)


def check_later_language(job: StageJob) -> None:
    """In the vision stage: refuse a language model that the stages after it could not use.

    Raises ConfigError and CheckpointError. One that the DAG builds meanwhile is its own.
    """
    prompt = job.untracked.get("prompt")
    if job.stage != "vision" or job.config["models"].get("vlm_name") is not None:
        return  # a native model is whole in every stage
    if prompt is None or prompt.get("language_model_name") is None:
        return
    settings = {key: value for key, value in prompt.items() if key not in ("text", "csvs")}
    if settings["language_path"] is not None:
        folder = job.root / settings["language_path"]
        if not folder.is_dir():
            return
        settings["language_path"] = str(folder)
    config = ModelConfig(**settings, trust_remote_code=job.config["models"]["trust_remote_code"])
    check_language_model(config, language_dtype(job.config["training"]["precision"]))


def resolve_precision(precision: str) -> str:
    """`training.precision` with `auto` resolved: bf16-mixed on a GPU that has it, else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def language_dtype(precision: str) -> torch.dtype:
    """The dtype of the language model's frozen weights; whatever trains stays in float32."""
    return torch.bfloat16 if resolve_precision(precision) == "bf16-mixed" else torch.float32


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of a resolved precision, as the trainer has it, for what runs outside of the trainer."""
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "32-true", cache_enabled=False)


def first_device() -> torch.device:
    """Where a single process computes, and rank 0 of several."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Devices:
    """How many processes train, each on a device of its own (`accelerator` gpu or cpu), in which precision."""

    accelerator: str
    processes: int
    ddp: bool
    precision: str


def devices_of(training: dict[str, Any]) -> Devices:
    """`training.devices`, `strategy` and `precision` on this machine. Raises ConfigError where it has too few GPUs."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = 1 if training["devices"] == "auto" else int(training["devices"])
    if gpus and count > gpus:
        raise ConfigError(
            f"training.devices is {count}, but this job sees {gpus} GPU{'s' * (gpus > 1)}. Set it to at most {gpus}: "
            "batch_size counts the rows of all devices and may stay"
        )
    return Devices(
        accelerator="gpu" if gpus else "cpu",
        processes=count,
        ddp=count > 1 or training["strategy"] == "ddp",
        precision=resolve_precision(training["precision"]),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or (where torch raises a plain RuntimeError) on a CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
