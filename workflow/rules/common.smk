# What the rules share and what needs Snakemake's own objects; no rules. What a rule waits for, makes and runs is in
# panollava.dag.nodes. Nothing here imports torch, numpy or pandas.
import functools
import gc
import inspect
import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from panollava.bytecode import remedy, why_compiled_anew
from panollava.config import ConfigError, Project
from panollava.config.command import command_settings
from panollava.config.overlay import overlay_of_environment, record_command
from panollava.dag import forced
from panollava.dag.benchmarks import COLUMNS, used_by
from panollava.dag.cluster import cancel_orphans, leave_snapshot, project_of_job
from panollava.dag.freshness import ResultCache
from panollava.dag.machine import limits_without_gpu
from panollava.dag.node import CACHE, fill
from panollava.dag.nodes import RULES
from panollava.dag.options import cores, devices, memory_mb
from panollava.dag.records import rows_so_far
from panollava.dag.script import command_line
from panollava.dag.tasks import Tasks, targets_of_all, wildcards_of
from panollava.dag.text_lengths import length_warnings
from panollava.errors import PanollavaError
from panollava.files import read_json
from panollava.reports.ablation_table import standing_text, write_so_far
from panollava.reports.landing import landing_page
from panollava.views.cache_limit import remove_unused
from panollava.workflow_lock import take_folder
from snakemake import persistence
from snakemake.io import IOFile
from snakemake.settings.types import DeploymentMethod

# On a full disk Snakemake cannot write its own log: one message is enough, without a traceback for each line.
logging.raiseExceptions = False

# The main workflow's modifier calls itself a module, too; only a module's own stands above it.
IS_MODULE = len(workflow.modifier_stack) > 1
# What planning makes stays until the end: to look for cycles among it would take a tenth of its time.
if not IS_MODULE:
    gc.disable()
try:
    if IS_MODULE:  # what `config:` of the other workflow's `module` gives
        COMMAND = command_settings(config, [])
    else:
        COMMAND = command_settings(
            workflow.config_settings.config, workflow.config_settings.configfiles
        )
    PROJECT = (
        project_of_job()
        if workflow.remote_exec
        else Project(".", overlay=overlay_of_environment(), command=COMMAND)
    )
    PATHS = PROJECT.paths
    if (
        workflow.is_main_process
    ):  # is there room, and may we write? Locks of a killed snakemake go.
        take_folder(".snakemake", wait=False)
except PanollavaError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(error.exit_code) from None
TASKS, WILDCARDS = Tasks(PROJECT), wildcards_of(PATHS)
WARNED, ABLATIONS_ASKED_FOR, SCORED, ASKED_FOR = set(), set(), {}, set()
CONTAINED = DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method
PYTHON = "python" if CONTAINED else shlex.quote(sys.executable)


def script_folder(rules):
    """The folder of the jobs' scripts: beside the rules, wherever another workflow finds them (`module:`)."""
    folder = os.path.normpath(os.path.join(rules, "../scripts"))
    if not os.path.isdir(folder):
        print(
            f"error: {rules} is no folder of this machine: as a module panollava is used from a checkout "
            "(snakefile: PATH/Snakefile), whose package is installed",
            file=sys.stderr,
        )
        raise SystemExit(2)
    inside = os.path.relpath(folder)
    return shlex.quote(folder if inside.startswith("..") else inside)


SCRIPTS = script_folder(workflow.current_basedir.get_path_or_uri(secret_free=True))


def is_forced():
    """Whether the command asks for jobs that are not stale."""
    settings = workflow.dag_settings
    return bool(settings.forceall or settings.forcetargets or settings.forcerun)


@functools.cache
def hand_on_forced():
    """What this command asks for anew, for its jobs: once, when the first of them is planned."""
    if workflow.is_main_process and not workflow.remote_exec:
        forced.hand_on(workflow.dag_settings)


PRESENT = ResultCache(
    remembered=lambda path: workflow.persistence.params(IOFile(path)),
    run_again=lambda path: workflow.dag.forcefiles.add(path),
    forced=is_forced,
)


class NoPeriodicWildcardCheck:
    """In the place of Snakemake's detector, which takes twenty repetitions (a name xxxxx…) for an endless recursion.

    No rule here asks for its own output under a longer name.
    """

    @staticmethod
    def is_periodic(value):
        return None


# Snakemake imports pandas to find tables among the parameters. Here each is a text, which needs no check. Another
# workflow that uses this one as a module may have tables.
SERIALISED = getattr(persistence, "PersistenceBase", None)
if not IS_MODULE and hasattr(SERIALISED, "_serialize_param_builtin"):
    SERIALISED._serialize_param = property(lambda one: one._serialize_param_builtin)


