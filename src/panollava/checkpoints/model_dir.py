"""The folder that holds an experiment's weights of a stage, in the layout of today or in those of the original project.

    runs/{experiment}/{stage}/{crop}_{resampler}/          (today: checkpoints and their metadata)
    runs/{prefix}_{crop}_{stage}_{resampler}/              (no metadata: they load with a configuration)
    runs/vlm_{stage}/checkpoints/
    runs/vlm_{stage}/model_final.safetensors

Returns an experiment's folder; `folder.choose_checkpoint` finds the file in it. No torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from panollava.checkpoints.folder import holds_weights
from panollava.config.names import check_name, crop_token, token
from panollava.errors import CheckpointError, ConfigError
from panollava.models.choices import STAGES

if TYPE_CHECKING:
    from pathlib import Path

    from panollava.config import WorkflowConfig


def resolve_model_dir(
    cfg: WorkflowConfig,
    stage: str | None = None,
    *,
    experiment: str | None = None,
    crop: str | None = None,
    resampler: str | None = None,
) -> Path:
    """The folder with a stage's weights; what is not given is the configuration's own, `stage` its last one.

    Of another `experiment` below the same root any variant will do, if there is only one. Raises CheckpointError that
    lists the variants, or where was looked; ConfigError for what cannot name a stage or an experiment.
    """
    names = cfg.names
    if stage is not None and stage not in STAGES:
        raise ConfigError(f"stage must be one of {', '.join(STAGES)}, got {stage!r}")
    if experiment is not None:
        check_name(experiment)
    if stage is None and not names.stages:
        raise CheckpointError(f"{names.experiment} trains no stage (training.stages: []): it has no weights of its own")
    runs, stage = cfg.root / names.runs_dir, stage or names.stages[-1]
    crop_name = crop_token(crop) if crop else "*" if experiment else names.crop
    resampler_name = token(resampler) if resampler else "*" if experiment else names.resampler
    experiment = experiment or names.experiment
    patterns = [
        f"{experiment}/{stage}/{crop_name}_{resampler_name}",
        f"{experiment}_{crop_name}_{stage}_{resampler_name}",
        f"{experiment}_{crop_name.replace('-', '_')}_{stage}_{resampler_name}",
        f"vlm_{stage}/checkpoints",
        f"vlm_{stage}",
    ]
    for pattern in patterns:
        found = sorted(folder for folder in runs.glob(pattern) if holds_weights(folder))
        if len(found) > 1:
            listed = ", ".join(str(folder) for folder in found)
            raise CheckpointError(f"several variants of stage {stage}: {listed}. Name crop and resampler")
        if found:
            return found[0]
    looked = ", ".join(str(runs / pattern) for pattern in dict.fromkeys(patterns))
    raise CheckpointError(f"no weights of stage {stage} of {experiment}: looked for {looked}. Train it first")
