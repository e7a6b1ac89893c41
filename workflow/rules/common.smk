# Functions that the rules share; no rules. Nothing here imports torch, numpy or pandas.
import json
import logging
import os
import shlex
import sys
from pathlib import Path

from panollava.cluster import cancel_orphans, leave_snapshot, project_of_job
from panollava.config import ConfigError, Project, job_options
from panollava.config.job_options import (
    CACHE,
    SPLITS,
    STAGE_OUTPUTS,
    miniature_folders,
    previous_stage,
)
from panollava.config.overlay import overlay_of_environment
from panollava.config.slices import canonical, measures_of
from panollava.errors import PanollavaError
from panollava.evaluation.ablation import rows_so_far, summary_slice
from panollava.evaluation.ablation_table import standing_text, write_so_far
from panollava.evaluation.comparison import VERSION as COMPARISON_VERSION
from panollava.files import digest_of_text
from panollava.provenance import made_by
from panollava.views.cache_limit import remove_unused
from panollava.workflow_lock import take_folder
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

# On a full disk Snakemake cannot write its own log: one message is enough, without a traceback for each line.
logging.raiseExceptions = False

try:
    PROJECT = (
        project_of_job()
        if workflow.remote_exec
        else Project(".", overlay=overlay_of_environment())
    )
    PATHS = PROJECT.paths
    if (
        workflow.is_main_process
    ):  # is there room, and may we write? Locks of a killed snakemake go.
        take_folder(".snakemake", wait=False)
except PanollavaError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code) from None
RUNS, RESULTS, LOGS = PATHS.runs_dir, PATHS.results_dir, PATHS.logs_dir
STAGES = ("vision", "resampler", "finetune")
WARNED, ABLATIONS_ASKED_FOR, CURRENT = set(), set(), {}
CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
PYTHON = "python" if CONTAINED else shlex.quote(sys.executable)
JOB = f"exec {PYTHON} -m panollava.jobs"


def take_turn():
    """Before the DAG is planned: who builds waits for another snakemake that does, and goes on with its results."""
    builds = workflow.executor_plugin is not None and not workflow.dryrun
    if builds and workflow.is_main_process and workflow.execution_settings.lock:
        take_folder(".snakemake")


def before_jobs():
    """Jobs of a cluster start later and elsewhere: they get the configuration that was planned with."""
    if workflow.non_local_exec:
        leave_snapshot(PROJECT)
    if workflow.executor_plugin.name == "slurm" and workflow.execution_settings.lock:
        cancel_orphans()


def make_room():
    """View caches of settings that nobody asks for now go, where all together are larger than allowed."""
    if not workflow.is_main_process:
        return
    limit = int(PROJECT.default.workflow.view_caches_gib * 2**30)
    for cache in remove_unused(f"{CACHE}/views", limit, PROJECT.view_keys):
        print(
            f"removed {cache.path} ({cache.size / 2**30:.2f} GiB), unused for longest: workflow.view_caches_gib",
            file=sys.stderr,
        )


def grows(amount):
    """A resource of a cluster job: `amount` at the first attempt, twice that at the second, and so on."""
    return lambda wildcards, attempt: amount * attempt


# ---- experiments ---------------------------------------------------------------------------------
def planned(function):
    """A configuration error ends the command with its own message.

    It is met while the DAG is built, before any job runs. An exception would reach the user inside Snakemake's
    report on input functions, with wildcards and a traceback.
    """

    def inner(wildcards):
        try:
            take_turn()
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
    for message in experiment.warnings:
        if message not in WARNED:
            WARNED.add(message)
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


def check_writable():
    """Before any job runs: a folder that may not be written ends the command with one message."""
    for folder in (RUNS, RESULTS, LOGS, CACHE):
        if os.path.isdir(folder) and not os.access(folder, os.W_OK):
            print(
                f"error: {folder} may not be written: it is read-only or not yours. Allow writing there, then run "
                "the same command again.",
                file=sys.stderr,
            )
            raise SystemExit(1)