# ---- one job ------------------------------------------------------------------------------------
def described(function, signature=None):
    """Snakemake asks for a function's parameters several times a job: here is the answer."""
    function.__signature__ = signature or inspect.signature(function)
    return function


OF_WILDCARDS = inspect.signature(lambda wildcards: None)


def planned(function):
    """A configuration error ends the command with its own message.

    It is met while the DAG is built, before any job runs. An exception would reach the user inside Snakemake's
    report on input functions, with wildcards and a traceback.
    """

    def inner(wildcards):
        workflow.dag.periodic_wildcard_detector = NoPeriodicWildcardCheck
        try:
            take_turn()
            return function(wildcards)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_code) from None

    return described(inner, OF_WILDCARDS)


@functools.cache
def take_turn():
    """Before the DAG is planned: who builds waits for another snakemake that does, and goes on with its results."""
    builds = workflow.executor_plugin is not None and not workflow.dryrun
    if not builds or not workflow.is_main_process:
        return
    share_machine()
    if workflow.execution_settings.lock:
        take_folder(".snakemake")


def warn(messages):
    """Each of them once a command."""
    for message in messages:
        if message not in WARNED:
            WARNED.add(message)
            print(f"warning: {message}", file=sys.stderr)


@functools.cache
def warn_of_lengths(experiment, stage):
    """Before a stage that is not finished: answers that its max_text_length would cut."""
    if workflow.is_main_process:
        warn(length_warnings(experiment, stage))


def experiment_of(wildcards):
    """The experiment that the wildcards name; refuses a variant that its configuration does not name."""
    experiment = PROJECT.experiment(wildcards.experiment)
    ASKED_FOR.add(wildcards.experiment)
    warn(experiment.warnings)
    variant = getattr(wildcards, "variant", None)
    if variant not in (None, experiment.names.variant):
        raise ConfigError(
            f"{wildcards.experiment} is configured as {experiment.names.variant}, not {variant}"
        )
    return experiment


def task_of(rule, wildcards):
    """The job of a rule that the wildcards name."""
    if RULES[rule].cache is not None:
        return TASKS.by_key(rule, wildcards.key)
    match rule:
        case "compare":
            return TASKS.of_comparison()
        case "predict_shard":
            experiment_of(wildcards)
            return TASKS.of_shard(
                wildcards.experiment, wildcards.control, wildcards.shard
            )
        case "compare_ablation":
            ABLATIONS_ASKED_FOR.add(wildcards.ablation)
            return TASKS.of_ablation(wildcards.ablation)
    experiment = experiment_of(wildcards)
    if RULES[rule].name == "metrics":
        SCORED[wildcards.experiment] = experiment
    if RULES[rule].resumes:
        warn_of_lengths(experiment, rule.removeprefix("train_"))
    return TASKS.of_experiment(wildcards.experiment, rule)


# ---- what a rule says, all from the table ---------------------------------------------------------
def inputs_of(rule):
    """The files that a job waits for."""
    return planned(lambda wildcards: PRESENT.inputs_of(task_of(rule, wildcards)))


def outputs_of(rule):
    """The files that a job makes, by name, with their place in the report."""
    node = RULES[rule]
    files = {name: fill(path, WILDCARDS) for name, path in node.outputs.items()}
    files |= {name: directory(files[name]) for name in node.folders}
    files |= {name: ensure(files[name], non_empty=True) for name in node.not_empty}
    for name, place in node.report.items():
        more = {"subcategory": place.subcategory} if place.subcategory else {}
        files[name] = report(
            files[name],
            category=place.category,
            labels=dict(place.labels),
            caption=place.caption,
            **more,
        )
    return files


def log_of(rule):
    return fill(RULES[rule].log_template, WILDCARDS)


def benchmark_of(rule):
    """Where Snakemake writes the seconds and the memory of a job, beside its log."""
    return fill(RULES[rule].benchmark_template, WILDCARDS)


def params_of(rule):
    """`slice` decides whether a job is stale. Snakemake ignores parameters that ask for `output`, so `arguments`,
    which are all that its script is given beside, never make it stale.
    """

    @described
    def arguments(wildcards, output):
        given = planned(lambda w: task_of(rule, w).arguments())(wildcards)
        hand_on_forced()
        if RULES[rule].resumes and (
            command := forced.forced_by(rule, map(str, output))
        ):
            given["forced"] = command
        return shlex.join(command_line(given))

    return {
        "slice": planned(lambda wildcards: task_of(rule, wildcards).slice_json),
        "arguments": arguments,
    }


