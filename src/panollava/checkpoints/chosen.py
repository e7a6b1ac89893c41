"""Load the checkpoint that an experiment's checkpoint.json names, and no other, as a model.

Takes the document of `select_checkpoint` and returns a `LoadedStage`. Raises CheckpointError, with what to do about it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panollava.checkpoints.folder import METADATA, ChosenCheckpoint, read_metadata
from panollava.checkpoints.loading import LoadedStage, load_stage
from panollava.checkpoints.zero_shot import AS_IT_COMES, load_zero_shot
from panollava.config import WorkflowConfig
from panollava.errors import CheckpointError
from panollava.files import sha256_file


def load_chosen_stage(checkpoint: dict[str, Any]) -> LoadedStage:
    """The stage of a checkpoint.json of this project. Code of its backbones runs where the experiment's own
    configuration switches it on: neither checkpoint.json nor the stage's metadata decide about that.

    Raises CheckpointError where the weights are not those that were chosen: another file under the same name, or one
    that another configuration trained.
    """
    if checkpoint["folder"] is None:
        model = checkpoint["model_config"]
        return zero_shot_stage(
            {**checkpoint, "model_config": {**model, "trust_remote_code": _trusted(checkpoint, model)}}
        )
    folder = Path(checkpoint["folder"])
    file, metadata = folder / checkpoint["file"], folder / METADATA
    remedy = f"Bring the chosen file back; or remove {metadata} and run the same command again, which trains it again"
    if not file.is_file():
        raise CheckpointError(f"{file}, which checkpoint.json names, is not there. {remedy}")
    if (found := sha256_file(file)) != checkpoint["sha256"]:
        raise CheckpointError(
            f"{file} is not the file that checkpoint.json chose: its SHA-256 is {found[:16]}…, chosen was "
            f"{checkpoint['sha256'][:16]}…. {remedy}"
        )
    trusted = _trusted(checkpoint, read_metadata(folder)["model_config"])
    loaded = load_stage(folder, epoch=checkpoint["epoch"], root=Path.cwd(), trust_remote_code=trusted)
    if loaded.checkpoint.path != file.resolve():
        raise CheckpointError(
            f"epoch {checkpoint['epoch']} of {metadata} is {loaded.checkpoint.path.name}, but checkpoint.json chose "
            f"{checkpoint['file']}. {remedy}"
        )
    if loaded.config_digest not in (None, checkpoint["config_digest"]):
        raise CheckpointError(
            f"{file} holds weights of another configuration (digest {loaded.config_digest}) than checkpoint.json says "
            f"({checkpoint['config_digest']}). {remedy}"
        )
    return loaded


def _trusted(checkpoint: dict[str, Any], model_config: dict[str, Any]) -> bool:
    return bool(model_config.get("trust_remote_code", False)) and (
        WorkflowConfig.load(checkpoint["experiment_name"], ".", warn=False).settings.models.trust_remote_code
    )


def zero_shot_stage(checkpoint: dict[str, Any]) -> LoadedStage:
    """A native model that no stage has trained, as `checkpoint_of_model` described it."""
    model, processor = load_zero_shot(checkpoint)
    metadata = {"experiment_name": checkpoint["experiment_name"], "stage": None,
                "training_config": {"precision": checkpoint["precision"]}}  # fmt: skip
    source = Path(model.config.vlm_source)
    chosen = ChosenCheckpoint(source, source, AS_IT_COMES, checkpoint["sha256"])
    return LoadedStage(model, processor, metadata, chosen, Path.cwd(), True, checkpoint["config_digest"])
