# What the rules share and what needs Snakemake's own objects; no rules. What a rule waits for and how it calls its job
# stands in panollava.planning. Nothing here imports torch, numpy or pandas.
import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from panollava.cluster import cancel_orphans, leave_snapshot, project_of_job
from panollava.config import ConfigError, Project
from panollava.config.job_options import (
    CACHE,
    SPLITS,
    prepared_slice,
    stage_state_slice,
)
from panollava.config.overlay import overlay_of_environment
from panollava.config.schema import STAGES
from panollava.errors import PanollavaError
from panollava.evaluation.ablation import rows_so_far, summary_slice
from panollava.reports.ablation_table import standing_text, write_so_far
from panollava.evaluation.comparison import comparison_slice
from panollava.files import canonical_json
from panollava.planning import inputs, options
from panollava.planning.presence import Presence
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
WARNED, ABLATIONS_ASKED_FOR, SCORED = set(), set(), {}
CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
PYTHON = "python" if CONTAINED else shlex.quote(sys.executable)
JOB = f"exec {PYTHON} -m panollava.jobs"


def is_forced():
    """Whether the command asks for jobs that are not stale."""
    settings = workflow.dag_settings
    return bool(settings.forceall or settings.forcetargets or settings.forcerun)


PRESENT = Presence(
    remembered=lambda path: workflow.persistence.params(IOFile(path)),
    run_again=lambda path: workflow.dag.forcefiles.add(path),
    forced=is_forced,
)


class AnyName:
    """In the place of Snakemake's detector, which takes twenty repetitions (a name xxxxx…) for an endless recursion.

    No rule here asks for its own output under a longer name.
    """

    @staticmethod
    def is_periodic(value):
        return None


# ---- what a rule asks about its wildcards --------------------------------------------------------
def planned(function):
    """A configuration error ends the command with its own message.

    It is met while the DAG is built, before any job runs. An exception would reach the user inside Snakemake's
    report on input functions, with wildcards and a traceback.
    """

    def inner(wildcards):
        workflow.dag.periodic_wildcard_detector = AnyName
        try:
            take_turn()
            return function(wildcards)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    return inner


def take_turn():
    """Before the DAG is planned: who builds waits for another snakemake that does, and goes on with its results."""
    builds = workflow.executor_plugin is not None and not workflow.dryrun
    if builds and workflow.is_main_process and workflow.execution_settings.lock:
        take_folder(".snakemake")


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


def inputs_by_experiment(function, *more):
    """The files that a rule with the wildcard `experiment` waits for."""
    return planned(lambda w: function(experiment_of(w), PRESENT, *more))


def inputs_by_key(function):
    """The files that a job of the shared cache waits for: it knows only its key."""
    return planned(lambda w: function(PROJECT, w.key, PRESENT))


def sliced(node):
    """The one parameter that decides whether a job is stale: its slice, as canonical JSON."""
    return planned(lambda w: experiment_of(w).slice_json(node))


def sliced_by(document_of):
    """The same for rules that are no nodes of an experiment's slices."""
    return planned(lambda w: canonical_json(document_of(experiment_of(w))))


def keyed(kind):
    """The same for a job of the shared cache."""
    return planned(lambda w: PROJECT.slice_json_by_key(kind, w.key))


def untracked(function, *more):
    """A parameter that never makes a job stale: Snakemake ignores those that ask for `output`."""

    def inner(wildcards, output):
        return planned(lambda w: function(experiment_of(w), *more))(wildcards)

    return inner


@planned
def inputs_of_metrics(wildcards):
    experiment = SCORED[wildcards.experiment] = experiment_of(wildcards)
    return inputs.of_metrics(experiment, PRESENT)


def metrics_options(wildcards, input, output):
    return options.of_metrics(experiment_of(wildcards), dict(input.items()))


def folder_of(output_name):
    """The folder of an output, for jobs that write several files into one."""
    return lambda wildcards, output: str(output[output_name]).rpartition("/")[0]


def folder_of_input(input_name):
    """The folder of an input; nothing where a current job goes without it (`Presence.inputs_if`)."""
    return lambda wildcards, input, output: str(input.get(input_name, "")).rpartition(
        "/"
    )[0]


# ---- resources -----------------------------------------------------------------------------------
def grows(amount):
    """A resource of a cluster job: `amount` at the first attempt, twice that at the second, and so on."""
    return lambda wildcards, attempt: amount * attempt


def resource(function):
    return planned(lambda w: function(experiment_of(w)))


def gpus_of_training(wildcards):
    """On a cluster, how many GPUs; here one token for all of them: two trainings never share a GPU."""
    return resource(options.devices)(wildcards) if workflow.non_local_exec else 1


# ---- several experiments -------------------------------------------------------------------------
@planned
def inputs_of_ablation(wildcards):
    ABLATIONS_ASKED_FOR.add(wildcards.ablation)
    return inputs.of_ablation(PROJECT, wildcards.ablation, PRESENT)


def cells_of(name):
    ablation = PROJECT.ablation(name)
    return ablation, PROJECT.cells(ablation)


@planned
def slice_json_of_ablation(wildcards):
    return canonical_json(summary_slice(*cells_of(wildcards.ablation)))


@planned
def slice_json_of_comparison(wildcards):
    return canonical_json(comparison_slice(inputs.default_experiments(PROJECT)))


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


# ---- before any job runs -------------------------------------------------------------------------
def check_writable():
    """A folder that may not be written ends the command with one message."""
    for folder in (RUNS, RESULTS, LOGS, CACHE):
        if os.path.isdir(folder) and not os.access(folder, os.W_OK):
            print(
                f"error: {folder} may not be written: it is read-only or not yours. Allow writing there, then run "
                "the same command again.",
                file=sys.stderr,
            )
            raise SystemExit(1)


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


def warn_of_metrics():
    """Hours before they are computed: a metric that is asked for by name lacks a part of this machine."""
    for name, experiment in SCORED.items() if workflow.is_main_process else ():
        asked = experiment.settings.evaluation
        if asked.metrics == "auto":
            continue
        from panollava.evaluation.score import check_listed

        try:
            check_listed(asked.metrics, asked.protocol)
        except PanollavaError as error:
            print(
                f"warning: compute_metrics of {name} will fail: {error}",
                file=sys.stderr,
            )


def stop_without_waiting():
    """SIGTERM never hangs. Snakemake's handler takes a lock that the thread it interrupts may hold, as it does whenever
    a job has just finished: it runs in a thread of its own instead, which waits until the lock is free.
    """
    ask = signal.getsignal(signal.SIGTERM)
    if callable(ask):
        signal.signal(
            signal.SIGTERM,
            lambda *given: threading.Thread(target=ask, args=given).start(),
        )


def before_jobs():
    """Jobs of a cluster start later and elsewhere: they get the configuration that was planned with."""
    stop_without_waiting()
    if workflow.non_local_exec:
        leave_snapshot(PROJECT)
    if workflow.executor_plugin.name == "slurm" and workflow.execution_settings.lock:
        cancel_orphans()
