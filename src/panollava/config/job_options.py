"""What the DAG's jobs get beside their slice: files, folders, names; for the Snakefile and for `pipeline`.

An experiment enters; paths (posix text, relative to the project's root) and dictionaries of options leave. No torch.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from panollava.config.build_slice import backbone_folder
from panollava.errors import ConfigError

if TYPE_CHECKING:
    from panollava.config.workflow_config import WorkflowConfig

CACHE = "cache"
SPLITS = ("train", "val", "test")
STAGE_OUTPUTS = ("best.ckpt", "last.ckpt", "loss_curves.csv", "loss_curves.png", "checkpoint_metadata.json")
"""What a finished stage has in its folder, the metadata last."""

_REMEMBERED_DATA = ("columns", "format", "max_rejected_fraction")
_REMEMBERED_TRAINING = ("eval_batch_size", "seed", "cpu_threads", "devices", "precision", "strategy")


def source_csvs(slice_document: dict[str, Any]) -> list[str]:
    """The source CSVs of a `prepare` slice: drawn ones of the cache, or the user's."""
    csvs, key = slice_document["inputs"]["csvs"], slice_document["upstream"].get("synthetic")
    return [f"{CACHE}/synthetic/{key}/{csvs[0]['split']}.csv"] if key else [csv["path"] for csv in csvs]


def miniature_folders(slice_document: dict[str, Any]) -> dict[str, str]:
    """`vision` and `language`: folders of the miniature backbones that a slice builds upon."""
    keys = {part: slice_document["upstream"].get(f"miniature_{part}") for part in ("vision", "language")}
    return {part: f"{CACHE}/miniature/{part}/{key}" for part, key in keys.items() if key}


def previous_stage(experiment: WorkflowConfig, stage: str) -> str | None:
    """The stage whose weights `stage` starts from. Raises ConfigError where the experiment does not train `stage`."""
    stages: list[str] = list(experiment.settings.training.stages)
    if stage not in stages:
        raise ConfigError(
            f"{experiment.names.experiment} does not train stage {stage}; training.stages: [{', '.join(stages)}]"
        )
    place = stages.index(stage)
    return stages[place - 1] if place else None


def stage_options(experiment: WorkflowConfig, stage: str) -> dict[str, Any]:
    """Paths, names and settings that change nothing about the result, as options of the job `train_stage`."""
    names, previous = experiment.names, previous_stage(experiment, stage)
    given: dict[str, Any] = {
        "stage": stage,
        "out": names.stage_dir(stage),
        "state": names.state_dir(stage),
        "cache": CACHE,
        **miniature_folders(experiment.slice_of(f"train_{stage}")),
        "naming": {
            "experiment": names.experiment,
            "checkpoint_prefix": names.checkpoint_prefix(stage),
            "dataset_name": names.datasets[stage],
            "wandb_run": names.wandb_run(stage, datetime.now()),
            **{f"{split}_csv": _configured_csv(experiment, split, stage) for split in SPLITS},
            "remembered": remembered_settings(experiment),
        },
        "untracked": untracked(experiment),
    }
    if previous:
        return {**given, "init": names.stage_dir(previous)}
    init = initial_checkpoint(experiment, stage)
    return {**given, "init_checkpoint": init} if init else given


def untracked(cfg: WorkflowConfig) -> dict[str, Any]:
    """What a stage's job needs but what changes no result, for an untracked parameter: some settings of `training`,
    and under `prompt` what decides whether the prompts of all its stages fit the language model (see `models.context`).
    """
    training, models = cfg.settings.training, cfg.settings.models
    names = ("num_workers", "gradient_checkpointing", "checkpoint_every_n_steps", "keep_checkpoints",
             "log_every_n_steps", "tensorboard", "wandb_project")  # fmt: skip
    text = {
        f"training.stage_configs.{stage}.max_text_length": training.stage_configs.of(stage).max_text_length
        for stage in training.stages
        if stage != "vision"
    }
    prompt = {
        "language_model_name": models.language_model_name,
        "language_path": backbone_folder(cfg, "language"),
        "stitching_mode": cfg.settings.image_processing.stitching_mode,
        "system_message": cfg.settings.system_messages.default,
        "text": {**text, "generation.max_new_tokens": cfg.settings.generation.max_new_tokens},
    }
    return {**{name: getattr(training, name) for name in names}, "prompt": prompt}


def initial_checkpoint(experiment: WorkflowConfig, stage: str) -> str | None:
    """The file whose weights a first stage starts from, as `training.init_checkpoint` names it."""
    found = experiment.slice_of(f"train_{stage}")["inputs"].get("init_checkpoint")
    return found["path"] if found else None


def remembered_settings(experiment: WorkflowConfig) -> dict[str, Any]:
    """What a stage folder remembers for an evaluation without a configuration."""
    settings = experiment.to_dict()
    return {
        "generation": settings["generation"],
        "evaluation": settings["evaluation"],
        "data": {key: settings["data"][key] for key in _REMEMBERED_DATA},
        "training": {key: settings["training"][key] for key in _REMEMBERED_TRAINING},
    }


def _configured_csv(experiment: WorkflowConfig, split: str, stage: str) -> str | list[str]:
    """The source CSVs of a stage as files: one path, or a list."""
    files = source_csvs(experiment.slice_of(f"prepare_{split}", stage))
    return files[0] if len(files) == 1 else files


def prepared_slice(experiment: WorkflowConfig) -> dict[str, Any]:
    """The slice of `prepare_experiment`, which gathers the prepared CSVs of the three splits."""
    folders = {split: f"{CACHE}/csv/{experiment.csv_key(split)}" for split in SPLITS}
    return {"node": "prepare_experiment", "inputs": folders}


def stage_state_slice(experiment: WorkflowConfig) -> dict[str, Any]:
    """The slice of `write_stage_state`."""
    nodes = [f"train_{stage}" for stage in experiment.settings.training.stages]
    return {"node": "stage_state", "upstream": {node: experiment.digest(node) for node in nodes}}


def stage_records(experiment: WorkflowConfig) -> dict[str, Any]:
    """`naming` of `write_stage_state`: each stage's own record, and its metadata."""
    names = experiment.names
    return {
        "experiment": names.experiment,
        "records": {stage: f"{names.state_dir(stage)}/record.json" for stage in names.stages},
        "metadata": {stage: f"{names.stage_dir(stage)}/checkpoint_metadata.json" for stage in names.stages},
    }
