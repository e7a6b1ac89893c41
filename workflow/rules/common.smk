# Functions that the rules share; no rules. Nothing here imports torch, numpy or pandas.
import json
import shlex
import sys
from datetime import datetime

from panollava.config import ConfigError, Project
from panollava.config.slices import untracked as untracked_settings
from panollava.workflow_lock import clear_dead_locks

PROJECT = Project(".")
try:
    PATHS = PROJECT.paths
except ConfigError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code) from None
RUNS, RESULTS, LOGS, CACHE = PATHS.runs_dir, PATHS.results_dir, PATHS.logs_dir, "cache"
STAGES = ("vision", "resampler", "finetune")
SPLITS = ("train", "val", "test")
WARNED = set()
JOB = f"exec {shlex.quote(sys.executable)} -m panollava.jobs"

# A snakemake that was killed leaves its locks behind; those of a living one stay.
clear_dead_locks(".snakemake")


# ---- experiments ---------------------------------------------------------------------------------
def planned(function):
    """A configuration error ends the command with its own message.

    It is met while the DAG is built, before any job runs. An exception would reach the user inside Snakemake's
    report on input functions, with wildcards and a traceback.
    """

    def inner(wildcards):
        try:
            return function(wildcards)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    return inner


def untracked(function):
    """A parameter that never makes a job stale: Snakemake ignores those that ask for `output`."""

    def inner(wildcards, output):
        return planned(function)(wildcards)

    return inner


def experiment_of(wildcards):
    """The experiment that the wildcards name; refuses a variant that its configuration does not name."""
    experiment = PROJECT.experiment(wildcards.experiment)
    if wildcards.experiment not in WARNED:
        WARNED.add(wildcards.experiment)
        for message in experiment.warnings:
            print(f"warning: {message}", file=sys.stderr)
    variant = getattr(wildcards, "variant", None)
    if variant not in (None, experiment.names.variant):
        raise ConfigError(
            f"{wildcards.experiment} is configured as {experiment.names.variant}, not {variant}"
        )
    return experiment


def sliced(node):
    """The one parameter that decides whether a job is stale: its slice, as canonical JSON."""
    return planned(lambda w: experiment_of(w).slice_json(node))


def keyed(kind):
    """The same for a job of the shared cache, which knows only its key."""
    return planned(lambda w: PROJECT.slice_json_by_key(kind, w.key))


def folder_of(output_name):
    """The folder of an output, for jobs that write several files into one."""
    return lambda wildcards, output: str(output[output_name]).rpartition("/")[0]


def cached(kind, key, name):
    """A file of the shared cache. Its content follows from its key, so its age says nothing: ancient."""
    return ancient(f"{CACHE}/{kind}/{key}/{name}")


def stage_file(experiment, stage, name):
    return f"{experiment.names.stage_dir(stage)}/{name}"


def backbones_of(slice_document):
    """Inputs and options for the miniature backbones that a slice builds upon."""
    found = {}
    for part in ("vision", "language"):
        key = slice_document["upstream"].get(f"miniature_{part}")
        if key:
            found[part] = f"{CACHE}/miniature/{part}/{key}"
    return found


def backbone_inputs(slice_document):
    return {
        part: ancient(f"{folder}/model.safetensors")
        for part, folder in backbones_of(slice_document).items()
    }


# ---- data ----------------------------------------------------------------------------------------
def csv_files(slice_document):
    """The source CSVs of a `prepare_csv` job: drawn ones, or the user's (whose content is in the slice)."""
    csvs, key = slice_document["inputs"]["csvs"], slice_document["upstream"].get(
        "synthetic"
    )
    if key:
        return [cached("synthetic", key, f"{csvs[0]['split']}.csv")]
    return [ancient(csv["path"]) for csv in csvs]


@planned
def sources_of_csv(wildcards):
    return csv_files(PROJECT.slice_by_key("csv", wildcards.key))


@planned
def inputs_of_views(wildcards):
    document = PROJECT.slice_by_key("views", wildcards.key)
    csv_key = next(
        key for node, key in document["upstream"].items() if node.startswith("prepare")
    )
    return {"csv": cached("csv", csv_key, "prepared.csv"), **backbone_inputs(document)}


@planned
def prepared_of_experiment(wildcards):
    experiment = experiment_of(wildcards)
    return [
        cached("csv", experiment.csv_key(split), name)
        for split in SPLITS
        for name in ("prepared.csv", "rejected.csv")
    ]


def prepared_folders(wildcards):
    experiment = experiment_of(wildcards)
    return json.dumps(
        {split: f"{CACHE}/csv/{experiment.csv_key(split)}" for split in SPLITS}
    )


# ---- stages --------------------------------------------------------------------------------------
def previous_stage(experiment, stage):
    stages = experiment.settings.training.stages
    place = stages.index(stage) if stage in stages else None
    if place is None:
        raise ConfigError(
            f"{experiment.names.experiment} does not train stage {stage}; training.stages: {list(stages)}"
        )
    return stages[place - 1] if place else None


