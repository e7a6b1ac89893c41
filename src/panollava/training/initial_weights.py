"""Use a checkpoint from outside the experiment as the first stage's initial weights (training.init_checkpoint).

Returns the file's digest after checking that it is the file that was planned with, that it holds weights of an earlier
stage, and that these were trained on the same backbones. Whether its tensors fit is checked when they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from panollava.checkpoints.folder import METADATA, read_metadata
from panollava.checkpoints.weights import load_weights
from panollava.errors import TrainingError
from panollava.files import sha256_file
from panollava.models.choices import STAGES
from panollava.training.job import StageJob


def check_initial_weights(job: StageJob, path: Path, backbones: Mapping[str, str | None]) -> str:
    """SHA-256 of the file. Raises TrainingError, or CheckpointError where it is no checkpoint."""
    digest = sha256_file(path)
    if digest != job.slice["inputs"]["init_checkpoint"]["sha256"]:
        raise TrainingError(f"{path} changed after this stage was planned. Run the same command again.")
    stage = load_weights(path)[0].get("stage")
    if stage not in STAGES or STAGES.index(stage) >= STAGES.index(job.stage):
        earlier = " or ".join(STAGES[: STAGES.index(job.stage)])
        raise TrainingError(
            f"{path} holds weights of stage {stage or '(unknown)'}; training.init_checkpoint of stage {job.stage} must "
            f"be a checkpoint of stage {earlier}"
        )
    folder = path.resolve().parent
    if (folder / METADATA).is_file():
        metadata, models = read_metadata(folder), job.config["models"]
        theirs, before = metadata["model_config"], metadata.get("backbones", {})
        keys = ["vision_name", *(["language_model_name"] if stage != "vision" else [])]
        if models.get("vlm_name") is not None or theirs.get("vlm_name") is not None:
            keys = ["vlm_name", "adapter"]
        other = [f"{key} {theirs.get(key)!r}, here {models[key]!r}" for key in keys if theirs.get(key) != models[key]]
        other += [
            f"the {part} backbone had other content"
            for part, digest in backbones.items()
            if None not in (digest, before.get(part)) and digest != before[part]
        ]
        if other:
            raise TrainingError(f"{path} was trained upon another backbone: {'; '.join(other)}")
    return digest