# ---- what is there already -----------------------------------------------------------------------
def is_current(path, slice_json):
    """Whether a result is there and says itself that this slice made it; where it does not, it is planned again.

    Snakemake compares parameters as far as `.snakemake` remembers them: in a fresh clone with copied results it
    remembers nothing, and would take an old number for a current one. Where it remembers, it gives the reason itself.
    """
    if path not in CURRENT:
        CURRENT[path] = os.path.exists(path) and told_current(path, slice_json)
    return CURRENT[path]


def told_current(path, slice_json):
    if made_by(path) == digest_of_text(slice_json):
        return True
    remembered = workflow.persistence.params(IOFile(path))
    if remembered is None or repr(slice_json) in remembered:
        print(f"{path} was not made by this configuration: again", file=sys.stderr)
        workflow.dag.forcefiles.add(path)
    return False


def all_there(*paths):
    """Whether files of the shared cache exist: their content follows from their key, so they are current."""
    return all(os.path.exists(path) for path in paths)


def inputs_if(current, files):
    """A job's inputs; of a job whose results are current only those that exist.

    What was removed is made again for the jobs that need it. Snakemake would run all others as well that name it as an
    input: a missing file is not ancient.
    """
    settings = workflow.dag_settings
    if not current or settings.forceall or settings.forcetargets or settings.forcerun:
        return files
    if isinstance(files, dict):
        return {name: file for name, file in files.items() if os.path.exists(file)}
    return [file for file in files if os.path.exists(file)]


def folder_of(output_name):
    """The folder of an output, for jobs that write several files into one."""
    return lambda wildcards, output: str(output[output_name]).rpartition("/")[0]


def folder_of_input(input_name):
    """The folder of an input; nothing where a current job goes without it (`inputs_if`)."""
    return lambda wildcards, input, output: str(input.get(input_name, "")).rpartition(
        "/"
    )[0]


def cached(kind, key, name):
    """A file of the shared cache. Its content follows from its key, so its age says nothing: ancient."""
    return ancient(f"{CACHE}/{kind}/{key}/{name}")


def stage_file(experiment, stage, name):
    return f"{experiment.names.stage_dir(stage)}/{name}"


def backbone_inputs(slice_document):
    return {
        part: ancient(f"{folder}/model.safetensors")
        for part, folder in miniature_folders(slice_document).items()
    }


# ---- data ----------------------------------------------------------------------------------------
def csv_files(slice_document):
    """The source CSVs of a `prepare_csv` job: drawn ones, or the user's (whose content is in the slice)."""
    return [ancient(path) for path in job_options.source_csvs(slice_document)]


@planned
def sources_of_csv(wildcards):
    folder = f"{CACHE}/csv/{wildcards.key}"
    return inputs_if(
        all_there(f"{folder}/prepared.csv", f"{folder}/rejected.csv"),
        csv_files(PROJECT.slice_by_key("csv", wildcards.key)),
    )


@planned
def inputs_of_views(wildcards):
    document = PROJECT.slice_by_key("views", wildcards.key)
    csv_key = document["upstream"]["prepare"]
    found = {"csv": cached("csv", csv_key, "prepared.csv"), **backbone_inputs(document)}
    drawn = PROJECT.slice_by_key("csv", csv_key)["upstream"].get("synthetic")
    if drawn:  # the pictures that the CSV names
        found["scenes"] = cached("synthetic", drawn, "scenes.json")
    folder = f"{CACHE}/views/{wildcards.key}"
    return inputs_if(all_there(f"{folder}/views.npy", f"{folder}/index.json"), found)


def slice_json_of_prepared(wildcards):
    return canonical(job_options.prepared_slice(experiment_of(wildcards)))


@planned
def prepared_of_experiment(wildcards):
    experiment = experiment_of(wildcards)
    found = [
        cached("csv", experiment.csv_key(split), name)
        for split in SPLITS
        for name in ("prepared.csv", "rejected.csv")
    ]
    names = experiment.names
    current = is_current(names.rejected, slice_json_of_prepared(wildcards))
    return inputs_if(
        current and all_there(*(names.prepared(split) for split in SPLITS)), found
    )