def inputs_of_stage(stage):
    @planned
    def inputs(wildcards):
        experiment = experiment_of(wildcards)
        previous = previous_stage(experiment, stage)
        found = backbone_inputs(experiment.slice_of(f"train_{stage}"))
        for split in ("train", "val"):
            found[f"{split}_csv"] = cached(
                "csv", experiment.csv_key(split, stage), "prepared.csv"
            )
            found[f"{split}_views"] = cached(
                "views", experiment.views_key(split, stage), "index.json"
            )
        if previous:
            found["init"] = stage_file(experiment, previous, "best.ckpt")
            found["init_metadata"] = stage_file(
                experiment, previous, "checkpoint_metadata.json"
            )
        return found

    return inputs


@planned
def devices_of_training(wildcards):
    devices = experiment_of(wildcards).settings.training.devices
    return 1 if devices == "auto" else devices


@planned
def threads_of_training(wildcards):
    """Each device has a process, each process its threads."""
    threads = experiment_of(wildcards).settings.training.cpu_threads
    return threads * devices_of_training(wildcards)


def stage_options(stage):
    """Paths, names and settings that change nothing about the result, as options of `train_stage`."""

    @untracked
    def options(wildcards):
        experiment = experiment_of(wildcards)
        previous = previous_stage(experiment, stage)
        settings, names = experiment.to_dict(), experiment.names
        training = settings["training"]
        given = {
            "stage": stage,
            "out": names.stage_dir(stage),
            "state": names.state_dir(stage),
            "cache": CACHE,
            **backbones_of(experiment.slice_of(f"train_{stage}")),
            "naming": json.dumps(
                {
                    "experiment": names.experiment,
                    "checkpoint_prefix": names.checkpoint_prefix(stage),
                    "dataset_name": names.datasets[stage],
                    "wandb_run": names.wandb_run(stage, datetime.now()),
                    **{
                        f"{split}_csv": configured_csv(experiment, split, stage)
                        for split in SPLITS
                    },
                    "remembered": {
                        "generation": settings["generation"],
                        "evaluation": settings["evaluation"],
                        "data": {
                            key: settings["data"][key]
                            for key in ("columns", "max_rejected_fraction")
                        },
                        "training": {
                            key: training[key]
                            for key in (
                                "eval_batch_size",
                                "seed",
                                "cpu_threads",
                                "devices",
                                "precision",
                                "strategy",
                            )
                        },
                    },
                }
            ),
            "untracked": json.dumps(untracked_settings(experiment)),
        }
        if previous:
            given["init"] = names.stage_dir(previous)
        return shlex.join(f"--{key}={value}" for key, value in given.items())

    return options


def configured_csv(experiment, split, stage):
    """The source CSVs of a stage as files: one path, or a list."""
    files = [
        str(path) for path in csv_files(experiment.slice_of(f"prepare_{split}", stage))
    ]
    return files[0] if len(files) == 1 else files


def last_stage(experiment):
    return experiment.settings.training.stages[-1]


@planned
def metadata_of_stages(wildcards):
    experiment = experiment_of(wildcards)
    return [
        stage_file(experiment, stage, "checkpoint_metadata.json")
        for stage in experiment.settings.training.stages
    ]


def records_of_stages(wildcards):
    names = experiment_of(wildcards).names
    records = {stage: f"{names.state_dir(stage)}/record.json" for stage in names.stages}
    return json.dumps({"experiment": names.experiment, "records": records})


# ---- evaluation ----------------------------------------------------------------------------------
@planned
def inputs_of_selection(wildcards):
    experiment = experiment_of(wildcards)
    stage = last_stage(experiment)
    return {
        "best": stage_file(experiment, stage, "best.ckpt"),
        "metadata": stage_file(experiment, stage, "checkpoint_metadata.json"),
    }


@planned
def inputs_of_prediction(wildcards):
    experiment = experiment_of(wildcards)
    return {
        "checkpoint": experiment.names.checkpoint_json,
        "csv": cached("csv", experiment.csv_key("test"), "prepared.csv"),
        "views": cached("views", experiment.views_key("test"), "index.json"),
        **backbone_inputs(experiment.slice_of(f"train_{last_stage(experiment)}")),
    }


def prediction_options(name):
    @untracked
    def options(wildcards):
        experiment = experiment_of(wildcards)
        given = {
            "views": f"{CACHE}/views/{experiment.views_key('test')}",
            "state": f"{RUNS}/{experiment.names.experiment}/.state/{name}",
        }
        flags = ["--blind"] if name == "predict_blind" else []
        return shlex.join(
            [*(f"--{key}={value}" for key, value in given.items()), *flags]
        )

    return options


@planned
def inputs_of_metrics(wildcards):
    experiment = experiment_of(wildcards)
    names = experiment.names
    found = {
        "predictions": names.predictions,
        "checkpoint": names.checkpoint_json,
        "state": ancient(names.stage_state),
        "prepared": ancient(names.rejected),
    }
    if experiment.settings.evaluation.blind_control:
        found["blind"] = f"{names.results}/predictions_blind.csv"
    return found


def blind_option(wildcards, input):
    return (
        f"--blind-predictions={shlex.quote(str(input.blind))}"
        if "blind" in input.keys()
        else ""
    )


@planned
def targets_of_all(wildcards):
    experiments = [PROJECT.experiment(name) for name in PROJECT.default_experiments]
    return [
        path
        for experiment in experiments
        for path in (experiment.names.metrics, experiment.names.stage_state)
    ]
