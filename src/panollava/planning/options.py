"""How a rule calls its job: options that make nothing stale, as text for the shell, and the cores that it takes.

An experiment enters; quoted text or numbers leave. What makes a job stale stands in its slice (`config.build_slice`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from panollava.config import WorkflowConfig, job_options
from panollava.config.job_options import CACHE

_MEASURES = ("measure_perplexity", "measure_overlap")  # in the order of their files behind --measures


def _flags(given: Mapping[str, str]) -> list[str]:
    return [f"--{key}={value}" for key, value in given.items()]


# ---- stages --------------------------------------------------------------------------------------
def of_stage(experiment: WorkflowConfig, stage: str) -> str:
    """`train_{stage}`: paths, names and settings that change nothing about the result."""
    given = job_options.stage_options(experiment, stage)
    return shlex.join(_flags({key.replace("_", "-"): _text(value) for key, value in given.items()}))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def of_stage_state(experiment: WorkflowConfig) -> str:
    """`write_stage_state`: where the stages keep their records, as JSON."""
    return json.dumps(job_options.stage_records(experiment))


def devices(experiment: WorkflowConfig) -> int:
    """How many devices a stage trains on; `auto` is planned as one."""
    asked = experiment.settings.training.devices
    return 1 if asked == "auto" else asked


def threads(experiment: WorkflowConfig) -> int:
    """Threads of a training: each device has a process, each process its threads."""
    return experiment.settings.training.cpu_threads * devices(experiment)


def cores(experiment: WorkflowConfig) -> int:
    """Cores of a cluster job: the threads of the training's processes, and those that load their data."""
    return threads(experiment) + experiment.settings.training.num_workers * devices(experiment)


# ---- evaluation ----------------------------------------------------------------------------------
def of_prediction(experiment: WorkflowConfig, node: str) -> str:
    """Jobs that ask the model about the test set: the views' folder, and where a killed job finds its answers."""
    given = {
        "views": f"{CACHE}/views/{experiment.views_key('test')}",
        "state": f"{experiment.names.runs_dir}/{experiment.names.experiment}/.state/{node}",
    }
    return shlex.join([*_flags(given), *(["--blind"] if node == "predict_blind" else [])])


def of_metrics(experiment: WorkflowConfig, files: Mapping[str, str]) -> str:
    """`compute_metrics`: memory for SPICE, and those of the rule's input `files` that not every experiment has."""
    given = {"spice-heap": experiment.settings.evaluation.spice_heap}
    for name, flag in (("blind", "blind-predictions"), ("predict_rolled", "rolled-predictions")):
        if name in files:
            given[flag] = str(files[name])
    measured = [str(files[node]) for node in _MEASURES if node in files]
    return shlex.join([*_flags(given), *(["--measures", *measured] if measured else [])])
