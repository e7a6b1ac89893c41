"""`panollava train --resume CKPT`: decide how a checkpoint applies to the stages to be trained.

A checkpoint of an earlier stage gives initial weights, by the overlay settings returned. A checkpoint of the same stage
needs no setting: its training resumes exactly, from its saved state. If that training had another configuration or
other inputs, it is refused with what differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.checkpoints.folder import METADATA
from panollava.checkpoints.weights import load_weights
from panollava.config import ConfigError, WorkflowConfig
from panollava.config.dotted import differences
from panollava.errors import CheckpointError
from panollava.files import read_json, sha256_file
from panollava.models.choices import STAGES

_MOST_DIFFERENCES = 12


def settings_to_resume(experiment: WorkflowConfig, stages: Sequence[str], checkpoint: Path) -> dict[str, Any]:
    """Overlay settings for `--resume`. Raises ConfigError and CheckpointError that say what differs, what to do."""
    first, trained = stages[0], list(experiment.settings.training.stages)
    file = experiment.root / checkpoint
    if not file.is_file():
        raise ConfigError(f"--resume {checkpoint}: no such file")
    if file.name == "resume.ckpt" and (file.parent / "fingerprint.json").is_file():
        header = {
            "stage": file.parent.parent.name,
            "config_digest": read_json(file.parent / "fingerprint.json")["slice"],
        }
    else:
        header = load_weights(file)[0]
    stage, digest = header.get("stage"), header.get("config_digest")
    if stage not in STAGES:
        raise CheckpointError(f"--resume {checkpoint} does not say which stage it is of")
    if STAGES.index(stage) > STAGES.index(first):
        raise ConfigError(f"--resume {checkpoint} is of stage {stage}, which comes after {first}: name --stage {stage}")
    if stage != first:
        if file.name == "resume.ckpt":
            raise ConfigError(
                f"--resume {checkpoint} is the state of stage {stage}: name one of its checkpoints instead"
            )
        rest = trained[trained.index(first) :]  # type: ignore[arg-type]
        real, root = file.resolve(), experiment.root.resolve()  # a link may point to another file later
        named = real.relative_to(root) if real.is_relative_to(root) else real
        return {"training.stages": rest, "training.init_checkpoint": named.as_posix()}
    _check_same(experiment, first, checkpoint, digest)
    return {}


def _check_same(experiment: WorkflowConfig, stage: str, checkpoint: Path, digest: str | None) -> None:
    """Refuse to go on where the configuration, the inputs, or the state are not those of the checkpoint."""
    now, state = experiment.slice_of(f"train_{stage}"), experiment.root / experiment.names.state_dir(stage)
    fingerprint = _read(state / "fingerprint.json")
    if digest != experiment.digest(f"train_{stage}"):
        before = _read(state / "slice.json") if fingerprint.get("slice") == digest else {}
        lines = _described(before, now) if before else _from_metadata(experiment, stage, digest)
        more = f"\n  … and {len(lines) - _MOST_DIFFERENCES} more" if len(lines) > _MOST_DIFFERENCES else ""
        listed = "".join(f"\n  {line}" for line in lines[:_MOST_DIFFERENCES]) + more
        own = experiment.names.stage_dir(stage)
        if not listed and (experiment.root / checkpoint).resolve().parent != (experiment.root / own).resolve():
            listed = f" it is not one of {own}, to which alone the state belongs"
        raise CheckpointError(
            f"--resume {checkpoint} was trained with another configuration or other inputs than stage {stage} of "
            f"{experiment.names.experiment} has now, so it cannot go on exactly:{listed or ' (digests differ)'}\n"
            "Bring them back, or leave --resume out to train afresh"
        )
    if fingerprint.get("slice") != digest or not (state / "resume.ckpt").is_file():
        raise CheckpointError(
            f"--resume {checkpoint}: {state} does not hold the state of its training (optimiser, loader, random "
            "numbers), without which it cannot go on exactly. Leave --resume out to train afresh"
        )
    stages = list(experiment.settings.training.stages)
    if before_it := stages[: stages.index(stage)]:  # type: ignore[arg-type]
        best = experiment.root / experiment.names.stage_dir(before_it[-1]) / "best.ckpt"
        if best.is_file() and sha256_file(best) != fingerprint.get("init"):
            raise CheckpointError(
                f"--resume {checkpoint} began from other weights than {best}. Leave --resume out to train afresh"
            )


def _described(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`key: was X, is Y` for each setting in which two slices differ."""
    return [f"{key.removeprefix('config.')}: was {old!r}, is {new!r}" for key, old, new in differences(before, now)]


def _from_metadata(experiment: WorkflowConfig, stage: str, digest: str | None) -> list[str]:
    """What the finished stage's metadata, if it is of that training, says of the settings that differ."""
    metadata = _read(experiment.root / experiment.names.stage_dir(stage) / METADATA)
    if not digest or metadata.get("checkpoint_info", {}).get("config_digest") != digest:
        return []
    settings = experiment.to_dict()["training"]["stage_configs"][stage]
    now = {**settings, "learning_rate": settings["lr"]}
    before = metadata["training_config"]
    return _described({k: before[k] for k in before if k in now}, {k: now[k] for k in before if k in now})


def _read(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = read_json(path)
        return document
    except (OSError, ValueError):
        return {}
