# Functions that the rules share; no rules. Nothing here imports torch, numpy or pandas.
import json
import os
import shlex
import sys

from snakemake.exceptions import WorkflowError

from panollava.config import ConfigError, Project
from panollava.workflow_lock import clear_dead_locks

PROJECT = Project(".")
PATHS = PROJECT.paths
RUNS, RESULTS, LOGS, CACHE = PATHS.runs_dir, PATHS.results_dir, PATHS.logs_dir, "cache"
STAGES = ("vision", "resampler", "finetune")
JOB = f"exec {shlex.quote(sys.executable)} -m panollava.jobs"

# A snakemake that was killed leaves its locks behind; those of a living one stay.
_LOCK = clear_dead_locks(".snakemake")


def planned(function):
    """Configuration errors become one line of Snakemake's, without a traceback."""

    def inner(wildcards, *rest, **named):
        try:
            return function(wildcards, *rest, **named)
        except ConfigError as error:
            raise WorkflowError(str(error)) from None

    return inner


def experiment_of(wildcards):
    """The experiment that the wildcards name; refuses a variant that its configuration does not name."""
    experiment = PROJECT.experiment(wildcards.experiment)
    variant = getattr(wildcards, "variant", None)
    if variant not in (None, experiment.names.variant):
        raise ConfigError(
            f"{wildcards.experiment} is configured as {experiment.names.variant}, not {variant}"
        )
    return experiment


def sliced(node):
    """The one parameter that decides whether a job is stale: its slice, as canonical JSON."""
    return planned(lambda w: experiment_of(w).slice_json(node.format(**dict(w.items()))))


def keyed(kind):
    """The same for a job of the shared cache, which knows only its key."""
    return planned(lambda w: PROJECT.slice_json_by_key(kind, w.key))


def cached(kind, key, *names):
    """Files of the shared cache. Their content follows from their key, so their age says nothing: ancient."""
    return [ancient(f"{CACHE}/{kind}/{key}/{name}") for name in names]
