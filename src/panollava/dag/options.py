"""Arguments of jobs that change no result, and the cores that a job takes.

Each function returns values by the names of the job's parameters. What makes a job stale is in its slice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from panollava.config.remembered import remembered_settings
from panollava.dag.inputs import source_csvs_of
from panollava.dag.node import CACHE, Resources, Task
from panollava.dag.parents import backbone_folder
from panollava.dag.settings import UNTRACKED
from panollava.models.choices import MINIATURES

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

_OF_TRAINING = [key.removeprefix("training.") for key in UNTRACKED if key.rpartition(".")[0] == "training"]


# ---- data ----------------------------------------------------------------------------------------
def of_prepare(task: Task) -> Mapping[str, Any]:
    """Where downloads go, and the copy of the rejected rows that outlives a failed job, whose outputs are deleted."""
    return {"images": task.fill("{image_cache}"), "survivor": task.fill("{logs_dir}/shared/rejected_{key}.csv")}


# ---- stages --------------------------------------------------------------------------------------
def of_stage(task: Task) -> Mapping[str, Any]:
    """Folders, names and settings that change nothing about the result."""
    (experiment,), stage = task.experiments, task.node.name.removeprefix("train_")
    names, init = experiment.names, task.document["inputs"].get("init_checkpoint")
    settings = untracked(experiment)
    csvs = source_csvs_of(experiment, stage)
    if stage == "vision":
        settings["prompt"]["csvs"] = _later_csvs(experiment)
    return {
        "state": names.state_dir(stage),
        "cache": CACHE,
        "naming": {
            **names.of_job(stage, datetime.now()),
            **{f"{split}_csv": files[0] if len(files) == 1 else files for split, files in csvs.items()},
            "remembered": remembered_settings(experiment),
        },
        "untracked": settings,
        **({"init_checkpoint": init["path"]} if init else {}),
    }


def _later_csvs(experiment: WorkflowConfig) -> dict[str, list[str]]:
    """The prepared CSVs of the stages that read text, by the key of their `max_text_length`: the vision stage, before
    it trains, says which of their texts will not be kept whole.
    """
    return {
        f"training.stage_configs.{stage}.max_text_length": [
            f"{CACHE}/csv/{experiment.csv_key(split, stage)}/prepared.csv" for split in ("train", "val")
        ]
        for stage in experiment.settings.training.stages
        if stage != "vision"
    }


def untracked(cfg: WorkflowConfig) -> dict[str, Any]:
    """What a stage's job needs but what changes no result: some settings of `training`, and under `prompt` what decides
    whether the prompts of all its stages fit the language model (see `models.context`).
    """
    training, models = cfg.settings.training, cfg.settings.models
    text = {
        f"training.stage_configs.{stage}.max_text_length": getattr(training.stage_configs, stage).max_text_length
        for stage in training.stages
        if stage != "vision"
    }
    prompt: dict[str, Any] = {
        "language_model_name": models.language_model_name,
        "language_path": backbone_folder(cfg, "language"),
        "stitching_mode": cfg.settings.image_processing.stitching_mode,
        "system_message": cfg.settings.system_messages.default,
        "use_lora": "finetune" in training.stages and cfg.settings.lora.use_lora,
        "lora": cfg.settings.lora.model_dump(mode="json", exclude={"use_lora"}),
        "text": {**text, "generation.max_new_tokens": cfg.settings.generation.max_new_tokens},
    }
    return {**{name: getattr(training, name) for name in _OF_TRAINING}, "prompt": prompt}


def of_selection(task: Task) -> Mapping[str, Any]:
    return {"naming": {"experiment": task.experiment.names.experiment}}


def of_stage_state(task: Task) -> Mapping[str, Any]:
    """The experiment's name, each stage's own record, and its metadata."""
    names = task.experiment.names
    return {
        "naming": {
            "experiment": names.experiment,
            "records": {stage: f"{names.state_dir(stage)}/record.json" for stage in names.stages},
            "metadata": {stage: f"{names.stage_dir(stage)}/checkpoint_metadata.json" for stage in names.stages},
        }
    }


def devices(experiment: WorkflowConfig) -> int:
    """How many devices a stage trains on; `auto` is planned as one."""
    asked = experiment.settings.training.devices
    return 1 if asked == "auto" else asked


def threads(experiment: WorkflowConfig) -> int:
    """Threads of a training: each device has a process, each process its threads."""
    return experiment.settings.training.cpu_threads * devices(experiment)


def cores(experiment: WorkflowConfig) -> int:
    """Cores of a cluster job: the threads of the training's processes, and those that load their data."""
    return threads(experiment) + experiment.settings.training.num_workers * devices(experiment)


def memory_mb(resources: Resources, experiment: WorkflowConfig) -> int:
    """Memory of a job at its first attempt."""
    models = experiment.settings.models
    asked = [models.vlm_name] if models.vlm_name is not None else [models.vision_name, models.language_model_name]
    few = resources.mem_mb_of_miniatures
    return few if few is not None and set(asked) <= MINIATURES else resources.mem_mb


# ---- evaluation ----------------------------------------------------------------------------------
def of_prediction(task: Task) -> Mapping[str, Any]:
    """Where a killed job finds the answers that it has finished."""
    names = task.experiment.names
    return {"answers": f"{names.runs_dir}/{names.experiment}/.state/{task.node.name}"}


def of_judge(task: Task) -> Mapping[str, Any]:
    """Where replies are kept, for all experiments."""
    return {"replies": f"{CACHE}/judge"}


def of_shard(task: Task) -> Mapping[str, Any]:
    """The same for a part of the answers."""
    names = task.experiment.names
    return {"answers": f"{names.runs_dir}/{names.experiment}/.state/{task.fill('{control}_{shard}')}"}


def of_metrics(task: Task) -> Mapping[str, Any]:
    return {"spice_heap": task.experiment.settings.evaluation.spice_heap}