# ---- stages --------------------------------------------------------------------------------------
def remove_dangling_links(experiment, stage):
    """Weights that somebody removed leave links that Snakemake stumbles over. Training writes them again."""
    for name in ("best.ckpt", "last.ckpt"):
        link = stage_file(experiment, stage, name)
        if os.path.islink(link) and not os.path.exists(link):
            print(
                f"{link} points to {os.readlink(link)}, which is not there: the link is removed",
                file=sys.stderr,
            )
            os.remove(link)


def is_current_stage(experiment, stage):
    """Whether a stage and all before it are there, whole, and made by this configuration."""
    stages = experiment.settings.training.stages
    for one in stages:
        remove_dangling_links(experiment, one)
    return all(
        [
            is_current(
                stage_file(experiment, one, "checkpoint_metadata.json"),
                experiment.slice_json(f"train_{one}"),
            )
            and all_there(
                *(stage_file(experiment, one, name) for name in STAGE_OUTPUTS)
            )
            for one in stages[: stages.index(stage) + 1]
        ]
    )


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
        return inputs_if(is_current_stage(experiment, stage), found)

    return inputs


@planned
def devices_of_training(wildcards):
    devices = experiment_of(wildcards).settings.training.devices
    return 1 if devices == "auto" else devices


def gpus_of_training(wildcards):
    """On a cluster, how many GPUs; here one token for all of them: two trainings never share a GPU."""
    return devices_of_training(wildcards) if workflow.non_local_exec else 1


@planned
def threads_of_training(wildcards):
    """Each device has a process, each process its threads."""
    threads = experiment_of(wildcards).settings.training.cpu_threads
    return threads * devices_of_training(wildcards)


def stage_options(stage):
    """Paths, names and settings that change nothing about the result, as options of `train_stage`."""

    @untracked
    def options(wildcards):
        given = job_options.stage_options(experiment_of(wildcards), stage)
        texts = {
            key.replace("_", "-"): (
                value if isinstance(value, str) else json.dumps(value)
            )
            for key, value in given.items()
        }
        return shlex.join(f"--{key}={text}" for key, text in texts.items())

    return options


def cores_of_training(wildcards):
    """Cores of a cluster job: the threads of the training's processes, and those that load their data."""
    workers = experiment_of(wildcards).settings.training.num_workers
    return threads_of_training(wildcards) + workers * devices_of_training(wildcards)


def last_stage(experiment):
    return experiment.settings.training.stages[-1]


def slice_json_of_stage_state(wildcards):
    return canonical(job_options.stage_state_slice(experiment_of(wildcards)))


@planned
def metadata_of_stages(wildcards):
    experiment = experiment_of(wildcards)
    is_current(experiment.names.stage_state, slice_json_of_stage_state(wildcards))
    return [
        stage_file(experiment, stage, "checkpoint_metadata.json")
        for stage in experiment.settings.training.stages
    ]


def records_of_stages(wildcards):
    return json.dumps(job_options.stage_records(experiment_of(wildcards)))


# ---- evaluation ----------------------------------------------------------------------------------
PREDICTIONS = {
    "predict": "predictions.csv",
    "predict_blind": "predictions_blind.csv",
}
# What further scores (evaluation.extra) are made of, and nodes that open panoramas themselves.
MEASURES = ("predict_rolled", "measure_perplexity", "measure_overlap")
OPENS_PANORAMAS = ("predict_rolled", "measure_overlap")


@planned
def inputs_of_selection(wildcards):
    experiment = experiment_of(wildcards)
    stage = last_stage(experiment)
    is_current(
        experiment.names.checkpoint_json, experiment.slice_json("select_checkpoint")
    )
    return {
        "best": stage_file(experiment, stage, "best.ckpt"),
        "metadata": stage_file(experiment, stage, "checkpoint_metadata.json"),
    }


def results_of(experiment, node):
    """The files of a node that asks the model; the first one says by which configuration."""
    names = experiment.names
    if node in PREDICTIONS:
        return [f"{names.results}/{PREDICTIONS[node]}"]
    plot = (
        [f"{names.results}/measures/overlap.png"] if node == "measure_overlap" else []
    )
    return [names.measured(node), *plot]


