"""Load a model for inference from a stage folder, an experiment's folder, a folder written by `export`, or an
untrained native model.

Takes the folder or the experiment that a user names and returns a `LoadedStage`, with the same settings whichever of
them it is. An exported folder stores its settings in `origin`; missing ones get the current defaults.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.checkpoints.chosen import zero_shot_stage
from panollava.checkpoints.folder import ChosenCheckpoint
from panollava.checkpoints.loading import LoadedStage, load_stage
from panollava.checkpoints.metadata import whole_origin
from panollava.checkpoints.model_dir import resolve_model_dir
from panollava.checkpoints.without_metadata import metadata_without_model
from panollava.checkpoints.zero_shot import checkpoint_of_model
from panollava.config.names import token
from panollava.config.remembered import remembered_settings
from panollava.errors import CheckpointError, ConfigError
from panollava.hub.folders import NATIVE_FILE
from panollava.models.build import is_saved, load_pretrained
from panollava.models.processor_text import is_saved_native

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


def open_stage(
    folder: str | Path | None, config: WorkflowConfig | None, *, stage: str | None = None, epoch: int | None = None,
    step: int | None = None,
) -> LoadedStage:  # fmt: skip
    """`load_folder`; without a folder, the experiment's own one, or its model as it comes where it trains no stage.
    Where `config` is given, its settings of generation and evaluation replace those that the folder remembers.

    Raises ConfigError where neither is given, or where a checkpoint of an experiment without stages is asked for.
    """
    if folder is None:
        if config is None:
            raise ConfigError("pass --checkpoint-dir with a trained folder, or --config with an experiment")
        if not config.settings.training.stages:
            given = {"stage": stage, "epoch": epoch, "step": step}
            if asked := [key for key, value in given.items() if value is not None]:
                raise ConfigError(
                    f"{', '.join(asked)}: {config.names.experiment} trains no stage (training.stages: []), so it has "
                    "no checkpoints to choose from"
                )
            return model_as_it_comes(config)
        folder = resolve_model_dir(config, stage)
    loaded = load_folder(folder, stage=stage, epoch=epoch, step=step, config=config)
    if config is None:
        return loaded
    return replace(loaded, metadata={**loaded.metadata, "remembered": remembered_settings(config)})


def model_as_it_comes(cfg: WorkflowConfig) -> LoadedStage:
    """The native model of an experiment without stages (zero-shot), as `predict` of the DAG has it.

    Raises CheckpointError where its folder is not there.
    """
    name, config, local = cfg.names.experiment, cfg.effective, cfg.backbone_folder("vlm")
    built = cfg.root.resolve() / local if local else None
    if built is not None and not built.is_dir():
        raise CheckpointError(
            f"{config['models']['vlm_name']} is not built yet ({built} is not there): panollava run {name} builds it"
        )
    document = checkpoint_of_model(name, config, built, cfg.digest("select_checkpoint"))
    loaded = zero_shot_stage(document)
    metadata = {**metadata_without_model(cfg), **loaded.metadata, "model_config": document["model_config"]}
    metadata["checkpoint_info"]["config_digest"] = document["config_digest"]
    loaded.model.origin = {"experiment": name, "stage": None}
    return replace(loaded, metadata=metadata, project_root=cfg.root.resolve())


def load_folder(
    folder: str | Path, *, stage: str | None = None, epoch: int | None = None, step: int | None = None,
    config: WorkflowConfig | None = None,
) -> LoadedStage:  # fmt: skip
    """`load_stage`, or the model of an exported folder, which holds one stage and one checkpoint.

    Raises CheckpointError as `load_stage` and where the exported model's settings have not their shape; ConfigError for
    a stage, an epoch or a step that an exported folder is asked for and does not hold.
    """
    path = Path(folder)
    if not is_saved(path):
        return load_stage(path, stage=stage, epoch=epoch, step=step, config=config)
    for name, asked in (("epoch", epoch), ("step", step)):
        if asked is not None:
            raise ConfigError(
                f"--{name} {asked}: {path} is an exported model, which holds one checkpoint. Name the stage folder "
                "that it was exported from"
            )
    model, processor = load_pretrained(path)
    metadata = _metadata(path, model.origin, model.config.to_json())
    if stage is not None and metadata["stage"] not in (None, stage):
        raise ConfigError(f"--stage {stage}: {path} is an exported model of stage {metadata['stage']}")
    chosen = ChosenCheckpoint(path, path, "an exported model")
    return LoadedStage(model, processor, metadata, chosen, Path.cwd(), config_digest=_digest_of(metadata))


def _metadata(folder: Path, origin: dict[str, Any] | None, model: dict[str, Any]) -> dict[str, Any]:
    """What checkpoint_metadata.json would say, from an exported folder's `origin`. Raises CheckpointError."""
    file = folder / (NATIVE_FILE if is_saved_native(folder) else "config.json")
    recorded = whole_origin(file, origin or {})
    return {
        "experiment_name": _experiment_of(folder, recorded["experiment"]),
        "stage": recorded["stage"],
        "model_config": model,
        "training_config": recorded["training"],
        "dataset": recorded["dataset"],
        "checkpoint_info": {"config_digest": recorded["config_digest"], "project_root": str(Path.cwd())},
        "backbones": {},
        "remembered": recorded["remembered"],
    }


def _experiment_of(folder: Path, recorded: str | None) -> str:
    """The experiment's name, which is part of the path of its results; of a model without one the folder's name."""
    from panollava.config.names import check_name

    try:
        return check_name(recorded if recorded is not None else token(folder.resolve().name))
    except ConfigError as error:
        raise CheckpointError(f"{folder}: {error}. Export the model again, or rename the folder") from error


def _digest_of(metadata: dict[str, Any]) -> str | None:
    digest: str | None = metadata["checkpoint_info"]["config_digest"]
    return digest
