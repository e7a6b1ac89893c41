"""What a command changes for itself (`panollava train`'s options, `snakemake --config`): an overlay of settings.

Options become dotted settings, and a file that records them, by which the DAG of that command finds them:

    runs/{experiment}/overlays/{digest}.json
      {"experiment", "resolved_name", "stages", "values": {dotted key: value}, "before": {dotted key: value}, "command"}

Nothing but that command reads the file (that of --config is a record alone): any later one sees the configuration as it
is written, and so finds the stages that an overlay has changed stale. `resolved_name` is another one where the name is
composed of what was changed.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.dotted import value_at
from panollava.config.schema import STAGES
from panollava.config.workflow_config import WorkflowConfig
from panollava.errors import ConfigError
from panollava.files import digest_of, read_json, write_json

if TYPE_CHECKING:
    from panollava.config.project import Project

VARIABLE = "PANOLLAVA_OVERLAY"
_OF_STAGE = ("epochs", "batch_size", "lr")


def stage_overrides(
    experiment: WorkflowConfig,
    stages: Sequence[str],
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    num_workers: int | None = None,
    data_dir: Path | None = None,
    lora_r: int | None = None,
    lora_alpha: float | None = None,
) -> dict[str, Any]:
    """The settings that options for some stages mean. Raises ConfigError where an option does not concern them."""
    values: dict[str, Any] = {}
    for name, value in zip(_OF_STAGE, (epochs, batch_size, lr), strict=True):
        if value is not None:
            values |= {f"training.stage_configs.{stage}.{name}": value for stage in stages}
    if num_workers is not None:
        values["training.num_workers"] = num_workers
    for option, name, number in (("--lora-r", "rank", lora_r), ("--lora-alpha", "alpha", lora_alpha)):
        if number is None:
            continue
        if "finetune" not in stages:
            raise ConfigError(f"{option} concerns stage finetune alone, which is not among {', '.join(stages)}")
        if not experiment.settings.lora.use_lora:
            raise ConfigError(f"{option}: lora.use_lora is false in {experiment.names.experiment}")
        values[f"lora.{name}"] = number
    if data_dir is not None:
        values |= _data_of(experiment, stages, data_dir)
    return values


def _data_of(experiment: WorkflowConfig, stages: Sequence[str], folder: Path) -> dict[str, Any]:
    """`{train,valid|val,test}.csv` of a folder: data of the stages alone, or of all where all are named."""
    found: dict[str, str] = {}
    for split, names in (("train", ("train",)), ("val", ("valid", "val")), ("test", ("test",))):
        there = [folder / f"{name}.csv" for name in names if (experiment.root / folder / f"{name}.csv").is_file()]
        if len(there) > 1:
            raise ConfigError(f"--data-dir {folder} holds {there[0].name} and {there[1].name}: keep one of them")
        if not there:
            expected = " or ".join(f"{name}.csv" for name in names)
            raise ConfigError(
                f"--data-dir {folder} holds no {expected}; expected train.csv, valid.csv (or val.csv) and test.csv"
            )
        found[split] = there[0].as_posix()
    every = set(experiment.settings.training.stages) <= set(stages)
    values: dict[str, Any] = {"data.csv_test": found["test"]}
    for split in ("train", "val"):
        if every:
            values[f"data.csv_{split}"] = found[split]
        for stage in STAGES if every else stages:
            values[f"training.stage_configs.{stage}.data.csv_{split}"] = None if every else found[split]
    return values


def write_overlay(
    experiment: WorkflowConfig, changed: WorkflowConfig, stages: Sequence[str], values: dict[str, Any], command: str
) -> Path:
    """Record an overlay; `changed` is the experiment with its values. Returns the file, relative to the root."""
    before, after = experiment.to_dict(), changed.to_dict()
    document = {
        "experiment": experiment.names.experiment,
        "resolved_name": changed.names.experiment,
        "stages": list(stages),
        "values": {key: value_at(after, key) for key in values},
        "before": {key: value_at(before, key) for key in values},
        "command": command,
    }
    names = changed.names
    path = Path(names.runs_dir) / names.experiment / "overlays" / f"{digest_of(document)}.json"
    write_json(experiment.root / path, document)
    return path


def record_command(project: Project, names: Sequence[str], values: dict[str, Any]) -> None:
    """Record what `snakemake --config` and `--configfile` say, for each experiment that was asked for."""
    command = shlex.join(["snakemake", *sys.argv[1:]])
    for name in names:
        changed = project.experiment(name)
        write_overlay(project.as_written(name), changed, changed.settings.training.stages, values, command)


def overlay_of_environment() -> dict[str, Any] | None:
    """The overlay of the command that this process belongs to. Raises ConfigError where its file cannot be read."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    try:
        document: dict[str, Any] = read_json(path)
        return document
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}, named by {VARIABLE}: {error}") from None