def script(rule):
    """The command of a job. With `exec` the job is Snakemake's own child, and dies with it."""
    return f"exec {PYTHON} -P {SCRIPTS}/{rule}.py {{params.arguments}} --slice {{params.slice:q}} --log {{log:q}}"


# ---- resources -----------------------------------------------------------------------------------
def resources_of(rule):
    node, takes = RULES[rule], RULES[rule].resources
    found = {
        "mem_mb": grows(
            resource(functools.partial(memory_mb, takes)) if takes.gpu else takes.mem_mb
        ),
        "runtime": (
            grows(takes.runtime_min) if takes.grows_in_time else takes.runtime_min
        ),
    }
    if takes.gpu:
        found |= {
            "gpu": gpus_of_training if node.threads else 1,
            "cpus_per_task": resource(cores),
        }
    return found | ({"downloads": 1} if takes.downloads else {})


def threads_of(rule):
    return resource(RULES[rule].threads)


def grows(amount):
    """A resource of a cluster job: `amount`, or what it gives for the job's wildcards, at the first attempt, twice that
    at the second, and so on."""
    if callable(amount):
        return described(lambda wildcards, attempt: amount(wildcards) * attempt)
    return described(lambda wildcards, attempt: amount * attempt)


def resource(function):
    return planned(lambda w: function(experiment_of(w)))


@described
def gpus_of_training(wildcards):
    """On a cluster, how many GPUs; here one token for all of them: two trainings never share a GPU."""
    return resource(devices)(wildcards) if workflow.non_local_exec else 1


def share_machine():
    """Without a GPU there is none to wait for. What the command grants itself (--resources mem_mb=…) stays."""
    if workflow.non_local_exec or IS_MODULE:
        return
    granted, most = workflow.global_resources, limits_without_gpu(workflow.cores)
    if any(granted.get(name).value for name in ("mem", "mem_mb", "mem_mib")):
        most.pop("mem_mb", None)
    for name, amount in most.items():
        workflow.register_resource(name, amount)


# ---- several experiments -------------------------------------------------------------------------
def cells_of(name):
    ablation = PROJECT.ablation(name)
    return ablation, PROJECT.cells(ablation)


def show_ablations(quiet=False):
    """The state of the cells of the grids that this command is to compare: summary_so_far.csv, until all are done."""
    for name in sorted(ABLATIONS_ASKED_FOR):
        try:
            rows = rows_so_far(*cells_of(name))
            path = write_so_far(rows, Path(f"{PATHS.results_dir}/ablations/{name}"))
            if path and not quiet:
                print(standing_text(name, rows, path), file=sys.stderr)
        except (PanollavaError, OSError) as error:
            print(f"warning: ablation {name}: {error}", file=sys.stderr)


class LandingPage(str):
    """The part of the report's first page that is known only when the report is written (JSON: an empty text)."""

    def __str__(self):
        found = {}
        for name in sorted(ASKED_FOR):
            path = Path(PROJECT.experiment(name).names.metrics)
            if path.is_file():
                found[name] = read_json(path)
        used = used_by([PROJECT.experiment(name) for name in found])
        return landing_page(found, COLUMNS, [one.row for one in used])


config["landing_page"] = LandingPage()


# ---- before any job runs -------------------------------------------------------------------------
def check_writable():
    """A folder that may not be written ends the command with one message."""
    for folder in (PATHS.runs_dir, PATHS.results_dir, PATHS.logs_dir, CACHE):
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
    for cache in remove_unused(f"{CACHE}/views", limit, TASKS.view_keys):
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
        from panollava.evaluation.score import require_metrics

        try:
            require_metrics(asked.metrics, asked.protocol)
        except PanollavaError as error:
            print(
                f"warning: compute_metrics of {name} will fail: {error}",
                file=sys.stderr,
            )


def warn_of_bytecode():
    """Minutes in each run: every job compiles its packages before it starts."""
    if workflow.is_main_process and (why := why_compiled_anew()):
        print(
            f"warning: every job compiles torch and other packages before it starts: {why}. To compile them once: {remedy()}",
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
    gc.enable()
    stop_without_waiting()
    hand_on_forced()
    if COMMAND and workflow.is_main_process and not workflow.dryrun:
        record_command(PROJECT, sorted(ASKED_FOR), COMMAND)
    if workflow.non_local_exec:
        leave_snapshot(PROJECT)
    if workflow.executor_plugin.name == "slurm" and workflow.execution_settings.lock:
        cancel_orphans()