def inputs_of_prediction(node):
    @planned
    def inputs(wildcards):
        experiment = experiment_of(wildcards)
        names, stage = experiment.names, last_stage(experiment)
        found = {
            "checkpoint": names.checkpoint_json,
            # The weights that checkpoint.json names. If they are gone, the stage is trained again.
            "best": ancient(stage_file(experiment, stage, "best.ckpt")),
            "csv": cached("csv", experiment.csv_key("test"), "prepared.csv"),
            "views": cached("views", experiment.views_key("test"), "index.json"),
            **backbone_inputs(experiment.slice_of(f"train_{stage}")),
        }
        drawn = experiment.slice_of("prepare_test")["upstream"].get("synthetic")
        if drawn and node in OPENS_PANORAMAS:
            found["scenes"] = cached("synthetic", drawn, "scenes.json")
        results = results_of(experiment, node)
        current = [
            is_current(results[0], experiment.slice_json(node)),
            all_there(*results),
            is_current(
                names.checkpoint_json, experiment.slice_json("select_checkpoint")
            ),
            is_current_stage(experiment, stage),
        ]
        return inputs_if(all(current), found)

    return inputs


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
        found["blind"] = f"{names.results}/{PREDICTIONS['predict_blind']}"
    found |= {node: names.measured(node) for node in measures_of(experiment)}
    return inputs_if(is_current(names.metrics, experiment.slice_json("metrics")), found)


def metrics_options(wildcards, input):
    """What makes no scores stale: paths, and what they may take to compute."""
    evaluation = experiment_of(wildcards).settings.evaluation
    given = [f"--spice-heap={evaluation.spice_heap}"]
    if "blind" in input.keys():
        given.append(f"--blind-predictions={input.blind}")
    measured = {node: str(input[node]) for node in MEASURES if node in input.keys()}
    if "predict_rolled" in measured:
        given.append(f"--rolled-predictions={measured.pop('predict_rolled')}")
    return shlex.join(
        [*given, *(["--measures", *measured.values()] if measured else [])]
    )


# ---- ablations -----------------------------------------------------------------------------------
def cells_of(ablation_name):
    ablation = PROJECT.ablation(ablation_name)
    return ablation, PROJECT.cells(ablation)


@planned
def inputs_of_ablation(wildcards):
    _, cells = cells_of(wildcards.ablation)
    ABLATIONS_ASKED_FOR.add(wildcards.ablation)
    summary = f"{RESULTS}/ablations/{wildcards.ablation}/summary.csv"
    is_current(summary, slice_of_ablation(wildcards))
    return {
        "metrics": [cell.names.metrics for cell in cells],
        "states": [cell.names.stage_state for cell in cells],
    }


def slice_of_ablation(wildcards):
    return canonical(summary_slice(*cells_of(wildcards.ablation)))


def show_ablations(quiet=False):
    """How the cells of the grids stand that this command is to compare: summary_so_far.csv, until all are done."""
    for name in sorted(ABLATIONS_ASKED_FOR):
        try:
            rows = rows_so_far(*cells_of(name))
            path = write_so_far(rows, Path(f"{RESULTS}/ablations/{name}"))
            if path and not quiet:
                print(standing_text(name, rows, path), file=sys.stderr)
        except (PanollavaError, OSError) as error:
            print(f"warning: ablation {name}: {error}", file=sys.stderr)


@planned
def targets_of_all(wildcards):
    experiments = [PROJECT.experiment(name) for name in PROJECT.default_experiments]
    return [
        path
        for experiment in experiments
        for path in (experiment.names.metrics, experiment.names.stage_state)
    ]


def slice_json_of_comparison(wildcards):
    experiments = [PROJECT.experiment(name) for name in PROJECT.default_experiments]
    upstream = {one.names.experiment: one.digest("metrics") for one in experiments}
    return canonical(
        {"node": "compare", "code_version": COMPARISON_VERSION, "upstream": upstream}
    )


@planned
def inputs_of_comparison(wildcards):
    is_current(f"{RESULTS}/comparison.csv", slice_json_of_comparison(wildcards))
    names = [PROJECT.experiment(name).names for name in PROJECT.default_experiments]
    return {
        "metrics": [one.metrics for one in names],
        "predictions": [one.predictions for one in names],
    }
