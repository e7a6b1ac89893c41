"""`train`: the stages of an experiment, with options that change settings for this command alone."""

from __future__ import annotations

import shlex
import sys
from contextlib import chdir
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panollava.cli import completion
from panollava.cli.common import load_experiment
from panollava.cli.workflow import check_root, run_snakemake
from panollava.errors import ConfigError

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


class StageChoice(StrEnum):
    """What --stage takes."""

    VISION = "vision"
    RESAMPLER = "resampler"
    FINETUNE = "finetune"
    ALL = "all"


def add_to(app: typer.Typer) -> None:
    app.command()(train)


def train(
    config: Annotated[
        str, typer.Option(help="An experiment's name or its YAML's path.", autocompletion=completion.experiments)
    ],
    stage: Annotated[
        list[StageChoice] | None, typer.Option(help="Stage to train (may be repeated); default: all.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training data.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Rows in a batch.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate, in (0, 1].")] = None,
    num_workers: Annotated[int | None, typer.Option(min=0, help="Processes that load data.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of train.csv, valid.csv or val.csv, test.csv.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A model of `panollava models --list`, by its short name.", autocompletion=completion.models),
    ] = None,
    lora_r: Annotated[int | None, typer.Option(min=1, help="Rank of the LoRA adapters.")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="Scale of the LoRA adapters.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Of the previous stage: initial weights. Of the same stage: goes on exactly.")
    ] = None,
    dag: Annotated[bool, typer.Option("--dag/--no-dag", help="Through Snakemake, or in this process.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would run (with --dag).")] = False,
    workflow_profile: Annotated[
        str | None, typer.Option(help="Snakemake's, for instance profiles/slurm (with --dag).")
    ] = None,
) -> None:
    """Train stages of an experiment, and the stages before them where these are stale.

    Options that change settings hold for the named stages and for this command; what they changed is recorded under
    runs/EXPERIMENT/overlays, and a later command without them finds those stages stale. --model changes the language
    model (or vision encoder) of the whole experiment.

    Example: `panollava train --config EXP1 --stage finetune --lr 1e-4 --lora-r 16 --lora-alpha 32`
    """
    if not dag and (dry_run or workflow_profile):
        raise ConfigError("--no-dag trains in this process: --dry-run and --workflow-profile belong to the DAG")
    check_root()
    experiment = load_experiment(config)
    stages = _stages_of(experiment, [one.value for one in stage or [StageChoice.ALL]])
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "num_workers": num_workers, "data_dir": data_dir,
             "lora_r": lora_r, "lora_alpha": lora_alpha}  # fmt: skip
    values = _overrides(experiment, stages, given, model, resume)
    changed = experiment.with_values(values) if values else experiment
    _check_name(experiment, changed)
    environment: dict[str, str] = {}
    overlay: Path | None = None
    if values:
        from panollava.config.overlay import VARIABLE, write_overlay

        command = shlex.join(["panollava", *sys.argv[1:]])
        overlay = write_overlay(experiment, changed, stages, values, command)
        environment[VARIABLE] = overlay.as_posix()
        print(f"overlay {overlay}: {', '.join(f'{key}={value}' for key, value in values.items())}", file=sys.stderr)
    if not dag:
        _train_here(changed, stages)
        return
    names = changed.names
    targets = [f"{names.stage_dir(one)}/checkpoint_metadata.json" for one in stages]
    if stages[-1] == names.stages[-1]:
        targets.append(names.stage_state)
    options = ["--dry-run"] if dry_run else []
    if workflow_profile:
        options += ["--workflow-profile", workflow_profile]
    try:
        code = run_snakemake([*options, "--", *targets], environment)
    finally:
        if dry_run and overlay is not None:
            overlay.unlink(missing_ok=True)  # nothing was trained with it
    raise typer.Exit(code)


def _check_name(experiment: WorkflowConfig, changed: WorkflowConfig) -> None:
    """A composed name that follows the model must not be another experiment's."""
    from panollava.config import Project

    name = changed.names.experiment
    if name != experiment.names.experiment and name in Project(".").experiments():
        raise ConfigError(
            f"with these options the experiment would be called {name}, as another one is. Train that one, or give "
            "this one a name of its own: experiment.name"
        )


def _stages_of(experiment: WorkflowConfig, wanted: list[str]) -> list[str]:
    from panollava.dag.parents import previous_stage

    trained: list[str] = list(experiment.settings.training.stages)
    if not trained:
        name = experiment.names.experiment
        raise ConfigError(
            f"{name} trains no stage (training.stages: []): `panollava run {name}` has the model answer as it comes"
        )
    if "all" in wanted:
        return trained
    for one in wanted:
        previous_stage(experiment, one)  # raises ConfigError where it is not trained
    return [one for one in trained if one in wanted]


def _overrides(
    experiment: WorkflowConfig, stages: list[str], given: dict[str, Any], model: str | None, resume: Path | None
) -> dict[str, Any]:
    from panollava.config.overlay import stage_overrides

    values = stage_overrides(experiment, stages, **given)
    if model is not None:
        from panollava.zoo import find_model

        found = find_model(model)
        values["models.language_model_name" if found.kind == "language" else "models.vision_name"] = found.id
    if resume is not None:
        from panollava.dag.resume import settings_to_resume

        values |= settings_to_resume(experiment.with_values(values) if values else experiment, stages, resume)
    return values


def _train_here(experiment: WorkflowConfig, stages: list[str]) -> None:
    from panollava.dag.local import Pipeline
    from panollava.logs import LOGGER, start_log
    from panollava.workflow_lock import holding

    start_log()
    with chdir(experiment.root), holding(".snakemake"):
        Pipeline(experiment).train(stages)
    start_log()
    for one in stages:
        LOGGER.info("stage %s: %s", one, experiment.names.stage_dir(one))
